//! The hot index of one shard: stream and offset to log entry, for everything that local segments hold.
//!
//! New rows go to an open chunk in memory. A full chunk, and the one open when a checkpoint is taken, is sealed into a
//! file; a restart reads the names of the files and replays the log from the checkpoint, nothing else. A file also says
//! how far every stream was at its end, so an offset is found by a binary search among the files, a few pages of each
//! that it looks at. Pages are loaded through one bounded cache that all shards share.

mod chunk;
mod file;
mod search;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_types::{Index, Offset, ShardId, StreamId};
use duramen_wal::{Disk, durable};
use foyer::{Cache, CacheBuilder};
use parking_lot::RwLock;

use self::chunk::{Chunk, StreamItem};
use self::file::{Directory, Kind, Unread};

pub use self::chunk::{Row, StreamEnd};
pub use self::search::{Kept, Limit};

/// A chunk with this many batches is sealed: 3 MiB in its file.
const ROWS_PER_CHUNK: usize = 65_536;
/// How many rows a look-up gives at most.
const ROWS_PER_LOOKUP: usize = 512;

/// The cache of pages of index files: one for all shards of a node.
pub type PageCache = Cache<PageKey, Page>;

/// A page of an index file: which file, by its shard and first entry, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageKey {
    shard: ShardId,
    first: Index,
    /// `None` is the file's directory.
    page: Option<(Kind, u32)>,
}

/// What a page of an index file holds.
#[derive(Debug, Clone)]
pub enum Page {
    Directory(Arc<Directory>),
    Rows(Arc<[Row]>),
    Streams(Arc<[StreamItem]>),
}

/// A cache that holds about `bytes` of index files.
pub fn page_cache(bytes: usize) -> PageCache {
    let weight = |_: &PageKey, page: &Page| match page {
        Page::Directory(directory) => directory.weight(),
        Page::Rows(rows) => size_of_val(&**rows),
        Page::Streams(streams) => size_of_val(&**streams),
    };
    CacheBuilder::new(bytes).with_shards(4).with_weighter(weight).build()
}

/// What can go wrong with an index file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{} can't be read: {source}; check the disk. If it can't read this file any more, stop the node, delete it and start \
         the node: it is made anew from the log, or what it covered is read from the archive once it is there",
        path.display()
    )]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is damaged ({source}); stop the node, delete it and start the node: it is \
             made anew from the log, or what it covered is read from the archive once it is there", path.display())]
    Damaged { path: PathBuf, source: duramen_types::DecodeError },
}

/// A sealed chunk: in memory until its file is durable.
#[derive(Debug)]
struct Part {
    first: Index,
    end: Index,
    path: PathBuf,
    memory: RwLock<Option<Arc<Chunk>>>,
}

impl Part {
    fn memory(&self) -> Option<Arc<Chunk>> {
        self.memory.read().clone()
    }
}

/// The sealed chunks, oldest first, contiguous. Look-ups share the list; it is copied only when it changes meanwhile.
type Parts = Arc<VecDeque<Arc<Part>>>;

#[derive(Debug)]
struct Inner {
    sealed: Parts,
    /// Continues the sealed ones.
    open: Chunk,
}

