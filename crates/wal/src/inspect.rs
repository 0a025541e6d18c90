//! Looking at a log offline without changing it: what is there, up to where it is good, what is damaged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use duramen_types::{HybridTime, Index, NodeId, SegmentId, ShardId};

use crate::catalog::Catalog;
use crate::disk::{Disk, File};
use crate::format::{Record, RecordView, SegmentHeader, Summary, decode_page, decode_record};
use crate::newest::Newest;
use crate::segment::{Footer, Frame, ScanEnd};
use crate::table::SegmentTable;
use crate::{Error, LogState, TailCut, segment};

/// What a log's directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Per shard, the log that all valid records up to the first damage add up to.
    pub shards: BTreeMap<ShardId, LogState>,
    /// Everything that keeps the log from being opened. Empty: it opens.
    pub damage: Vec<Damage>,
    /// The newest segment, if nothing of it, or not all of it, can be read: what it held and nobody else has is not known.
    pub unread: Option<PathBuf>,
    /// The unsynced end that opening the log would cut off. Nothing acknowledged, so not damage.
    pub cut: Option<TailCut>,
}

impl Report {
    /// Whether the log opens as it is.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// What one segment file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    pub path: PathBuf,
    pub sequence: u64,
    pub id: SegmentId,
    pub node: NodeId,
    pub created: HybridTime,
    /// The file's length in bytes.
    pub bytes: u64,
    /// Whether a valid footer is there.
    pub sealed: bool,
    /// Frames up to the first invalid one, by sequence number.
    pub frames: Range<u64>,
    /// The byte behind them.
    pub good_through: u64,
    /// Per shard, the range from the first to the last entry in those frames that was not truncated there.
    pub ranges: BTreeMap<ShardId, Range<Index>>,
}

/// Something that was once durable and can't be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    /// The byte at which it begins.
    pub offset: u64,
    pub kind: DamageKind,
    pub reason: String,
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The header: nothing of the file can be trusted.
    Header,
    /// A frame that was fsynced.
    Frame,
    /// A footer; the frames may be whole.
    Footer,
    /// A file, or entries, that must be there are not.
    Missing,
}

/// Reads every byte of the log in `dir` and says what is there; changes nothing.
///
/// An error means that the directory can't be read at all; damage is part of the report, and so is a file that can't be read.
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut catalog = Catalog::default();
    // Behind the first damage the log is not what the records add up to.
    let mut sound = true;
    let opened = open_all(disk, dir, &mut report, false)?;
    let newest = Newest::of(&disk.list(dir).map_err(|source| Error::io("list", dir, source))?);
    for (at, (path, file, header)) in opened.iter().enumerate() {
        let next_frame = opened.get(at + 1).map(|(.., header)| header.first_frame);
        let before = report.damage.len();
        let table = match inspect_segment(
            path,
            file,
            header,
            next_frame.max(Some(newest.synced_end(header))),
            &mut report,
        ) {
            Err(error) => {
                let reason = unreadable(error)?;
                if at + 1 == opened.len() && report.unread.is_none() {
                    report.unread = Some(path.clone());
                }
                report.damage.push(Damage { file: path.clone(), offset: 0, kind: DamageKind::Frame, reason });
                SegmentTable::default()
            }
            Ok(table) => table,
        };
        if sound && let Err(reason) = catalog.apply_summary(&table.seal(0).1, header.sequence) {
            report.damage.push(Damage { file: path.clone(), offset: 0, kind: DamageKind::Frame, reason });
        }
        sound &= report.damage.len() == before;
    }
    if sound && let Err(reason) = catalog.check() {
        report.damage.push(Damage { file: dir.to_owned(), offset: 0, kind: DamageKind::Missing, reason });
    }
    let tails = crate::tail::Tails::recovered(&catalog, 0);
    report.shards = tails.shards().into_iter().map(|shard| (shard, tails.state(shard))).collect();
    Ok(report)
}

/// Hands every record of every valid frame to `visit`, in write order, damage or not; changes nothing.
///
/// Frames behind a damaged one are visited too, so what is given may have gaps. `visit` gets the file, the byte at
/// which the record starts, and the record.
pub fn salvage(
    disk: &dyn Disk,
    dir: &Path,
    visit: &mut dyn FnMut(&Path, u64, Record) -> Result<(), Error>,
) -> Result<(), Error> {
    for (path, file, header) in open_all(disk, dir, &mut Report::default(), true)? {
        let len = file.len().map_err(|source| Error::io("look at", &path, source))?;
        let scanned = segment::scan_all(&file, &path, &header, len, &mut |frame, valid| {
            if valid { visit_records(frame, &path, visit) } else { visit_entries(frame, &path, visit) }
        });
        // What the disk does not give is as good as damaged.
        if let Err(error) = scanned {
            unreadable(error)?;
        }
    }
    Ok(())
}

/// What is wrong with a file that the disk can't read; any other error stays one.
fn unreadable(error: Error) -> Result<String, Error> {
    match error {
        Error::Io { action: "read", source, .. } => Ok(format!("it can't be read: {source}")),
        error => Err(error),
    }
}

