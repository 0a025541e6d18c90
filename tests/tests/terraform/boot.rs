//! The scripts that a new machine runs, with stand-ins for the programs that only a machine on AWS has: nothing else is on their path, and
//! every file that they name is below a directory of the test.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use duramen_tests::{run, tool};
use serde_json::Value;
use tempfile::TempDir;

use crate::user_data::user_data_files;
use crate::{Terraform, workspace};

/// What a machine has that needs no stand-in.
const REAL: [&str; 16] = [
    "bash",
    "cat",
    "find",
    "grep",
    "gzip",
    "head",
    "ln",
    "mkdir",
    "mktemp",
    "rm",
    "seq",
    "sha256sum",
    "sort",
    "tar",
    "timeout",
    "touch",
];
const STAND_INS: [&str; 12] = [
    "aws",
    "blkid",
    "chmod",
    "chown",
    "curl",
    "dnf",
    "mkfs.xfs",
    "mount",
    "mountpoint",
    "sleep",
    "systemctl",
    "systemd-sysusers",
];
/// Where the scripts have their files.
const PLACES: [&str; 6] = ["/dev/disk/", "/etc/", "/opt/aws/", "/run/", "/usr/bin", "/var/lib/duramen"];
const PROGRAMS: [&str; 4] = ["duramen", "duramen-archiver", "duramen-restore", "duramenctl"];
const VOLUME: &str = "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0";

/// Files of a node.
const LEFT: [&str; 2] = ["/var/lib/duramen/LOCK", "/var/lib/duramen/wal/00000001"];

/// A machine that was never started, and the volume that it gets.
struct Machine {
    root: TempDir,
    script: String,
}

impl Machine {
    /// `script` is what Terraform rendered; `volume` what is on the volume.
    fn new(script: &str, volume: &str) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("duramen-boot-").tempdir()?;
        let at = |path: &str| root.path().join(path);
        for folder in ["bin", "tmp", "state", "dev/disk/by-id", "etc", "run", "usr/bin", "var/lib"] {
            std::fs::create_dir_all(at(folder))?;
        }
        for name in REAL {
            symlink(tool(name)?.with_context(|| format!("there is no {name}"))?, at("bin").join(name))?;
        }
        symlink(workspace().join("tests/tests/terraform/stub"), at("bin/stub"))?;
        for name in STAND_INS {
            symlink("stub", at("bin").join(name))?;
        }
        let agent = at("opt/aws/amazon-cloudwatch-agent/bin");
        std::fs::create_dir_all(&agent)?;
        symlink(at("bin/stub"), agent.join("amazon-cloudwatch-agent-ctl"))?;
        std::fs::write(at("etc/fstab"), "")?;
        symlink(at("etc/fstab"), at("state/fstab"))?;
        symlink(at("dev/disk/by-id"), at("state/by-id"))?;
        let machine = Self { script: String::new(), root };
        machine.set("volume", volume)?;
        machine.set("attached-after", "1")?;
        let sum = machine.package("1")?;

