//! Target times in the future, before the recovery window, and in other zones.

use anyhow::Result;
use duramen_client::when;
use duramen_types::HybridTime;
use tonic::Code;

use super::*;

/// Later than any clock of a machine that runs this, and the same instant elsewhere.
const FUTURE: (&str, &str) = ("2199-12-31T23:00:00Z", "2200-01-01T01:00:00+02:00");
const EARLY: (&str, &str) = ("1999-12-31T20:00:00Z", "2000-01-01T01:30:00+05:30");

/// A node with one record, archived.
fn asked() -> Result<Asked> {
    let asked = Asked::start()?;
    asked.ctl("append orders")?.input("x\n").succeed()?;
    asked.ctl("archive flush")?.succeed()?;
    Ok(asked)
}

fn micros(text: &str) -> Result<u64> {
    Ok(when::parse(text, HybridTime::ZERO)?.as_micros())
}

/// For a URL's query.
fn escaped(time: &str) -> String {
    time.replace('+', "%2B")
}

#[test]
fn an_instant_in_the_future_is_refused_and_shown_in_utc() -> Result<()> {
    let mut asked = asked()?;
    let (utc, elsewhere) = FUTURE;
    let what = format!("{utc} lies in the future, it is 2");
    for time in [utc, elsewhere] {
        let parts = [what.as_str(), "choose an instant that has passed", "compare the machines' clocks"];
        let read = asked.ctl("read orders --as-of")?.args([time]);
        read.fail(1, &[parts[0], parts[1], parts[2], "[future_time]"])?;
        let path = format!("/orders/records?as_of={}", escaped(time));
        asked.http_refused(("GET", &path), "", (400, "future_time"), &parts)?;
        let target = format!("the target {utc} lies in the future (it is ");
        let plan = asked.restore("plan --target-time")?.args([time]);
        plan.fail(4, &[&target, "choose an instant that has passed, or --latest"])?;
        let branch = asked.restore("branch later --target-time")?.args([time]);
        branch.fail(4, &[&target])?;
    }
    let request = v1::ReadRequest {
        as_of: Some(micros(utc)?),
        stream: "orders".to_owned(),
        ..v1::ReadRequest::default()
    };
    let refusal = (Code::OutOfRange, "future_time");
    let error = asked.grpc_refused(async |log| log.read(request).await, refusal, &[&what])?;
    ensure!(error.time.is_some_and(|now| now < micros(utc).unwrap_or(0)), "it names its own time: {error:?}");
    Ok(())
}

#[test]
fn an_instant_before_the_window_is_refused_with_where_the_window_begins() -> Result<()> {
    let mut asked = asked()?;
    let (utc, elsewhere) = EARLY;
    let what = format!("{utc} lies before the recovery window, which begins at ");
    for time in [utc, elsewhere] {
        let parts = [what.as_str(), "archive.recovery_window", "choose a later instant"];
        let read = asked.ctl("read orders --as-of")?.args([time]);
        read.fail(1, &[parts[0], parts[1], "[not_covered]", "duramen-restore list"])?;
        let path = format!("/orders/records?as_of={}", escaped(time));
        let error = asked.http_refused(("GET", &path), "", (416, "not_covered"), &parts)?;
        ensure!(error["time"].as_u64() > Some(micros(utc)?), "the earliest instant: {error}");
        let target = format!("of {} can't be restored to {utc}", asked.archive_url());
        let plan = asked.restore("plan --target-time")?.args([time]);
        plan.fail(4, &["branch main", &target, "its recovery window begins at", "choose a later instant"])?;
    }
    let request = v1::ReadRequest {
        as_of: Some(micros(utc)?),
        stream: "orders".to_owned(),
        ..v1::ReadRequest::default()
    };
    let refusal = (Code::OutOfRange, "not_covered");
    asked.grpc_refused(async |log| log.read(request).await, refusal, &[&what])?;
    Ok(())
}

#[test]
fn an_instant_of_another_zone_is_taken_and_shown_in_utc() -> Result<()> {
    let asked = asked()?;
    let described = asked.ctl("stream describe orders --json")?.succeed()?;
    let described: Value = serde_json::from_str(&described)?;
    let utc = described["last_append"].as_str().context("the time of the append")?;
    let at = when::parse(utc, HybridTime::ZERO)?;
    let shifted = |hours: u64| when::format(at.after(Duration::from_secs(hours * 3600))).replace('Z', "");
    for time in [utc.to_owned(), format!("{}+02:00", shifted(2)), format!("{}+14:00", shifted(14))] {
        let plan = asked.restore("plan --json --target-time")?.args([time.as_str()]).succeed()?;
        let plan: Value = serde_json::from_str(&plan)?;
        ensure!(plan["at"] == *utc, "{time} is shown as {}", plan["at"]);
        let text = asked.restore("plan --target-time")?.args([time.as_str()]).succeed()?;
        ensure!(text.contains(&format!(" at {utc}\n")), "{text}");
        let past = asked.ctl("read orders --as-of")?.args([time.as_str()]).succeed()?;
        ensure!(past.lines().count() == 1, "{time}: {past}");
        // As it should be written in a query, and as people write it there.
        for time in [escaped(&time), time] {
            let (status, page) = asked.http("GET", &format!("/orders/records?as_of={time}"), "")?;
            ensure!(status == 200 && page["tail"] == 1, "{time}: {status} {page}");
        }
    }
    Ok(())
}

