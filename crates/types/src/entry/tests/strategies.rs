//! Any value that the log may hold.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::{Acknowledgement, Compression, RescuePolicy, RetentionPolicy, TimestampPolicy};

fn tenant() -> impl Strategy<Value = TenantName> {
    "[a-z0-9-]{1,63}".prop_map(|name| TenantName::parse(&name).unwrap())
}

fn stream_name() -> impl Strategy<Value = StreamName> {
    ("[A-Za-z0-9._-]{1,249}", "(~(0|[1-9][0-9]{0,8}))?(~rescued)?")
        .prop_filter("reserved", |(name, _)| name != "." && name != "..")
        .prop_map(|(name, suffix)| name + &suffix)
        .prop_map(|name| StreamName::parse(&name).unwrap())
}

fn restore_point() -> impl Strategy<Value = RestorePointName> {
    "[A-Za-z0-9._-]{1,248}-".prop_map(|name| RestorePointName::parse(&name).unwrap())
}

fn cursor() -> impl Strategy<Value = CursorName> {
    "\\PC{1,63}".prop_map(|name| CursorName::parse(&name).unwrap())
}

fn token() -> impl Strategy<Value = FencingToken> {
    "\\PC{1,16}".prop_map(|name| FencingToken::parse(&name).unwrap())
}

fn config() -> impl Strategy<Value = StreamConfig> {
    let acknowledgement =
        option::of(select(vec![Acknowledgement::Local, Acknowledgement::Quorum, Acknowledgement::Archived]));
    let compression = option::of(select(vec![Compression::Zstd, Compression::None]));
    let timestamps = option::of(select(vec![TimestampPolicy::ClientPreferred, TimestampPolicy::Arrival]));
    let rescue = option::of(select(vec![RescuePolicy::Separate, RescuePolicy::Append]));
    (acknowledgement, any::<[Option<u64>; 2]>(), compression, timestamps, rescue).prop_map(
        |(acknowledgement, [age_seconds, bytes], compression, timestamps, rescue)| StreamConfig {
            acknowledgement,
            retention: RetentionPolicy { age_seconds, bytes },
            compression,
            timestamps,
            rescue,
        },
    )
}

fn stream() -> impl Strategy<Value = StreamId> {
    any::<u64>().prop_map(StreamId::new)
}

fn offset() -> impl Strategy<Value = Offset> {
    any::<u64>().prop_map(Offset::new)
}

fn own_time() -> impl Strategy<Value = HybridTime> {
    (1..=u64::MAX).prop_map(HybridTime::from_micros)
}

pub(super) fn control_op() -> impl Strategy<Value = ControlOp> {
    let any_time = any::<u64>().prop_map(HybridTime::from_micros);
    prop_oneof![
        (tenant(), stream_name(), config()).prop_map(|(tenant, name, config)| ControlOp::CreateStream {
            tenant,
            name,
            config
        }),
        (stream(), config(), config()).prop_map(|(stream, expected, config)| ControlOp::ConfigureStream {
            stream,
            expected,
            config
        }),
        (stream(), offset()).prop_map(|(stream, to)| ControlOp::TrimStream { stream, to }),
        stream().prop_map(|stream| ControlOp::DeleteStream { stream }),
        (stream(), cursor(), offset()).prop_map(|(stream, cursor, offset)| ControlOp::CommitCursor {
            stream,
            cursor,
            offset
        }),
        (stream(), cursor()).prop_map(|(stream, cursor)| ControlOp::DeleteCursor { stream, cursor }),
        (stream(), option::of(token()), option::of(token()))
            .prop_map(|(stream, expected, token)| ControlOp::SetFencingToken { stream, expected, token }),
        Just(ControlOp::AllocateProducer),
        tenant().prop_map(|tenant| ControlOp::CreateTenant { tenant }),
        (restore_point(), any_time).prop_map(|(name, time)| ControlOp::CreateRestorePoint { name, time }),
        restore_point().prop_map(|name| ControlOp::DeleteRestorePoint { name }),
    ]
}

/// A batch as the entry sees it, any bytes, with a header that states its length.
fn item(stream: impl Strategy<Value = StreamId>) -> impl Strategy<Value = AppendItem> {
    let producer = (any::<u64>(), any::<u16>(), any::<u32>()).prop_map(|(id, epoch, sequence)| Producer {
        id: ProducerId::new(id),
        epoch,
        sequence,
    });
    let numbers = (1..=u32::MAX, any::<i64>(), any::<i64>(), any::<[u8; 32]>());
    let conditions = (option::of(producer), option::of(offset()), option::of(token()));
    (stream, numbers, conditions, vec(any::<u8>(), 1..60)).prop_map(
        |(stream, (records, base_timestamp, max_timestamp, hash), conditions, batch)| AppendItem {
            header: BatchHeader {
                stream,
                records,
                bytes: u32::try_from(batch.len()).unwrap(),
                base_timestamp,
                max_timestamp,
                hash: Hash::from_bytes(hash),
                producer: conditions.0,
                match_offset: conditions.1,
                fencing_token: conditions.2,
            },
            batch: batch.into(),
        },
    )
}

/// A head and its batches.
pub(super) type Parts = (EntryHead, Vec<Bytes>);

fn with_items(
    time: HybridTime,
    items: Vec<AppendItem>,
    body: impl FnOnce(Vec<BatchHeader>) -> EntryBody,
) -> Parts {
    let (headers, batches) = items.into_iter().map(|item| (item.header, item.batch)).unzip();
    (EntryHead { time, body: body(headers) }, batches)
}

pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let untimed = prop_oneof![
        Just(EntryBody::Blank),
        vec(any::<u8>(), 0..80).prop_map(|bytes| EntryBody::Membership(bytes.into())),
        any::<[u64; 2]>().prop_map(|[manifest, end]| EntryBody::Archived {
            manifest: ManifestNumber::new(manifest),
            end: Index::new(end),
        }),
    ];
    let plain = prop_oneof![1 => Just(EntryBody::Tick), 8 => control_op().prop_map(EntryBody::Control)];
    let rescue = (any::<[u64; 2]>(), stream()).prop_flat_map(|([term, index], stream)| {
        let origin = RescueOrigin { term: Term::new(term), index: Index::new(index) };
        (Just(origin), vec(item(Just(stream)), 1..5))
    });
    prop_oneof![
        2 => untimed.prop_map(|body| (EntryHead { time: HybridTime::ZERO, body }, Vec::new())),
        4 => (own_time(), plain).prop_map(|(time, body)| (EntryHead { time, body }, Vec::new())),
        3 => (own_time(), vec(item(stream()), 1..6))
            .prop_map(|(time, items)| with_items(time, items, EntryBody::Append)),
        2 => (own_time(), rescue).prop_map(|(time, (origin, items))| {
            with_items(time, items, |batches| EntryBody::Rescue { origin, batches })
        }),
    ]
}
