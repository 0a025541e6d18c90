mod appends;
mod apply;
mod history;
mod model;
mod properties;
mod rescues;
mod snapshots;

use duramen_types::{
    BatchHeader, ControlOp, EntryBody, EntryHead, EntryId, Hash, HybridTime, Index, Offset, Producer,
    ProducerId, ShardId, StreamConfig, StreamId, StreamName, TenantName, Term,
};

use crate::{Applied, BatchOutcome, ShardState};

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

fn stream_name(name: &str) -> StreamName {
    StreamName::parse(name).unwrap()
}

fn header(stream: StreamId, records: u32) -> BatchHeader {
    BatchHeader {
        stream,
        records,
        bytes: records.saturating_mul(10).max(1),
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_500,
        hash: Hash::from_bytes([7; 32]),
        producer: None,
        match_offset: None,
        fencing_token: None,
    }
}

fn produced(stream: StreamId, records: u32, id: u64, epoch: u16, sequence: u32) -> BatchHeader {
    let producer = Some(Producer { id: ProducerId::new(id), epoch, sequence });
    BatchHeader { producer, ..header(stream, records) }
}

/// A shard that is fed one entry after the other, all in term 1 and a microsecond apart unless told otherwise.
struct Feed {
    state: ShardState,
    term: Term,
}

impl Feed {
    /// A data shard whose log begins, as a real one does, with a membership entry.
    fn new() -> Self {
        let mut feed = Self { state: ShardState::new(ShardId::new(1)), term: Term::new(1) };
        feed.apply_at(HybridTime::ZERO, EntryBody::Membership(Vec::new().into()));
        feed
    }

    fn next_id(&self) -> EntryId {
        EntryId { index: self.state.end(), term: self.term }
    }

    fn apply_at(&mut self, time: HybridTime, body: EntryBody) -> Applied {
        let head = EntryHead { time, body };
        self.state.apply(self.next_id(), &head, &head.encode()).unwrap()
    }

    fn apply(&mut self, body: EntryBody) -> Applied {
        let time = if body.is_timed() { self.state.time().next() } else { HybridTime::ZERO };
        self.apply_at(time, body)
    }

    fn control(&mut self, op: ControlOp) -> Result<crate::ControlResult, crate::Rejection> {
        self.apply(EntryBody::Control(op)).control.unwrap()
    }

    fn create(&mut self, name: &str) -> StreamId {
        let id = StreamId::new(self.state.end().get());
        let op = ControlOp::CreateStream {
            tenant: tenant("default"),
            name: stream_name(name),
            config: StreamConfig::default(),
        };
        assert_eq!(self.control(op), Ok(crate::ControlResult::Created(id)));
        id
    }

    fn append(&mut self, batch: BatchHeader) -> BatchOutcome {
        self.apply(EntryBody::Append(vec![batch])).batches.remove(0)
    }

    fn tail(&self, stream: StreamId) -> Offset {
        self.state.stream(stream).unwrap().next
    }
}

fn at(index: u64) -> Index {
    Index::new(index)
}