fn visit_records(
    frame: &Frame,
    path: &Path,
    visit: &mut dyn FnMut(&Path, u64, Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut at = 0;
    while at < frame.body.len() {
        // The frame's checksum held; a record of an unknown kind ends what can be read of it.
        let Ok((record, len)) = decode_record(&frame.body[at..]) else { return Ok(()) };
        visit(path, frame.position_of(at), record.to_record(&frame.body))?;
        at += len;
    }
    Ok(())
}

/// The entries of a damaged frame whose own checksums hold.
///
/// Only entries: they say where they belong, and whoever takes them sees whether they continue their log. A truncation or
/// a vote from a frame that isn't whole could be left over from an earlier use of the file.
fn visit_entries(
    frame: &Frame,
    path: &Path,
    visit: &mut dyn FnMut(&Path, u64, Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut at = 0;
    while let Some(rest) = frame.body.get(at..)
        && let Some((length, _)) = rest.split_first_chunk::<4>()
    {
        if let Ok((record @ RecordView::Entry { .. }, _)) = decode_record(rest) {
            visit(path, frame.position_of(at), record.to_record(&frame.body))?;
        }
        at = at.saturating_add(segment::record_len(u32::from_le_bytes(*length)));
    }
    Ok(())
}

/// The segments whose headers are valid; the others are put down as damage, and with `mended` given too where one bit of the
/// header turned.
fn open_all(
    disk: &dyn Disk,
    dir: &Path,
    report: &mut Report,
    mended: bool,
) -> Result<Vec<(PathBuf, File, SegmentHeader)>, Error> {
    let names = disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    let mut opened = Vec::new();
    let mut expected = None;
    let mut last = None;
    for sequence in names.iter().filter_map(|name| segment::sequence_of(name)) {
        let path = segment::path(dir, sequence);
        if expected.is_some_and(|expected| expected != sequence) {
            let reason = format!("the segments before {sequence} are missing");
            report.damage.push(Damage { file: path.clone(), offset: 0, kind: DamageKind::Missing, reason });
        }
        expected = Some(sequence + 1);
        last = Some(sequence);
        report.unread = None;
        let file = disk.open_read(&path).map_err(|source| Error::io("open", &path, source))?;
        match segment::read_header(&file, &path) {
            Ok(header) => opened.push((path, file, header)),
            Err(error @ (Error::Corrupt { .. } | Error::Foreign { .. })) => {
                let reason = match error {
                    Error::Corrupt { reason, .. } => reason,
                    other => other.to_string(),
                };
                let damage = Damage { file: path.clone(), offset: 0, kind: DamageKind::Header, reason };
                report.damage.push(damage);
                match segment::mended_header(&file, &path) {
                    Some(header) if mended => opened.push((path, file, header)),
                    Some(_) => {}
                    None => report.unread = Some(path),
                }
            }
            Err(error) => {
                let reason = unreadable(error)?;
                report.unread = Some(path.clone());
                report.damage.push(Damage { file: path, offset: 0, kind: DamageKind::Header, reason });
            }
        }
    }
    let newest = Newest::of(&names);
    if let Some(reason) = newest.missing_after(last) {
        let file = newest.segment(dir);
        report.unread = Some(file.clone());
        report.damage.push(Damage { file, offset: 0, kind: DamageKind::Missing, reason });
    }
    Ok(opened)
}

fn inspect_segment(
    path: &Path,
    file: &File,
    header: &SegmentHeader,
    next_frame: Option<u64>,
    report: &mut Report,
) -> Result<SegmentTable, Error> {
    let len = file.len().map_err(|source| Error::io("look at", path, source))?;
    let footer = segment::read_footer(file, path, header, len)?;
    let frames_end = footer.as_ref().map_or(len, |footer| footer.trailer.footer_at);
    let mut table = SegmentTable::default();
    let mut unfolded = None;
    let scan = segment::scan(file, path, header, frames_end, &mut |frame| {
        if unfolded.is_none() {
            unfolded = segment::fold(frame, path, &mut table).err();
        }
        Ok(())
    })?;
    let mut damage =
        |offset, kind, reason| report.damage.push(Damage { file: path.to_owned(), offset, kind, reason });
    if let Some(Error::Corrupt { offset, reason, .. }) = unfolded {
        damage(offset, DamageKind::Frame, reason);
    }
    let sealed_end = footer.as_ref().map_or(0, |footer| footer.trailer.end_frame);
    let synced_end = next_frame.unwrap_or(0).max(sealed_end).max(scan.synced_through.saturating_add(1));
    let reason = match &scan.tail {
        ScanEnd::Broken(reason) => reason.clone(),
        ScanEnd::Clean => format!("frame {} is missing", scan.end_frame),
    };
    if scan.end_frame < synced_end {
        damage(scan.end, DamageKind::Frame, format!("{reason}, and it was fsynced"));
    } else if scan.tail != ScanEnd::Clean && footer.is_err() {
        report.cut = Some(TailCut {
            file: path.to_owned(),
            offset: scan.end,
            reason,
            unreachable_frames: scan.unreachable,
        });
    }
    if let Ok(footer) = &footer {
        inspect_pages(path, file, footer, report)?;
    }
    report.segments.push(SegmentReport {
        path: path.to_owned(),
        sequence: header.sequence,
        id: header.id,
        node: header.node,
        created: header.created,
        bytes: len,
        sealed: footer.is_ok(),
        frames: header.first_frame..scan.end_frame,
        good_through: scan.end,
        ranges: table.ranges(),
    });
    Ok(table)
}

fn inspect_pages(path: &Path, file: &File, footer: &Footer, report: &mut Report) -> Result<(), Error> {
    let Summary(shards) = &footer.summary;
    for run in shards.values().flat_map(|summary| &summary.runs) {
        let mut bytes = vec![0; usize::try_from(run.page_len).unwrap_or(usize::MAX)];
        let read = segment::read(file, path, &mut bytes, run.page_at);
        let reason = match read {
            Ok(()) => decode_page(&bytes, run).err().map(|cause| cause.to_string()),
            Err(Error::Corrupt { reason, .. }) => Some(reason),
            Err(error) => return Err(error),
        };
        if let Some(reason) = reason {
            let damage =
                Damage { file: path.to_owned(), offset: run.page_at, kind: DamageKind::Footer, reason };
            report.damage.push(damage);
        }
    }
    Ok(())
}
