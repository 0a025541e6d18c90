//! Where retention begins, compared with a replay.

use super::*;

#[tokio::test]
async fn the_first_batch_that_is_kept_is_the_one_that_a_replay_finds() {
    for seed in 0..4 {
        let store = memory();
        let view = archive(&store).await;
        let log = RandomLog::new(seed).take(150);
        write(&view, &ShardState::new(SHARD), &log, &[7, 19]).await;
        let model = Model::of(log);
        let shard = view.shard(SHARD).await.unwrap();
        let history = history(&view);
        for (stream, batches) in model.streams() {
            let mut places = Vec::new();
            let mut end = BytesBefore { offset: Offset::ZERO, bytes: 0 };
            for (base, time, _, batch) in &batches {
                places.push((BytesBefore { offset: *base, bytes: end.bytes }, *time));
                let count = Batch::from_trusted(batch.clone()).unwrap().count();
                end = BytesBefore {
                    offset: base.plus(count.into()),
                    bytes: end.bytes + u64::try_from(batch.len()).unwrap(),
                };
            }
            let begin = BytesBefore { offset: Offset::ZERO, bytes: 0 };
            let bytes = places.iter().flat_map(|(place, _)| [place.bytes, place.bytes + 1]);
            for bytes in bytes.chain([end.bytes, end.bytes + 1]).step_by(3) {
                let found = places.iter().map(|(place, _)| *place).find(|place| place.bytes >= bytes);
                let expected = found.unwrap_or(end);
                let forward =
                    history.forward_to_bytes(&shard, stream, begin, end.offset, bytes).await.unwrap();
                assert_eq!(forward, expected, "seed {seed}, stream {stream}, {bytes} bytes");
                let back = history.back_to_bytes(&shard, stream, Offset::ZERO, end, bytes).await.unwrap();
                assert_eq!(back, expected, "seed {seed}, stream {stream}, {bytes} bytes, backward");
            }
            let times =
                places.iter().flat_map(|(_, time)| [*time, HybridTime::from_micros(time.as_micros() - 1)]);
            for time in times.step_by(3) {
                let expected = places.iter().find(|(_, at)| *at > time).map(|(place, _)| place.offset);
                let range = Offset::ZERO..end.offset;
                let found = history.first_later(&shard, stream, range, time).await.unwrap();
                assert_eq!(found, expected, "seed {seed}, stream {stream}, time {time}");
            }
        }
    }
}
