//! The hot index of one shard: stream and offset to log entry, for everything that local segments hold.
//!
//! New rows go to an open chunk in memory. A full chunk, and the one open when a checkpoint is taken, is sealed into
//! a file; a restart reads the names of the files and replays the log from the checkpoint, nothing else. Files are
//! loaded through one bounded cache that all shards share.

mod chunk;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_types::{Index, Offset, ShardId, StreamId};
use duramen_wal::{Disk, durable};
use foyer::{Cache, CacheBuilder};
use parking_lot::RwLock;

pub use chunk::{Chunk, Row};

/// A chunk with this many batches is sealed: 2.6 MB in memory and in its file.
const ROWS_PER_CHUNK: usize = 65_536;
/// How many rows a look-up gives at most.
const ROWS_PER_LOOKUP: usize = 512;

/// No index file is larger; one that is, is damaged.
const LARGEST_FILE: u64 = 64 << 20;

/// The cache of loaded index files: one for all shards of a node.
pub type ChunkCache = Cache<(ShardId, Index), Arc<Chunk>>;

/// A cache that holds about `bytes` of index files.
pub fn chunk_cache(bytes: usize) -> ChunkCache {
    CacheBuilder::new(bytes).with_shards(4).with_weighter(|_, chunk: &Arc<Chunk>| chunk.weight()).build()
}

/// What can go wrong with an index file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is damaged ({source}); delete it and restart: it is rebuilt or read from the archive", path.display())]
    Damaged { path: PathBuf, source: duramen_types::DecodeError },
}

#[derive(Debug)]
struct Inner {
    /// Sealed files, by their first entry; contiguous.
    files: VecDeque<(Index, Index, PathBuf)>,
    /// Sealed, not yet on disk; contiguous after the files.
    sealing: VecDeque<Arc<Chunk>>,
    open: Chunk,
}

/// The hot index of one shard.
#[derive(Debug)]
pub struct HotIndex {
    shard: ShardId,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    cache: ChunkCache,
    inner: RwLock<Inner>,
}

