//! The golden files of shard states (`tests/golden`), and what the golden log of `duramen-types` amounts to.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fmt::Write;
use std::path::Path;

use duramen_golden::{Counting, Golden, assert_resists_damage, assert_total_behind_checksums, golden};
use duramen_state::{Applied, ShardState};
use duramen_types::{
    Acknowledgement, BatchHeader, Compression, ControlOp, CursorName, Entry, EntryBody, EntryHead, EntryId,
    FencingToken, Hash, HybridTime, Index, Offset, Producer, ProducerId, RescueOrigin, RescuePolicy,
    RestorePointName, RetentionPolicy, ShardId, StreamConfig, StreamId, StreamName, TenantName, Term,
    TimestampPolicy,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GOLDEN: Golden = golden!();

struct Feed {
    state: ShardState,
    term: u64,
}

impl Feed {
    fn apply(&mut self, body: EntryBody) -> Applied {
        let id = EntryId { index: self.state.end(), term: Term::new(self.term) };
        let micros = 1_700_000_000_000_000 + id.index.get();
        let time = if body.is_timed() { HybridTime::from_micros(micros) } else { HybridTime::ZERO };
        let head = EntryHead { time, body };
        self.state.apply(id, &head, &head.encode()).unwrap()
    }

    fn control(&mut self, op: ControlOp) {
        self.apply(EntryBody::Control(op)).control.unwrap().unwrap();
    }

    fn create(&mut self, tenant: &str, name: &str, config: StreamConfig) -> StreamId {
        let id = StreamId::new(self.state.end().get());
        let (tenant, name) = (TenantName::parse(tenant).unwrap(), StreamName::parse(name).unwrap());
        self.control(ControlOp::CreateStream { tenant, name, config });
        id
    }
}

fn header(stream: StreamId, records: u32, producer: Option<(u64, u32)>) -> BatchHeader {
    let producer = producer.map(|(id, sequence)| Producer { id: ProducerId::new(id), epoch: 2, sequence });
    BatchHeader {
        stream,
        records,
        bytes: records * 100,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_500,
        hash: Hash::from_bytes([7; 32]),
        producer,
        match_offset: None,
        fencing_token: None,
    }
}

/// Something in every list of a data shard.
fn data_shard() -> ShardState {
    let mut feed = Feed { state: ShardState::new(ShardId::new(1)), term: 1 };
    feed.apply(EntryBody::Blank);
    let full = StreamConfig {
        acknowledgement: Some(Acknowledgement::Archived),
        retention: RetentionPolicy { age_seconds: Some(86_400), bytes: Some(1 << 40) },
        compression: Some(Compression::None),
        timestamps: Some(TimestampPolicy::Arrival),
        rescue: Some(RescuePolicy::Append),
    };
    let orders = feed.create("default", "orders", StreamConfig::default());
    let events = feed.create("default", "events~7", full);
    let other = feed.create("other", "orders", StreamConfig::default());
    feed.apply(EntryBody::Append(vec![header(orders, 5, None), header(events, 2, Some((77, 0)))]));
    for sequence in 0..6 {
        feed.apply(EntryBody::Append(vec![header(orders, 1, Some((78, sequence)))]));
    }
    feed.term = 4;
    feed.apply(EntryBody::Blank);
    for (stream, index) in [(orders, 11), (events, 11), (other, 12)] {
        let origin = RescueOrigin { term: Term::new(1), index: Index::new(index) };
        feed.apply(EntryBody::Rescue { origin, batches: vec![header(stream, 3, None)] });
    }
    let token = FencingToken::parse("writer ä").unwrap();
    feed.control(ControlOp::SetFencingToken { stream: events, expected: None, token: Some(token) });
    feed.control(ControlOp::TrimStream { stream: orders, to: Offset::new(4) });
    for (cursor, offset) in [("billing", 4), ("späße", 11)] {
        let cursor = CursorName::parse(cursor).unwrap();
        feed.control(ControlOp::CommitCursor { stream: orders, cursor, offset: Offset::new(offset) });
    }
    feed.control(ControlOp::DeleteStream { stream: other });
    feed.apply(EntryBody::Tick);
    feed.state
}

fn meta_shard() -> ShardState {
    let mut feed = Feed { state: ShardState::new(ShardId::META), term: 1 };
    feed.apply(EntryBody::Blank);
    for tenant in ["default", "a-tenant"] {
        feed.control(ControlOp::CreateTenant { tenant: TenantName::parse(tenant).unwrap() });
    }
    feed.control(ControlOp::AllocateProducer);
    let name = RestorePointName::parse("before.the_fall").unwrap();
    feed.control(ControlOp::CreateRestorePoint { name, time: HybridTime::from_micros(7) });
    feed.state
}

/// Makes the checksum true again after a change.
fn seal(bytes: &mut Vec<u8>) {
    let body = bytes.len().saturating_sub(4);
    let crc = crc32fast::hash(&bytes[..body]).to_le_bytes();
    bytes.truncate(body);
    bytes.extend_from_slice(&crc);
}

#[test]
fn states_are_the_golden_ones() {
    let empty = ShardState::new(ShardId::new(9));
    for (name, state) in [("empty", empty), ("data", data_shard()), ("meta", meta_shard())] {
        let bytes = GOLDEN.assert_golden(&format!("state-{name}.bin"), &state.encode());
        assert_eq!(assert_resists_damage(&bytes, ShardState::decode), state, "{name}");
        assert_total_behind_checksums(&bytes, seal, ShardState::decode);
    }
}

/// Archives hold snapshots of the version before: they know no times of remembered batches.
#[test]
fn a_state_of_version_1_is_read_with_the_times_that_it_has() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state-data-v1.bin");
    let bytes = std::fs::read(file).unwrap();
    let before = assert_resists_damage(&bytes, ShardState::decode);
    let now = data_shard();
    assert_eq!(before.chain(), now.chain(), "they come from the same entries");
    for (id, stream) in now.streams() {
        let old = before.stream(id).unwrap();
        for (producer, known) in &stream.producers {
            let old = &old.producers[producer];
            assert_eq!((old.epoch, old.last_seen), (known.epoch, known.last_seen));
            for (old, new) in old.batches.iter().zip(&known.batches) {
                assert_eq!((old.sequence, old.records, old.base), (new.sequence, new.records, new.base));
                assert_eq!(old.time, known.last_seen);
                assert!(new.time <= known.last_seen);
            }
        }
    }
}

/// The entries in the golden files of `duramen-types`, in the order of their names, which is that of their log.
fn golden_log() -> Vec<Entry> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../types/tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("entry-"));
    files.sort();
    files.into_iter().map(|path| Entry::decode(std::fs::read(path).unwrap().into()).unwrap()).collect()
}

/// One line for each entry, and the chain value at the end: the rules of the state are part of the format.
#[test]
fn the_golden_log_has_the_golden_outcomes() {
    let mut text = String::new();
    for shard in [ShardId::META, ShardId::new(1)] {
        let mut state = ShardState::new(shard);
        writeln!(text, "shard {shard}").unwrap();
        for entry in golden_log() {
            // The first leadership wrote the entries before the second blank one.
            let term = Term::new(if state.end().get() < 12 { 1 } else { 4 });
            let id = EntryId { index: state.end(), term };
            let applied = state.apply(id, entry.head(), &entry.head_bytes()).unwrap();
            writeln!(text, "{id}: {:?} {:?}", applied.batches, applied.control).unwrap();
        }
        writeln!(text, "chain {}", state.chain()).unwrap();
    }
    GOLDEN.assert_golden("outcomes.txt", text.as_bytes());
}