/// The hot index of one shard.
#[derive(Debug)]
pub struct HotIndex {
    shard: ShardId,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    cache: PageCache,
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
        cache: PageCache,
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
        let mut sealed = VecDeque::new();
        let mut next = end;
        while let Some((first, file_end, path)) = found.pop() {
            if file_end == next {
                next = first;
                sealed.push_front(Arc::new(Part { first, end: file_end, path, memory: RwLock::new(None) }));
            } else {
                disk.remove(&path).map_err(|e| io(&path, e))?;
            }
        }
        let inner = Inner { sealed: Arc::new(sealed), open: Chunk::new(shard, end) };
        Ok(Self { shard, disk, directory: directory.to_owned(), cache, inner: RwLock::new(inner) })
    }

    /// The first entry that it covers.
    pub fn first(&self) -> Index {
        let inner = self.inner.read();
        inner.sealed.front().map_or(inner.open.entries.start, |part| part.first)
    }

    /// Records that entry `index` is applied, with the batches it appended.
    pub fn push(&self, index: Index, rows: impl IntoIterator<Item = (StreamId, Row)>) {
        let mut inner = self.inner.write();
        for (stream, row) in rows {
            inner.open.push(stream, row);
        }
        inner.open.entries.end = index.next();
    }

    /// Whether the open chunk has grown large enough to be sealed, in a shard with so many streams.
    pub fn is_full(&self, streams: usize) -> bool {
        // A file names every stream: many of them are worth more rows.
        self.inner.read().open.len() >= ROWS_PER_CHUNK.max(streams.saturating_mul(2))
    }

    /// Closes the open chunk and begins another; [`HotIndex::write_sealed`] puts it on disk. `ends` are those of every
    /// stream alive, by stream, exactly after the last entry that was pushed.
    pub fn seal(&self, ends: impl Iterator<Item = (StreamId, StreamEnd)>) {
        let mut inner = self.inner.write();
        let end = inner.open.entries.end;
        if inner.open.entries.is_empty() {
            return;
        }
        let mut sealed = std::mem::replace(&mut inner.open, Chunk::new(self.shard, end));
        sealed.seal(ends);
        let first = sealed.entries.start;
        let name = format!("{:04}-{:020}-{:020}.index", self.shard.get(), first.get(), end.get());
        let (path, memory) = (self.directory.join(name), RwLock::new(Some(Arc::new(sealed))));
        Arc::make_mut(&mut inner.sealed).push_back(Arc::new(Part { first, end, path, memory }));
    }

    /// Writes every sealed chunk to its file. Blocking. When it returns the files survive a power cut, so that a
    /// checkpoint may be written which lets a restart begin after them. After an error the rest is in memory as before.
    pub fn write_sealed(&self) -> Result<(), Error> {
        for part in self.sealed().iter() {
            let Some(chunk) = part.memory() else { continue };
            durable::write_file(&*self.disk, &part.path, &file::encode(&chunk))
                .map_err(|source| Error::Io { path: part.path.clone(), source })?;
            *part.memory.write() = None;
        }
        Ok(())
    }

    /// Forgets entries before `purged`, whole files at a time.
    pub fn purge(&self, purged: Index) -> Result<(), Error> {
        loop {
            let gone = {
                let mut inner = self.inner.write();
                let gone = inner.sealed.front().filter(|part| part.end <= purged && part.memory().is_none());
                match gone.map(Arc::clone) {
                    Some(part) => {
                        Arc::make_mut(&mut inner.sealed).pop_front();
                        part
                    }
                    None => return Ok(()),
                }
            };
            self.disk.remove(&gone.path).map_err(|source| Error::Io { path: gone.path.clone(), source })?;
        }
    }

    fn sealed(&self) -> Parts {
        Arc::clone(&self.inner.read().sealed)
    }

    /// Appends the rows of `stream` from the one that holds `offset` on to `rows`, at most 512 of them, if they are in
    /// memory; whether they were. Takes no memory but theirs and no time but a search among them.
    pub fn locate_in_memory(&self, stream: StreamId, offset: Offset, rows: &mut VecDeque<Row>) -> bool {
        let mut take = |chunk: &Chunk| {
            let holds = chunk.stream(stream).first().is_some_and(|row| row.base <= offset);
            let found = if holds { chunk.rows_from(stream, offset) } else { &[] };
            rows.extend(found.iter().take(ROWS_PER_LOOKUP));
            holds.then_some(!found.is_empty())
        };
        let inner = self.inner.read();
        if let Some(found) = take(&inner.open) {
            return found;
        }
        for part in inner.sealed.iter().rev() {
            let memory = part.memory.read();
            let Some(chunk) = memory.as_deref() else { return false };
            if let Some(found) = take(chunk) {
                return found;
            }
        }
        false
    }

    /// What a part has of a stream. Blocking.
    fn item(&self, part: &Part, stream: StreamId) -> Result<Option<StreamItem>, Error> {
        if let Some(chunk) = part.memory() {
            return Ok(chunk.item(stream));
        }
        let Some(number) = self.page_directory(part)?.page_of(stream) else { return Ok(None) };
        let Page::Streams(page) = self.page(part, Some((Kind::Streams, number)))? else { return Ok(None) };
        let at = page.partition_point(|item| item.stream < stream);
        Ok(page.get(at).filter(|item| item.stream == stream).copied())
    }

    /// Gives the rows from the `from`th of an item on to `visit`, in slices, until it returns false. Blocking.
    fn rows(
        &self,
        part: &Part,
        item: &StreamItem,
        from: u32,
        visit: &mut dyn FnMut(&[Row]) -> bool,
    ) -> Result<(), Error> {
        if let Some(chunk) = part.memory() {
            let rows = chunk.stream(item.stream);
            visit(rows.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or(&[]));
            return Ok(());
        }
        let per_page = file::ITEMS_PER_PAGE as u32;
        let (mut next, end) = (item.first.saturating_add(from), item.first.saturating_add(item.rows));
        while next < end {
            let (number, skip) = (next / per_page, next % per_page);
            let Page::Rows(page) = self.page(part, Some((Kind::Rows, number)))? else { return Ok(()) };
            let take = (end - next).min(per_page - skip);
            let range = usize::try_from(skip).unwrap_or(usize::MAX)
                ..usize::try_from(skip.saturating_add(take)).unwrap_or(usize::MAX);
            let rows = page.get(range).ok_or_else(|| self.contradictory(part, item))?;
            if !visit(rows) {
                return Ok(());
            }
            next += take;
        }
        Ok(())
    }

    /// How many of an item's rows `before` accepts; those all come before the others. Blocking: a page for each halving.
    fn partition(&self, part: &Part, item: &StreamItem, before: impl Fn(&Row) -> bool) -> Result<u32, Error> {
        let (mut low, mut high) = (0, item.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut found = None;
            self.rows(part, item, middle, &mut |rows| {
                found = rows.first().map(&before);
                false
            })?;
            match found {
                Some(true) => low = middle + 1,
                Some(false) => high = middle,
                None => return Err(self.contradictory(part, item)),
            }
        }
        Ok(low)
    }

    fn row(&self, part: &Part, item: &StreamItem, at: u32) -> Result<Row, Error> {
        let mut found = None;
        self.rows(part, item, at, &mut |rows| {
            found = rows.first().copied();
            false
        })?;
        found.ok_or_else(|| self.contradictory(part, item))
    }

    fn contradictory(&self, part: &Part, item: &StreamItem) -> Error {
        let reason = format!("it has no rows {}.. for stream {}", item.first, item.stream);
        let source = duramen_types::DecodeError::invalid("hot index file", reason);
        Error::Damaged { path: part.path.clone(), source }
    }

    fn page_directory(&self, part: &Part) -> Result<Arc<Directory>, Error> {
        match self.page(part, None)? {
            Page::Directory(directory) => Ok(directory),
            Page::Rows(_) | Page::Streams(_) => {
                let source = duramen_types::DecodeError::invalid("hot index file", "its directory is a page");
                Err(Error::Damaged { path: part.path.clone(), source })
            }
        }
    }

    fn page(&self, part: &Part, page: Option<(Kind, u32)>) -> Result<Page, Error> {
        let key = PageKey { shard: self.shard, first: part.first, page };
        if let Some(hit) = self.cache.get(&key) {
            return Ok(hit.value().clone());
        }
        // Before the file is opened: each of them is read once, and then it is in the cache.
        let directory = match page {
            None => None,
            Some(_) => Some(self.page_directory(part)?),
        };
        let read = || -> Result<Page, Unread> {
            let file = self.disk.open_read(&part.path)?;
            Ok(match (page, directory) {
                (Some((Kind::Rows, number)), Some(directory)) => Page::Rows(directory.rows(&file, number)?),
                (Some((Kind::Streams, number)), Some(directory)) => {
                    Page::Streams(directory.streams(&file, number)?)
                }
                _ => Page::Directory(Arc::new(Directory::read(&file, self.shard, part.first)?)),
            })
        };
        let loaded = read().map_err(|unread| match unread {
            Unread::Io(source) => Error::Io { path: part.path.clone(), source },
            Unread::Damaged(source) => Error::Damaged { path: part.path.clone(), source },
        })?;
        self.cache.insert(key, loaded.clone());
        Ok(loaded)
    }
}

/// Reads every page of an index file; the error says what is wrong with it.
pub fn check_file(disk: &dyn Disk, path: &Path, name: &str) -> Result<(), String> {
    let (shard, first, _) = parse_name(name).ok_or("its name is not that of an index file")?;
    let read = || {
        let file = disk.open_read(path)?;
        Directory::read(&file, shard, first)?.check(&file)
    };
    read().map_err(|unread| match unread {
        Unread::Io(error) => error.to_string(),
        Unread::Damaged(error) => error.to_string(),
    })
}

fn parse_name(name: &str) -> Option<(ShardId, Index, Index)> {
    let mut parts = name.strip_suffix(".index")?.split('-');
    let shard = ShardId::new(parts.next()?.parse().ok()?);
    let first = Index::new(parts.next()?.parse().ok()?);
    let end = Index::new(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((shard, first, end))
}
