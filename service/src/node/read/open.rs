//! Opening a read: which stream is meant, and where in it the read begins.

use std::collections::VecDeque;
use std::sync::Arc;

use duramen_types::batch::Batch;
use duramen_types::{HybridTime, Offset, StreamId};

use super::{ReadSession, Scope, below_trim, blocking};
use crate::api::{Code, Error, ReadFrom, ReadRequest, Result, StreamRef};
use crate::node::{Node, corrupt};
use crate::shard::Shard;
use crate::time::rfc3339;

impl Node {
    /// Opens a read; nothing is fetched yet.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadSession> {
        self.observe_time(request.seen)?;
        self.metrics().read_begun();
        let follow = request.follow;
        let limits = (request.max_records.unwrap_or(u64::MAX), request.max_bytes.unwrap_or(u64::MAX));
        let mut session = match request.as_of {
            Some(_) if follow => {
                return Err(Error::new(
                    Code::InvalidArgument,
                    "a read of the past can't follow: leave out `follow` or `as_of`",
                ));
            }
            Some(time) => self.past(&request.stream, &request.from, time).await?,
            None => self.live(&request.stream, &request.from).await?,
        };
        session.follow = follow;
        (session.records_left, session.bytes_left) = limits;
        Ok(session)
    }

    async fn live(&self, name: &StreamRef, from: &ReadFrom) -> Result<ReadSession> {
        let located = self.locate(name, |found| {
            let cursor = match from {
                ReadFrom::Cursor(cursor) => found.cursors.get(cursor).map(|cursor| cursor.offset),
                _ => None,
            };
            (found.trimmed, found.next, cursor)
        });
        let (shard, stream, (first, tail, cursor)) = located.map_err(|error| match error.code {
            Code::UnknownStream => Error::new(
                Code::UnknownStream,
                format!(
                    "{}; what a deleted stream held can be read with `as_of` an instant before, inside the recovery window",
                    error.message
                ),
            ),
            _ => error,
        })?;
        let scope = Scope::Live(shard.view.follow(stream));
        let mut session = self.session(shard, name, stream, scope, first);
        session.start(from, first, tail, cursor).await?;
        Ok(session)
    }

    async fn past(&self, name: &StreamRef, from: &ReadFrom, time: HybridTime) -> Result<ReadSession> {
        let shard = Arc::clone(self.shard_of(name));
        let state = self.state_as_of(&shard, time).await?;
        let found = state
            .stream_id(&name.tenant, &name.name)
            .and_then(|id| state.stream(id).map(|stream| (id, stream)));
        let Some((stream, found)) = found else {
            return Err(Error::new(
                Code::UnknownStream,
                format!(
                    "stream {name} did not exist at {}: choose another instant, or look for the right name",
                    rfc3339(time)
                ),
            ));
        };
        let (first, tail) = (found.trimmed, found.next);
        let cursor = match from {
            ReadFrom::Cursor(cursor) => found.cursors.get(cursor).map(|cursor| cursor.offset),
            _ => None,
        };
        let mut session = self.session(shard, name, stream, Scope::Past { first, tail }, first);
        session.start(from, first, tail, cursor).await?;
        Ok(session)
    }

    fn session(
        &self,
        shard: Arc<Shard>,
        name: &StreamRef,
        stream: StreamId,
        scope: Scope,
        next: Offset,
    ) -> ReadSession {
        ReadSession {
            node: self.clone(),
            shard,
            name: name.clone(),
            stream,
            scope,
            next,
            follow: false,
            records_left: u64::MAX,
            bytes_left: u64::MAX,
            served: false,
            rows: VecDeque::new(),
            entries: VecDeque::new(),
            last_entry: None,
            cold: None,
        }
    }

    /// The hybrid time of the append that holds `offset`; `None` if it was trimmed or deleted meanwhile.
    pub(in crate::node) async fn time_of(
        &self,
        name: &StreamRef,
        offset: Offset,
    ) -> Result<Option<HybridTime>> {
        let mut session = self.live(name, &ReadFrom::Offset(offset)).await?;
        match session.next().await {
            Some(Ok(batch)) => Ok(Some(batch.time)),
            Some(Err(error)) if matches!(error.code, Code::OutOfRange | Code::UnknownStream) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Ok(None),
        }
    }
}

impl ReadSession {
    /// Moves to where the read begins.
    async fn start(
        &mut self,
        from: &ReadFrom,
        first: Offset,
        tail: Offset,
        cursor: Option<Offset>,
    ) -> Result<()> {
        let offset = match from {
            ReadFrom::Earliest => first,
            ReadFrom::Tail => tail,
            ReadFrom::Offset(offset) => *offset,
            ReadFrom::Timestamp(timestamp) => self.at_timestamp(*timestamp, first, tail).await?,
            ReadFrom::Cursor(name) => match cursor {
                // A trim may have passed the cursor: its reader goes on with what is left.
                Some(offset) => offset.max(first),
                None => {
                    return Err(Error::new(
                        Code::UnknownCursor,
                        format!("stream {} has no cursor {:?}: commit it first", self.name, name.as_str()),
                    ));
                }
            },
        };
        if offset < first {
            return Err(below_trim(&self.name, offset, first));
        }
        if offset > tail {
            return Err(Error::new(
                Code::OutOfRange,
                format!(
                    "stream {}: offset {offset} is beyond the tail {tail}: begin at most there, and follow to wait for \
                     more",
                    self.name
                ),
            )
            .with_tail(tail)
            .with_first_readable(first));
        }
        self.next = offset;
        Ok(())
    }

    /// The first offset whose record has a timestamp of at least `timestamp` (milliseconds); the tail if none has.
    async fn at_timestamp(&mut self, timestamp: i64, first: Offset, tail: Offset) -> Result<Offset> {
        let (view, stream) = (Arc::clone(&self.shard.view), self.stream);
        let hit =
            blocking(self.node.blocking(), move || view.index.locate_timestamp(stream, first, timestamp))
                .await?;
        let hit = hit.map_err(|error| corrupt(&self.name, &error))?;
        let local = hit.first.map_or(tail, |row| row.base).max(first);
        let mut candidate = hit.found.map(|row| row.base.max(first));
        if local > first
            && let Some(cold) =
                self.node.cold_timestamp(&self.shard, self.stream, first, local, timestamp).await?
        {
            candidate = Some(cold);
        }
        let Some(candidate) = candidate else { return Ok(tail) };
        // The batch reaches the timestamp somewhere: find the record.
        self.next = candidate;
        while self.next < tail {
            let found = self.fetch(tail).await?;
            let batch = Batch::from_trusted(found.batch.clone())
                .or_else(|_| {
                    duramen_types::batch::normalise(found.batch.clone())
                        .and_then(|(_, bytes)| Batch::from_trusted(bytes))
                })
                .map_err(|error| corrupt(&self.name, &error))?;
            let records = batch.records(found.base).map_err(|error| corrupt(&self.name, &error))?;
            for record in records.iter() {
                let record = record.map_err(|error| corrupt(&self.name, &error))?;
                if record.offset >= found.from && record.timestamp >= timestamp {
                    return Ok(record.offset.min(tail));
                }
            }
            self.next = found.end;
        }
        Ok(tail)
    }
}
