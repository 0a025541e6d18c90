//! Archive URLs: of another cluster, of a newer format, without permission, without conditional PUT, and of nothing.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use duramen_tests::{Bucket, S3Server};
use tempfile::TempDir;

use super::*;

/// A node on its own data directory `name` below `directory`, with another archive.
fn settings(directory: &Path, name: &str, archive: &str) -> NodeSettings {
    NodeSettings::in_directory(&directory.join(name))
        .archive_in_directory(&directory.join(archive))
        .set("cluster.shards", "2")
}

fn refused(settings: NodeSettings, parts: &[&str]) -> Result<()> {
    let (status, said) = settings.start_expecting_refusal()?;
    ensure!(status.code() == Some(1), "{status}: {said}");
    for part in parts {
        ensure!(said.contains(part), "the node does not say {part:?}:\n{said}");
    }
    Ok(())
}

#[test]
fn the_archive_of_another_cluster_is_refused_and_stays_as_it_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    for (name, archive) in [("one", "archive-one"), ("two", "archive-two")] {
        let mut node = settings(at, name, archive).start()?;
        ensure!(node.terminate()?.code() == Some(0), "{}", node.process().output());
    }
    let url = |archive: &str| format!("file://{}", at.join(archive).display());
    let before = Tool::restore(&url("archive-two"))?.line("list --json").succeed()?;
    // A data directory that belongs to another archive.
    refused(
        settings(at, "one", "archive-two"),
        &[
            &url("archive-two"),
            "holds archive",
            "this node's data belongs to archive",
            "set archive.url to that one",
        ],
    )?;
    // A new node on a branch that somebody writes.
    refused(
        settings(at, "three", "archive-two"),
        &["branch main of", &url("archive-two"), "is written by cluster", "duramen-restore branch"],
    )?;
    // One without the archive that it needs.
    let without = settings(at, "one", "archive-one").set("archive.url", "");
    refused(without, &["belongs to an archive", "set archive.url"])?;
    let archiver = Tool::archiver(&url("archive-two"))?.args(["run", "--data"]).args([at.join("one")]);
    archiver.fail(1, &["belongs to archive", "give the URL of that one"])?;
    let repair = Tool::restore(&url("archive-two"))?.args(["repair", "--data"]).args([at.join("one")]);
    repair.fail(1, &["archive"])?;
    let after = Tool::restore(&url("archive-two"))?.line("list --json").succeed()?;
    ensure!(before == after, "the other cluster's archive was changed:\n{before}\n{after}");
    Ok(())
}

#[test]
fn an_archive_of_a_newer_format_is_refused_by_every_program() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    let mut node = settings(at, "node", "archive").start()?;
    ensure!(node.terminate()?.code() == Some(0), "{}", node.process().output());
    let file = at.join("archive/archive.json");
    let mut identity: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    identity["version"] = 2.into();
    identity["a_later_idea"] = true.into();
    std::fs::remove_file(&file)?;
    #[expect(clippy::disallowed_methods, reason = "a test changes an archive behind its back")]
    std::fs::write(&file, identity.to_string())?;
    let parts = ["archive.json", "version 2", "use a newer release"];
    refused(settings(at, "node", "archive"), &parts)?;
    refused(settings(at, "new-node", "archive"), &parts)?;
    let url = format!("file://{}", at.join("archive").display());
    Tool::restore(&url)?.line("list").fail(1, &parts)?;
    Tool::archiver(&url)?.line("orphans").fail(1, &parts)?;
    Ok(())
}

#[test]
fn a_place_without_an_archive_is_refused_where_one_is_needed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    let url = format!("file://{}", at.join("empty").display());
    std::fs::create_dir(at.join("empty"))?;
    Tool::restore(&url)?
        .line("list")
        .fail(5, &["there is no archive at", &url, "check the URL and its prefix"])?;
    Tool::archiver(&url)?.line("orphans").fail(1, &["there is no archive at", &url])?;
    // And a place that is in use for something else, where one is to be made.
    std::fs::create_dir_all(at.join("else/photos"))?;
    #[expect(clippy::disallowed_methods, reason = "somebody else's file")]
    std::fs::write(at.join("else/photos/cat.jpg"), "cat")?;
    refused(
        settings(at, "node", "else"),
        &["holds something else already", "photos/cat.jpg", "choose an empty prefix"],
    )?;
    Ok(())
}

