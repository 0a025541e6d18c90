//! The commands of the runbook, run from its first to its last against a real node and its archive.

#![expect(clippy::disallowed_methods, reason = "a test's own files")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Bucket, programs};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package")
}

/// The page's sections with the lines of their `sh` blocks.
fn sections(page: &str) -> Vec<(String, String)> {
    let mut sections = vec![(String::new(), String::new())];
    let mut in_block = false;
    for line in page.lines() {
        let last = sections.last_mut().expect("it begins with one");
        match line {
            "```sh" => in_block = true,
            "```" => in_block = false,
            _ if in_block => {
                last.1.push_str(line);
                last.1.push('\n');
            }
            _ => {
                if let Some(title) = line.strip_prefix("## ") {
                    sections.push((title.to_owned(), String::new()));
                }
            }
        }
    }
    sections
}

/// A machine's files below a directory of the test, and the node that runs on them.
struct Machine {
    root: PathBuf,
    bucket: Bucket,
    ports: [u16; 2],
    path: String,
    before: String,
}

impl Machine {
    fn set_up(root: &Path, bucket: Bucket) -> Result<Self> {
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin)?;
        std::fs::create_dir_all(root.join("etc/duramen"))?;
        std::fs::create_dir_all(root.join("var/lib"))?;
        std::fs::copy(workspace().join("tests/tests/runbook/systemctl"), bin.join("systemctl"))?;
        let programs = programs()?.duramen.parent().context("programs are in a directory")?.to_owned();
        let path =
            [bin.display().to_string(), programs.display().to_string(), std::env::var("PATH")?].join(":");
        let ports = [free_port()?, free_port()?];
        let machine = Self { root: root.to_owned(), bucket, ports, path, before: String::new() };
        // The packaged configuration, on free ports, with an archive.
        let packaged = std::fs::read_to_string(workspace().join("deploy/duramen.toml"))?;
        let config = format!(
            "{}\n[archive]\nurl = \"{}\"\nsegment_age = \"1s\"\n[listen]\nclients = \"127.0.0.1:{}\"\nadmin = \"127.0.0.1:{}\"\n",
            machine.here(&packaged),
            machine.url(),
            ports[0],
            ports[1],
        );
        std::fs::write(root.join("etc/duramen/duramen.toml"), config)?;
        // What programs know of the store comes from this file alone, as on a machine.
        let mut environment = std::fs::read_to_string(workspace().join("deploy/duramen.env"))?;
        let archive = ("DURAMEN_ARCHIVE".to_owned(), machine.url());
        for (name, value) in machine.bucket.environment().into_iter().chain([archive]) {
            writeln!(environment, "{name}='{value}'")?;
        }
        std::fs::write(root.join("etc/duramen/duramen.env"), environment)?;
        Ok(machine)
    }

    fn url(&self) -> String {
        self.bucket.archive_url("runbook")
    }

    /// Commands for a whole machine, for this one.
    fn here(&self, commands: &str) -> String {
        commands
            .replace("/var/lib/duramen", &self.root.join("var/lib/duramen").display().to_string())
            .replace("/etc/duramen", &self.root.join("etc/duramen").display().to_string())
            .replace("s3://bucket/prefix", &self.url())
            // The package makes this user.
            .replace("chown -R duramen: ", "chown -R \"$(id -un):\" ")
    }

    fn run(&self, what: &str, commands: &str) -> Result<String> {
        let [clients, admin] = self.ports;
        let script = format!("set -eux -o pipefail\n{}", self.here(commands));
        let mut bash = Command::new("bash");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("AWS_") || name.starts_with("DURAMEN_") {
                bash.env_remove(&*name);
            }
        }
        bash.args(["-c", &script])
            .current_dir(&self.root)
            .env("PATH", &self.path)
            .env("RUNBOOK_ROOT", &self.root)
            .env("DURAMEN_ENDPOINT", format!("http://127.0.0.1:{clients}"))
            .env("DURAMEN_ADMIN", format!("http://127.0.0.1:{admin}"))
            .env("BEFORE", &self.before)
            .stdin(Stdio::null());
        // A file and not a pipe: a node that is started here would keep that open.
        let said = self.root.join("said");
        let file = std::fs::File::create(&said)?;
        let status = bash.stdout(file.try_clone()?).stderr(file).status().context("bash does not start")?;
        let said = std::fs::read_to_string(said)?;
        if !status.success() {
            let journal = std::fs::read_to_string(self.root.join("journal")).unwrap_or_default();
            bail!("{what}: {status}\n{said}\n---- the node's log ----\n{journal}");
        }
        Ok(said)
    }

    /// Brings about what the section is about.
    fn set_the_scene(&mut self, section: &str) -> Result<()> {
        let scene = match section {
            "Daily check" => "printf 'one\\ntwo\\nthree\\n' | duramenctl append orders --ack archived",
            "Node down" => "kill -9 $(cat duramen.pid)",
            "Corruption" => {
                // Whatever is not archived could not be repaired, and the runbook's command would say so.
                self.run("scene", "duramenctl archive flush")?;
                "cat > after-stop <<'END'\n#!/bin/sh\nset -e\n\
                 for file in /var/lib/duramen/wal/*; do\n\
                 printf 'damage' | dd of=\"$file\" bs=1 seek=4200 conv=notrunc status=none\ndone\nEND\nchmod +x after-stop"
            }
            // The node has stopped, and finds no bucket any more.
            "Bucket lost, node stopped" => {
                "systemctl stop duramen\ncp -r etc/duramen kept\n\
                 sed -i 's#s3://[^/]*/#s3://gone-for-good/#' /etc/duramen/duramen.toml /etc/duramen/duramen.env\n\
                 if systemctl start duramen; then echo 'it starts without its archive'; exit 1; fi"
            }
            // The data on a disk of its own, as Install has it: its directory can't be moved.
            "Node lost" => "mount --bind /var/lib/duramen /var/lib/duramen || echo 'no leave to mount'",
            "Wrong delete" => {
                self.before = self.run("scene", "set +x\nexec 2>&1\ndate -u +%Y-%m-%dT%H:%M:%S.%6NZ")?;
                let time = self.before.lines().last().context("date prints a time")?;
                self.before = time.to_owned();
                "duramenctl stream delete orders"
            }
            _ => return Ok(()),
        };
        self.run(&format!("the scene of {section}"), scene)?;
        Ok(())
    }

    /// A node that was lost once is lost again, with its machine: what it wrote in between is there, for it was on the branch that the
    /// section notes.
    fn is_lost_again(&self, commands: &str) -> Result<()> {
        let noted = "grep -c '^DURAMEN_BRANCH=' /etc/duramen/duramen.env";
        self.run("what the first loss left", &format!("test \"$({noted})\" = 1"))?;
        self.run("between the losses", "printf 'since\\n' | duramenctl append since --ack archived")?;
        // The new machine has /etc/duramen, the package, and nothing that a node has ever made.
        let gone = "systemctl stop duramen\numount /var/lib/duramen || true\nrm -r /var/lib/duramen";
        self.run("the machine is gone", gone)?;
        self.run("Node lost, again", commands)?;
        let said =
            self.run("what was written since", &format!("{noted}\nduramenctl read since --json | wc -l"))?;
        ensure!(said.ends_with("\n1\n"), "what was written since the first loss is lost:\n{said}");
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.root.join("duramen.pid")) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).stderr(Stdio::null()).status();
        }
        let data = self.root.join("var/lib/duramen");
        let _ = Command::new("umount").arg("--lazy").arg(data).stderr(Stdio::null()).status();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[test]
