//! What people read.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use duramen_archive::{Hold, ProbeOutcome};
use duramen_client::when;
use duramen_restore::{
    BranchReport, CheckedStore, HydrateReport, Listing, Plan, Reach, RepairReport, VerifyReport,
};
use duramen_types::{HybridTime, counted};
use serde::Serialize;

use super::args::Common;
use super::{EXIT_FAILED, Failure};

/// Adds a line to a text.
macro_rules! line {
    ($text:expr, $($arguments:tt)*) => {
        writeln!($text, $($arguments)*).expect("writing to a String can't fail")
    };
}

/// Prints JSON if that was asked for, else what `text` gives.
pub(crate) fn show(
    common: &Common,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if common.json { json(value) } else { out(&text()) }
}

pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("reports serialise to JSON without fail");
    out(&format!("{text}\n"))
}

/// Prints to standard output; a reader that has closed it, as `head` does, has read enough.
pub(crate) fn out(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Other(EXIT_FAILED, format!("the output can't be written: {error}")))
        }
        _ => Ok(()),
    }
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn instant(time: Option<HybridTime>) -> String {
    time.filter(|time| *time > HybridTime::ZERO).map_or_else(|| "-".to_owned(), when::format)
}

pub(crate) fn listing(listing: &Listing) -> String {
    let mut text = String::new();
    let shards = counted(listing.archive.shards, "shard");
    line!(text, "archive {} at {}, {shards}", listing.archive.archive, listing.url);
    for branch in &listing.branches {
        line!(text, "\nbranch {}", branch.name);
        if let Some(parent) = branch.ancestry.last() {
            line!(text, "  from       {} at {}", parent.branch, instant(branch.begins));
        }
        match &branch.owner {
            Some(owner) => line!(text, "  owner      cluster {}", owner.cluster),
            None => line!(text, "  owner      nobody yet"),
        }
        line!(text, "  window     {} .. {}", instant(branch.earliest), instant(Some(branch.latest)));
        for point in &branch.restore_points {
            line!(text, "  point      {} = {}", point.name, when::format(point.time));
        }
        for window in &branch.shards {
            let snapshots = window.snapshots.last().map_or_else(|| "-".to_owned(), ToString::to_string);
            line!(
                text,
                "  shard {:<4} {} .. {}, entries to {}, {}, the last at {snapshots}",
                window.shard,
                instant(window.first),
                instant(Some(window.closed)),
                window.end,
                counted(window.snapshots.len(), "snapshot"),
            );
        }
        for problem in &branch.problems {
            line!(text, "  problem    {problem}");
        }
    }
    text
}

fn reach(reach: Reach) -> String {
    let (segments, snapshots) = (counted(reach.segments, "segment"), counted(reach.snapshots, "snapshot"));
    format!("{segments}, {snapshots}, {}", size(reach.bytes))
}

pub(crate) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    line!(text, "branch {} of {} at {}", plan.branch, plan.url, plan.at);
    if !plan.consistent {
        line!(text, "  the shards are cut each at a position of its own: not causal between shards");
    }
    for shard in &plan.shards {
        let behind = shard.archived.since(shard.cut.end);
        let what = shard.reach.map(|found| format!(", {}", reach(found))).unwrap_or_default();
        line!(
            text,
            "  shard {:<4} before index {}, {} after it{what}",
            shard.shard,
            shard.cut.end,
            counted(behind, "archived entry")
        );
    }
    if let Some(all) = plan.reach {
        line!(text, "  needs {}: all of it is there", reach(all));
    }
    text
}

pub(crate) fn branch(report: &BranchReport, archive: &str, dry_run: bool) -> String {
    let mut text = plan(&report.plan);
    let name = &report.branch;
    match (dry_run, report.created) {
        (true, _) => line!(text, "nothing was written; the branch would be {name}"),
        (false, true) => line!(
            text,
            "created branch {name}; start a node on it, in a new directory: `duramen serve --data DIR --archive {archive} --branch {name}`"
        ),
        (false, false) => line!(text, "branch {name} was there already, at this very cut"),
    }
    if let Some(note) = &report.note {
        line!(text, "note: {note}");
    }
    text
}

