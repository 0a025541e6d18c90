//! `append`: lines in, records out, with progress.

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use duramen_client::{AckFuture, Appended, Appender, AppenderOptions, Client, Error};
use duramen_types::{Clock as _, HybridTime, Offset, StreamName, SystemClock};
use futures::FutureExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::catalogue::ensure_stream;
use crate::cli::AppendArgs;
use crate::failure::Failure;
use crate::input::{Input, Shape};
use crate::output;

/// How often a line tells of progress where there is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// What an `append` was asked to do.
#[derive(Debug)]
pub struct Plan {
    /// `None`: each line names its own.
    stream: Option<StreamName>,
    file: Option<PathBuf>,
    shape: Shape,
    options: AppenderOptions,
}

impl Plan {
    /// Sorts the arguments out.
    pub fn new(args: &AppendArgs) -> Result<Self, Failure> {
        let (stream, file) = if args.stream_field.is_some() {
            if args.second.is_some() {
                let what = "--stream-field takes the place of STREAM: only a FILE may follow";
                return Err(Failure::usage(what, "leave STREAM out, or --stream-field"));
            }
            (None, args.first.as_ref().map(PathBuf::from))
        } else {
            let Some(name) = &args.first else {
                let what = "no stream is named";
                return Err(Failure::usage(
                    what,
                    "give STREAM, or --stream-field NAME to take it from each line",
                ));
            };
            let stream = StreamName::parse(name).map_err(|error| {
                Failure::usage(error.to_string(), "give a stream's name first, then the file")
            })?;
            (Some(stream), args.second.clone())
        };
        let shape = Shape {
            stream_field: args.stream_field.clone(),
            key_field: args.key_field.clone(),
            timestamp_field: args.timestamp_field.clone(),
            import: args.import,
        };
        let options = AppenderOptions {
            acknowledgement: args.ack.map(Into::into),
            batch_records: args.batch_records,
            ..AppenderOptions::default()
        };
        Ok(Self { stream, file, shape, options })
    }
}

/// A stream that records go to.
#[derive(Debug)]
struct Target {
    appender: Appender,
    records: u64,
    offsets: Option<(Offset, Offset)>,
    time: HybridTime,
}

/// A record without its answer.
#[derive(Debug)]
struct Waiting {
    line: u64,
    bytes: u64,
    stream: StreamName,
    ack: AckFuture,
}

struct Run<'a> {
    client: &'a Client,
    plan: &'a Plan,
    clock: SystemClock,
    targets: BTreeMap<StreamName, Target>,
    waiting: VecDeque<Waiting>,
    progress: Progress,
    records: u64,
    bytes: u64,
}

/// Appends every line, and tells what came of it.
pub async fn run(client: &Client, plan: Plan, as_json: bool) -> Result<(), Failure> {
    let mut input = Input::open(plan.file.as_deref())?;
    let clock = SystemClock::new();
    let mut run = Run {
        client,
        plan: &plan,
        clock,
        targets: BTreeMap::new(),
        waiting: VecDeque::new(),
        progress: Progress::new(input.size, as_json),
        records: 0,
        bytes: 0,
    };
    let outcome = run.work(&mut input).await;
    run.progress.finish();
    run.summarise(as_json)?;
    outcome
}

