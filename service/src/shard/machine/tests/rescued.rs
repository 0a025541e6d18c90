use bytes::Bytes;
use duramen_types::{
    BatchHeader, ControlOp, EntryBody, EntryHead, Hash, Offset, RescueOrigin, ShardId, StreamConfig,
    StreamName, TenantName, Term,
};
use duramen_wal::Disk;
use duramen_wal::sim::SimDisk;
use futures::FutureExt;

use super::super::*;

fn apply(view: &View, body: EntryBody, batches: &[Bytes]) -> EntryId {
    let (id, time) = {
        let state = view.state.read();
        (EntryId { index: state.end(), term: Term::new(1) }, state.time().next())
    };
    view.apply(id, &Entry::with_batches(EntryHead { time, body }, batches)).unwrap();
    id
}

#[test]
fn what_was_rescued_is_found_and_announced_in_the_stream_that_it_went_to() {
    let disk = SimDisk::new(1);
    let directory = std::path::Path::new("/index");
    disk.create_dir(directory).unwrap();
    let shard = ShardId::new(1);
    let cache = crate::index::page_cache(1 << 20);
    let index = HotIndex::open(Arc::new(disk), directory, shard, Index::ZERO, cache).unwrap();
    let view = View::new(ShardState::new(shard), index);
    let create = ControlOp::CreateStream {
        tenant: TenantName::parse("default").unwrap(),
        name: StreamName::parse("a").unwrap(),
        config: StreamConfig::default(),
    };
    let origin = StreamId::new(apply(&view, EntryBody::Control(create), &[]).index.get());
    let header = BatchHeader {
        stream: origin,
        records: 3,
        bytes: 4,
        base_timestamp: 0,
        max_timestamp: 0,
        hash: Hash::from_bytes([0; 32]),
        producer: None,
        match_offset: None,
        fencing_token: None,
    };
    let rescue = |index: u64| {
        let origin = RescueOrigin { term: Term::new(1), index: Index::new(index) };
        EntryBody::Rescue { origin, batches: vec![header.clone(), header.clone()] }
    };
    let batches = [Bytes::from_static(b"once"), Bytes::from_static(b"more")];
    let first = apply(&view, rescue(10), &batches);
    let stream = StreamId::new(first.index.get());
    let follower = view.follow(stream);
    let mut woken = Box::pin(follower.notified());
    woken.as_mut().enable();
    let second = apply(&view, rescue(11), &batches);
    assert!(woken.now_or_never().is_some(), "a follower of the rescued stream sleeps on");
    let mut rows = std::collections::VecDeque::new();
    assert!(view.index.locate(stream, Offset::ZERO, None, &mut rows).unwrap());
    let found: Vec<_> = rows.iter().map(|row| (row.base.get(), row.index, row.item, row.before)).collect();
    let (one, other) = (first.index, second.index);
    assert_eq!(found, [(0, one, 0, 0), (3, one, 1, 4), (6, other, 0, 8), (9, other, 1, 12)]);
    rows.clear();
    view.index.locate(origin, Offset::ZERO, None, &mut rows).unwrap();
    assert!(rows.is_empty());
}
