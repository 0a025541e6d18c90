//! Segment files as a whole: reading their ends, scanning their frames, sealing them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use duramen_types::DecodeError;

use crate::Error;
use crate::disk::File;
use crate::format::{
    BLOCK, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, RECORD_HEAD_BYTES, SegmentHeader, Summary,
    TRAILER_BYTES, Trailer, align, body_crc, decode_record,
};
use crate::table::SegmentTable;

const SUFFIX: &str = ".wal";
const SPARE_PREFIX: &str = "spare-";

/// The file of the segment with this sequence number.
pub(crate) fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:020}{SUFFIX}"))
}

/// The sequence number in a segment's file name.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A file that waits to become a segment.
pub(crate) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{SPARE_PREFIX}{number}"))
}

/// The number in a spare file's name.
pub(crate) fn spare_of(name: &str) -> Option<u64> {
    name.strip_prefix(SPARE_PREFIX)?.parse().ok()
}

/// Reads the header at the start of a segment file.
pub(crate) fn read_header(file: &File, path: &Path) -> Result<SegmentHeader, Error> {
    let mut bytes = [0; HEADER_BYTES];
    read(file, path, &mut bytes, 0)?;
    SegmentHeader::decode(&bytes).map_err(|cause| Error::undecodable(path, 0, &cause))
}

/// The header that the file had before one bit of it turned, if that is what happened: its checksum tells every one of them.
pub(crate) fn mended_header(file: &File, path: &Path) -> Option<SegmentHeader> {
    let mut bytes = [0; HEADER_BYTES];
    read(file, path, &mut bytes, 0).ok()?;
    (0..HEADER_BYTES * 8).find_map(|bit| {
        let mut mended = bytes;
        mended[bit / 8] ^= 1 << (bit % 8);
        SegmentHeader::decode(&mended).ok()
    })
}

/// The end of a sealed segment.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) trailer: Trailer,
    pub(crate) summary: Summary,
}

/// Reads the footer at the end of a segment file; the inner error says why there is no valid one.
pub(crate) fn read_footer(
    file: &File,
    path: &Path,
    header: &SegmentHeader,
    len: u64,
) -> Result<Result<Footer, (u64, DecodeError)>, Error> {
    let trailer_bytes = TRAILER_BYTES as u64;
    let Some(position) = len.checked_sub(trailer_bytes).filter(|_| len >= 2 * BLOCK) else {
        let cause = DecodeError::invalid("WAL segment", format!("its {len} bytes can't hold a footer"));
        return Ok(Err((0, cause)));
    };
    let mut bytes = [0; TRAILER_BYTES];
    read(file, path, &mut bytes, position)?;
    let trailer = match Trailer::decode(&bytes, header.id, position) {
        Ok(trailer) => trailer,
        Err(cause) => return Ok(Err((position, cause))),
    };
    // The trailer's positions were checked against its own, so this is bounded by the file's length.
    let mut bytes = vec![0; usize::try_from(trailer.summary_len).unwrap_or(usize::MAX)];
    read(file, path, &mut bytes, trailer.summary_at)?;
    let computed = crc32fast::hash(&bytes);
    let decoded = if computed == trailer.summary_crc {
        Summary::decode(&bytes)
    } else {
        Err(DecodeError::Checksum { what: "WAL segment summary", stored: trailer.summary_crc, computed })
    };
    Ok(decoded.map(|summary| Footer { trailer, summary }).map_err(|cause| (trailer.summary_at, cause)))
}

/// Writes the footer behind the frames, which end at `footer_at`, and cuts the file there; durable when it returns.
pub(crate) fn seal(
    file: &File,
    path: &Path,
    header: &SegmentHeader,
    table: &SegmentTable,
    footer_at: u64,
    end_frame: u64,
) -> Result<(Summary, u64), Error> {
    let (mut bytes, summary) = table.seal(footer_at);
    let summary_at = footer_at + bytes.len() as u64;
    let encoded = summary.encode();
    bytes.extend_from_slice(&encoded);
    let len = align(footer_at + (bytes.len() + TRAILER_BYTES) as u64);
    let trailer = Trailer {
        footer_at,
        summary_at,
        first_frame: header.first_frame,
        end_frame,
        summary_len: u32::try_from(encoded.len()).expect("a summary is far smaller than its segment"),
        summary_crc: crc32fast::hash(&encoded),
    };
    let trailer_at = len - TRAILER_BYTES as u64;
    let io = |action| move |source| Error::io(action, path, source);
    file.write_all_at(&bytes, footer_at).map_err(io("write the footer of"))?;
    file.set_len(len).map_err(io("cut"))?;
    // The trailer vouches for all that is before it. Written along with it, it could survive a power cut that frames
    // not yet fsynced, or a row page, do not.
    file.sync_data().map_err(io("fsync"))?;
    file.write_all_at(&trailer.encode(header.id, trailer_at), trailer_at)
        .map_err(io("write the trailer of"))?;
    // After this the segment is known to be complete without reading its frames. A power cut before leaves it
    // unsealed, and recovery scans it.
    file.sync_data().map_err(io("fsync"))?;
    Ok((summary, len))
}

