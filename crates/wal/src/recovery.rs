//! Opening a log: what is there, up to where it is good, and making that durable before anything else.
//!
//! Nothing is changed before everything was checked. Then leftovers are removed, the valid frames of a segment
//! that was not sealed are written anew and fsynced under a new segment id, and only after that the log is used:
//! what the page cache showed after a crash proves nothing about the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_types::{Clock, SegmentId};

use crate::catalog::{Catalog, Segment, SegmentIndex};
use crate::disk::{Disk, File};
use crate::format::{BLOCK, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, SegmentHeader};
use crate::newest::Newest;
use crate::segment::{Scan, ScanEnd};
use crate::spare::Spare;
use crate::table::SegmentTable;
use crate::{Error, SegmentIdSource, WalOptions, durable, segment};

/// What opening the log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments that hold something.
    pub segments: usize,
    /// Their files' bytes.
    pub bytes: u64,
    /// Frames that were read one by one, because their segment was not sealed.
    pub frames_scanned: u64,
    /// What was cut off behind the last valid frame, if anything was there. Never anything acknowledged.
    pub cut: Option<TailCut>,
    /// Segments whose valid frames were written anew, by sequence number.
    pub rewritten: Vec<u64>,
    /// Names of leftovers that were removed.
    pub removed: Vec<String>,
}

/// The unsynced end of the log, which recovery cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailCut {
    pub file: PathBuf,
    /// The byte at which the log now ends.
    pub offset: u64,
    /// Why the frame there is not valid.
    pub reason: String,
    /// Valid frames behind it, which were lost with it.
    pub unreachable_frames: u64,
}

/// A recovered log, ready to be written to.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) catalog: Catalog,
    pub(crate) spares: Vec<Spare>,
    pub(crate) next_sequence: u64,
    pub(crate) next_frame: u64,
    pub(crate) newest: Newest,
    pub(crate) report: RecoveryReport,
}

/// A segment file that was looked at.
struct Found {
    path: PathBuf,
    file: File,
    len: u64,
    header: SegmentHeader,
    state: FoundState,
}

enum FoundState {
    Sealed {
        summary: crate::format::Summary,
        end_frame: u64,
    },
    /// Its footer is missing or invalid; these are its frames.
    Scanned {
        table: SegmentTable,
        scan: Scan,
    },
}

impl Found {
    fn end_frame(&self) -> u64 {
        match &self.state {
            FoundState::Sealed { end_frame, .. } => *end_frame,
            FoundState::Scanned { scan, .. } => scan.end_frame,
        }
    }
}

/// Recovers the log in `dir`, which is created if it doesn't exist.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &WalOptions,
    clock: &dyn Clock,
    ids: &mut SegmentIdSource,
) -> Result<Recovered, Error> {
    disk.create_dir(dir).map_err(|source| Error::io("create", dir, source))?;
    let names = disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    let mut report = RecoveryReport::default();
    let found = look(disk, dir, &names, options)?;
    let mut catalog = Catalog::default();
    for segment in &found {
        let sequence = segment.header.sequence;
        let applied = match &segment.state {
            FoundState::Sealed { summary, .. } => catalog.apply_summary(summary, sequence),
            FoundState::Scanned { table, .. } => catalog.apply_summary(&table.seal(0).1, sequence),
        };
        applied.map_err(|why| Error::corrupt(&segment.path, 0, why))?;
    }
    catalog.check().map_err(|reason| Error::Incomplete { dir: dir.to_owned(), reason })?;

    // Checked: from here on files are changed, each step so that a power cut leads back to the same log.
    for name in names.iter().filter(|name| name.ends_with(durable::TEMPORARY_SUFFIX)) {
        let path = dir.join(name);
        disk.remove(&path).map_err(|source| Error::io("remove", &path, source))?;
        report.removed.push(name.clone());
    }
    let mut next_sequence = found.first().map_or(1, |first| first.header.sequence);
    let mut next_frame = found.first().map_or(1, |first| first.header.first_frame);
    for segment in found {
        let sequence = segment.header.sequence;
        if let FoundState::Scanned { scan, .. } = &segment.state {
            report.frames_scanned += scan.end_frame - segment.header.first_frame;
            if let ScanEnd::Broken(reason) = &scan.tail {
                report.cut = Some(TailCut {
                    file: segment.path.clone(),
                    offset: scan.end,
                    reason: reason.clone(),
                    unreachable_frames: scan.unreachable,
                });
            }
            if scan.end == BLOCK {
                durable::remove_file(&**disk, &segment.path)
                    .map_err(|source| Error::io("remove", &segment.path, source))?;
                report
                    .removed
                    .extend(segment.path.file_name().map(|name| name.to_string_lossy().into_owned()));
                continue;
            }
            report.rewritten.push(sequence);
        }
        next_sequence = sequence + 1;
        next_frame = segment.end_frame();
        let settled = settle(disk, segment, options, clock, ids)?;
        report.segments += 1;
        report.bytes += settled.bytes;
        catalog.segments.insert(sequence, settled);
    }
    let spares = spares(disk, dir, &names, options, &mut report)?;
    Ok(Recovered { catalog, spares, next_sequence, next_frame, newest: Newest::of(&names), report })
}

