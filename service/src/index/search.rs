//! Look-ups that go beyond memory. All of them are blocking.
//!
//! Chunks are sealed and files are purged meanwhile. A look-up goes by one list of chunks, then looks whether the open one
//! still continues it; where a purge took a file away under it, it begins again. So it sees every row that the index had
//! when it began and was not purged, and none twice.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use duramen_types::{HybridTime, Index, Offset, StreamId};

use super::chunk::{StreamEnd, StreamItem};
use super::{Error, HotIndex, Part, Parts, ROWS_PER_LOOKUP, Row};

/// How many files a sequential reader looks at, from the one that it is in, before it searches.
const FILES_AHEAD: usize = 2;

/// What [`HotIndex::locate_timestamp`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampHit {
    /// The first row that reaches beyond the offset asked for; what lies between is not in the index.
    pub first: Option<Row>,
    /// The first row that reaches the timestamp.
    pub found: Option<Row>,
}

/// Which rows of a stream are kept: all from some row on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Those before which the stream was given at least so many bytes.
    Bytes(u64),
    /// Those that were appended later than this.
    Later(HybridTime),
}

impl Limit {
    pub const fn keeps(&self, row: &Row) -> bool {
        match self {
            Self::Bytes(bytes) => row.before >= *bytes,
            Self::Later(time) => row.time.as_micros() > time.as_micros(),
        }
    }

    /// Whether a stream that is so far may have a row that is kept; if not, all that it has is before the limit.
    const fn may_keep(&self, end: &StreamEnd) -> bool {
        match self {
            Self::Bytes(bytes) => end.bytes > *bytes,
            Self::Later(time) => end.last.as_micros() > time.as_micros(),
        }
    }
}

/// What [`HotIndex::first_kept`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Everything from this row on, and nothing before it.
    From(Row),
    /// Nothing; the last row, where the index has it.
    Nothing { last: Option<Row> },
    /// Everything that the index has, of which this is the first row; what lies before it, or all where there is none,
    /// the index can't tell.
    NotCovered { first: Option<Row> },
}

impl HotIndex {
    /// Appends the rows of `stream` from the one that holds `offset` on to `rows`, at most 512 of them and all of one
    /// chunk; false where the index does not reach back to it.
    ///
    /// `hint` is an entry at or before the wanted one, as a sequential reader knows it. Without one, and where it does not
    /// help, it takes a few pages for each halving of the number of files.
    pub fn locate(
        &self,
        stream: StreamId,
        offset: Offset,
        hint: Option<Index>,
        rows: &mut VecDeque<Row>,
    ) -> Result<bool, Error> {
        let given = rows.len();
        self.unless_purged(|| {
            rows.truncate(given);
            if self.locate_in_memory(stream, offset, rows) {
                return Ok(true);
            }
            let parts = self.sealed();
            if let Some(hint) = hint {
                let from = parts.partition_point(|part| part.end <= hint);
                for part in parts.iter().skip(from).take(FILES_AHEAD) {
                    if self.rows_at(part, stream, offset, rows)? {
                        return Ok(true);
                    }
                }
            }
            let at = self.search(&parts, stream, |end| end.next > offset)?;
            match parts.get(at) {
                Some(part) => self.rows_at(part, stream, offset, rows),
                None => Ok(false),
            }
        })
    }

    /// The same within one part.
    fn rows_at(
        &self,
        part: &Part,
        stream: StreamId,
        offset: Offset,
        rows: &mut VecDeque<Row>,
    ) -> Result<bool, Error> {
        let Some(item) = self.item(part, stream)? else { return Ok(false) };
        let from = self.partition(part, &item, |row| row.end() <= offset)?;
        let before = rows.len();
        self.rows(part, &item, from, &mut |found| {
            if rows.len() == before && found.first().is_none_or(|row| row.base > offset) {
                return false;
            }
            let left = ROWS_PER_LOOKUP.saturating_sub(rows.len() - before);
            rows.extend(found.iter().take(left));
            rows.len() - before < ROWS_PER_LOOKUP
        })?;
        Ok(rows.len() > before)
    }

    /// The first row of `stream`, at or after `from`, with a record timestamp of at least `timestamp` (milliseconds); and
    /// the first row at or after `from` at all.
    ///
    /// Timestamps need no order: every file from the one that holds `from` on is looked at, a page of most.
    pub fn locate_timestamp(
        &self,
        stream: StreamId,
        from: Offset,
        timestamp: i64,
    ) -> Result<TimestampHit, Error> {
        self.unless_purged(|| {
            let first: Cell<Option<Row>> = Cell::new(None);
            let mut found = None;
            let mut look = |rows: &[Row]| {
                let skip = rows.partition_point(|row| row.end() <= from);
                let rows = rows.get(skip..).unwrap_or(&[]);
                first.set(first.get().or_else(|| rows.first().copied()));
                found = rows.iter().find(|row| row.max_timestamp >= timestamp).copied();
                found.is_none()
            };
            let part = |part: &Part, item: &StreamItem, look: &mut dyn FnMut(&[Row]) -> bool| {
                // Behind the first row everything is.
                let skip = match first.get() {
                    Some(_) => 0,
                    None => self.partition(part, item, |row| row.end() <= from)?,
                };
                let mut more = true;
                if item.max_timestamp >= timestamp {
                    self.rows(part, item, skip, &mut |rows| {
                        more = look(rows);
                        more
                    })?;
                } else if first.get().is_none() && skip < item.rows {
                    more = look(&[self.row(part, item, skip)?]);
                }
                Ok(more)
            };
            let parts = self.sealed();
            self.walk(parts, stream, |end| end.next > from, part, &mut look)?;
            Ok(TimestampHit { first: first.get(), found })
        })
    }

