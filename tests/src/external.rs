//! Programs that some tests run and that are neither built from this repository nor expected on every machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// Set to anything but `0`, a test fails where a program is missing that it would otherwise pass over.
const REQUIRE_VARIABLE: &str = "DURAMEN_REQUIRE_TOOLS";

/// The program `name`: from `PATH`, or from what `tests/tools/install` keeps in the user's cache.
///
/// `None` where it can't be had: the test is to be passed over, which was said on its output. With
/// `DURAMEN_REQUIRE_TOOLS=1` that is an error.
pub fn tool(name: &str) -> Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons and what belongs to them are not on every user's path.
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found =
        directories.chain(installed()).map(|directory| directory.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let required =
            std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| !value.is_empty() && value != "0");
        if required {
            bail!("{REQUIRE_VARIABLE} is set, and there is no {name}: run tests/tools/install");
        }
        println!("passed over: there is no {name} (tests/tools/install gets it)");
    }
    Ok(found)
}

/// The Python that has the packages of `tests/tools/requirements.txt`; like [`tool`] where it isn't there.
pub fn python() -> Result<Option<PathBuf>> {
    let found =
        installed().into_iter().map(|directory| directory.join("python3")).find(|file| file.is_file());
    if found.is_none() && required() {
        bail!("{REQUIRE_VARIABLE} is set, and there are no Python packages: run tests/tools/install");
    }
    if found.is_none() {
        println!("passed over: there are no Python packages (tests/tools/install gets them)");
    }
    Ok(found)
}

fn required() -> bool {
    std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Where `tests/tools/install` puts what no package manager of the system has.
fn installed() -> Vec<PathBuf> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => return Vec::new(),
    };
    let tools = cache.join("duramen/tools");
    vec![tools.join("bin"), tools.join("python/bin")]
}

/// Runs a program to its end and gives what it printed, on both streams; an error with all of it unless it succeeds.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{name}: {}\n{said}", output.status);
    }
    Ok(said)
}