fn every_command_of_the_runbook_works() -> Result<()> {
    let page = std::fs::read_to_string(workspace().join("docs/operations/RUNBOOK.md"))?;
    let directory = tempfile::tempdir()?;
    let mut machine = Machine::set_up(directory.path(), Bucket::create()?)?;
    let mut run = BTreeSet::new();
    for (section, commands) in sections(&page) {
        machine.set_the_scene(&section)?;
        if commands.is_empty() {
            continue;
        }
        let said = machine.run(&section, &commands)?;
        match section.as_str() {
            "Corruption" => {
                ensure!(said.contains("\ndoctor: exit code 3\n"), "nothing was damaged:\n{said}");
            }
            "Wrong delete" => ensure!(said.contains("3 orders.jsonl"), "not all records are back:\n{said}"),
            "Emergency export" => {
                ensure!(!said.contains("\n0 all.jsonl"), "nothing was exported:\n{said}");
                ensure!(said.contains("3 orders-of-the-node.jsonl"), "the node has other records:\n{said}");
            }
            _ => {}
        }
        if section == "Bucket lost, node stopped" {
            // For the sections after it, there is the archive again.
            ensure!(said.contains("3 orders-of-the-lost.jsonl"), "the node has other records:\n{said}");
            machine.run("the bucket", "rm -r etc/duramen\nmv kept etc/duramen\nsystemctl start duramen")?;
        }
        if section == "Node lost" {
            machine.is_lost_again(&commands)?;
        }
        run.insert(section);
    }
    let without: Vec<_> =
        sections(&page).into_iter().map(|(title, _)| title).filter(|title| !run.contains(title)).collect();
    ensure!(without == ["WAL slow"], "no commands are in {without:?}");
    machine.run("the end", "systemctl stop duramen")?;
    Ok(())
}

/// Each section of an alert or a loss says by what it is known, and each ends with how to see that it worked.
#[test]
fn every_section_says_what_it_looks_like_and_when_it_worked() -> Result<()> {
    let page = std::fs::read_to_string(workspace().join("docs/operations/RUNBOOK.md"))?;
    // Nothing has happened there.
    let planned = ["Install", "Upgrade and rollback", "Daily check"];
    for section in page.split("\n## ").skip(1) {
        let (title, text) = section.split_once('\n').context("a section has lines")?;
        ensure!(planned.contains(&title) || text.contains("**Symptom**: "), "{title} has no symptom");
        ensure!(title == "Daily check" || text.contains("**Worked** when "), "{title}: when did it work?");
        // A command whose failure is hidden would pass here too.
        let hidden = text.lines().find(|line| line.starts_with("duramen") && line.contains("|| true"));
        ensure!(hidden.is_none(), "{title}: {hidden:?}");
        // Each section is read in a shell of its own.
        let (archive, loads) =
            (text.find("\nduramen-restore "), text.find("\nset -a; . /etc/duramen/duramen.env"));
        ensure!(
            archive.is_none() || loads.is_some_and(|loads| Some(loads) < archive),
            "{title}: no credentials"
        );
    }
    Ok(())
}

#[test]
fn commands_are_found_under_their_sections() {
    let page = "# Page\n```sh\na\n```\n## One\ntext\n```sh\nb\nc\n```\n```\nnot run\n```\n## Two\n";
    let expected = [("", "a\n"), ("One", "b\nc\n"), ("Two", "")];
    assert_eq!(sections(page), expected.map(|(title, lines)| (title.to_owned(), lines.to_owned())));
}