/// Reads every segment's ends, and the frames of those that are not sealed; changes nothing.
fn look(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    names: &[String],
    options: &WalOptions,
) -> Result<Vec<Found>, Error> {
    let sequences: Vec<u64> = names.iter().filter_map(|name| segment::sequence_of(name)).collect();
    if let Some(pair) = sequences.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        let reason = format!("segments {} to {} are missing", pair[0] + 1, pair[1] - 1);
        return Err(Error::Incomplete { dir: dir.to_owned(), reason });
    }
    let newest = Newest::of(names);
    if let Some(reason) = newest.missing_after(sequences.last().copied()) {
        return Err(Error::Incomplete { dir: dir.to_owned(), reason });
    }
    let mut opened = Vec::new();
    for sequence in sequences {
        let path = segment::path(dir, sequence);
        let file = disk.open(&path).map_err(|source| Error::io("open", &path, source))?;
        let len = file.len().map_err(|source| Error::io("look at", &path, source))?;
        let header = segment::read_header(&file, &path)?;
        if header.sequence != sequence {
            return Err(Error::corrupt(&path, 0, format!("it holds segment {}", header.sequence)));
        }
        if header.node != options.node {
            let reason = format!("it belongs to node {}, this is node {}", header.node, options.node);
            return Err(Error::Foreign { file: path, reason });
        }
        opened.push((path, file, len, header));
    }
    let mut found = Vec::new();
    let mut following =
        opened.iter().skip(1).map(|(.., header)| header.first_frame).collect::<Vec<_>>().into_iter();
    for (path, file, len, header) in opened {
        let state = look_at(&file, &path, &header, len, following.next(), newest)?;
        found.push(Found { path, file, len, header, state });
    }
    Ok(found)
}

/// Reads one segment. `next_frame` is where the following segment begins, if there is one.
fn look_at(
    file: &File,
    path: &Path,
    header: &SegmentHeader,
    len: u64,
    next_frame: Option<u64>,
    newest: Newest,
) -> Result<FoundState, Error> {
    let why_unsealed = match segment::read_footer(file, path, header, len)? {
        Ok(footer) => {
            let end_frame = footer.trailer.end_frame;
            if footer.trailer.first_frame != header.first_frame
                || next_frame.is_some_and(|next| next != end_frame)
            {
                let reason =
                    format!("its frames end at {end_frame}, the next segment begins at {next_frame:?}");
                return Err(Error::corrupt(path, footer.trailer.footer_at, reason));
            }
            return Ok(FoundState::Sealed { summary: footer.summary, end_frame });
        }
        Err((_, cause @ duramen_types::DecodeError::Version { .. })) => {
            return Err(Error::undecodable(path, 0, &cause));
        }
        Err((position, cause)) => (position, cause),
    };
    let mut table = SegmentTable::default();
    let scan = segment::scan(file, path, header, len, &mut |frame| segment::fold(frame, path, &mut table))?;
    // A following segment, or a later frame, proves that these frames were fsynced.
    let said = next_frame.unwrap_or(0).max(newest.synced_end(header));
    let synced_end = said.max(scan.synced_through.saturating_add(1));
    if scan.end_frame < synced_end {
        let reason = match scan.tail {
            ScanEnd::Broken(reason) => reason,
            ScanEnd::Clean => format!("frame {} is missing", scan.end_frame),
        };
        return Err(Error::corrupt(path, scan.end, format!("{reason}, and it was fsynced")));
    }
    if next_frame.is_some_and(|next| next != scan.end_frame) {
        let (position, cause) = why_unsealed;
        return Err(Error::corrupt(
            path,
            position,
            format!("{cause}, and its frames overlap the next segment's"),
        ));
    }
    Ok(FoundState::Scanned { table, scan })
}

