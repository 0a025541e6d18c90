mod damage;
mod round_trip;
mod strategies;

use bytes::Bytes;

use super::*;
use crate::{CursorName, RestorePointName, StreamConfig, StreamName, TenantName};

fn header(stream: u64, bytes: u32) -> BatchHeader {
    BatchHeader {
        stream: StreamId::new(stream),
        records: 3,
        bytes,
        base_timestamp: -1,
        max_timestamp: i64::MAX,
        hash: Hash::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap())),
        producer: None,
        match_offset: None,
        fencing_token: None,
    }
}

fn full_header(stream: u64, bytes: u32) -> BatchHeader {
    BatchHeader {
        producer: Some(Producer { id: ProducerId::new(77), epoch: 3, sequence: 1000 }),
        match_offset: Some(Offset::new(42)),
        fencing_token: Some(FencingToken::parse("writer ä").unwrap()),
        ..header(stream, bytes)
    }
}

fn timed(body: EntryBody) -> EntryHead {
    EntryHead { time: HybridTime::from_micros(1_700_000_000_000_000), body }
}

fn untimed(body: EntryBody) -> EntryHead {
    EntryHead { time: HybridTime::ZERO, body }
}

/// One of every control operation.
fn sample_ops() -> Vec<ControlOp> {
    let stream = StreamId::new(5);
    let cursor = CursorName::parse("späße").unwrap();
    let token = Some(FencingToken::parse("t").unwrap());
    let name = RestorePointName::parse("before.the_fall").unwrap();
    let tenant = TenantName::parse("default").unwrap();
    let create = ControlOp::CreateStream {
        tenant: tenant.clone(),
        name: StreamName::parse("orders").unwrap(),
        config: StreamConfig::default(),
    };
    vec![
        create,
        ControlOp::ConfigureStream {
            stream,
            expected: StreamConfig::default(),
            config: StreamConfig::default(),
        },
        ControlOp::TrimStream { stream, to: Offset::new(9) },
        ControlOp::DeleteStream { stream },
        ControlOp::CommitCursor { stream, cursor: cursor.clone(), offset: Offset::new(9) },
        ControlOp::DeleteCursor { stream, cursor },
        ControlOp::SetFencingToken { stream, expected: None, token },
        ControlOp::AllocateProducer,
        ControlOp::CreateTenant { tenant },
        ControlOp::CreateRestorePoint { name: name.clone(), time: HybridTime::from_micros(7) },
        ControlOp::DeleteRestorePoint { name },
    ]
}

/// One of every kind of entry and of every control operation, small enough to damage bit by bit.
fn samples() -> Vec<Entry> {
    let batches = [Bytes::from_static(b"first"), Bytes::from_static(b"2"), Bytes::from_static(b"third!")];
    let origin = RescueOrigin { term: Term::new(2), index: Index::new(600) };
    let append = EntryBody::Append(vec![full_header(5, 5), header(6, 1), header(5, 6)]);
    let rescue = EntryBody::Rescue { origin, batches: vec![header(5, 5), full_header(5, 1), header(5, 6)] };
    let archived = EntryBody::Archived { manifest: ManifestNumber::new(3), end: Index::new(512) };
    let mut samples = vec![
        Entry::new(untimed(EntryBody::Blank)),
        Entry::new(untimed(EntryBody::Membership(Bytes::from_static(b"{voters}")))),
        Entry::new(untimed(archived)),
        Entry::new(timed(EntryBody::Tick)),
        Entry::with_batches(timed(append), &batches),
        Entry::with_batches(timed(rescue), &batches),
    ];
    samples.extend(sample_ops().into_iter().map(|op| Entry::new(timed(EntryBody::Control(op)))));
    samples
}
