//! What people read.

use std::path::Path;

use duramen_archive::{Hold, ProbeOutcome};
use duramen_client::when;
use duramen_restore::{
    BranchReport, CheckedStore, HydrateReport, Listing, Plan, Reach, RepairReport, VerifyReport,
};
use duramen_types::HybridTime;
use serde::Serialize;

use super::args::Common;

/// JSON if that was asked for, else whatever `text` prints.
pub(crate) fn show(common: &Common, value: &impl Serialize, text: impl FnOnce()) {
    if common.json { json(value) } else { text() }
}

pub(crate) fn json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("reports serialise to JSON without fail");
    println!("{text}");
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn instant(time: Option<HybridTime>) -> String {
    time.filter(|time| *time > HybridTime::ZERO).map_or_else(|| "-".to_owned(), when::format)
}

pub(crate) fn listing(listing: &Listing) {
    println!("archive {} at {}, {} shards", listing.archive.archive, listing.url, listing.archive.shards);
    for branch in &listing.branches {
        println!("\nbranch {}", branch.name);
        if let Some(parent) = branch.ancestry.last() {
            println!("  from       {} at {}", parent.branch, instant(branch.begins));
        }
        match &branch.owner {
            Some(owner) => println!("  owner      cluster {}", owner.cluster),
            None => println!("  owner      nobody yet"),
        }
        println!("  window     {} .. {}", instant(branch.earliest), instant(Some(branch.latest)));
        for point in &branch.restore_points {
            println!("  point      {} = {}", point.name, when::format(point.time));
        }
        for window in &branch.shards {
            let snapshots = window.snapshots.last().map_or_else(|| "-".to_owned(), ToString::to_string);
            println!(
                "  shard {:<4} {} .. {}, entries to {}, {} snapshots, the last at {snapshots}",
                window.shard,
                instant(window.first),
                instant(Some(window.closed)),
                window.end,
                window.snapshots.len(),
            );
        }
        for problem in &branch.problems {
            println!("  problem    {problem}");
        }
    }
}

fn reach(reach: Reach) -> String {
    format!("{} segments, {} snapshots, {}", reach.segments, reach.snapshots, size(reach.bytes))
}

pub(crate) fn plan(plan: &Plan) {
    println!("branch {} of {} at {}", plan.branch, plan.url, plan.at);
    if !plan.consistent {
        println!("  the shards are cut each at a position of its own: not causal between shards");
    }
    for shard in &plan.shards {
        let behind = shard.archived.since(shard.cut.end);
        let what = shard.reach.map(|found| format!(", {}", reach(found))).unwrap_or_default();
        println!(
            "  shard {:<4} before index {}, {behind} archived entries after it{what}",
            shard.shard, shard.cut.end
        );
    }
    if let Some(all) = plan.reach {
        println!("  needs {}: all of it is there", reach(all));
    }
}

pub(crate) fn branch(report: &BranchReport, dry_run: bool) {
    plan(&report.plan);
    let name = &report.branch;
    match (dry_run, report.created) {
        (true, _) => println!("nothing was written; the branch would be {name}"),
        (false, true) => println!("created branch {name}; start a node on it with `duramen --branch {name}`"),
        (false, false) => println!("branch {name} was there already, at this very cut"),
    }
    if let Some(note) = &report.note {
        println!("note: {note}");
    }
}

pub(crate) fn hydrated(report: &HydrateReport, to: &Path, dry_run: bool) {
    plan(&report.plan);
    let (name, to) = (&report.branch, to.display());
    if dry_run {
        println!("nothing was written; {to} would be filled, as branch {name}");
        return;
    }
    println!("downloaded {}; {} were there", reach(report.fetched), reach(report.present));
    println!("{to} is ready as branch {name}: start a node with `duramen --data {to} --branch {name}`");
    if let Some(note) = &report.note {
        println!("note: {note}");
    }
}

pub(crate) fn verified(report: &VerifyReport) {
    let verdict = &report.verdict;
    for finding in &verdict.findings {
        println!("{}: {}", finding.key, finding.problem);
    }
    let (objects, bytes) = (verdict.objects, size(verdict.bytes));
    let result = match verdict.findings.len() {
        0 => "no damage".to_owned(),
        count => format!("{count} findings"),
    };
    println!(
        "branch {}: {objects} objects, {bytes} verified in {} ms: {result}",
        verdict.branch, verdict.took_ms
    );
    if let Some(key) = &report.recorded {
        println!("recorded as {key}");
    }
}

pub(crate) fn checked(checked: &CheckedStore) {
    for probe in &checked.report.probes {
        let outcome = match &probe.outcome {
            ProbeOutcome::Passed => "passed".to_owned(),
            ProbeOutcome::Noted(note) => note.clone(),
            ProbeOutcome::Failed(reason) => format!("FAILED: {reason}"),
            ProbeOutcome::Skipped => "skipped".to_owned(),
        };
        println!("{}: {outcome} ({} ms)", probe.name, probe.duration.as_millis());
    }
    match &checked.archive {
        Some(archive) => println!("it holds archive {} with {} shards", archive.archive, archive.shards),
        None => println!("it holds no archive yet"),
    }
}

pub(crate) fn holds(holds: &[Hold], now: HybridTime) {
    if holds.is_empty() {
        println!("there are no holds");
    }
    for hold in holds {
        let state = if hold.has_lapsed(now) { "lapsed" } else { "until" };
        println!(
            "{} branch {}, {state} {}: {}",
            hold.id,
            hold.branch,
            when::format(hold.deadline),
            hold.reason
        );
    }
}

pub(crate) fn repaired(report: &RepairReport) {
    for damage in &report.damage {
        println!("damage: {damage}");
    }
    for shard in &report.shards {
        println!(
            "shard {}: archive before {}, kept {} local entries up to {}",
            shard.shard, shard.archived, shard.kept, shard.end
        );
    }
    for gone in &report.gone {
        println!("GONE: shard {}, entries {}..{}: {}", gone.shard, gone.first, gone.end, gone.reason);
    }
    for note in &report.notes {
        println!("note: {note}");
    }
    match &report.moved_aside {
        Some(aside) => println!("repaired; the damaged log was moved to {}", aside.display()),
        None if report.sound => println!("nothing is damaged, nothing was changed"),
        None => println!("nothing was changed (dry run)"),
    }
}
