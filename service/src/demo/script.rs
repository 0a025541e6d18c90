//! The steps of the demo.

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use duramen_archive::{Depth, Random, Store, StoreOptions};
use duramen_client::{AppendOptions, when};
use duramen_restore::{BranchOptions, HydrateOptions, Reach, Target, VerifyOptions};
use duramen_types::batch::Record;
use duramen_types::{BranchName, Clock, CursorName, NodeId, Offset, StreamName, SystemClock};

use super::cluster::Running;
use super::content::Content;
use super::{DemoArgs, input};
use crate::NO_TIMESTAMP;

/// Records of one append.
const BATCH: usize = 100;
/// The branch that the demo goes back with.
const BRANCH: &str = "before-the-mishap";

/// Prints a line. The demo goes on to its end where nobody reads any more: its exit code still says how it went.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints the steps and how long they take.
struct Narrator {
    clock: Arc<dyn Clock>,
    step: u32,
}

impl Narrator {
    /// Announces a step with its command, does it, and prints what it gives.
    async fn step<T>(
        &mut self,
        what: &str,
        command: impl Display,
        work: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> anyhow::Result<T> {
        self.step += 1;
        say(&format!("{:>2}. {what}", self.step));
        say(&format!("    $ {command}"));
        let begun = self.clock.monotonic();
        let (value, result) = work.await.with_context(|| format!("step {}: {what}", self.step))?;
        let took = self.clock.monotonic().saturating_sub(begun);
        say(&format!("    {result} ({:.3} s)\n", took.as_secs_f64()));
        Ok(value)
    }
}

/// Plays all steps in `directory`, which is empty.
pub async fn play(args: &DemoArgs, directory: &Path) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let begun = clock.monotonic();
    let mut narrator = Narrator { clock: Arc::clone(&clock), step: 0 };
    let records = input::read(args)?;
    let (data, other) = (directory.join("node"), directory.join("branch-node"));
    let url = format!("file://{}", directory.join("archive").display());
    let branch = BranchName::parse(BRANCH)?;
    let store =
        Store::open(&url, &StoreOptions::default(), Arc::clone(&clock), Random::from_system()).await?;
    let file = args
        .input
        .as_ref()
        .map_or("service/data/earthquakes.jsonl".into(), |path| path.display().to_string());
    let (data_shown, other_shown) = (data.display(), other.display());

    let node = narrator
        .step(
            "Start a node that archives to a directory",
            format!("duramen serve --data {data_shown} --archive {url}"),
            async {
                let node = Running::start(&data, &url, None).await?;
                let address = node.client.endpoint().to_owned();
                Ok((node, format!("ready at {address}")))
            },
        )
        .await?;

    let append = format!(
        "duramenctl append --stream-field {} --key-field {} --timestamp-field {} {file}",
        args.stream_field, args.key_field, args.timestamp_field
    );
    narrator
        .step("Append every record to the stream of its network", append, append_all(&node, &records))
        .await?;

    let cursor = CursorName::parse("seismologist")?;
    let (first, count) =
        records.iter().next().map(|(name, records)| (name.clone(), records.len())).context("no records")?;
    let half = Offset::new(u64::try_from(count / 2)?);
    let original = narrator
        .step(
            "Read everything back, and remember it; a consumer commits its position",
            format!("duramenctl read {first} --json; duramenctl cursor commit {first} {cursor} {half}"),
            async {
                node.client.commit_cursor(&first, &cursor, half).await?;
                let content = Content::of(&node.client).await?;
                let found = u64::try_from(records.values().map(Vec::len).sum::<usize>())?;
                anyhow::ensure!(
                    content.records == found,
                    "{} records were read, {found} were appended",
                    content.records
                );
                let summary = format!(
                    "{} records in {} streams, {} bytes",
                    content.records,
                    content.streams(),
                    content.bytes
                );
                Ok((content, summary))
            },
        )
        .await?;
    let instant = node.client.seen();
    let instant_shown = when::format(instant);

    let (deleted, spoiled) = {
        let mut by_size: Vec<_> =
            records.iter().map(|(name, records)| (records.len(), name.clone())).collect();
        by_size.sort_unstable_by(|a, b| b.cmp(a));
        let deleted = by_size.first().context("no streams")?.1.clone();
        let spoiled = by_size.get(1).unwrap_or(by_size.first().context("no streams")?).1.clone();
        (deleted, spoiled)
    };
    narrator
        .step(
            "The mishap: somebody deletes a stream, and a program appends wrong records",
            format!("duramenctl stream delete {deleted}; echo oops | duramenctl append {spoiled} -"),
            mishap(&node, &deleted, &spoiled),
        )
        .await?;

    narrator
        .step(
            "Archive all of it, mishap included: a bad write is archived like a good one",
            "duramenctl archive flush",
            async {
                let status = node.node.archive_flush().await?;
                Ok(((), format!("{} entries wait for the archive at {}", status.lag_entries, status.url)))
            },
        )
        .await?;

    narrator
        .step(
            "Look at the past without restoring anything",
            format!("duramenctl read {deleted} --as-of {instant_shown}"),
            async {
                let past = original.as_of(&node.client, instant).await?;
                past.must_equal(&original, "the read as of the instant before")?;
                Ok(((), format!("as of {instant_shown}: all {} records, equal byte for byte", past.records)))
            },
        )
        .await?;

