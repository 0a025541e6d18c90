//! Records as JSONL, as they were at an instant.

use std::io::{self, Write};
use std::ops::Range;

use duramen_archive::{BranchView, History, ShardView, Store};
use duramen_client::jsonl;
use duramen_state::{ShardState, Stream};
use duramen_types::batch::{Batch, RecordRef};
use duramen_types::{
    BranchName, HybridTime, Index, Offset, ShardId, StreamId, StreamName, TenantName, shard_of,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use crate::{Error, Observer, Result, Step, Target, plan};

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streams {
    /// Every stream of every tenant; each line also says whose record it is.
    All,
    One {
        tenant: TenantName,
        stream: StreamName,
    },
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line, as [`duramen_client::jsonl`] describes it.
    Jsonl,
    /// The same, compressed with gzip.
    JsonlGz,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    pub branch: BranchName,
    /// The instant that the records are of.
    pub time: HybridTime,
    pub streams: u64,
    pub records: u64,
}

/// Writes the records that `streams` had at `target`, by shard, stream and offset; what was trimmed then is left out.
///
/// Every byte was checked against its checksums before it is written. Writing blocks the calling task. After an error
/// `out` holds a beginning of the export.
pub async fn export(
    store: &Store,
    branch: &BranchName,
    target: &Target,
    streams: &Streams,
    format: ExportFormat,
    out: &mut (dyn Write + Send),
    observer: &Observer,
) -> Result<ExportReport> {
    let view = BranchView::open(store, branch).await?;
    let plan = plan::cut(&view, target).await?;
    let only = match streams {
        Streams::All => None,
        Streams::One { tenant, stream } => Some(shard_of(tenant, stream, view.identity().shards)),
    };
    let mut export = Export {
        history: plan::history(&view),
        view: &view,
        with_names: matches!(streams, Streams::All),
        observer,
        report: ExportReport { branch: branch.clone(), time: plan.time, streams: 0, records: 0 },
    };
    let mut out = Output::new(out, format);
    for planned in plan.shards.iter().filter(|planned| only.is_none_or(|only| only == planned.shard)) {
        export.shard(planned.shard, planned.cut.end, streams, &mut out).await?;
    }
    out.finish().map_err(Error::Output)?;
    Ok(export.report)
}

/// Where lines go.
enum Output<'a> {
    Plain(&'a mut (dyn Write + Send)),
    Gzip(GzEncoder<&'a mut (dyn Write + Send)>),
}

impl<'a> Output<'a> {
    fn new(out: &'a mut (dyn Write + Send), format: ExportFormat) -> Self {
        match format {
            ExportFormat::Jsonl => Self::Plain(out),
            ExportFormat::JsonlGz => Self::Gzip(GzEncoder::new(out, Compression::default())),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(out) => out.finish()?.flush(),
        }
    }
}

struct Export<'a> {
    view: &'a BranchView,
    history: History,
    with_names: bool,
    observer: &'a Observer,
    report: ExportReport,
}

impl Export<'_> {
    async fn shard(
        &mut self,
        shard: ShardId,
        cut: Index,
        wanted: &Streams,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let rows = self.view.shard(shard).await?;
        let state = self.history.state_at(&rows, cut).await?;
        match wanted {
            Streams::All => {
                for (id, stream) in state.streams() {
                    self.stream(&rows, id, stream, out).await?;
                }
                Ok(())
            }
            Streams::One { tenant, stream } => {
                let id = state.stream_id(tenant, stream);
                match id.and_then(|id| Some((id, state.stream(id)?))) {
                    Some((id, found)) => self.stream(&rows, id, found, out).await,
                    None => Err(self.unknown(&state, tenant, stream)),
                }
            }
        }
    }

    fn unknown(&self, state: &ShardState, tenant: &TenantName, stream: &StreamName) -> Error {
        let near: String = stream.as_str().chars().take(3).collect();
        let similar: Vec<_> =
            state.list(tenant, &near, None).take(5).map(|(_, stream)| stream.name.to_string()).collect();
        let hint = match similar.as_slice() {
            [] => "names are case-sensitive, and the tenant is part of them (--tenant)".to_owned(),
            names => format!("its shard has {}", names.join(", ")),
        };
        let (branch, at) = (self.report.branch.clone(), self.report.time);
        Error::UnknownStream { what: "stream", name: format!("{tenant}/{stream}"), branch, at, hint }
    }

    async fn stream(
        &mut self,
        rows: &ShardView,
        id: StreamId,
        stream: &Stream,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let prefix = if self.with_names {
            format!(
                "{{\"tenant\":{},\"stream\":{},",
                text(stream.tenant.as_str()),
                text(stream.name.as_str())
            )
        } else {
            "{".to_owned()
        };
        let range = stream.trimmed..stream.next;
        let mut reader = self.history.stream(rows, id, range.clone());
        while let Some(found) = reader.next().await? {
            self.batch(&prefix, stream, found.base, &found.batch, &range, out)?;
        }
        if reader.position() < range.end {
            return Err(Error::Batch {
                stream: stream.name.to_string(),
                offset: reader.position().get(),
                reason: format!("the archive ends there, and the stream went on to offset {}", range.end),
            });
        }
        self.report.streams = self.report.streams.saturating_add(1);
        Ok(())
    }

    fn batch(
        &mut self,
        prefix: &str,
        stream: &Stream,
        base: Offset,
        bytes: &bytes::Bytes,
        range: &Range<Offset>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let broken = |error: duramen_types::batch::Error| Error::Batch {
            stream: stream.name.to_string(),
            offset: base.get(),
            reason: error.to_string(),
        };
        let records =
            Batch::from_trusted(bytes.clone()).and_then(|batch| batch.records(base)).map_err(broken)?;
        let mut lines = Vec::new();
        let mut count = 0_u64;
        for record in &records {
            let record: RecordRef<'_> = record.map_err(broken)?;
            if !range.contains(&record.offset) {
                continue;
            }
            lines.extend_from_slice(prefix.as_bytes());
            let brace = lines.len();
            jsonl::write_ref(&mut lines, &record).map_err(Error::Output)?;
            // The record's own brace gives way to the prefix, which has one.
            lines.remove(brace);
            count = count.saturating_add(1);
        }
        out.write(&lines).map_err(Error::Output)?;
        self.report.records = self.report.records.saturating_add(count);
        let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.observer.tell(Step::Done { objects: 0, bytes });
        Ok(())
    }
}

fn text(name: &str) -> String {
    serde_json::to_string(name).expect("a text serialises to JSON without fail")
}
