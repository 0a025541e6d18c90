//! Reading a stream, across broken connections.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff};
use bytes::Bytes;
use duramen_proto::v1;
use duramen_types::batch::{self, Batch, Record};
use duramen_types::{CursorName, HybridTime, Offset, StreamName};
use futures::Stream;
use tonic::Streaming;

use crate::retry::{self, Effect};
use crate::{Client, Error};

const CALL: &str = "the read";

/// Three times the longest silence that a node may keep while following.
const LONGEST_SILENCE: Duration = Duration::from_secs(15);

/// Where a read begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// The first readable record.
    #[default]
    Earliest,
    /// This offset; an error if it lies below the first readable one or beyond the tail.
    Offset(Offset),
    /// The first record whose timestamp, in milliseconds since 1970, is at or after this one.
    Timestamp(i64),
    /// After the last record.
    Tail,
    /// Where the cursor stands.
    Cursor(CursorName),
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    pub from: ReadFrom,
    /// The read ends after this many records.
    pub limit_records: Option<u64>,
    /// The read ends before it exceeds this many bytes of encoded batches; at least one batch is given.
    pub limit_bytes: Option<u64>,
    /// At the tail, wait for more instead of ending. Not together with `as_of`.
    pub follow: bool,
    /// Read the stream as it was at this instant.
    pub as_of: Option<HybridTime>,
}

/// A batch of a stream; of its records those in [`wanted`](Self::wanted) were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatch {
    batch: Batch,
    base: Offset,
    wanted: Range<Offset>,
    time: HybridTime,
}

/// A record of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    pub offset: Offset,
    /// The hybrid time of its append: `as_of` at or after it shows the record.
    pub time: HybridTime,
    pub record: Record,
}

impl ReadBatch {
    /// The batch as it was appended.
    pub const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The offset of the batch's first record.
    pub const fn base(&self) -> Offset {
        self.base
    }

    /// The offsets that were asked for: a part of the batch where a read begins or ends inside it.
    pub const fn wanted(&self) -> &Range<Offset> {
        &self.wanted
    }

    /// The hybrid time of the append.
    pub const fn time(&self) -> HybridTime {
        self.time
    }

    /// The batch's decompressed records: all of them, those outside [`wanted`](Self::wanted) included.
    pub fn decode(&self) -> Result<batch::Records, Error> {
        Ok(self.batch.records(self.base)?)
    }

    /// The records that were asked for; their bytes are shared, not copied.
    pub fn records(&self) -> Result<Vec<ReadRecord>, Error> {
        let mut wanted = Vec::new();
        for record in &self.decode()? {
            let record = record?;
            if self.wanted.contains(&record.offset) {
                let (offset, record) = (record.offset, record.to_record());
                wanted.push(ReadRecord { offset, time: self.time, record });
            }
        }
        Ok(wanted)
    }
}

/// A read that is under way; from [`Client::reader`].
///
/// When the connection breaks it goes on where it was: no record is skipped, none comes twice. Dropping it ends the
/// read; dropping the future of one of its calls loses nothing.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    stream: StreamName,
    options: ReadOptions,
    call: Option<Streaming<v1::ReadResponse>>,
    /// Whether the call has not answered yet.
    is_fresh: bool,
    /// Where it goes on; `None` until the node said where it begins.
    next: Option<Offset>,
    /// Where it ends: without `follow`, at the tail as the first answer told it.
    end: Option<Offset>,
    waiting: VecDeque<ReadBatch>,
    records: VecDeque<ReadRecord>,
    tail: Offset,
    first_readable: Offset,
    /// Whether any record was given.
    began: bool,
    finished: bool,
    trouble: Option<Trouble>,
}

/// A broken connection or a node that answers with errors, until a good answer comes again.
#[derive(Debug)]
struct Trouble {
    /// When the answer was first waited for that did not come.
    since: Duration,
    backoff: ExponentialBackoff,
}

impl Client {
    /// A reader of `stream`; it calls the node when it is first asked for something.
    pub fn reader(&self, stream: &StreamName, options: ReadOptions) -> Reader {
        Reader {
            client: self.clone(),
            stream: stream.clone(),
            options,
            call: None,
            is_fresh: false,
            next: None,
            end: None,
            waiting: VecDeque::new(),
            records: VecDeque::new(),
            tail: Offset::ZERO,
            first_readable: Offset::ZERO,
            began: false,
            finished: false,
            trouble: None,
        }
    }
}

