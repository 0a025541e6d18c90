use std::collections::BTreeMap;

use duramen_types::{ChainValue, HybridTime, Offset};

use super::*;

/// Everything that `log` says of the object, read back through the reader.
fn check(log: &[Logged], object: &SegmentObject, chain_before: ChainValue, chain_after: ChainValue) {
    let bytes = Bytes::from(object.chunks.concat());
    assert_eq!(object.facts.bytes, bytes.len() as u64);
    assert_eq!(object.facts.hash.as_bytes(), blake3::hash(&bytes).as_bytes());
    assert_eq!((object.facts.chain_before, object.facts.chain_after), (chain_before, chain_after));
    let reader = open(bytes).unwrap();
    block_on(reader.verify_full()).unwrap();
    let mut streams: BTreeMap<StreamId, Vec<(Offset, HybridTime, Index, Bytes)>> = BTreeMap::new();
    for logged in log {
        let entry = block_on(reader.read_entry(logged.id.index)).unwrap();
        assert_eq!(entry.payload(), logged.entry.payload());
        for ((header, batch), outcome) in logged.entry.batches().zip(&logged.outcomes) {
            if let Some((stream, base)) = outcome.place(header.stream) {
                let of_stream = streams.entry(stream).or_default();
                of_stream.push((base, logged.time, logged.id.index, batch));
            }
        }
    }
    let rows: Vec<EntryRow> = (0..reader.index().entry_pages())
        .flat_map(|page| block_on(reader.entry_page(page)).unwrap())
        .collect();
    assert_eq!(rows.len(), log.len());
    for (row, logged) in rows.iter().zip(log) {
        assert_eq!((row.id, row.time, &row.head), (logged.id, logged.time, logged.entry.head()));
        let fates: Vec<Fate> = logged.outcomes.iter().map(Fate::from).collect();
        assert_eq!(row.batches.iter().map(|batch| batch.fate).collect::<Vec<_>>(), fates);
    }
    assert_eq!(object.facts.streams, streams.keys().copied().collect::<Vec<_>>());
    for (stream, model) in streams {
        for from in [0, 1, model.len() / 2, model.len() - 1] {
            let from = model.get(from).map_or(Offset::ZERO, |batch| batch.0);
            let mut found = Vec::new();
            for row in block_on(reader.stream_rows(stream, from)).unwrap() {
                let block = block_on(reader.block(row.block)).unwrap();
                let slots = row.slot as usize..(row.slot + row.batches) as usize;
                found.extend(block.batches()[slots].iter().filter(|batch| batch.end() > from).cloned());
            }
            let found: Vec<_> =
                found.into_iter().map(|batch| (batch.base, batch.time, batch.index, batch.batch)).collect();
            let wanted: Vec<_> = model.iter().filter(|batch| batch.0 >= from).cloned().collect();
            assert_eq!(found, wanted);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_entry_and_every_stream_reads_back_as_it_was(seed: u64, before in 0_usize..60, count in 1_usize..150) {
        let mut random = RandomLog::new(seed);
        random.take(before);
        let chain_before = random.state.chain();
        let log = random.take(count);
        let object = write_from(&log, chain_before);
        check(&log, &object, chain_before, random.state.chain());
    }
}

#[test]
fn a_segment_of_many_blocks_and_pages_reads_back_as_it_was() {
    let mut random = RandomLog::new(42);
    let log = random.take(6000);
    let object = write(&log);
    let reader = open(object.chunks.concat().into()).unwrap();
    assert!(reader.index().blocks() > 6 && reader.index().entry_pages() > 6, "{:?}", reader.index());
    drop(reader);
    let chain = random.state.chain();
    let some: Vec<Logged> = log.clone();
    // Entry by entry would decode each block thousands of times: a sample, and all streams.
    let reader = open(object.chunks.concat().into()).unwrap();
    block_on(reader.verify_full()).unwrap();
    assert_eq!(object.facts.chain_after, chain);
    for logged in some.iter().step_by(97) {
        assert_eq!(&block_on(reader.read_entry(logged.id.index)).unwrap(), &logged.entry);
    }
}

#[test]
fn the_bound_on_the_objects_size_holds_and_the_limit_is_kept() {
    let log = RandomLog::new(9).take(3000);
    let limit = 300_000;
    let mut chain = genesis(ShardId::new(3));
    let mut at = 0;
    let mut sizes = Vec::new();
    while at < log.len() {
        let options = SegmentOptions { max_bytes: limit, ..options(log[at].id.index, chain) };
        let mut writer = SegmentWriter::new(options);
        for logged in &log[at..] {
            match writer.push(logged.id, logged.time, &logged.entry, &logged.outcomes) {
                Ok(()) => at += 1,
                Err(WriteError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        // Stored blocks, so that the bound is met without compression's help.
        let object = writer.finish(&|_| Compression::None).unwrap();
        assert_eq!(object.facts.chain_before, chain);
        chain = object.facts.chain_after;
        sizes.push(object.facts.bytes);
    }
    assert!(sizes.len() > 3 && sizes.iter().all(|size| *size <= limit), "{sizes:?}");
}

#[test]
fn entries_out_of_order_or_with_other_bytes_are_refused() {
    let log = RandomLog::new(1).take(40);
    let mut writer = SegmentWriter::new(options(Index::ZERO, genesis(ShardId::new(3))));
    assert!(matches!(writer.finish(&odd_streams_uncompressed), Err(WriteError::Empty)));
    writer = SegmentWriter::new(options(Index::ZERO, genesis(ShardId::new(3))));
    let refused = writer.push(log[1].id, log[1].time, &log[1].entry, &log[1].outcomes);
    assert!(matches!(refused, Err(WriteError::NotNext { .. })));

    let at = log.iter().position(|logged| logged.entry.body().batches().len() == 1).unwrap();
    let mut payload = log[at].entry.payload().to_vec();
    *payload.last_mut().unwrap() ^= 1;
    let flipped = duramen_types::Entry::decode(payload.into()).unwrap();
    for logged in &log[..at] {
        writer.push(logged.id, logged.time, &logged.entry, &logged.outcomes).unwrap();
    }
    writer.push(log[at].id, log[at].time, &flipped, &log[at].outcomes).unwrap();
    let refused = writer.finish(&odd_streams_uncompressed).unwrap_err();
    assert_eq!(refused, WriteError::Hash { index: log[at].id.index, batch: 0 });
}
