use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use duramen_types::HybridTime;
use duramen_wal::sim::SimDisk;
use duramen_wal::{DiskFile, File, LockGuard};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SHARD: ShardId = ShardId::new(1);
const DIR: &str = "/index";

type Hook = Box<dyn FnOnce() + Send>;

/// A disk that counts reads, and does something just before a file is opened.
#[derive(Clone)]
struct Watched {
    disk: SimDisk,
    reads: Arc<AtomicU64>,
    before_open: Arc<Mutex<Option<Hook>>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: File,
    reads: Arc<AtomicU64>,
}

impl Watched {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new(DIR)).unwrap();
        Self { disk, reads: Arc::default(), before_open: Arc::default() }
    }

    fn before_open(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_open.lock() = Some(Box::new(hook));
    }

    fn index(&self, end: u64) -> Arc<HotIndex> {
        let disk: Arc<dyn Disk> = Arc::new(self.clone());
        Arc::new(HotIndex::open(disk, Path::new(DIR), SHARD, Index::new(end), page_cache(1 << 20)).unwrap())
    }

    fn reads(&self) -> u64 {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

impl Disk for Watched {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.disk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        self.disk.open(path)
    }
    fn open_read(&self, path: &Path) -> io::Result<File> {
        if let Some(hook) = self.before_open.lock().take() {
            hook();
        }
        Ok(Arc::new(WatchedFile { file: self.disk.open_read(path)?, reads: Arc::clone(&self.reads) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn available(&self, dir: &Path) -> io::Result<u64> {
        self.disk.available(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<LockGuard> {
        self.disk.lock(path)
    }
}

impl DiskFile for WatchedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.file.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// What was pushed, kept simply.
#[derive(Default)]
struct Model {
    rows: BTreeMap<StreamId, Vec<Row>>,
    ends: BTreeMap<StreamId, StreamEnd>,
    end: u64,
}

impl Model {
    fn create(&mut self) -> StreamId {
        let stream = StreamId::new(self.end);
        let last = HybridTime::from_micros(self.end);
        self.ends.insert(stream, StreamEnd { next: Offset::ZERO, bytes: 0, last });
        self.end += 1;
        stream
    }

    fn append(&mut self, index: &HotIndex, stream: StreamId, timestamp: i64) {
        let end = self.ends.get_mut(&stream).unwrap();
        let row = Row {
            base: end.next,
            records: 3,
            index: Index::new(self.end),
            item: 0,
            time: HybridTime::from_micros(self.end),
            max_timestamp: timestamp,
            before: end.bytes,
        };
        *end = StreamEnd { next: row.end(), bytes: end.bytes + 10, last: row.time };
        self.rows.entry(stream).or_default().push(row);
        index.push(row.index, [(stream, row)]);
        self.end += 1;
    }

    fn seal(&self, index: &HotIndex) {
        index.seal(self.ends.iter().map(|(stream, end)| (*stream, *end)));
    }

    /// The rows that are still in the index after a purge before `purged`.
    fn left(&self, stream: StreamId, purged: Index) -> Vec<Row> {
        self.rows.get(&stream).into_iter().flatten().filter(|row| row.index >= purged).copied().collect()
    }
}

fn locate(index: &HotIndex, stream: StreamId, offset: u64, hint: Option<Index>) -> Option<Row> {
    let mut rows = VecDeque::new();
    let found = index.locate(stream, Offset::new(offset), hint, &mut rows).unwrap();
    assert_eq!(found, !rows.is_empty());
    rows.front().copied()
}

#[test]
fn look_ups_agree_with_a_simple_list_whatever_is_sealed_written_purged_or_deleted() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = Watched::new();
        let mut index = disk.index(0);
        let mut model = Model::default();
        let mut purged = Index::ZERO;
        let mut all: Vec<StreamId> = Vec::new();
        for _ in 0..rng.random_range(50..400) {
            match rng.random_range(0..40) {
                0 => {
                    all.push(model.create());
                    index.push(Index::new(model.end - 1), []);
                }
                1 if model.ends.len() > 2 => {
                    let gone = *model.ends.keys().nth(rng.random_range(0..model.ends.len())).unwrap();
                    model.ends.remove(&gone);
                    index.push(Index::new(model.end), []);
                    model.end += 1;
                }
                2 | 3 => model.seal(&index),
                4 => index.write_sealed().unwrap(),
                5 => {
                    model.seal(&index);
                    index.write_sealed().unwrap();
                    let at = Index::new(rng.random_range(purged.get()..=model.end));
                    index.purge(at).unwrap();
                    purged = index.sealed().front().map_or(Index::new(model.end), |part| part.first);
                }
                6 => {
                    model.seal(&index);
                    index.write_sealed().unwrap();
                    index = disk.index(model.end);
                }
                _ => {
                    let alive: Vec<StreamId> = model.ends.keys().copied().collect();
                    if !alive.is_empty() {
                        let stream = alive[rng.random_range(0..alive.len())];
                        model.append(&index, stream, rng.random_range(0..50));
                    }
                }
            }
        }
        for stream in &all {
            let rows = model.left(*stream, purged);
            let next = rows.last().map_or(0, |row| row.end().get());
            for offset in 0..next + 4 {
                let offset_row = rows.iter().find(|row| row.end().get() > offset);
                let expected = offset_row.filter(|row| row.base.get() <= offset).copied();
                let hint = rng.random_bool(0.5).then(|| Index::new(rng.random_range(0..=model.end)));
                let hint = hint.filter(|hint| expected.is_none_or(|row| *hint <= row.index));
                assert_eq!(locate(&index, *stream, offset, hint), expected, "seed {seed}, {stream} {offset}");
                let timestamp = rng.random_range(0..55);
                let hit = index.locate_timestamp(*stream, Offset::new(offset), timestamp).unwrap();
                let mut from = rows.iter().filter(|row| row.end().get() > offset);
                assert_eq!(hit.first, from.clone().next().copied(), "seed {seed}, {stream} {offset}");
                assert_eq!(hit.found, from.find(|row| row.max_timestamp >= timestamp).copied());
            }
            if model.ends.contains_key(stream) {
                kept_agrees(&index, &model, *stream, purged, seed);
            }
        }
    }
}

fn kept_agrees(index: &HotIndex, model: &Model, stream: StreamId, purged: Index, seed: u64) {
    let all = model.left(stream, Index::ZERO);
    let left = model.left(stream, purged);
    let last = all.last().map_or(0, |row| row.index.get());
    let bytes = all.len() as u64 * 10;
    let limits = (0..=bytes + 1).map(Limit::Bytes);
    let limits = limits.chain((0..=last + 1).map(|time| Limit::Later(HybridTime::from_micros(time))));
    for limit in limits {
        let kept = all.iter().find(|row| limit.keeps(row));
        match index.first_kept(stream, limit).unwrap() {
            Kept::From(row) => assert_eq!(Some(&row), kept, "seed {seed}, {stream}, {limit:?}"),
            Kept::Nothing { last } => {
                assert_eq!(kept, None, "seed {seed}, {stream}, {limit:?}");
                assert!(last.is_none_or(|last| Some(&last) == all.last()));
            }
            Kept::NotCovered { first } => {
                assert_eq!(
                    first.as_ref(),
                    left.iter().find(|row| limit.keeps(row)),
                    "seed {seed}, {limit:?}"
                );
                assert!(purged > Index::ZERO, "seed {seed}, {stream}, {limit:?}: all of it is in the index");
                assert!(left.iter().all(|row| limit.keeps(row)), "seed {seed}, {stream}, {limit:?}");
            }
        }
    }
}

#[test]
fn an_offset_among_thousands_of_files_takes_a_few_pages_and_a_restart_takes_none() {
    const FILES: u64 = 3000;
    let disk = Watched::new();
    let index = disk.index(0);
    let mut model = Model::default();
    let streams: Vec<StreamId> = (0..50).map(|_| model.create()).collect();
    index.push(Index::new(model.end - 1), []);
    for file in 0..FILES {
        for stream in [streams[0], streams[usize::try_from(file % 50).unwrap()]] {
            model.append(&index, stream, 0);
        }
        model.seal(&index);
        index.write_sealed().unwrap();
    }
    disk.reads();
    for stream in [streams[0], streams[7], streams[49]] {
        let next = model.ends[&stream].next.get();
        for offset in [0, 1, next / 3, next / 2, next - 1] {
            let index = disk.index(model.end);
            assert_eq!(disk.reads(), 0, "a restart reads names only");
            let row = locate(&index, stream, offset, None).unwrap();
            assert!(row.base.get() <= offset && offset < row.end().get());
            let reads = disk.reads();
            // Of each file looked at: header, trailer, directory and one page; then the row.
            assert!(reads <= 4 * 13 + 2, "{reads} reads to find offset {offset} of stream {stream}");
        }
    }
}

#[test]
fn a_reader_at_the_tail_takes_no_file_and_no_list() {
    let disk = Watched::new();
    let index = disk.index(0);
    let mut model = Model::default();
    let stream = model.create();
    for _ in 0..3 {
        model.append(&index, stream, 0);
        model.seal(&index);
        index.write_sealed().unwrap();
    }
    model.append(&index, stream, 0);
    let mut rows = VecDeque::with_capacity(4);
    let shared = Arc::strong_count(&index.inner.read().sealed);
    let list = Arc::downgrade(&index.inner.read().sealed);
    assert!(index.locate_in_memory(stream, Offset::new(10), &mut rows));
    assert_eq!((rows.len(), rows.capacity()), (1, 4));
    assert_eq!((Arc::strong_count(&index.inner.read().sealed), list.strong_count()), (shared, 1));
    assert!(!index.locate_in_memory(stream, Offset::new(2), &mut rows), "that one is in a file");
    assert_eq!(disk.reads(), 0);
}

/// An index with a stream whose rows are in two files, a sealed chunk that isn't written, and the open chunk.
fn in_all_places(disk: &Watched) -> (Arc<HotIndex>, Arc<Mutex<Model>>, StreamId) {
    let index = disk.index(0);
    let mut model = Model::default();
    let stream = model.create();
    index.push(Index::ZERO, []);
    for timestamp in 0..4 {
        model.append(&index, stream, timestamp);
        if timestamp < 3 {
            model.seal(&index);
        }
        if timestamp < 2 {
            index.write_sealed().unwrap();
        }
    }
    (index, Arc::new(Mutex::new(model)), stream)
}

#[test]
fn what_is_written_or_sealed_during_a_look_up_is_not_missed() {
    for timestamp in 0..4 {
        let disk = Watched::new();
        let (index, model, stream) = in_all_places(&disk);
        let meanwhile = Arc::clone(&index);
        disk.before_open(move || {
            model.lock().seal(&meanwhile);
            meanwhile.write_sealed().unwrap();
        });
        let hit = index.locate_timestamp(stream, Offset::ZERO, timestamp).unwrap();
        assert_eq!(hit.found.map(|row| row.max_timestamp), Some(timestamp));
        assert_eq!(hit.first.map(|row| row.base), Some(Offset::ZERO));
    }
    for offset in [0, 3, 6, 9] {
        let disk = Watched::new();
        let (index, model, stream) = in_all_places(&disk);
        let meanwhile = Arc::clone(&index);
        disk.before_open(move || {
            model.lock().seal(&meanwhile);
            meanwhile.write_sealed().unwrap();
        });
        assert_eq!(locate(&index, stream, offset, None).map(|row| row.base), Some(Offset::new(offset)));
    }
}

#[test]
fn a_file_that_is_purged_during_a_look_up_is_not_missing_but_gone() {
    let purge = |disk: &Watched, index: &Arc<HotIndex>| {
        let meanwhile = Arc::clone(index);
        disk.before_open(move || meanwhile.purge(Index::new(2)).unwrap());
    };
    let disk = Watched::new();
    let (index, _, stream) = in_all_places(&disk);
    purge(&disk, &index);
    assert_eq!(locate(&index, stream, 0, None), None);
    assert_eq!(locate(&index, stream, 3, None).map(|row| row.base), Some(Offset::new(3)));

    let disk = Watched::new();
    let (index, _, stream) = in_all_places(&disk);
    purge(&disk, &index);
    let hit = index.locate_timestamp(stream, Offset::ZERO, 0).unwrap();
    assert_eq!(hit.first.map(|row| row.base), Some(Offset::new(3)));

    // The first row that is left would be kept, but so might one that is gone: it must not be taken for the first of all.
    let disk = Watched::new();
    let (index, _, stream) = in_all_places(&disk);
    purge(&disk, &index);
    let kept = index.first_kept(stream, Limit::Bytes(0)).unwrap();
    assert!(
        matches!(kept, Kept::NotCovered { first: Some(first) } if first.base == Offset::new(3)),
        "{kept:?}"
    );
}

#[test]
fn nothing_kept_is_told_from_not_known() {
    let disk = Watched::new();
    let (index, model, stream) = in_all_places(&disk);
    let late = Limit::Later(HybridTime::from_micros(1000));
    assert!(matches!(index.first_kept(stream, late).unwrap(), Kept::Nothing { last: Some(_) }));
    model.lock().seal(&index);
    index.write_sealed().unwrap();
    assert!(matches!(index.first_kept(stream, late).unwrap(), Kept::Nothing { .. }));
    index.purge(Index::MAX).unwrap();
    let end = model.lock().end;
    assert_eq!(index.first_kept(stream, late).unwrap(), Kept::NotCovered { first: None });
    assert_eq!(disk.index(end).first_kept(stream, late).unwrap(), Kept::NotCovered { first: None });
}
