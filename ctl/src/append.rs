//! `append`: lines in, records out, with progress.

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use duramen_client::{AckFuture, Appended, Appender, AppenderOptions, Client, Error};
use duramen_types::{
    Acknowledgement, Clock as _, HybridTime, Offset, StreamName, SystemClock, TenantName, counted,
};
use futures::FutureExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::catalogue::{ensure_stream, ensure_tenant};
use crate::cli::AppendArgs;
use crate::failure::Failure;
use crate::input::{Input, Named, Shape};
use crate::output;
use crate::wait::{Awaited, Patience, Silence};

/// How often a line tells of progress where there is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// The end of the name of a stream that holds what was rescued of another, and what stands for it in a plain name.
const RESCUED: &str = "~rescued";
const IMPORTED: &str = ".rescued";

/// What an `append` was asked to do.
#[derive(Debug)]
pub struct Plan {
    /// `None`: each line names its own.
    stream: Option<StreamName>,
    file: Option<PathBuf>,
    shape: Shape,
    /// Lines name tenants too.
    all: bool,
    /// System streams are imported into plain ones.
    rename_rescued: bool,
    options: AppenderOptions,
}

impl Plan {
    /// Sorts the arguments out; `with_tenant`: a tenant is named.
    pub fn new(args: &AppendArgs, with_tenant: bool) -> Result<Self, Failure> {
        let each_its_own = match (args.all, &args.stream_field) {
            (true, _) => Some("--all"),
            (false, Some(_)) => Some("--stream-field"),
            (false, None) => None,
        };
        if args.all && with_tenant {
            let what = "with --all each line names its tenant";
            return Err(Failure::usage(what, "leave --tenant out, or --all"));
        }
        let (stream, file) = if let Some(option) = each_its_own {
            if args.second.is_some() {
                let what = format!("{option} takes the place of STREAM: only a FILE may follow");
                return Err(Failure::usage(what, format!("leave STREAM out, or {option}")));
            }
            (None, args.first.as_ref().map(PathBuf::from))
        } else {
            let Some(name) = &args.first else {
                let what = "no stream is named";
                let advice =
                    "give STREAM, or --stream-field NAME or --import --all to take it from each line";
                return Err(Failure::usage(what, advice));
            };
            let stream = StreamName::parse(name).map_err(|error| {
                Failure::usage(error.to_string(), "give a stream's name first, then the file")
            })?;
            // Many a file's name is a stream's name too; then nothing would be read but standard input.
            if args.import && args.second.is_none() && std::path::Path::new(name).is_file() {
                let what = format!("{name} is a file, and no stream is named to import it into");
                return Err(Failure::usage(
                    what,
                    format!(
                        "write --all to import it into the streams that its lines name, or STREAM {name}"
                    ),
                ));
            }
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
        Ok(Self { stream, file, shape, all: args.all, rename_rescued: args.rename_rescued, options })
    }
}

/// A stream's place: each may be of another tenant.
type Place = (TenantName, StreamName);

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
    place: Place,
    ack: AckFuture,
}

struct Run<'a> {
    client: &'a Client,
    plan: &'a Plan,
    clock: SystemClock,
    targets: BTreeMap<Place, Target>,
    waiting: VecDeque<Waiting>,
    patience: Patience,
    /// Since an answer came, or since one is due.
    silence: Silence,
    progress: Progress,
    records: u64,
    bytes: u64,
}

/// Appends every line, and tells what came of it.
pub async fn run(client: &Client, plan: Plan, patience: Patience, as_json: bool) -> Result<(), Failure> {
    let mut input = Input::open(plan.file.as_deref(), plan.shape.import)?;
    let clock = SystemClock::new();
    let mut run = Run {
        client,
        plan: &plan,
        clock,
        targets: BTreeMap::new(),
        waiting: VecDeque::new(),
        patience,
        silence: Silence::begin(),
        progress: Progress::new(input.size, as_json),
        records: 0,
        bytes: 0,
    };
    let outcome = run.work(&mut input).await;
    if outcome.is_err() {
        // What was read before stays, so it is waited for, unless that was too long already; what else goes wrong with
        // it comes second.
        while !run.waiting.is_empty() {
            let Ok(ack) = run.next_ack(&input.name).await else { break };
            let _ = run.settle(&input.name, ack);
        }
    }
    run.progress.finish();
    run.summarise(as_json)?;
    outcome
}

