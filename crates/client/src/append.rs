//! One batch, one call.

use std::ops::Range;

use duramen_proto::v1;
use duramen_types::batch::{self, Batch, BatchBuilder, Codec, Limits, Record};
use duramen_types::{Acknowledgement, FencingToken, HybridTime, Offset, Producer, StreamName, Term};

use crate::model::acknowledgement_to_proto;
use crate::retry::Effect;
use crate::{Client, Error};

pub(crate) const APPEND: &str = "the append";

/// How to append one batch.
#[derive(Debug, Clone, Default)]
pub struct AppendOptions {
    /// How large a batch and a record may be; the node's own limits apply besides.
    pub limits: Limits,
    /// What the answer waits for; `None` takes the stream's default.
    pub acknowledgement: Option<Acknowledgement>,
    /// Append only if the tail is at this offset.
    pub match_offset: Option<Offset>,
    /// The stream's fencing token, where it has one.
    pub fencing_token: Option<FencingToken>,
    /// An idempotent producer's stamp: makes it safe to repeat the append, and has the client do so.
    pub producer: Option<Producer>,
    /// What compresses the batch; nothing by default.
    pub compression: Codec,
}

/// The acknowledgement of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The records' offsets.
    pub offsets: Range<Offset>,
    /// The hybrid time of the append: `as_of` at or after it shows the records.
    pub time: HybridTime,
    /// True where it is fsynced on the leader only.
    pub provisional: bool,
    /// The leader's term.
    pub term: Term,
    /// True where the stream had the batch already, and this is its first answer again.
    pub duplicate: bool,
}

impl Client {
    /// Appends `records` as one batch: all of them, with consecutive offsets, or none.
    ///
    /// Without a producer stamp it is repeated only if it certainly had no effect; then an error whose
    /// [`may_have_had_effect`](Error::may_have_had_effect) is true means that it may have been appended. Dropping the
    /// future does not undo it.
    pub async fn append(
        &self,
        stream: &StreamName,
        records: &[Record],
        options: &AppendOptions,
    ) -> Result<Appended, Error> {
        let mut builder = BatchBuilder::new(options.limits);
        for record in records {
            builder.push_record(record)?;
        }
        let finish =
            batch::Options { compression: options.compression, producer: options.producer, arrival: None };
        self.append_batch(stream, builder.finish(finish)?, options).await
    }

    /// Appends a batch as it is, with the stamp and the compression that it has; otherwise like
    /// [`append`](Self::append).
    pub async fn append_batch(
        &self,
        stream: &StreamName,
        batch: Batch,
        options: &AppendOptions,
    ) -> Result<Appended, Error> {
        let effect = if batch.producer().is_some() { Effect::Idempotent } else { Effect::Once };
        let request = v1::AppendRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            payload: Some(v1::append_request::Payload::EncodedBatch(batch.into_bytes())),
            acknowledgement: acknowledgement_to_proto(options.acknowledgement),
            match_offset: options.match_offset.map(Offset::get),
            fencing_token: options.fencing_token.as_ref().map(ToString::to_string),
            producer: None,
            seen: 0,
        };
        let ack = self
            .call(APPEND, effect, request, |mut log, request| async move { log.append(request).await })
            .await?;
        let appended = Appended::from(ack);
        self.note_seen(appended.time);
        Ok(appended)
    }
}

impl From<v1::AppendAck> for Appended {
    fn from(ack: v1::AppendAck) -> Self {
        Self {
            offsets: Offset::new(ack.first_offset)..Offset::new(ack.next_offset),
            time: HybridTime::from_micros(ack.time),
            provisional: ack.provisional,
            term: Term::new(ack.term),
            duplicate: ack.duplicate,
        }
    }
}