        let mut script = script.replace(&"a".repeat(64), &sum);
        for place in PLACES {
            script = script.replace(place, &format!("{}{place}", machine.root.path().display()));
        }
        Ok(Self { script, ..machine })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        Ok(std::fs::write(self.at("state").join(name), value)?)
    }

    /// Puts a package with programs of this version where it is fetched from; gives its sum.
    fn package(&self, version: &str) -> Result<String> {
        let folder = self.at("tmp/package");
        std::fs::create_dir_all(&folder)?;
        for program in PROGRAMS {
            std::fs::write(folder.join(program), version)?;
        }
        let file = self.at("state/package");
        run(Command::new("tar").arg("-czf").arg(&file).arg("-C").arg(&folder).args(PROGRAMS))?;
        let sum = run(Command::new("sha256sum").arg(&file))?;
        Ok(sum.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Runs the script; gives whether it succeeded, what it said, and what it called, without pauses.
    fn boot(&self) -> Result<(bool, String, Vec<String>)> {
        let calls = self.at("state/calls");
        std::fs::write(&calls, "")?;
        let output = Command::new(self.at("bin/bash"))
            .args(["-c", &self.script])
            .env_clear()
            .env("PATH", self.at("bin"))
            .env("TMPDIR", self.at("tmp"))
            .env("STUB_STATE", self.at("state"))
            .output()?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        ensure!(!said.contains("command not found"), "{said}");
        let root = self.root.path().display().to_string();
        let calls = std::fs::read_to_string(calls)?.replace(&root, "");
        let calls = calls.lines().filter(|call| !call.starts_with("sleep ")).map(str::to_owned).collect();
        Ok((output.status.success(), said.replace(&root, ""), calls))
    }

    fn boot_well(&self) -> Result<Vec<String>> {
        let (succeeded, said, calls) = self.boot()?;
        ensure!(succeeded, "{said}\n{calls:#?}");
        Ok(calls)
    }

    /// It must fail and say `parts`; gives what it called.
    fn boot_badly(&self, parts: &[&str]) -> Result<Vec<String>> {
        let (succeeded, said, calls) = self.boot()?;
        ensure!(!succeeded, "it succeeds: {said}\n{calls:#?}");
        for part in parts {
            ensure!(said.contains(part), "it doesn't say {part:?}: {said}");
        }
        Ok(calls)
    }

    /// What a node had on its volume.
    fn leave_files_of_another_user(&self) -> Result<()> {
        std::fs::create_dir_all(self.at("/var/lib/duramen/wal"))?;
        for file in LEFT {
            std::fs::write(self.at(file), "left")?;
        }
        Ok(())
    }

    fn files_belong_to(&self, owner: &str) -> Result<()> {
        let owned = self.file("state/owned")?;
        for file in ["/var/lib/duramen", "/var/lib/duramen/wal"].iter().chain(&LEFT) {
            let line = format!("{} {owner}", self.at(file).display());
            ensure!(owned.lines().any(|found| found == line), "{file} is not {owner}'s:\n{owned}");
        }
        Ok(())
    }

    /// The next call of this program, with this first argument, fails.
    fn fail_once(&self, call: &str) -> Result<()> {
        self.set(&format!("fails-once-{call}"), "")
    }

    fn file(&self, path: &str) -> Result<String> {
        std::fs::read_to_string(self.at(path)).with_context(|| path.to_owned())
    }
}

/// How often one of `calls` begins with `start`.
fn count(calls: &[String], start: &str) -> usize {
    calls.iter().filter(|call| call.starts_with(start)).count()
}

/// All of `starts` are called, in this order.
fn in_order(calls: &[String], starts: &[&str]) -> Result<()> {
    let mut rest = calls.iter();
    for start in starts {
        ensure!(rest.any(|call| call.starts_with(start)), "no {start:?} where it belongs in {calls:#?}");
    }
    Ok(())
}

/// What must not be done on a machine without its volume.
fn nothing_is_made(calls: &[String]) -> Result<()> {
    for start in ["mkfs", "mount ", "systemctl", "chown"] {
        ensure!(count(calls, start) == 0, "{start}: {calls:#?}");
    }
    Ok(())
}

/// The boot script of the machines of a launch template.
fn rendered_boot(resources: &[Value], name: &str) -> Result<String> {
    user_data_files(resources, name)?.remove("/usr/local/sbin/duramen-boot").context("there is a boot script")
}

#[test]
fn a_virtual_machine_makes_a_file_system_once_and_keeps_what_is_on_its_volume() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let script = rendered_boot(&terraform.apply("single-vm", "acme-duramen")?, "node")?;
    let device = format!("/dev/disk/by-id/{VOLUME}");
    let first = Machine::new(&script, "blank")?;
    let calls = first.boot_well()?;
    in_order(
        &calls,
        &[
            "aws ec2 attach-volume --volume-id vol-0123456789abcdef0 --instance-id i-0123456789abcdef0 --device /dev/sdf",
            &format!("blkid -p {device}"),
            &format!("mkfs.xfs -L duramen {device}"),
            "mount /var/lib/duramen",
            "aws s3 cp --only-show-errors s3://acme/duramen.tar.gz ",
            "systemd-sysusers",
            "chown -R duramen:duramen /var/lib/duramen",
            "systemctl daemon-reload",
            "systemctl enable --now duramen-journal.service",
            "dnf -q -y install amazon-cloudwatch-agent",
            "amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:/etc/duramen/cloudwatch-agent.json",
            "systemctl enable duramen.service duramen-verify.timer duramen-verify-all.timer",
            "systemctl start --no-block duramen.service duramen-verify.timer duramen-verify-all.timer",
            // Nobody starts the node a second time, which a person may have stopped to rebuild its directory.
            "systemctl disable duramen-boot.service",
        ],
    )?;
    ensure!(first.file("state/volume")? == "xfs\n", "there is no file system");
    let table = first.file("etc/fstab")?;
    ensure!(table.lines().count() == 1 && table.starts_with("LABEL=duramen "), "{table}");
    for program in PROGRAMS {
        ensure!(first.file(&format!("usr/bin/{program}"))? == "1", "{program} is not installed");
    }
    ensure!(std::fs::read_dir(first.at("tmp"))?.count() == 1, "the package's copy stays");

    // Run again, with the programs and all the rest in their places.
    let again = first.boot_well()?;
    for done in ["mkfs", "mount ", "aws ec2"] {
        ensure!(count(&again, done) == 0, "{done} again: {again:#?}");
    }
    in_order(&again, &["aws s3 cp", "systemctl start --no-block duramen.service"])?;
    ensure!(first.file("etc/fstab")? == table, "the table of file systems grows");

    // The next machine: the volume comes free at the third attempt, and has a file system, whose files are of the user who had that name
    // on the machine before.
    let next = Machine::new(&script, "xfs")?;
    next.set("attached-after", "3")?;
    next.leave_files_of_another_user()?;
    let calls = next.boot_well()?;
    next.files_belong_to("duramen:duramen")?;
    ensure!(count(&calls, "aws ec2 attach-volume") == 3 && count(&calls, "mkfs") == 0, "{calls:#?}");
    in_order(&calls, &["blkid", "mount /var/lib/duramen", "systemctl start --no-block duramen.service"])
}