/// A directory with the archive of a node that was stopped after one record.
fn with_one_record() -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    let mut node = settings(directory.path(), "node", "archive").start()?;
    Tool::ctl(&node)?.line("append orders").input("one\n").succeed()?;
    ensure!(node.terminate()?.code() == Some(0), "{}", node.process().output());
    Ok(directory)
}

fn restore_at(at: &Path, line: &str) -> Result<Tool> {
    Ok(Tool::restore(&format!("file://{}", at.join("archive").display()))?.line(line))
}

#[test]
fn a_branch_whose_description_is_lost_is_damaged_and_one_that_never_was_is_unknown() -> Result<()> {
    let directory = with_one_record()?;
    let at = directory.path();
    let restore = |line: &str| restore_at(at, line);
    restore("branch middle --latest")?.succeed()?;
    restore("branch last --latest --branch middle")?.succeed()?;
    let file = |branch: &str| at.join(format!("archive/branches/{branch}.json"));
    let kept = at.join("kept.json");
    let without = |branch: &str, check: &dyn Fn() -> Result<()>| -> Result<()> {
        std::fs::copy(file(branch), &kept)?;
        std::fs::remove_file(file(branch))?;
        check()?;
        std::fs::copy(&kept, file(branch))?;
        Ok(())
    };
    let is_found = |branch: &str, because: &str| {
        let ran = restore(&format!("verify --dry-run --branch {branch}"))?.run()?;
        let finding = format!("branches/{branch}.json: it is missing");
        ensure!(ran.code == 3, "verify of {branch} ended with {}: {ran:?}", ran.code);
        let line = ran.stdout.lines().find(|line| line.starts_with(&finding));
        ensure!(line.is_some_and(|line| line.contains(because)), "{branch}, {because}: {ran:?}");
        Ok(())
    };
    let unknown = || restore("verify --branch nobody")?.fail(5, &["has no branch nobody"]).map(drop);
    // Its own objects speak of it, a branch that descends from it, or a verdict; of one nothing does.
    without("main", &|| is_found("main", "main/"))?;
    without("main", &unknown)?;
    without("middle", &|| is_found("middle", "branch last descends from it"))?;
    without("last", &|| restore("verify --branch last")?.fail(5, &["has no branch last"]).map(drop))?;
    restore("verify")?.succeed()?;
    without("last", &|| is_found("last", "verdicts/"))?;
    unknown()?;
    for branch in ["main", "middle", "last"] {
        restore(&format!("verify --branch {branch}"))?.succeed()?;
    }
    Ok(())
}

#[test]
fn places_and_numbers_that_duramen_restore_can_do_nothing_with_are_refused_with_what_to_do() -> Result<()> {
    let directory = with_one_record()?;
    let at = directory.path();
    let restore = |line: &str| restore_at(at, line);
    for line in ["verify --parallelism", "hydrate --latest --to nowhere --parallelism"] {
        for number in ["0", "17", "many"] {
            restore(line)?.args([number]).fail(2, &["--parallelism", number])?;
        }
    }
    let file = at.join("a-file");
    std::fs::File::create(&file)?;
    for to in ["/proc/nope", file.to_str().context("a name")?] {
        let parts = [to, "can't be a data directory", "--to", "may write", "because: "];
        restore("hydrate --latest --to")?.args([to]).fail(1, &parts)?;
    }
    let export = restore("export orders --latest --output")?;
    let named = file.display().to_string();
    export
        .clone()
        .args([&file])
        .fail(1, &[&named, "is there already", "another file", "--output", "remove it"])?;
    ensure!(file.metadata()?.len() == 0, "it was written to");
    for to in ["/proc/nope", "/nowhere/orders.jsonl"] {
        let parts = [to, "can't be created", "--output", "directory that exists", "because: "];
        export.clone().args([to]).fail(1, &parts)?;
    }
    Ok(())
}