#[test]
fn the_time_of_an_answer_is_taken_as_it_is_and_so_is_a_relative_one() -> Result<()> {
    let asked = asked()?;
    let (status, page) = asked.http("GET", "/orders/records", "")?;
    let first = page["records"][0]["time"].as_u64().context("the time of the first record")?;
    ensure!(
        status == 200 && asked.http("POST", "/orders/records", r#"{"records":[{"value":"y"}]}"#)?.0 == 200
    );
    let path = format!("/orders/records?as_of={first}");
    let (status, page) = asked.http("GET", &path, "")?;
    ensure!(status == 200 && page["tail"] == 1, "as of the first append: {status} {page}");
    let (status, page) = asked.http("GET", "/orders/records?as_of=-0s", "")?;
    ensure!(status == 200 && page["tail"] == 2, "as of now: {status} {page}");
    asked.ctl("archive flush")?.succeed()?;
    let past = asked.ctl("read orders --as-of")?.args([first.to_string()]).succeed()?;
    ensure!(past.lines().count() == 1, "{past}");
    let plan = asked.restore("plan --json --target-time")?.args([first.to_string()]).succeed()?;
    let plan: Value = serde_json::from_str(&plan)?;
    ensure!(plan["at"] == *when::format(HybridTime::from_micros(first)), "{plan}");
    Ok(())
}

#[test]
fn what_is_no_instant_is_refused_with_what_would_be_one() -> Result<()> {
    let asked = asked()?;
    for (text, wrong) in [
        ("2026-11-21T14:29:59", "it has no zone (add Z for UTC)"),
        ("yesterday", "\"yesterday\" is not a time"),
        ("-15", "\"-15\" is not a time"),
        ("1969-12-31T23:59:59Z", "it lies before 1970"),
        ("1763735399123", "are they seconds or milliseconds?"),
    ] {
        let example = "write 2026-11-21T14:29:59Z, -15m, now or microseconds since 1970";
        asked.restore("plan --target-time")?.args([text]).fail(2, &["--target-time", wrong, example])?;
        asked.ctl("read orders --as-of")?.args([text]).fail(2, &["--as-of", wrong, example])?;
        let path = format!("/orders/records?as_of={text}");
        let refusal = (400, "invalid_argument");
        asked.http_refused(("GET", &path), "", refusal, &["as_of: ", wrong, example])?;
    }
    Ok(())
}

#[test]
fn an_instant_that_is_not_proven_complete_yet_is_refused_with_the_one_that_is() -> Result<()> {
    let asked = Asked::start_with(|settings| settings.set("archive.segment_age", "1h"))?;
    asked.ctl("append orders")?.input("x\n").succeed()?;
    let flushed = asked.ctl("archive flush --json")?.succeed()?;
    let flushed: Value = serde_json::from_str(&flushed)?;
    let closed = HybridTime::from_micros(flushed["closed_through"].as_u64().context("closed")?);
    let asked_for = when::format(closed.next());
    let closed = when::format(closed);
    asked.restore("plan --target-time")?.args([asked_for.as_str()]).fail(
        4,
        &[&asked_for, &format!("proven complete through {closed} only"), "choose that or an earlier instant"],
    )?;
    asked.restore("plan --target-time")?.args([closed.as_str()]).succeed()?;
    asked.restore("plan --target-name nothing")?.fail(5, &["has no restore point nothing", "it has none"])?;
    Ok(())
}

#[test]
fn a_restore_or_an_export_to_a_refused_instant_begins_nothing() -> Result<()> {
    let asked = asked()?;
    let (directory, file) = (asked.directory.path().join("restored"), asked.directory.path().join("records"));
    for (time, parts) in [
        (FUTURE.1, [FUTURE.0, "lies in the future", "choose an instant that has passed"]),
        (EARLY.1, [EARLY.0, "its recovery window begins at", "choose a later instant"]),
    ] {
        let hydrate =
            asked.restore("hydrate --to")?.args([directory.as_os_str()]).args(["--target-time", time]);
        hydrate.fail(4, &parts)?;
        let begun = ["restore.json", "node.json"].map(|file| directory.join(file).exists());
        ensure!(begun == [false; 2], "a restore to {time} was begun");
        let export = asked.restore("export orders --output")?.args([file.as_os_str()]);
        export.args(["--target-time", time]).fail(4, &parts)?;
        ensure!(!file.exists(), "a refused export made its file at {time}");
    }
    let hydrate = asked.restore("hydrate --latest --to")?.args([directory.as_os_str()]);
    hydrate.succeed()?;
    Ok(())
}