#[test]
fn a_virtual_machine_without_its_volume_or_its_package_starts_nothing_and_says_why() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let script = rendered_boot(&terraform.apply("single-vm", "acme-duramen")?, "node")?;
    let without = Machine::new(&script, "blank")?;
    without.set("attached-after", "1000")?;
    let calls = without.boot_badly(&["there is no data volume vol-0123456789abcdef0", "VolumeInUse"])?;
    // Ten minutes with its pauses.
    ensure!(count(&calls, "aws ec2 attach-volume") == 120, "{calls:#?}");
    nothing_is_made(&calls)?;

    for (volume, code) in [("several", "8"), ("unreadable", "4")] {
        let strange = Machine::new(&script, volume)?;
        let calls = strange.boot_badly(&["can't be told", &format!("blkid ends with {code}"), VOLUME])?;
        nothing_is_made(&calls)?;
        ensure!(strange.file("state/volume")? == volume, "the volume is altered");
    }

    let altered = Machine::new(&script, "xfs")?;
    altered.package("2")?;
    let calls = altered.boot_badly(&["FAILED"])?;
    ensure!(count(&calls, "systemctl") == 0, "{calls:#?}");
    ensure!(!altered.at("usr/bin/duramen").exists(), "it is installed all the same");

    // Whatever keeps the log on the machine: the node starts.
    let silent = Machine::new(&script, "xfs")?;
    silent.set("install", "1")?;
    let (succeeded, said, calls) = silent.boot()?;
    ensure!(succeeded && said.contains("the log does not go to CloudWatch"), "{said}");
    in_order(
        &calls,
        &["dnf -q -y install amazon-cloudwatch-agent", "systemctl start --no-block duramen.service"],
    )
}

#[test]
fn a_virtual_machine_with_an_instance_store_uses_the_whole_device() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let file = terraform.example("single-vm").join("main.tf");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(
        &file,
        text.replace(
            "  package        = var.package\n",
            "  package        = var.package\n  storage        = \"nvme\"\n",
        ),
    )?;
    let script = rendered_boot(&terraform.apply("single-vm", "acme-duramen")?, "node")?;
    let store = "nvme-Amazon_EC2_NVMe_Instance_Storage_AWS1";
    let machine = Machine::new(&script, "blank")?;
    let without = machine.boot_badly(&["there is no data volume"])?;
    nothing_is_made(&without)?;
    for name in [store, &format!("{store}-ns-1"), &format!("{store}-part1")] {
        symlink(machine.at("state/volume"), machine.at("dev/disk/by-id").join(name))?;
    }
    let calls = machine.boot_well()?;
    in_order(&calls, &["mkfs", "mount /var/lib/duramen"])?;
    let made = format!("mkfs.xfs -L duramen /dev/disk/by-id/{store}");
    ensure!(calls.contains(&made), "it uses a part of the device, or one of its other names: {calls:#?}");
    ensure!(count(&calls, "aws ec2") == 0 && count(&calls, "curl") == 0, "{calls:#?}");
    Ok(())
}