/// The segment as the running log uses it; an unsealed one is written anew and sealed first.
fn settle(
    disk: &Arc<dyn Disk>,
    found: Found,
    options: &WalOptions,
    clock: &dyn Clock,
    ids: &mut SegmentIdSource,
) -> Result<Segment, Error> {
    let Found { path, file, len, header, state } = found;
    let (table, scan) = match state {
        FoundState::Sealed { summary, end_frame } => {
            let index = SegmentIndex::Sealed(summary);
            return Ok(Segment { header, path, file, bytes: len, end_frame, index });
        }
        FoundState::Scanned { table, scan } => (table, scan),
    };
    let id: SegmentId = ids();
    let anew = SegmentHeader { id, node: options.node, created: clock.now(), recycled: false, ..header };
    let temporary = durable::temporary_path(&path);
    let copy = durable::create_over(&**disk, &temporary)
        .map_err(|source| Error::io("create", &temporary, source))?;
    let mut block = anew.encode().to_vec();
    block.resize(usize::try_from(BLOCK).unwrap_or(HEADER_BYTES), 0);
    copy.write_all_at(&block, 0).map_err(|source| Error::io("write the header of", &temporary, source))?;
    segment::scan(&file, &path, &header, scan.end, &mut |frame| {
        // The rename happens after the fsync: where this file is under its name, all of it is durable.
        let head = FrameHeader { synced_through: scan.end_frame - 1, ..frame.header };
        let mut bytes = Vec::with_capacity(usize::try_from(head.size()).unwrap_or(FRAME_HEADER_BYTES));
        bytes.extend_from_slice(&head.encode(id, frame.position));
        bytes.extend_from_slice(&frame.body);
        bytes.resize(usize::try_from(head.size()).unwrap_or(bytes.len()), 0);
        copy.write_all_at(&bytes, frame.position).map_err(|source| Error::io("write to", &temporary, source))
    })?;
    let (summary, bytes) = segment::seal(&copy, &temporary, &anew, &table, scan.end, scan.end_frame)?;
    durable::publish(&**disk, &temporary, &path)
        .map_err(|source| Error::io("fsync the name of", &path, source))?;
    let index = SegmentIndex::Sealed(summary);
    Ok(Segment { header: anew, path, file: copy, bytes, end_frame: scan.end_frame, index })
}

/// The files that are written ahead already; superfluous ones are removed.
fn spares(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    names: &[String],
    options: &WalOptions,
    report: &mut RecoveryReport,
) -> Result<Vec<Spare>, Error> {
    let mut spares = Vec::new();
    for number in names.iter().filter_map(|name| segment::spare_of(name)) {
        let path = segment::spare_path(dir, number);
        let file = disk.open(&path).map_err(|source| Error::io("open", &path, source))?;
        let bytes = file.len().map_err(|source| Error::io("look at", &path, source))?;
        if bytes >= options.segment_bytes && bytes % BLOCK == 0 && spares.len() < options.spare_files {
            // Whether it was recycled is not known any more.
            spares.push(Spare { number, path, file, bytes, ahead: true, recycled: true });
        } else {
            disk.remove(&path).map_err(|source| Error::io("remove", &path, source))?;
            report.removed.push(format!("spare-{number}"));
        }
    }
    Ok(spares)
}