impl Run<'_> {
    async fn work(&mut self, input: &mut Input) -> Result<(), Failure> {
        if let Some(stream) = self.plan.stream.clone() {
            self.target(&(self.client.tenant().clone(), stream)).await?;
        }
        let mut line = 0;
        loop {
            // Answers are taken while the input has nothing to say.
            let chunk = tokio::select! {
                biased;
                chunk = input.chunks.recv() => chunk,
                ack = self.next_ack(&input.name) => {
                    self.settle(&input.name, ack?)?;
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
            let ack = self.next_ack(&input.name).await?;
            self.settle(&input.name, ack)?;
        }
        Ok(())
    }

    /// The answer to the record that has waited longest; never, if none waits.
    async fn next_ack(&mut self, input: &str) -> Result<Result<Appended, Error>, Failure> {
        let count = self.waiting.len();
        let Some(front) = self.waiting.front_mut() else { return std::future::pending().await };
        let line = front.line;
        let what = || match count {
            1 => format!("the answer to {}", place(input, line)),
            _ => format!("the answer to {count} records, from {} on", place(input, line)),
        };
        let why = match self.plan.options.acknowledgement {
            Some(Acknowledgement::Archived) => {
                "an append is acknowledged once the archive has it, which is not so yet"
            }
            _ => "the node is busy, waits for its disk or for other nodes, or can't be reached",
        };
        let awaited = Awaited { what: &what, why, is_change: true };
        self.patience.wait_on(&mut self.silence, awaited, &mut front.ack).await
    }

    async fn append(&mut self, input: &str, line: u64, text: Vec<u8>) -> Result<(), Failure> {
        let bytes = text.len() as u64 + 1;
        let now = i64::try_from(self.clock.now().as_micros() / 1000).unwrap_or(i64::MAX);
        let record = self.plan.shape.record(text, now).map_err(|reason| {
            let advice = "correct the line; what was appended before it stays";
            Failure::failed("input", reason, advice).at(&place(input, line))
        })?;
        let Some((named, record)) = record else { return Ok(()) };
        let to = self.destination(named).map_err(|failure| failure.at(&place(input, line)))?;
        if self.waiting.is_empty() {
            self.silence.broken();
        }
        self.target(&to).await.map_err(|failure| failure.at(&place(input, line)))?;
        let target = self.targets.get_mut(&to).expect("it was put there above");
        let appender = &mut target.appender;
        let what = || format!("room for {} among the records without an answer", place(input, line));
        let why = "the node is slow, waits for the archive, or can't be reached";
        let awaited = Awaited { what: &what, why, is_change: true };
        let taken = self.patience.wait_on(&mut self.silence, awaited, appender.append(&record)).await?;
        match taken {
            Ok(ack) => {
                if self.waiting.is_empty() {
                    self.silence.broken();
                }
                self.waiting.push_back(Waiting { line, bytes, place: to, ack });
                Ok(())
            }
            Err(error) => Err(Failure::from(error).of_one_record().at(&place(input, line))),
        }
    }

    /// Where a record goes whose line names this much.
    fn destination(&self, named: Named) -> Result<Place, Failure> {
        let tenant = named.tenant.unwrap_or_else(|| self.client.tenant().clone());
        match (&self.plan.stream, named.stream) {
            (None, Some(stream)) => match stream.as_str().strip_suffix(RESCUED) {
                None => Ok((tenant, stream)),
                Some(origin) => self.rescued(tenant, &stream, &format!("{origin}{IMPORTED}")),
            },
            (None, None) => Err(Failure::failed(
                "input",
                "the line names no stream",
                "give STREAM in the place of --all; what was appended before it stays",
            )),
            (Some(wanted), Some(found)) if *wanted != found || tenant != *self.client.tenant() => {
                Err(Failure::failed(
                    "input",
                    format!(
                        "the line is of stream {tenant}/{found}, not of {}/{wanted}",
                        self.client.tenant()
                    ),
                    "give --all in the place of STREAM, and each record goes to its own",
                ))
            }
            (Some(wanted), _) => Ok((tenant, wanted.clone())),
        }
    }

    /// Where the records of a system stream go, which only the system appends to.
    fn rescued(&self, tenant: TenantName, stream: &StreamName, plain: &str) -> Result<Place, Failure> {
        if !self.plan.rename_rescued {
            let what = format!("the line is of stream {tenant}/{stream}, which only the system appends to");
            let advice = format!("--rename-rescued imports it as {plain}; what was appended before it stays");
            return Err(Failure::failed("input", what, advice));
        }
        let plain = StreamName::parse(plain).map_err(|error| {
            Failure::failed(
                "input",
                error.to_string(),
                "export this stream alone, and import it by another name",
            )
        })?;
        Ok((tenant, plain))
    }

    /// The stream's appender; a stream and a tenant that a line names are created where needed.
    async fn target(&mut self, place: &Place) -> Result<&mut Target, Failure> {
        if !self.targets.contains_key(place) {
            let (tenant, stream) = place;
            let client = self.client.with_tenant(tenant.clone());
            if self.plan.stream.is_none() {
                if tenant != self.client.tenant() && !self.targets.keys().any(|(known, _)| known == tenant) {
                    ensure_tenant(self.client, tenant).await?;
                }
                ensure_stream(&client, stream).await?;
            }
            let appender = client.appender(stream, self.plan.options.clone());
            let target = Target { appender, records: 0, offsets: None, time: HybridTime::ZERO };
            self.targets.insert(place.clone(), target);
        }
        Ok(self.targets.get_mut(place).expect("it was put there above"))
    }

    /// The stream's name in a summary; with its tenant where lines may name others.
    fn name(&self, (tenant, stream): &Place) -> String {
        if self.plan.all { format!("{tenant}/{stream}") } else { stream.to_string() }
    }

    /// Books the answer to the record that has waited longest.
    fn settle(&mut self, input: &str, ack: Result<Appended, Error>) -> Result<(), Failure> {
        let Some(waiting) = self.waiting.pop_front() else { return Ok(()) };
        self.silence.broken();
        let appended = ack.map_err(|error| {
            // All records of a batch have its error, and this is the first of them: the error may name a later one.
            let later = error.node().and_then(|node| node.record).and_then(|record| record.checked_sub(1));
            let mut others = self.waiting.iter().filter(|other| other.place == waiting.place);
            let named = later.and_then(|later| others.nth(usize::try_from(later).unwrap_or(usize::MAX)));
            let line = named.map_or(waiting.line, |other| other.line);
            Failure::from(error).of_one_record().at(&place(input, line))
        })?;
        if let Some(target) = self.targets.get_mut(&waiting.place) {
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
                self.targets.iter().map(|(place, target)| (self.name(place), target_json(target))).collect();
            return output::json(&json!({
                "records": self.records,
                "bytes": self.bytes,
                "seconds": seconds,
                "records_per_second": records_per_second,
                "bytes_per_second": bytes_per_second,
                "streams": streams,
            }));
        }
        let row = |(place, target): (&Place, &Target)| {
            let (first, next) = offsets(target);
            vec![self.name(place), target.records.to_string(), first, next]
        };
        output::table(
            &["stream", "records", "first offset", "next offset"],
            self.targets.iter().map(row).collect(),
        )?;
        output::line(&format!(
            "{}, {} in {seconds:.1} s ({records_per_second} records/s, {}/s)",
            counted(self.records, "record"),
            ByteSize(self.bytes),
            ByteSize(bytes_per_second),
        ))
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
                    bar.set_message(counted(records, "record"));
                }
            }
            Self::Lines { next } if elapsed >= *next => {
                *next = elapsed + REPORT_EVERY;
                let records = counted(records, "record");
                eprintln!("{records}, {} after {:.0} s", ByteSize(bytes), elapsed.as_secs_f64());
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
        let Command::Append { args, .. } = Cli::try_parse_from(args).unwrap().command else {
            panic!("no append")
        };
        Plan::new(&args, false)
    }

    #[test]
    fn the_stream_field_takes_the_place_of_the_stream() {
        let named = plan(&["orders", "file"]).unwrap();
        assert_eq!(named.stream.unwrap().as_str(), "orders");
        assert_eq!(named.file, Some(PathBuf::from("file")));
        let by_field = plan(&["--stream-field", "net", "file"]).unwrap();
        assert_eq!((by_field.stream, by_field.file), (None, Some(PathBuf::from("file"))));
        assert_eq!(plan(&["--stream-field", "net"]).unwrap().file, None);
        let all = plan(&["--import", "--all", "file"]).unwrap();
        assert_eq!((all.stream, all.file, all.all), (None, Some(PathBuf::from("file")), true));
        for wrong in [
            &[][..],
            &["a/b"],
            &["--stream-field", "net", "orders", "file"],
            &["--import", "--all", "orders", "file"],
        ] {
            assert_eq!(plan(wrong).unwrap_err().exit, crate::failure::USAGE, "{wrong:?}");
        }
    }
}