/// One valid frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) position: u64,
    pub(crate) header: FrameHeader,
    pub(crate) body: Bytes,
}

impl Frame {
    /// The position in the file of the record at `at` of the body.
    pub(crate) fn position_of(&self, at: usize) -> u64 {
        self.position + (FRAME_HEADER_BYTES + at) as u64
    }
}

/// Where the valid frames of a segment end, and what is behind them.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The byte behind the last valid frame of the unbroken sequence.
    pub(crate) end: u64,
    /// The sequence number behind it.
    pub(crate) end_frame: u64,
    /// The highest `synced_through` found anywhere in the file.
    pub(crate) synced_through: u64,
    pub(crate) tail: ScanEnd,
    /// Valid frames behind the first invalid one.
    pub(crate) unreachable: u64,
}

/// What is found where the next frame would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScanEnd {
    /// Nothing that was ever a frame of this segment.
    Clean,
    /// Something else; the text says what.
    Broken(String),
}

/// Reads all frames of a segment in order and hands the valid ones, up to the first invalid one, to `visit`.
///
/// Behind that it looks on for frames of this segment, because one of them may tell that the broken one was synced.
pub(crate) fn scan(
    file: &File,
    path: &Path,
    header: &SegmentHeader,
    limit: u64,
    visit: &mut dyn FnMut(&Frame) -> Result<(), Error>,
) -> Result<Scan, Error> {
    let mut scan = Scan {
        end: BLOCK,
        end_frame: header.first_frame,
        synced_through: 0,
        tail: ScanEnd::Clean,
        unreachable: 0,
    };
    while scan.end < limit {
        match read_frame(file, path, header, scan.end, limit)? {
            Found::Frame(frame) if frame.header.sequence == scan.end_frame => {
                scan.synced_through = scan.synced_through.max(frame.header.synced_through);
                visit(&frame)?;
                scan.end += frame.header.size();
                scan.end_frame += 1;
                continue;
            }
            Found::Frame(frame) => {
                scan.tail = ScanEnd::Broken(format!(
                    "frame {} is where frame {} belongs",
                    frame.header.sequence, scan.end_frame
                ));
            }
            Found::Torn(_, reason) => scan.tail = ScanEnd::Broken(reason),
            Found::Nothing { zero } if zero || header.recycled => {}
            Found::Nothing { .. } => {
                scan.tail = ScanEnd::Broken("neither a frame nor zeros are there".to_owned());
            }
        }
        break;
    }
    let (end, end_frame) = (scan.end, scan.end_frame);
    each_found(file, path, header, end, limit, &mut |_, found| {
        match found {
            Found::Frame(frame) => {
                scan.synced_through = scan.synced_through.max(frame.header.synced_through);
                scan.unreachable += u64::from(frame.header.sequence > end_frame);
            }
            // Its header is intact, so what it says of earlier frames holds.
            Found::Torn(torn, _) => scan.synced_through = scan.synced_through.max(torn.synced_through),
            Found::Nothing { .. } => {}
        }
        Ok(())
    })?;
    if scan.unreachable > 0 && scan.tail == ScanEnd::Clean {
        scan.tail = ScanEnd::Broken(format!("frame {} is missing before later ones", scan.end_frame));
    }
    Ok(scan)
}