impl HotIndex {
    /// Opens the index with the files that cover entries up to `end`, the end of the checkpoint; files beyond it are
    /// removed, because the replay makes their rows anew.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        shard: ShardId,
        end: Index,
        cache: ChunkCache,
    ) -> Result<Self, Error> {
        let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
        let mut found = Vec::new();
        for name in disk.list(directory).map_err(|e| io(directory, e))? {
            let path = directory.join(&name);
            match parse_name(&name) {
                Some((of, first, file_end)) if of == shard && file_end <= end => {
                    found.push((first, file_end, path))
                }
                Some((of, ..)) if of == shard => disk.remove(&path).map_err(|e| io(&path, e))?,
                _ => {}
            }
        }
        found.sort_unstable();
        // Only the contiguous run that ends at the checkpoint can be trusted to be complete.
        let mut files = VecDeque::new();
        let mut next = end;
        while let Some((first, file_end, path)) = found.pop() {
            if file_end == next {
                next = first;
                files.push_front((first, file_end, path));
            } else {
                disk.remove(&path).map_err(|e| io(&path, e))?;
            }
        }
        let inner = Inner { files, sealing: VecDeque::new(), open: Chunk::new(shard, end) };
        Ok(Self { shard, disk, directory: directory.to_owned(), cache, inner: RwLock::new(inner) })
    }

    /// Records that entry `index` is applied, with the batches it appended.
    pub fn push(&self, index: Index, rows: impl IntoIterator<Item = (StreamId, Row)>) {
        let mut inner = self.inner.write();
        for (stream, row) in rows {
            inner.open.push(stream, row);
        }
        inner.open.entries.end = index.next();
    }

    /// Whether the open chunk has grown large enough to be sealed.
    pub fn is_full(&self) -> bool {
        self.inner.read().open.len() >= ROWS_PER_CHUNK
    }

    /// Closes the open chunk and begins another; [`HotIndex::write_sealed`] puts it on disk.
    pub fn seal(&self) {
        let mut inner = self.inner.write();
        let end = inner.open.entries.end;
        if inner.open.entries.is_empty() {
            return;
        }
        let sealed = std::mem::replace(&mut inner.open, Chunk::new(self.shard, end));
        inner.sealing.push_back(Arc::new(sealed));
    }

    /// Writes every sealed chunk to its file. Blocking. When it returns the files survive a power cut, so that a
    /// checkpoint may be written which lets a restart begin after them.
    pub fn write_sealed(&self) -> Result<(), Error> {
        loop {
            let Some(chunk) = self.inner.read().sealing.front().map(Arc::clone) else { return Ok(()) };
            let (first, end) = (chunk.entries.start, chunk.entries.end);
            let name = format!("{:04}-{:020}-{:020}.index", self.shard.get(), first.get(), end.get());
            let path = self.directory.join(name);
            durable::write_file(&*self.disk, &path, &chunk.encode())
                .map_err(|source| Error::Io { path: path.clone(), source })?;
            self.cache.insert((self.shard, first), chunk);
            let mut inner = self.inner.write();
            inner.sealing.pop_front();
            inner.files.push_back((first, end, path));
        }
    }

    /// Forgets entries before `purged`, whole files at a time.
    pub fn purge(&self, purged: Index) -> Result<(), Error> {
        loop {
            let path = {
                let mut inner = self.inner.write();
                match inner.files.front() {
                    Some((_, end, _)) if *end <= purged => inner.files.pop_front().map(|(first, _, path)| {
                        self.cache.remove(&(self.shard, first));
                        path
                    }),
                    _ => None,
                }
            };
            let Some(path) = path else { return Ok(()) };
            self.disk.remove(&path).map_err(|source| Error::Io { path, source })?;
        }
    }

    /// The rows of `stream` from the one that holds `offset` on, at most 512 of them and all of one chunk.
    ///
    /// `hint` is an entry at or before the wanted one, as a sequential reader knows it. `None`: the index does not
    /// reach back to `offset`. Blocking when a file must be loaded.
    pub fn locate(
        &self,
        stream: StreamId,
        offset: Offset,
        hint: Option<Index>,
    ) -> Result<Option<Vec<Row>>, Error> {
        let take = |rows: &[Row]| rows.iter().take(ROWS_PER_LOOKUP).copied().collect::<Vec<_>>();
        {
            let inner = self.inner.read();
            let in_memory = std::iter::once(&inner.open).chain(inner.sealing.iter().rev().map(Arc::as_ref));
            for chunk in in_memory {
                if let Some(first) = chunk.stream(stream).first()
                    && first.base <= offset
                {
                    return Ok(Some(take(chunk.rows_from(stream, offset))));
                }
            }
        }
        if let Some(hint) = hint {
            // Forward from the chunk that a sequential reader is in: its next rows are there or a little further.
            for (first, _, path) in self.files_from(hint) {
                let chunk = self.load(first, &path)?;
                let rows = chunk.stream(stream);
                if rows.first().is_some_and(|row| row.base > offset) {
                    break;
                }
                if rows.last().is_some_and(|row| row.end() > offset) {
                    return Ok(Some(take(chunk.rows_from(stream, offset))));
                }
            }
        }
        for (first, _, path) in self.files_from(Index::ZERO).into_iter().rev() {
            let chunk = self.load(first, &path)?;
            let rows = chunk.stream(stream);
            if rows.first().is_some_and(|row| row.base <= offset) {
                let rows = take(chunk.rows_from(stream, offset));
                return Ok((!rows.is_empty()).then_some(rows));
            }
        }
        Ok(None)
    }

    /// The first row of `stream`, at or after `from`, with a record timestamp of at least `timestamp`
    /// (milliseconds); and the first row that the index has of the stream at all, so that the caller knows what it
    /// does not cover. Blocking.
    pub fn locate_timestamp(
        &self,
        stream: StreamId,
        from: Offset,
        timestamp: i64,
    ) -> Result<TimestampHit, Error> {
        let mut hit = TimestampHit { first: None, found: None };
        let mut look = |chunk: &Chunk| {
            let rows = chunk.stream(stream);
            hit.first = hit.first.or_else(|| rows.first().copied());
            hit.found = rows.iter().find(|row| row.end() > from && row.max_timestamp >= timestamp).copied();
            hit.found.is_some()
        };
        for (first, _, path) in self.files_from(Index::ZERO) {
            if look(self.load(first, &path)?.as_ref()) {
                return Ok(hit);
            }
        }
        let inner = self.inner.read();
        for chunk in inner.sealing.iter().map(Arc::as_ref).chain(std::iter::once(&inner.open)) {
            if look(chunk) {
                break;
            }
        }
        Ok(hit)
    }

    /// The base of the first row of `stream`, at or after `from`, that `keep` accepts; rows that it refuses all come
    /// before those that it accepts. `None` where no row is accepted or the index does not reach back to `from`.
    /// Blocking when files must be loaded.
    pub fn first_kept(
        &self,
        stream: StreamId,
        from: Offset,
        keep: impl Fn(&Row) -> bool,
    ) -> Result<Option<Offset>, Error> {
        let mut next = from;
        let mut hint = None;
        while let Some(rows) = self.locate(stream, next, hint)? {
            let kept = rows.partition_point(|row| !keep(row));
            if let Some(row) = rows.get(kept) {
                return Ok(Some(row.base.max(from)));
            }
            let Some(last) = rows.last() else { break };
            (next, hint) = (last.end(), Some(last.index));
        }
        Ok(None)
    }

    fn files_from(&self, index: Index) -> Vec<(Index, Index, PathBuf)> {
        let inner = self.inner.read();
        inner.files.iter().filter(|(_, end, _)| *end > index).cloned().collect()
    }

    fn load(&self, first: Index, path: &Path) -> Result<Arc<Chunk>, Error> {
        if let Some(hit) = self.cache.get(&(self.shard, first)) {
            return Ok(Arc::clone(hit.value()));
        }
        let bytes = durable::read_file(&*self.disk, path, LARGEST_FILE)
            .map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let chunk =
            Chunk::decode(&bytes).map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
        let chunk = Arc::new(chunk);
        self.cache.insert((self.shard, first), Arc::clone(&chunk));
        Ok(chunk)
    }
}

/// What [`HotIndex::locate_timestamp`] finds.
#[derive(Debug, Clone, Copy)]
pub struct TimestampHit {
    /// The stream's first row in the index.
    pub first: Option<Row>,
    /// The first row that reaches the timestamp.
    pub found: Option<Row>,
}

fn parse_name(name: &str) -> Option<(ShardId, Index, Index)> {
    let mut parts = name.strip_suffix(".index")?.split('-');
    let shard = ShardId::new(parts.next()?.parse().ok()?);
    let first = Index::new(parts.next()?.parse().ok()?);
    let end = Index::new(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((shard, first, end))
}
