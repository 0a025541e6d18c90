use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{ArchiveId, BranchName, Compression, Index, SegmentId, ShardId, StreamId, genesis};
use futures::executor::block_on;
use proptest::prelude::*;

use super::*;

mod damage;
mod golden;
pub(crate) mod log;
mod round_trip;

use log::{Logged, RandomLog};

pub(crate) fn identity(segment: u8) -> SegmentIdentity {
    SegmentIdentity {
        archive: ArchiveId::from_bytes([7; 16]),
        branch: BranchName::parse("main").unwrap(),
        shard: ShardId::new(3),
        segment: SegmentId::from_bytes([segment; 16]),
    }
}

fn options(first: Index, chain_before: duramen_types::ChainValue) -> SegmentOptions {
    SegmentOptions {
        identity: identity(1),
        first,
        chain_before,
        max_bytes: 64 << 20,
        compression_level: 1,
        threads: NonZeroUsize::new(2).unwrap(),
    }
}

fn write(log: &[Logged]) -> SegmentObject {
    write_from(log, genesis(ShardId::new(3)))
}

fn write_from(log: &[Logged], chain_before: duramen_types::ChainValue) -> SegmentObject {
    let mut writer = SegmentWriter::new(options(log[0].id.index, chain_before));
    for logged in log {
        writer.push(logged.id, logged.time, &logged.entry, &logged.outcomes).unwrap();
    }
    writer.finish(&odd_streams_uncompressed).unwrap()
}

fn odd_streams_uncompressed(stream: StreamId) -> Compression {
    if stream.get() % 2 == 1 { Compression::None } else { Compression::Zstd }
}

fn open(bytes: Bytes) -> Result<SegmentReader, SegmentError> {
    let length = bytes.len() as u64;
    block_on(SegmentReader::open(Arc::new(BytesSource::new("segment", bytes)), length, &identity(1)))
}
