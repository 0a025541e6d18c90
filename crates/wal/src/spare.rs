//! Files written ahead, so that a frame's fsync has no metadata to write.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::File;
use crate::format::{BLOCK, HEADER_BYTES, SegmentHeader};
use crate::shared::Shared;
use crate::{Error, durable, segment};

const ZEROS: usize = 1024 * 1024;

/// A file that is written ahead and waits to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// The size it has, or will have once it is full.
    pub(crate) bytes: u64,
    pub(crate) ahead: bool,
    /// Whether it may hold bytes of a former segment.
    pub(crate) recycled: bool,
}

/// Creates a file for `bytes`, zeroed if it is to be written `ahead`, else empty.
pub(crate) fn prepare(shared: &Shared, bytes: u64, ahead: bool) -> Result<Spare, Error> {
    let number = {
        let mut state = shared.state.lock();
        state.next_spare += 1;
        state.next_spare
    };
    let path = segment::spare_path(&shared.dir, number);
    let created =
        durable::create_over(&*shared.disk, &path).map_err(|source| Error::io("create", &path, source))?;
    let filled = fill(&created, &path, 0, if ahead { bytes } else { 0 })
        .and_then(|()| created.sync_data().map_err(|source| Error::io("flush", &path, source)));
    if let Err(error) = filled {
        // Its space is what others wait for. If this fails too the file is found again at the next start.
        let _ = shared.disk.remove(&path);
        return Err(error);
    }
    Ok(Spare { number, path, file: created, bytes, ahead, recycled: false })
}

/// Writes zeros from `from` to `to`.
pub(crate) fn fill(file: &File, path: &std::path::Path, from: u64, to: u64) -> Result<(), Error> {
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(ZEROS).min(ZEROS);
    let zeros = vec![0; len];
    let mut at = from;
    while at < to {
        let part = usize::try_from(to - at).unwrap_or(len).min(len);
        file.write_all_at(&zeros[..part], at).map_err(|source| Error::io("write ahead", path, source))?;
        at += part as u64;
    }
    Ok(())
}

/// Makes a spare the segment that `header` describes; its name and header are durable when it returns.
pub(crate) fn promote(shared: &Shared, spare: &Spare, header: &SegmentHeader) -> Result<PathBuf, Error> {
    let mut block = header.encode().to_vec();
    block.resize(usize::try_from(BLOCK).unwrap_or(HEADER_BYTES), 0);
    spare
        .file
        .write_all_at(&block, 0)
        .map_err(|source| Error::io("write the header of", &spare.path, source))?;
    // Before the name: a segment without a valid header would look like damage.
    spare.file.sync_data().map_err(|source| Error::io("fsync", &spare.path, source))?;
    let path = segment::path(&shared.dir, header.sequence);
    durable::publish(&*shared.disk, &spare.path, &path)
        .map_err(|source| Error::io("fsync the name of", &path, source))?;
    Ok(path)
}

/// Keeps `spare_files` files ready until the log is told to stop: the body of the preparing thread.
pub(crate) fn keep_ready(shared: &Arc<Shared>) {
    loop {
        {
            let mut state = shared.state.lock();
            while !state.stop_threads
                && state.stopped.is_none()
                && state.spares.len() >= shared.options.spare_files
            {
                shared.spare_wanted.wait(&mut state);
            }
            if state.stop_threads || state.stopped.is_some() {
                return;
            }
        }
        let bytes = shared.options.segment_bytes;
        let enough = shared.refresh_space() >= bytes.saturating_add(shared.options.reserve_bytes);
        let prepared = if enough { prepare(shared, bytes, true).ok() } else { None };
        let mut state = shared.state.lock();
        match prepared {
            Some(spare) => state.spares.push(spare),
            // Nothing is lost: the writer makes its own file at the next rotation. Try again when one is used.
            None if !state.stop_threads => shared.spare_wanted.wait(&mut state),
            None => {}
        }
    }
}
