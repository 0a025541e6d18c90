//! What one segment that is being written (or scanned) does to the log: the fold of its records.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use duramen_types::{EntryId, Index, ShardId, Term};

use crate::format::{DisplacedRow, RUN_ROWS, RecordView, Row, Run, ShardSummary, Summary, encode_page};

/// The fold of a segment's records: becomes its footer.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentTable {
    shards: BTreeMap<ShardId, ShardTable>,
}

#[derive(Debug, Clone, Default)]
struct ShardTable {
    truncated_from: Option<Index>,
    committed: Option<EntryId>,
    purged: Option<EntryId>,
    vote: Option<Bytes>,
    runs: BTreeMap<Index, OpenRun>,
    displaced: BTreeMap<EntryId, Option<Row>>,
    released: BTreeSet<EntryId>,
}

#[derive(Debug, Clone)]
struct OpenRun {
    term: Term,
    rows: Vec<Row>,
}

impl OpenRun {
    fn end(&self, first: Index) -> Index {
        first.plus(self.rows.len() as u64)
    }
}

impl SegmentTable {
    /// Applies the record that starts at byte `position` of the segment; an error says why it can't be there.
    pub(crate) fn apply(&mut self, record: &RecordView<'_>, position: u64) -> Result<(), String> {
        match *record {
            RecordView::Entry { shard, id, payload } => self
                .shard(shard)
                .append(id, row(position, payload))
                .map_err(|why| format!("shard {shard}: {why}")),
            RecordView::Truncate { shard, from } => {
                self.shard(shard).truncate(from);
                Ok(())
            }
            RecordView::Displaced { shard, id } => {
                let table = self.shard(shard);
                let row = table.row(id);
                let known = table.displaced.entry(id).or_insert(row);
                *known = known.or(row);
                table.released.remove(&id);
                Ok(())
            }
            RecordView::DisplacedCopy { shard, id, payload } => {
                let table = self.shard(shard);
                table.displaced.insert(id, Some(row(position, payload)));
                table.released.remove(&id);
                Ok(())
            }
            RecordView::Released { shard, id } => {
                let table = self.shard(shard);
                table.displaced.remove(&id);
                table.released.insert(id);
                Ok(())
            }
            RecordView::Vote { shard, bytes } => {
                self.shard(shard).vote = Some(Bytes::copy_from_slice(bytes));
                Ok(())
            }
            RecordView::Committed { shard, id } => {
                self.shard(shard).committed = Some(id);
                Ok(())
            }
            RecordView::Purged { shard, id } => {
                self.shard(shard).purge(id);
                Ok(())
            }
        }
    }

    fn shard(&mut self, shard: ShardId) -> &mut ShardTable {
        self.shards.entry(shard).or_default()
    }

    /// Where an entry that is in the log, or displaced, was written in this segment.
    pub(crate) fn row(&self, shard: ShardId, id: EntryId) -> Option<Row> {
        let table = self.shards.get(&shard)?;
        table.row(id).or_else(|| table.displaced.get(&id).copied().flatten())
    }

    /// The rows of `from..end` of one term that this segment holds without a gap, from `from` on, at most `limit`.
    pub(crate) fn rows(&self, shard: ShardId, term: Term, from: Index, end: Index, limit: usize) -> Vec<Row> {
        let Some((first, run)) =
            self.shards.get(&shard).and_then(|table| table.runs.range(..=from).next_back())
        else {
            return Vec::new();
        };
        if run.term != term {
            return Vec::new();
        }
        let skip = usize::try_from(from.since(*first)).unwrap_or(usize::MAX);
        let wanted = usize::try_from(end.since(from)).unwrap_or(usize::MAX).min(limit);
        run.rows.iter().skip(skip).take(wanted).copied().collect()
    }