impl Run<'_> {
    async fn work(&mut self, input: &mut Input) -> Result<(), Failure> {
        if let Some(stream) = self.plan.stream.clone() {
            self.target(&stream).await?;
        }
        let mut line = 0;
        loop {
            // Answers are taken while the input has nothing to say.
            let chunk = tokio::select! {
                biased;
                chunk = input.chunks.recv() => chunk,
                ack = next_ack(&mut self.waiting) => {
                    self.settle(&input.name, ack)?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            let lines = chunk.map_err(|error| {
                Failure::failed(
                    "input",
                    error.to_string(),
                    "correct the input; what was appended before it stays",
                )
                .at(&place(&input.name, line + 1))
            })?;
            for text in lines {
                line += 1;
                self.append(&input.name, line, text).await?;
                while let Some(Some(ack)) =
                    self.waiting.front_mut().map(|front| (&mut front.ack).now_or_never())
                {
                    self.settle(&input.name, ack)?;
                }
            }
        }
        while !self.waiting.is_empty() {
            let ack = next_ack(&mut self.waiting).await;
            self.settle(&input.name, ack)?;
        }
        Ok(())
    }

    async fn append(&mut self, input: &str, line: u64, text: Vec<u8>) -> Result<(), Failure> {
        let bytes = text.len() as u64 + 1;
        let now = i64::try_from(self.clock.now().as_micros() / 1000).unwrap_or(i64::MAX);
        let record = self.plan.shape.record(text, now).map_err(|reason| {
            let advice = "correct the line; what was appended before it stays";
            Failure::failed("input", reason, advice).at(&place(input, line))
        })?;
        let Some((named, record)) = record else { return Ok(()) };
        let Some(stream) = named.or_else(|| self.plan.stream.clone()) else { return Ok(()) };
        let target = self.target(&stream).await?;
        match target.appender.append(&record).await {
            Ok(ack) => {
                self.waiting.push_back(Waiting { line, bytes, stream, ack });
                Ok(())
            }
            Err(error) => Err(Failure::from(error).at(&place(input, line))),
        }
    }

    /// The stream's appender; a stream that a line names is created where needed.
    async fn target(&mut self, stream: &StreamName) -> Result<&mut Target, Failure> {
        if !self.targets.contains_key(stream) {
            if self.plan.stream.is_none() {
                ensure_stream(self.client, stream).await?;
            }
            let appender = self.client.appender(stream, self.plan.options.clone());
            let target = Target { appender, records: 0, offsets: None, time: HybridTime::ZERO };
            self.targets.insert(stream.clone(), target);
        }
        Ok(self.targets.get_mut(stream).expect("it was put there above"))
    }

    /// Books the answer to the record that has waited longest.
    fn settle(&mut self, input: &str, ack: Result<Appended, Error>) -> Result<(), Failure> {
        let Some(waiting) = self.waiting.pop_front() else { return Ok(()) };
        let appended = ack.map_err(|error| Failure::from(error).at(&place(input, waiting.line)))?;
        if let Some(target) = self.targets.get_mut(&waiting.stream) {
            let (first, next) = target.offsets.unwrap_or((appended.offsets.start, appended.offsets.end));
            target.offsets = Some((first.min(appended.offsets.start), next.max(appended.offsets.end)));
            target.records += 1;
            target.time = target.time.max(appended.time);
        }
        self.records += 1;
        self.bytes += waiting.bytes;
        self.progress.show(self.records, self.bytes, self.clock.monotonic());
        Ok(())
    }

    fn summarise(&self, as_json: bool) -> Result<(), Failure> {
        let seconds = self.clock.monotonic().as_secs_f64().max(0.001);
        let (records_per_second, bytes_per_second) = rates(self.records, self.bytes, seconds);
        if as_json {
            let streams: serde_json::Map<String, Value> =
                self.targets.iter().map(|(name, target)| (name.to_string(), target_json(target))).collect();
            return output::json(&json!({
                "records": self.records,
                "bytes": self.bytes,
                "seconds": seconds,
                "records_per_second": records_per_second,
                "bytes_per_second": bytes_per_second,
                "streams": streams,
            }));
        }
        let row = |(name, target): (&StreamName, &Target)| {
            let (first, next) = offsets(target);
            vec![name.to_string(), target.records.to_string(), first, next]
        };
        output::table(
            &["stream", "records", "first offset", "next offset"],
            self.targets.iter().map(row).collect(),
        )?;
        output::line(&format!(
            "{} records, {} in {seconds:.1} s ({records_per_second} records/s, {}/s)",
            self.records,
            ByteSize(self.bytes),
            ByteSize(bytes_per_second),
        ))
    }
}

/// The answer to the record that has waited longest; never, if none waits.
async fn next_ack(waiting: &mut VecDeque<Waiting>) -> Result<Appended, Error> {
    match waiting.front_mut() {
        Some(front) => (&mut front.ack).await,
        None => std::future::pending().await,
    }
}

fn place(input: &str, line: u64) -> String {
    format!("line {line} of {input}")
}

fn offsets(target: &Target) -> (String, String) {
    let text = |offset: Option<Offset>| offset.map_or("-".to_owned(), |offset| offset.to_string());
    (text(target.offsets.map(|(first, _)| first)), text(target.offsets.map(|(_, next)| next)))
}

fn target_json(target: &Target) -> Value {
    json!({
        "records": target.records,
        "first_offset": target.offsets.map(|(first, _)| first.get()),
        "next_offset": target.offsets.map(|(_, next)| next.get()),
        "time": (target.records > 0).then(|| duramen_client::when::format(target.time)),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people, rounded down"
)]
fn rates(records: u64, bytes: u64, seconds: f64) -> (u64, u64) {
    ((records as f64 / seconds) as u64, (bytes as f64 / seconds) as u64)
}

/// A bar on a terminal, a line now and then elsewhere; both on standard error.
enum Progress {
    Bar(ProgressBar),
    Lines { next: Duration },
    Silent,
}

impl Progress {
    fn new(size: Option<u64>, as_json: bool) -> Self {
        if !std::io::stderr().is_terminal() {
            return if as_json { Self::Silent } else { Self::Lines { next: REPORT_EVERY } };
        }
        let (bar, template) = match size {
            Some(size) => {
                (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg} ETA {eta}")
            }
            None => (ProgressBar::no_length(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    fn show(&mut self, records: u64, bytes: u64, elapsed: Duration) {
        match self {
            Self::Bar(bar) => {
                bar.set_position(bytes);
                if records.is_multiple_of(1000) {
                    bar.set_message(format!("{records} records"));
                }
            }
            Self::Lines { next } if elapsed >= *next => {
                *next = elapsed + REPORT_EVERY;
                eprintln!("{records} records, {} after {:.0} s", ByteSize(bytes), elapsed.as_secs_f64());
            }
            Self::Lines { .. } | Self::Silent => {}
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn plan(args: &[&str]) -> Result<Plan, Failure> {
        let args = ["duramenctl", "append"].iter().chain(args);
        let Command::Append(args) = Cli::try_parse_from(args).unwrap().command else { panic!("no append") };
        Plan::new(&args)
    }

    #[test]
    fn the_stream_field_takes_the_place_of_the_stream() {
        let named = plan(&["orders", "file"]).unwrap();
        assert_eq!(named.stream.unwrap().as_str(), "orders");
        assert_eq!(named.file, Some(PathBuf::from("file")));
        let by_field = plan(&["--stream-field", "net", "file"]).unwrap();
        assert_eq!((by_field.stream, by_field.file), (None, Some(PathBuf::from("file"))));
        assert_eq!(plan(&["--stream-field", "net"]).unwrap().file, None);
        for wrong in [&[][..], &["a/b"], &["--stream-field", "net", "orders", "file"]] {
            assert_eq!(plan(wrong).unwrap_err().exit, crate::failure::USAGE, "{wrong:?}");
        }
    }
}