impl Reader {
    /// The next batch, or `None` at the end of the read; while following it waits for one.
    ///
    /// After an error that is not retryable the read has ended.
    pub async fn next_batch(&mut self) -> Result<Option<ReadBatch>, Error> {
        loop {
            if let Some(batch) = self.waiting.pop_front() {
                return Ok(Some(batch));
            }
            if !self.advance().await? {
                return Ok(None);
            }
        }
    }

    /// The next record, or `None` at the end of the read; while following it waits for one.
    pub async fn next(&mut self) -> Result<Option<ReadRecord>, Error> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            let Some(batch) = self.next_batch().await? else { return Ok(None) };
            self.records = batch.records()?.into();
        }
    }

    /// Waits for the node's first answer, which says where the read begins: [`position`](Self::position).
    pub async fn start(&mut self) -> Result<Offset, Error> {
        loop {
            if let Some(position) = self.position() {
                return Ok(position);
            }
            if !self.advance().await? {
                return Err(Error::protocol(CALL, Effect::None, "it ended without an answer"));
            }
        }
    }

    /// The records as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<ReadRecord, Error>> + Send {
        futures::stream::try_unfold(self, async |mut reader| {
            Ok(reader.next().await?.map(|record| (record, reader)))
        })
    }

    /// The offset after the last record that [`next`](Self::next) or [`next_batch`](Self::next_batch) gave: what to
    /// commit as a cursor. `None` until the node said where the read begins.
    pub fn position(&self) -> Option<Offset> {
        let record = self.records.front().map(|record| record.offset);
        record.or_else(|| self.waiting.front().map(|batch| batch.wanted.start)).or(self.next)
    }

    /// The stream's tail, as the last answer told it.
    pub const fn tail(&self) -> Offset {
        self.tail
    }

    /// The first readable offset, as the last answer told it.
    pub const fn first_readable(&self) -> Offset {
        self.first_readable
    }

    /// Takes one answer; `false` at the end of the read.
    async fn advance(&mut self) -> Result<bool, Error> {
        if self.finished || self.is_complete() {
            self.finish();
            return Ok(false);
        }
        let began = self.client.clock().monotonic();
        match self.receive().await {
            Ok(Some(response)) => {
                // A node that opens reads and ends them at once is in trouble still.
                if !std::mem::take(&mut self.is_fresh) {
                    self.trouble = None;
                }
                self.take(response).inspect_err(|_| self.finish())?;
                Ok(true)
            }
            Ok(None) if self.may_end_here() => {
                self.finish();
                Ok(false)
            }
            Ok(None) => {
                self.try_again(Error::lost(CALL, Effect::None, "the node ended it too early"), began).await
            }
            Err(error) => self.try_again(error, began).await,
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        self.call = None;
    }

    fn is_complete(&self) -> bool {
        let at_end = self.end.is_some_and(|end| self.next.is_some_and(|next| next >= end));
        at_end || self.options.limit_records == Some(0) || self.options.limit_bytes == Some(0)
    }

    /// Whether the node may have ended the read by its rules: at a limit in bytes, which it alone can judge.
    fn may_end_here(&self) -> bool {
        self.next.is_some() && (self.options.limit_bytes.is_some() || self.is_complete())
    }

    async fn receive(&mut self) -> Result<Option<v1::ReadResponse>, Error> {
        if self.call.is_none() {
            let request = self.client.request(self.request(), None);
            let mut log = self.client.log();
            let opened = within(self.client.options().request_timeout, log.read(request)).await?;
            let response = opened.map_err(|status| self.client.error(CALL, Effect::None, &status))?;
            self.client.note_metadata(response.metadata());
            self.call = Some(response.into_inner());
            self.is_fresh = true;
        }
        let call = self.call.as_mut().expect("the call was opened above");
        let answer =
            within(LONGEST_SILENCE.max(self.client.options().request_timeout), call.message()).await?;
        answer.map_err(|status| self.client.error(CALL, Effect::None, &status))
    }

    fn request(&self) -> v1::ReadRequest {
        use v1::read_request::From;
        let from = match (self.next, &self.options.from) {
            (Some(next), _) => From::Offset(next.get()),
            (None, ReadFrom::Earliest) => From::Earliest(v1::Earliest {}),
            (None, ReadFrom::Offset(offset)) => From::Offset(offset.get()),
            (None, ReadFrom::Timestamp(millis)) => From::Timestamp(*millis),
            (None, ReadFrom::Tail) => From::Tail(v1::Tail {}),
            (None, ReadFrom::Cursor(cursor)) => From::Cursor(cursor.to_string()),
        };
        v1::ReadRequest {
            tenant: self.client.tenant().to_string(),
            stream: self.stream.to_string(),
            from: Some(from),
            limit_records: self.options.limit_records,
            limit_bytes: self.options.limit_bytes,
            follow: self.options.follow,
            as_of: self.options.as_of.map(HybridTime::as_micros),
            format: v1::ReadFormat::Batches.into(),
        }
    }

    fn take(&mut self, response: v1::ReadResponse) -> Result<(), Error> {
        self.client.note_seen(HybridTime::from_micros(response.time));
        self.tail = Offset::new(response.tail);
        self.first_readable = Offset::new(response.first_readable);
        let told = Offset::new(response.next_offset);
        let Some(mut next) = self.next else {
            if !response.batches.is_empty() {
                return Err(broken("its first message must say where it begins, and hold no records"));
            }
            self.next = Some(told);
            self.end = (!self.options.follow).then_some(self.tail);
            return Ok(());
        };
        let mut sent = next;
        for stored in response.batches {
            let bytes = u64::try_from(stored.data.len()).unwrap_or(u64::MAX);
            let (base, batch) = decode(stored.data)?;
            let end = base.plus(u64::from(batch.count()));
            if !(base..end).contains(&sent) {
                return Err(broken(format!(
                    "it holds a batch of offsets {base}..{end} where {sent} was due"
                )));
            }
            sent = end;
            if self.options.limit_bytes.is_some_and(|left| self.began && bytes > left) {
                self.options.limit_bytes = Some(0);
                break;
            }
            let wanted = next..self.wanted_end(next, end);
            let count = wanted.end.since(next);
            take_from(&mut self.options.limit_records, count);
            take_from(&mut self.options.limit_bytes, bytes);
            next = wanted.end;
            if count > 0 {
                self.began = true;
                let time = HybridTime::from_micros(stored.time);
                self.waiting.push_back(ReadBatch { batch, base, wanted, time });
            }
        }
        if told > sent {
            return Err(broken(format!("it goes on at {told} where {sent} was due")));
        }
        self.next = Some(next);
        Ok(())
    }

    /// Where a batch that ends at `end` is cut by what was asked for.
    fn wanted_end(&self, next: Offset, end: Offset) -> Offset {
        let limit = self.options.limit_records.map_or(end, |left| next.plus(left));
        end.min(limit).min(self.end.unwrap_or(end)).max(next)
    }

    /// Waits before the next attempt, or gives the error back; `began` is when this attempt did.
    async fn try_again(&mut self, error: Error, began: Duration) -> Result<bool, Error> {
        self.call = None;
        let now = self.client.clock().monotonic();
        let since = self.trouble.as_ref().map_or(began, |trouble| trouble.since);
        if !error.is_retryable() || now.saturating_sub(since) >= self.client.options().retry_for {
            self.finish();
            return Err(error);
        }
        let trouble = self
            .trouble
            .get_or_insert_with(|| Trouble { since, backoff: retry::backoff(self.client.clock()).build() });
        let delay = trouble.backoff.next().unwrap_or_default().max(error.retry_after().unwrap_or_default());
        tracing::debug!(stream = %self.stream, %error, ?delay, "reading again");
        tokio::time::sleep(delay).await;
        Ok(true)
    }
}

fn broken(reason: impl Into<String>) -> Error {
    Error::protocol(CALL, Effect::None, reason)
}

fn take_from(limit: &mut Option<u64>, used: u64) {
    if let Some(left) = limit {
        *left = left.saturating_sub(used);
    }
}

/// A batch as served: its base offset, and the batch itself, its checksum verified.
fn decode(data: Bytes) -> Result<(Offset, Batch), Error> {
    let (base, bytes) = batch::normalise(data)?;
    let stored = bytes.get(17..).and_then(|rest| rest.first_chunk()).map(|field| u32::from_be_bytes(*field));
    let computed = bytes.get(21..).map(crc32c::crc32c);
    if let (Some(stored), Some(computed)) = (stored, computed)
        && stored != computed
    {
        return Err(batch::Error::Checksum { stored, computed }.into());
    }
    Ok((base, Batch::from_trusted(bytes)?))
}

/// The future's output, unless it takes longer than `longest`.
async fn within<T>(longest: Duration, future: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(longest, future)
        .await
        .map_err(|_| Error::lost(CALL, Effect::None, format!("no answer for {longest:?}")))
}