    /// The sum of the payloads' lengths of the entries of one term in `range`.
    pub(crate) fn payload_bytes(&self, shard: ShardId, term: Term, range: &Range<Index>) -> u64 {
        let Some(table) = self.shards.get(&shard) else { return 0 };
        let mut bytes = 0_u64;
        let runs = table.runs.range(..range.end).rev();
        for (first, run) in runs.take_while(|(first, run)| run.end(**first) > range.start) {
            let row = |index: Index| usize::try_from(index.since(*first)).unwrap_or(usize::MAX);
            let rows = run.rows.get(row(range.start)..row(range.end).min(run.rows.len()));
            if run.term == term {
                bytes += rows.unwrap_or_default().iter().map(|row| u64::from(row.length)).sum::<u64>();
            }
        }
        bytes
    }

    /// The footer's row pages, which start at byte `footer_at`, and its summary.
    pub(crate) fn seal(&self, footer_at: u64) -> (Vec<u8>, Summary) {
        let mut pages = Vec::new();
        let mut summary = Summary::default();
        for (shard, table) in &self.shards {
            let mut runs = Vec::with_capacity(table.runs.len());
            for (first, run) in &table.runs {
                let page = encode_page(&run.rows);
                runs.push(Run {
                    first: *first,
                    term: run.term,
                    bytes: run.rows.iter().map(|row| u64::from(row.length)).sum(),
                    page_at: footer_at + pages.len() as u64,
                    page_len: u32::try_from(page.len()).expect("a page has at most 4,096 rows of 20 bytes"),
                    page_crc: crc32fast::hash(&page),
                    count: u32::try_from(run.rows.len()).expect("a run has at most 4,096 rows"),
                });
                pages.extend_from_slice(&page);
            }
            summary.0.insert(
                *shard,
                ShardSummary {
                    truncated_from: table.truncated_from,
                    committed: table.committed,
                    purged: table.purged,
                    vote: table.vote.clone(),
                    runs,
                    displaced: table
                        .displaced
                        .iter()
                        .map(|(id, row)| DisplacedRow { id: *id, row: *row })
                        .collect(),
                    released: table.released.clone(),
                },
            );
        }
        (pages, summary)
    }

    /// Per shard, the half-open range of indexes from the first to the last entry held here.
    pub(crate) fn ranges(&self) -> BTreeMap<ShardId, std::ops::Range<Index>> {
        self.shards
            .iter()
            .filter_map(|(shard, table)| {
                let (first, _) = table.runs.first_key_value()?;
                let (last_first, last) = table.runs.last_key_value()?;
                Some((*shard, *first..last.end(*last_first)))
            })
            .collect()
    }
}

impl ShardTable {
    fn append(&mut self, id: EntryId, row: Row) -> Result<(), String> {
        if let Some((first, run)) = self.runs.range_mut(..=id.index).next_back() {
            let end = run.end(*first);
            if id.index < end {
                return Err(format!("entry {id} is there twice"));
            }
            if id.index == end && run.term == id.term && run.rows.len() < RUN_ROWS {
                run.rows.push(row);
                return Ok(());
            }
        }
        self.runs.insert(id.index, OpenRun { term: id.term, rows: vec![row] });
        Ok(())
    }

    fn truncate(&mut self, from: Index) {
        self.truncated_from = Some(self.truncated_from.map_or(from, |earlier| earlier.min(from)));
        self.runs.split_off(&from);
        if let Some((first, run)) = self.runs.last_entry().map(|last| (*last.key(), last.into_mut())) {
            run.rows.truncate(usize::try_from(from.since(first)).unwrap_or(usize::MAX));
        }
    }

    fn purge(&mut self, through: EntryId) {
        if self.purged.is_none_or(|purged| purged.index <= through.index) {
            self.purged = Some(through);
        }
        while let Some(first) = self.runs.first_entry() {
            if first.get().end(*first.key()) > through.index.next() {
                break;
            }
            first.remove();
        }
    }

    fn row(&self, id: EntryId) -> Option<Row> {
        let (first, run) = self.runs.range(..=id.index).next_back()?;
        if run.term != id.term {
            return None;
        }
        run.rows.get(usize::try_from(id.index.since(*first)).ok()?).copied()
    }
}

fn row(position: u64, payload: &[u8]) -> Row {
    Row { position, length: u32::try_from(payload.len()).expect("a payload is bounded far below 4 GiB") }
}
