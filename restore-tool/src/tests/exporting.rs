use std::io::Read;

use duramen_types::{ControlOp, HybridTime, Offset, StreamName};
use serde_json::Value;

use super::world::*;
use crate::{ExportFormat, Observer, Streams, Target, export};

fn one(stream: &str) -> Streams {
    Streams::One { tenant: tenant(), stream: StreamName::parse(stream).unwrap() }
}

async fn lines(world: &World, time: HybridTime, streams: &Streams) -> Vec<Value> {
    let mut out = Vec::new();
    let target = Target::Time(time);
    let observer = Observer::default();
    let report =
        export(&world.store, &name("main"), &target, streams, ExportFormat::Jsonl, &mut out, &observer).await;
    let lines: Vec<Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(report.unwrap().records, lines.len() as u64);
    lines
}

#[tokio::test]
async fn an_export_is_what_the_model_has_at_that_instant() {
    let (world, latest) = World::filled().await;
    let times: Vec<_> =
        world.logs[1].iter().map(|logged| logged.time).filter(|time| *time <= latest).collect();
    for time in times.into_iter().skip(4).step_by(3) {
        for stream in ["a", "b", "c", "d"] {
            let stated = |record: &&Modelled| record.time <= time && record.stream.as_str() == stream;
            let expected: Vec<_> =
                world.records.iter().filter(stated).map(|r| (r.offset.get(), r.value.clone())).collect();
            let found = lines(&world, time, &one(stream)).await;
            let found: Vec<_> = found
                .iter()
                .map(|line| (line["offset"].as_u64().unwrap(), line["value"].as_str().unwrap().to_owned()))
                .collect();
            assert_eq!(found, expected, "stream {stream} at {time}");
        }
        let all = lines(&world, time, &Streams::All).await;
        assert_eq!(all.len(), world.records.iter().filter(|record| record.time <= time).count());
        assert!(all.iter().all(|line| line["tenant"] == "default" && line["stream"].is_string()));
    }
}

#[tokio::test]
async fn what_was_trimmed_or_deleted_then_is_left_out() {
    let mut world = World::new().await;
    let (shard, id) = world.create("a");
    world.append("a", &["0", "1", "2"]);
    let whole = world.now();
    world.control(shard, ControlOp::TrimStream { stream: id, to: Offset::new(1) });
    let trimmed = world.now();
    world.control(shard, ControlOp::DeleteStream { stream: id });
    let latest = world.close().await;
    world.advance(10);
    assert_eq!(lines(&world, whole, &one("a")).await.len(), 3);
    let found = lines(&world, trimmed, &one("a")).await;
    assert_eq!(found.iter().map(|line| line["offset"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    let target = Target::Time(latest);
    let (main, observer, mut out) = (name("main"), Observer::default(), Vec::new());
    let gone =
        export(&world.store, &main, &target, &one("a"), ExportFormat::Jsonl, &mut out, &observer).await;
    let error = gone.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("stream \"default/a\" does not exist"),
        "{error}"
    );
}

#[tokio::test]
async fn a_compressed_export_holds_the_same_lines() {
    let (world, _) = World::filled().await;
    let mut outs = [Vec::new(), Vec::new()];
    for (out, format) in outs.iter_mut().zip([ExportFormat::Jsonl, ExportFormat::JsonlGz]) {
        let main = name("main");
        let observer = Observer::default();
        export(&world.store, &main, &Target::Latest, &Streams::All, format, out, &observer).await.unwrap();
    }
    let [plain, packed] = outs;
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain && !plain.is_empty());
}