    narrator
        .step(
            "Branch at the instant before; nothing is copied",
            format!("duramen-restore branch {branch} --archive {url} --target-time {instant_shown}"),
            async {
                let (parent, target) = (main_branch()?, Target::Time(instant));
                let report = duramen_restore::branch(
                    &store,
                    &parent,
                    Some(&branch),
                    &target,
                    &BranchOptions::default(),
                )
                .await?;
                Ok(((), format!("branch {} begins where {parent} was at {}", report.branch, report.plan.at)))
            },
        )
        .await?;

    narrator
        .step(
            "Open the branch in a second node, beside the first, and compare",
            format!("duramen serve --data {other_shown} --archive {url} --branch {branch}"),
            async {
                let node = Running::start(&other, &url, Some(&branch)).await?;
                let content = Content::of(&node.client).await?;
                content.must_equal(&original, "the branch")?;
                let position = node.client.get_cursor(&first, &cursor).await?.offset;
                anyhow::ensure!(position == half, "the cursor came back at {position}, not at {half}");
                node.stop().await?;
                Ok((
                    (),
                    format!(
                        "{} records in {} streams, equal byte for byte; the cursor is at {half} again",
                        content.records,
                        content.streams()
                    ),
                ))
            },
        )
        .await?;

    let present = Content::of(&node.client).await?;
    node.stop().await?;
    narrator
        .step("The disaster: the node's disk is gone", format!("rm -rf {data_shown}"), async {
            std::fs::remove_dir_all(&data)?;
            Ok(((), format!("{data_shown} is deleted")))
        })
        .await?;

    narrator
        .step("Rebuild the node from the archive alone", format!("duramen-restore hydrate --archive {url} --to {data_shown} --latest"), async {
            let options = HydrateOptions::new(NodeId::new(1));
            let report = duramen_restore::hydrate(&store, &main_branch()?, &Target::Latest, &data, &options).await?;
            let Reach { segments, snapshots, bytes } = report.fetched;
            Ok(((), format!("{segments} segments and {snapshots} snapshots, {bytes} bytes, all verified; it goes on as branch {}", report.branch)))
        })
        .await?;

    narrator
        .step(
            "Start it again and compare with what it held",
            format!("duramen serve --data {data_shown} --archive {url}"),
            async {
                let node = Running::start(&data, &url, None).await?;
                let content = Content::of(&node.client).await?;
                content.must_equal(&present, "the rebuilt node")?;
                let appended =
                    node.client.append(&spoiled, &[record("it goes on")], &AppendOptions::default()).await?;
                node.stop().await?;
                Ok((
                    (),
                    format!(
                        "{} records, equal byte for byte; the next one got offset {}",
                        content.records, appended.offsets.start
                    ),
                ))
            },
        )
        .await?;

    for name in [main_branch()?, branch] {
        narrator
            .step(
                &format!("Verify every byte of branch {name}"),
                format!("duramen-restore verify --archive {url} --branch {name} --full"),
                async {
                    let report =
                        duramen_restore::verify(&store, &name, &VerifyOptions::new(Depth::Full)).await?;
                    let verdict = report.verdict;
                    anyhow::ensure!(
                        verdict.is_clean(),
                        "{} objects are damaged: {:?}",
                        verdict.findings.len(),
                        verdict.findings
                    );
                    Ok((
                        (),
                        format!(
                            "{} objects, {} bytes: all as they were written",
                            verdict.objects, verdict.bytes
                        ),
                    ))
                },
            )
            .await?;
    }
    let took = clock.monotonic().saturating_sub(begun);
    say(&format!("Done in {:.1} s: every comparison held.", took.as_secs_f64()));
    if args.keep.is_some() {
        say(&format!("Everything is in {}: type the commands above to play with it.", directory.display()));
    }
    Ok(())
}

fn main_branch() -> anyhow::Result<BranchName> {
    Ok(BranchName::parse("main")?)
}

fn record(text: &str) -> Record {
    Record {
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
        timestamp: NO_TIMESTAMP,
        ..Record::default()
    }
}

async fn append_all(node: &Running, records: &input::Input) -> anyhow::Result<((), String)> {
    let (mut count, mut batches) = (0u64, 0u64);
    for (stream, records) in records {
        for batch in records.chunks(BATCH) {
            let appended = node.client.append(stream, batch, &AppendOptions::default()).await?;
            count += appended.offsets.end.since(appended.offsets.start);
            batches += 1;
        }
    }
    Ok(((), format!("{count} records in {batches} batches to {} streams, each batch fsynced", records.len())))
}

async fn mishap(node: &Running, deleted: &StreamName, spoiled: &StreamName) -> anyhow::Result<((), String)> {
    node.client.delete_stream(deleted).await?;
    let oops: Vec<Record> = (1..=3).map(|n| record(&format!("wrong record {n}"))).collect();
    let appended = node.client.append(spoiled, &oops, &AppendOptions::default()).await?;
    Ok((
        (),
        format!("{deleted} is deleted; {spoiled} has wrong records from offset {}", appended.offsets.start),
    ))
}