/// Hands every frame of a segment whose header is valid to `visit`, and whether its records are, whatever lies between.
pub(crate) fn scan_all(
    file: &File,
    path: &Path,
    header: &SegmentHeader,
    limit: u64,
    visit: &mut dyn FnMut(&Frame, bool) -> Result<(), Error>,
) -> Result<(), Error> {
    each_found(file, path, header, BLOCK, limit, &mut |position, found| match found {
        Found::Frame(frame) => visit(frame, true),
        Found::Torn(header, _) => {
            let body_at = position + FRAME_HEADER_BYTES as u64;
            // As far as the file goes, which bounds what is read.
            let length = limit.saturating_sub(body_at).min(header.length.into());
            let mut body = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            read(file, path, &mut body, body_at)?;
            visit(&Frame { position, header: *header, body: Bytes::from(body) }, false)
        }
        Found::Nothing { .. } => Ok(()),
    })
}

/// Looks for frames from `position` on: behind a valid one at its end, else in the next block.
fn each_found(
    file: &File,
    path: &Path,
    header: &SegmentHeader,
    mut position: u64,
    limit: u64,
    visit: &mut dyn FnMut(u64, &Found) -> Result<(), Error>,
) -> Result<(), Error> {
    while position < limit {
        let found = read_frame(file, path, header, position, limit)?;
        visit(position, &found)?;
        position += match &found {
            Found::Frame(frame) => frame.header.size(),
            Found::Torn(..) | Found::Nothing { .. } => BLOCK,
        };
    }
    Ok(())
}

enum Found {
    Frame(Frame),
    /// A header of this place with a body that isn't its own.
    Torn(FrameHeader, String),
    Nothing {
        zero: bool,
    },
}

fn read_frame(
    file: &File,
    path: &Path,
    header: &SegmentHeader,
    position: u64,
    limit: u64,
) -> Result<Found, Error> {
    let mut block = [0; BLOCK as usize];
    let available = usize::try_from(limit - position).unwrap_or(usize::MAX).min(block.len());
    let block = &mut block[..available];
    read(file, path, block, position)?;
    let Some((head, rest)) = block.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(Found::Nothing { zero: block.iter().all(|byte| *byte == 0) });
    };
    let Ok(frame) = FrameHeader::decode(head, header.id, position) else {
        return Ok(Found::Nothing { zero: block.iter().all(|byte| *byte == 0) });
    };
    let length = usize::try_from(frame.length).unwrap_or(usize::MAX);
    if position.saturating_add(FRAME_HEADER_BYTES as u64).saturating_add(frame.length.into()) > limit {
        return Ok(Found::Torn(frame, format!("frame {} goes on behind the file's end", frame.sequence)));
    }
    let body = if length <= rest.len() {
        Bytes::copy_from_slice(&rest[..length])
    } else {
        // Bounded by the file's length, which was just checked.
        let mut body = vec![0; length];
        body[..rest.len()].copy_from_slice(rest);
        read(file, path, &mut body[rest.len()..], position + BLOCK)?;
        Bytes::from(body)
    };
    if body_crc(&body) != frame.body_crc {
        return Ok(Found::Torn(
            frame,
            format!("the records of frame {} fail their checksum", frame.sequence),
        ));
    }
    Ok(Found::Frame(Frame { position, header: frame, body }))
}

/// Applies a frame's records to a table, with their positions in the file.
pub(crate) fn fold(frame: &Frame, path: &Path, table: &mut SegmentTable) -> Result<(), Error> {
    let mut at = 0;
    let mut records = 0_u64;
    while at < frame.body.len() {
        let position = frame.position_of(at);
        let (record, len) =
            decode_record(&frame.body[at..]).map_err(|cause| Error::undecodable(path, position, &cause))?;
        table.apply(&record, position).map_err(|why| Error::corrupt(path, position, why))?;
        at += len;
        records += 1;
    }
    if records != u64::from(frame.header.records) {
        let reason =
            format!("frame {} holds {records} records, not {}", frame.header.sequence, frame.header.records);
        return Err(Error::corrupt(path, frame.position, reason));
    }
    Ok(())
}

/// Fills `buffer` from the file; a file that ends before is damaged.
pub(crate) fn read(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
    file.read_exact_at(buffer, offset).map_err(|source| {
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            Error::corrupt(
                path,
                offset,
                format!("the file ends before the {} bytes expected there", buffer.len()),
            )
        } else {
            Error::io("read", path, source)
        }
    })
}

/// The bytes of a record whose payload has this length.
pub(crate) fn record_len(length: u32) -> usize {
    RECORD_HEAD_BYTES + usize::try_from(length).unwrap_or(usize::MAX - RECORD_HEAD_BYTES)
}
