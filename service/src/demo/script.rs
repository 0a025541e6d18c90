//! The steps of the demo.

use std::fs::File;
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
use duramen_types::{BranchName, Clock, CursorName, NodeId, Offset, StreamName, SystemClock, counted};

use super::cluster::Running;
use super::content::Content;
use super::input::Input;
use super::typed::{self, Typed};
use super::{DemoArgs, input};
use crate::NO_TIMESTAMP;

/// Records of one append.
const BATCH: usize = 100;
/// The branch that the demo goes back with.
const BRANCH: &str = "before-the-mishap";
/// The first record after the disaster.
const GOES_ON: &str = "it goes on";

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
    /// Announces a step with its commands, does it, and prints what it gives.
    async fn step<T>(
        &mut self,
        what: &str,
        commands: Vec<String>,
        work: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> anyhow::Result<T> {
        self.step += 1;
        say(&format!("{:>2}. {what}", self.step));
        for command in &commands {
            // A comment is for the person at the shell.
            let prompt = if command.starts_with('#') { "" } else { "$ " };
            say(&format!("    {prompt}{command}"));
        }
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
    let input = input::read(args)?;
    let (data, other) = (directory.join("node"), directory.join("branch-node"));
    let url = url::Url::from_file_path(directory.join("archive"))
        .map_err(|()| anyhow::anyhow!("{} is no absolute path", directory.display()))?
        .to_string();
    let typed = Typed { data: data.clone(), other: other.clone(), url: url.clone() };
    let branch = BranchName::parse(BRANCH)?;
    let store =
        Store::open(&url, &StoreOptions::default(), Arc::clone(&clock), Random::from_system()).await?;
    let file = match &args.input {
        Some(path) => path.canonicalize().with_context(|| format!("{}", path.display()))?,
        None => {
            let file = directory.join("earthquakes.jsonl");
            File::create_new(&file)
                .and_then(|mut file| file.write_all(input::EARTHQUAKES.as_bytes()))
                .with_context(|| format!("{}", file.display()))?;
            file
        }
    };

    let node = narrator
        .step(
            "Start a node that archives to a directory",
            vec![typed::OWN_TERMINAL.to_owned(), typed.serve()],
            async {
                let node = Running::start(&data, &url, None).await?;
                let address = node.client.endpoint().to_owned();
                Ok((node, format!("ready at {address}")))
            },
        )
        .await?;

    let (first, count) = input
        .streams
        .iter()
        .next()
        .map(|(name, records)| (name.clone(), records.len()))
        .context("no records")?;
    let whose = if input.fields.stream.is_some() { "the stream that it names" } else { "one stream" };
    narrator
        .step(
            &format!("Append every record to {whose}"),
            vec![typed::append(&input.fields, &first, &file)],
            append_all(&node, &input),
        )
        .await?;

    let cursor = CursorName::parse("seismologist")?;
    let half = Offset::new(u64::try_from(count / 2)?);
    let original = narrator
        .step(
            "Read everything back, and remember it; a consumer commits its position",
            vec![
                typed::read_all(input.streams.keys(), None),
                format!("duramenctl cursor commit {} {cursor} {half}", typed::operand(&first)),
            ],
            async {
                node.client.commit_cursor(&first, &cursor, half).await?;
                let content = Content::of(&node.client).await?;
                let found = u64::try_from(input.records())?;
                anyhow::ensure!(
                    content.records == found,
                    "{} came back of {found} that were appended",
                    counted(content.records, "record")
                );
                let summary = format!(
                    "{} in {}, {}; cksum: {}",
                    counted(content.records, "record"),
                    counted(content.streams(), "stream"),
                    counted(content.bytes, "byte"),
                    content.cksum()
                );
                Ok((content, summary))
            },
        )
        .await?;
    let instant = node.client.seen();
    let instant_shown = when::format(instant);

    let (deleted, spoiled) = {
        let mut by_size: Vec<_> =
            input.streams.iter().map(|(name, records)| (records.len(), name.clone())).collect();
        by_size.sort_unstable_by(|a, b| b.cmp(a));
        let deleted = by_size.first().context("no streams")?.1.clone();
        let spoiled = by_size.get(1).unwrap_or(by_size.first().context("no streams")?).1.clone();
        (deleted, spoiled)
    };
    let wrong: Vec<String> = (1..=3).map(|n| format!("wrong record {n}")).collect();
    narrator
        .step(
            "The mishap: somebody deletes a stream, and a program appends wrong records",
            vec![
                format!("duramenctl stream delete {}", typed::operand(&deleted)),
                typed::append_lines(&spoiled, &wrong),
            ],
            mishap(&node, &deleted, &spoiled, &wrong),
        )
        .await?;

    narrator
        .step(
            "Archive all of it, mishap included: a bad write is archived like a good one",
            vec!["duramenctl archive flush".to_owned()],
            async {
                let status = node.node.archive_flush().await?;
                Ok((
                    (),
                    format!("entries that wait for the archive at {}: {}", status.url, status.lag_entries),
                ))
            },
        )
        .await?;

    narrator
        .step(
            "Look at the past without restoring anything",
            vec![typed::read_all(original.names(), Some(instant))],
            async {
                let past = original.as_of(&node.client, instant).await?;
                past.must_equal(&original, "the read as of the instant before")?;
                Ok((
                    (),
                    format!(
                        "as of {instant_shown}: {}, equal byte for byte; cksum: {}",
                        counted(past.records, "record"),
                        past.cksum()
                    ),
                ))
            },
        )
        .await?;

    narrator
        .step(
            "Branch at the instant before; nothing is copied",
            vec![format!("{} --target-time {instant_shown}", typed.restore(&format!("branch {branch}")))],
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
            vec![
                typed::OWN_TERMINAL.to_owned(),
                typed.serve_branch(&branch),
                typed::read_all_of_branch(original.names()),
                typed::cursor_of_branch(&first, &cursor),
            ],
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
                        "{} in {}, equal byte for byte; cksum: {}; the cursor is at {half} again",
                        counted(content.records, "record"),
                        counted(content.streams(), "stream"),
                        content.cksum()
                    ),
                ))
            },
        )
        .await?;

    let present = Content::of(&node.client).await?;
    node.stop().await?;
    narrator
        .step(
            "The disaster: the node's disk is gone",
            vec![typed::STOP_FIRST.to_owned(), typed.lose_disk()],
            async {
                std::fs::remove_dir_all(&data)?;
                Ok(((), format!("{} is deleted", data.display())))
            },
        )
        .await?;

    narrator
        .step("Rebuild the node from the archive alone", vec![typed.hydrate()], async {
            let options = HydrateOptions::new(NodeId::new(1));
            let report =
                duramen_restore::hydrate(&store, &main_branch()?, &Target::Latest, &data, &options).await?;
            let Reach { segments, snapshots, bytes } = report.fetched;
            let (segments, snapshots) = (counted(segments, "segment"), counted(snapshots, "snapshot"));
            let bytes = counted(bytes, "byte");
            Ok((
                (),
                format!(
                    "{segments} and {snapshots}, {bytes}, all verified; it goes on as branch {}",
                    report.branch
                ),
            ))
        })
        .await?;

    narrator
        .step(
            "Start it again and compare with what it held",
            vec![
                typed::OWN_TERMINAL.to_owned(),
                typed.serve(),
                typed::read_all(present.names(), None),
                typed::append_lines(&spoiled, &[GOES_ON.to_owned()]),
            ],
            async {
                let node = Running::start(&data, &url, None).await?;
                let content = Content::of(&node.client).await?;
                content.must_equal(&present, "the rebuilt node")?;
                let appended =
                    node.client.append(&spoiled, &[record(GOES_ON)], &AppendOptions::default()).await?;
                node.stop().await?;
                Ok((
                    (),
                    format!(
                        "{}, equal byte for byte; cksum: {}; the next one got offset {}",
                        counted(content.records, "record"),
                        content.cksum(),
                        appended.offsets.start
                    ),
                ))
            },
        )
        .await?;

    for name in [main_branch()?, branch] {
        narrator
            .step(
                &format!("Verify every byte of branch {name}"),
                vec![format!("{} --branch {name} --full", typed.restore("verify"))],
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
                            "{}, {}: all as they were written",
                            counted(verdict.objects, "object"),
                            counted(verdict.bytes, "byte")
                        ),
                    ))
                },
            )
            .await?;
    }
    let took = clock.monotonic().saturating_sub(begun);
    say(&format!("Done in {:.1} s: every comparison held.", took.as_secs_f64()));
    say(&match args.keep {
        Some(_) => format!(
            "Everything is in {}, where the commands above work as they are: begin with the node of step 1. What was \
             lost, found and compared gives the same sums again; steps 2 and 4 append and delete once more.",
            directory.display()
        ),
        None => {
            "Its directory is gone again. With --keep DIR it stays, and the commands work in it.".to_owned()
        }
    });
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

async fn append_all(node: &Running, input: &Input) -> anyhow::Result<((), String)> {
    let (mut count, mut batches) = (0u64, 0u64);
    for (stream, records) in &input.streams {
        for batch in records.chunks(BATCH) {
            let appended = node.client.append(stream, batch, &AppendOptions::default()).await?;
            count += appended.offsets.end.since(appended.offsets.start);
            batches += 1;
        }
    }
    Ok((
        (),
        format!(
            "{} in {} to {}, each batch fsynced",
            counted(count, "record"),
            counted(batches, "batch"),
            counted(input.streams.len(), "stream")
        ),
    ))
}

async fn mishap(
    node: &Running,
    deleted: &StreamName,
    spoiled: &StreamName,
    wrong: &[String],
) -> anyhow::Result<((), String)> {
    node.client.delete_stream(deleted).await?;
    let wrong: Vec<Record> = wrong.iter().map(|text| record(text)).collect();
    let appended = node.client.append(spoiled, &wrong, &AppendOptions::default()).await?;
    Ok((
        (),
        format!("{deleted} is deleted; {spoiled} has wrong records from offset {}", appended.offsets.start),
    ))
}