#[test]
fn a_boot_that_failed_is_run_again_and_makes_nothing_twice() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for (example, name, last) in [
        ("single-vm", "node", "systemctl disable duramen-boot.service"),
        ("ecs", "machine", "systemctl start --no-block ecs.service"),
    ] {
        let script = rendered_boot(&terraform.apply(example, "acme-duramen")?, name)?;
        let machine = Machine::new(&script, "blank")?;
        let mut made = 0;
        let failing = ["curl--sf", "blkid--p", "mountpoint--q", "aws-s3", "chown--R"];
        for call in failing.iter().filter(|call| script.contains("aws s3") || **call != "aws-s3") {
            machine.fail_once(call)?;
            if *call == "mountpoint--q" {
                // This one asks: what fails is the mount after it.
                std::fs::remove_file(machine.at("state").join("fails-once-mountpoint--q"))?;
                machine.fail_once("mount")?;
            }
            let (succeeded, said, calls) = machine.boot()?;
            ensure!(!succeeded, "{example}: {call} fails and nobody notices: {said}\n{calls:#?}");
            made += count(&calls, "mkfs");
            ensure!(count(&calls, "systemctl start") == 0, "{example}: after {call}: {calls:#?}");
        }
        let calls = machine.boot_well()?;
        ensure!(made + count(&calls, "mkfs") == 1, "{example}: {made} file systems, then {calls:#?}");
        ensure!(calls.last().is_some_and(|call| call == last), "{example}: {calls:#?}");
        ensure!(
            machine.file("etc/fstab")?.lines().count() == 1,
            "{example}: the table of file systems grows"
        );
        let left: Vec<_> = std::fs::read_dir(machine.at("tmp"))?.collect::<Result<Vec<_>, _>>()?;
        ensure!(left.len() == 1, "{example}: copies of the package stay: {left:?}");
    }
    Ok(())
}

#[test]
fn a_machine_takes_its_task_only_with_its_volume() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let script = rendered_boot(&terraform.apply("ecs", "acme-duramen")?, "machine")?;
    let device = format!("/dev/disk/by-id/{VOLUME}");
    let first = Machine::new(&script, "blank")?;
    // The image of ECS comes without it.
    std::fs::remove_file(first.at("bin/aws"))?;
    let calls = first.boot_well()?;
    in_order(
        &calls,
        &[
            "dnf -q -y install awscli-2",
            "aws ec2 attach-volume --volume-id vol-0123456789abcdef0 --instance-id i-0123456789abcdef0 ",
            &format!("mkfs.xfs -L duramen {device}"),
            "mount /var/lib/duramen",
            "chown -R 65532:65532 /var/lib/duramen",
            "systemctl start --no-block ecs.service",
        ],
    )?;
    ensure!(first.at("run/duramen-volume").exists(), "the agent waits for ever");
    // Each start of the machine: all is there, and the agent is told so again.
    std::fs::remove_file(first.at("run/duramen-volume"))?;
    let again = first.boot_well()?;
    for done in ["mkfs", "mount ", "aws ec2", "dnf"] {
        ensure!(count(&again, done) == 0, "{done} again: {again:#?}");
    }
    ensure!(first.at("run/duramen-volume").exists(), "the agent waits for ever");

    let next = Machine::new(&script, "xfs")?;
    next.set("attached-after", "3")?;
    next.leave_files_of_another_user()?;
    let calls = next.boot_well()?;
    next.files_belong_to("65532:65532")?;
    ensure!(count(&calls, "mkfs") == 0 && count(&calls, "dnf") == 0, "{calls:#?}");
    in_order(&calls, &["mount /var/lib/duramen"])?;

    for (volume, after, says) in [
        ("blank", "1000", "there is no data volume vol-0123456789abcdef0"),
        ("several", "1", "can't be told"),
    ] {
        let without = Machine::new(&script, volume)?;
        without.set("attached-after", after)?;
        nothing_is_made(&without.boot_badly(&[says])?)?;
        ensure!(!without.at("run/duramen-volume").exists(), "the agent starts without the volume");
    }
    Ok(())
}

/// The scripts go by what the real one ends with.
#[test]
fn blkid_tells_a_blank_device_from_one_with_something_on_it() -> Result<()> {
    let (Some(blkid), Some(mkfs)) = (tool("blkid")?, tool("mkfs.ext4")?) else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let code = |file: &Path| {
        Ok::<_, anyhow::Error>(Command::new(&blkid).arg("-p").arg(file).output()?.status.code())
    };
    let device = directory.path().join("device");
    std::fs::File::create(&device)?.set_len(16 << 20)?;
    ensure!(code(&device)? == Some(2), "{:?}", code(&device)?);
    // A table of partitions, of which the boot record's last two bytes tell.
    let table = directory.path().join("table");
    let mut record = vec![0; 1 << 20];
    record[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 2, 0, 1, 0, 0, 0, 0xff, 7, 0, 0]);
    record[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&table, record)?;
    ensure!(code(&table)? == Some(0), "{:?}", code(&table)?);
    run(Command::new(mkfs).args(["-q", "-F"]).arg(&device))?;
    ensure!(code(&device)? == Some(0), "{:?}", code(&device)?);
    Ok(())
}