#[test]
fn an_url_that_names_no_archive_is_wrong_usage_everywhere() -> Result<()> {
    for (url, wrong) in [
        ("ftp://somewhere/else", "ftp"),
        ("bucket/prefix", "URL"),
        ("s3://bucket?endpont=http://127.0.0.1:1", "endpont"),
    ] {
        Tool::restore(url)?.line("list").fail(2, &[wrong])?;
        Tool::archiver(url)?.line("orphans").fail(2, &[wrong])?;
        let node = Tool::node()?.args(["serve", "--validate", "--archive", url]);
        node.fail(2, &["--archive: archive.url: ", wrong])?;
    }
    let none = Tool::restore("")?.line("list");
    none.fail(2, &["which archive?", "--archive URL", "DURAMEN_ARCHIVE"])?;
    Tool::archiver("")?.line("orphans").fail(2, &["which archive?", "--archive URL", "DURAMEN_ARCHIVE"])?;
    Ok(())
}

#[test]
fn a_bucket_without_permission_is_refused_with_what_to_grant() -> Result<()> {
    let bucket = Bucket::create()?;
    let directory = tempfile::tempdir()?;
    let node = |name: &str| {
        let settings = NodeSettings::in_directory(&directory.path().join(name)).archive_in(&bucket, "log");
        settings.set("cluster.shards", "2")
    };
    // A key that the store does not know.
    let wrong = node("wrong-key").variable("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    refused(wrong, &["log", "permission denied", "s3:"])?;
    // Everybody may read and list, nobody may write.
    if !bucket.allow_anonymous(&["s3:GetObject", "s3:ListBucket"])? {
        eprintln!("SKIPPED: the in-process S3 server knows no policies");
        return Ok(());
    }
    let url = format!("{}&anonymous=true", bucket.archive_url("log"));
    let may_read = node("may-read").set("archive.url", &url);
    let denied =
        ["the archive at s3://", "create an object", "permission denied", "grant s3:PutObject on the prefix"];
    refused(may_read, &denied)?;
    let check = Tool::restore(&url)?.bucket(&bucket).line("check").run()?;
    ensure!(check.code == 1 && check.stdout.contains("create an object: FAILED"), "{check:?}");
    ensure!(check.stdout.contains("grant s3:PutObject"), "{check:?}");
    // And the other way round: a node that may write and not read.
    let bucket = Bucket::create()?;
    bucket.allow_anonymous(&["s3:PutObject"])?;
    let url = format!("{}&anonymous=true", bucket.archive_url("log"));
    let list = Tool::restore(&url)?.bucket(&bucket).line("list");
    list.fail(1, &["archive.json", "permission denied", "grant s3:GetObject"])?;
    Ok(())
}

#[test]
fn a_store_without_conditional_put_is_refused_before_anything_depends_on_it() -> Result<()> {
    let server = Arc::new(S3Server::without_conditional_put()?);
    let bucket = server.bucket()?;
    let directory = tempfile::tempdir()?;
    let settings = NodeSettings::in_directory(directory.path()).archive_in(&bucket, "log");
    refused(
        settings,
        &[
            "the archive at s3://",
            "If-None-Match",
            "two writers could destroy",
            "use a store with conditional PUT",
        ],
    )?;
    let check = Tool::restore(&bucket.archive_url("log"))?.bucket(&bucket).line("check");
    let check = check.run()?;
    ensure!(check.code == 1, "{check:?}");
    ensure!(
        check.stdout.contains("refuse to create it a second time (If-None-Match: *): FAILED"),
        "{check:?}"
    );
    ensure!(check.stdout.contains("it holds no archive yet"), "nothing was begun: {check:?}");
    Ok(())
}

#[test]
fn a_bucket_that_does_not_exist_and_a_server_that_does_not_answer_are_told_apart() -> Result<()> {
    let bucket = Bucket::create()?;
    let directory = tempfile::tempdir()?;
    let url = bucket.archive_url("log").replace(bucket.name(), "no-such-bucket-here");
    let none = NodeSettings::in_directory(&directory.path().join("none")).archive_in(&bucket, "log");
    refused(
        none.set("archive.url", &url),
        &["no-such-bucket-here", "does not exist", "create it, or correct"],
    )?;
    let list = Tool::restore(&url)?.bucket(&bucket).line("list");
    list.fail(5, &["no-such-bucket-here", "does not exist"])?;

    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("s3://bucket/log?endpoint=http://127.0.0.1:{port}&attempts=2");
    let list = Tool::restore(&url)?.bucket(&bucket).line("list");
    list.fail(6, &["s3://bucket/log", "not available", "check endpoint and network"])?;
    Ok(())
}