pub(crate) fn hydrated(report: &HydrateReport, archive: &str, to: &Path) -> String {
    let mut text = plan(&report.plan);
    let (name, to) = (&report.branch, to.display());
    let (fetched, present) = (reach(report.fetched), reach(report.present));
    if report.dry_run {
        let what = if report.resumed { "the restore would go on" } else { "it would be filled," };
        line!(text, "{to}: {what} as branch {name}");
        line!(text, "nothing was written; {fetched} would be downloaded; {present} are there");
        return text;
    }
    line!(text, "downloaded {fetched}; {present} were there");
    line!(
        text,
        "{to} is ready as branch {name}: start a node with `duramen serve --data {to} --archive {archive}`"
    );
    if let Some(note) = &report.note {
        line!(text, "note: {note}");
    }
    text
}

pub(crate) fn verified(report: &VerifyReport) -> String {
    let mut text = String::new();
    let verdict = &report.verdict;
    for finding in &verdict.findings {
        line!(text, "{}: {}", finding.key, finding.problem);
    }
    let (objects, bytes) = (counted(verdict.objects, "object"), size(verdict.bytes));
    let result = match verdict.findings.len() {
        0 => "no damage".to_owned(),
        count => counted(count, "finding"),
    };
    line!(text, "branch {}: {objects}, {bytes} verified in {} ms: {result}", verdict.branch, verdict.took_ms);
    if let Some(key) = &report.recorded {
        line!(text, "recorded as {key}");
    }
    text
}

pub(crate) fn checked(checked: &CheckedStore) -> String {
    let mut text = String::new();
    for probe in &checked.report.probes {
        let outcome = match &probe.outcome {
            ProbeOutcome::Passed => "passed".to_owned(),
            ProbeOutcome::Noted(note) => note.clone(),
            ProbeOutcome::Failed(reason) => format!("FAILED: {reason}"),
            ProbeOutcome::Skipped => "skipped".to_owned(),
        };
        line!(text, "{}: {outcome} ({} ms)", probe.name, probe.duration.as_millis());
    }
    match &checked.archive {
        Some(archive) => {
            line!(text, "it holds archive {} with {}", archive.archive, counted(archive.shards, "shard"));
        }
        None => line!(text, "it holds no archive yet"),
    }
    text
}

pub(crate) fn holds(holds: &[Hold], now: HybridTime) -> String {
    let mut text = String::new();
    if holds.is_empty() {
        line!(text, "there are no holds");
    }
    for hold in holds {
        let state = if hold.has_lapsed(now) { "lapsed" } else { "until" };
        line!(
            text,
            "{} branch {}, {state} {}: {}",
            hold.id,
            hold.branch,
            when::format(hold.deadline),
            hold.reason
        );
    }
    text
}

pub(crate) fn repaired(report: &RepairReport) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        line!(text, "damage: {damage}");
    }
    for shard in &report.shards {
        line!(
            text,
            "shard {}: archive before {}, kept {} up to {}",
            shard.shard,
            shard.archived,
            counted(shard.kept, "local entry"),
            shard.end
        );
    }
    for gone in &report.gone {
        let place = format!("shard {}, entries {}..{}", gone.shard, gone.first, gone.end);
        if gone.is_nothing() {
            line!(text, "{place} are gone, and held nothing of anybody's: {}", gone.reason);
            continue;
        }
        line!(
            text,
            "GONE: {place}: {}, {}, and {} of which nothing is known: {}",
            counted(gone.records, "record"),
            counted(gone.changes, "other change"),
            counted(gone.unknown, "entry"),
            gone.reason
        );
    }
    if let Some(file) = &report.unread {
        line!(
            text,
            "GONE: {} held the newest entries and can't be read: those that are not archived are lost, and nobody knows which",
            file.display()
        );
    }
    for note in &report.notes {
        line!(text, "note: {note}");
    }
    let (removed, left) = (report.removed.len(), report.left.len());
    if left > 0 {
        let files = counted(left, "file");
        line!(
            text,
            "still damaged: {files} below hydrated/; run this again once the archive's copies can be had"
        );
    }
    if report.sound {
        line!(text, "nothing is damaged, nothing was changed");
    } else if report.dry_run {
        line!(text, "nothing was changed (dry run)");
    } else if let Some(aside) = &report.moved_aside {
        line!(text, "repaired; the damaged log was moved to {}", aside.display());
    } else if removed == 0 {
        line!(text, "nothing was changed");
    } else {
        let files = counted(removed, "damaged file");
        line!(text, "repaired; removed {files}: the node reads what was in there from the archive");
    }
    text
}