    /// The first row of `stream` that `limit` keeps.
    pub fn first_kept(&self, stream: StreamId, limit: Limit) -> Result<Kept, Error> {
        self.unless_purged(|| {
            let (parts, begin) = {
                let inner = self.inner.read();
                let begin = inner.sealed.front().map_or(inner.open.entries.start, |part| part.first);
                (Arc::clone(&inner.sealed), begin)
            };
            // Where the stream began within the index, or the search passes over a part, all before is known.
            let passed = self.search(&parts, stream, |end| limit.may_keep(end))? > 0;
            let mut known = passed || stream.get() >= begin.get();
            let mut kept: Option<(Row, bool)> = None;
            let mut last: Option<Row> = None;
            let mut look = |rows: &[Row]| {
                let refused = rows.partition_point(|row| !limit.keeps(row));
                known |= refused > 0;
                last = rows.last().copied().or(last);
                kept = rows.get(refused).map(|row| (*row, known));
                kept.is_none()
            };
            let part = |part: &Part, item: &StreamItem, look: &mut dyn FnMut(&[Row]) -> bool| {
                let refused = self.partition(part, item, |row| !limit.keeps(row))?;
                let before = match refused.checked_sub(1) {
                    Some(before) => look(&[self.row(part, item, before)?]),
                    None => true,
                };
                Ok(before && (refused == item.rows || look(&[self.row(part, item, refused)?])))
            };
            self.walk(parts, stream, |end| limit.may_keep(end), part, &mut look)?;
            Ok(match kept {
                Some((row, true)) => Kept::From(row),
                Some((row, false)) => Kept::NotCovered { first: Some(row) },
                None if known => Kept::Nothing { last },
                None => Kept::NotCovered { first: None },
            })
        })
    }

    /// The first of `parts` at whose end the stream is `beyond`; a stream that was deleted before is beyond everything.
    fn search(
        &self,
        parts: &Parts,
        stream: StreamId,
        beyond: impl Fn(&StreamEnd) -> bool,
    ) -> Result<usize, Error> {
        let (mut low, mut high) = (0, parts.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(part) = parts.get(middle) else { break };
            let is_beyond = match self.item(part, stream)? {
                Some(item) => beyond(&item.end),
                // It is created later, or was deleted before: its id is the index of the entry that created it.
                None => stream.get() < part.end.get(),
            };
            if is_beyond {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// Goes over what the index has of the stream, from the first of `parts` at whose end it is `beyond`: `part` for each
    /// sealed chunk with rows, which passes what matters of them on to `look`, then `look` for the open one. Ends when
    /// either returns false.
    fn walk(
        &self,
        mut parts: Parts,
        stream: StreamId,
        beyond: impl Fn(&StreamEnd) -> bool,
        part: impl Fn(&Part, &StreamItem, &mut dyn FnMut(&[Row]) -> bool) -> Result<bool, Error>,
        look: &mut dyn FnMut(&[Row]) -> bool,
    ) -> Result<(), Error> {
        let mut from = self.search(&parts, stream, &beyond)?;
        loop {
            for sealed in parts.iter().skip(from) {
                if let Some(item) = self.item(sealed, stream)?.filter(|item| item.rows > 0)
                    && !part(sealed, &item, look)?
                {
                    return Ok(());
                }
            }
            let inner = self.inner.read();
            let reached = parts.back().map(|part| part.end);
            if reached.is_none_or(|reached| inner.open.entries.start == reached)
                && inner.sealed.len() <= parts.len()
            {
                look(inner.open.stream(stream));
                return Ok(());
            }
            // What was open is sealed now: it is among the parts that the list has more.
            parts = Arc::clone(&inner.sealed);
            let continued = parts.front().map_or(inner.open.entries.start, |part| part.first);
            drop(inner);
            if reached.is_some_and(|reached| continued > reached) {
                let source = io::ErrorKind::NotFound.into();
                return Err(Error::Io { path: self.directory.clone(), source });
            }
            from = reached.map_or(0, |reached| parts.partition_point(|part| part.end <= reached));
        }
    }

    /// Repeats a look-up that came upon a file which a purge was just removing.
    fn unless_purged<T>(&self, mut look: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let first = || self.inner.read().sealed.front().map(|part| part.first);
        loop {
            let before = first();
            match look() {
                Err(Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && first() != before => {}
                done => return done,
            }
        }
    }
}
