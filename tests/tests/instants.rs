//! The state at random instants of a random history: restored by `branch` and by `hydrate`, and read by `as_of`, it
//! equals a model that replays the same operations.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use duramen::Node;
use duramen::config::Config;
use duramen_archive::{Random, Store, StoreOptions};
use duramen_restore::{BranchOptions, HydrateOptions, Target};
use duramen_simulation::{Player, observe};
use duramen_types::{BranchName, NodeId, SystemClock};
use rand::SeedableRng;
use rand::rngs::StdRng;

const STREAMS: [&str; 6] = ["orders", "payments", "ci", "us", "a.b_c-d", "events"];
const OPERATIONS: usize = 600;
const INSTANTS: usize = 200;
const STOP: std::time::Duration = std::time::Duration::from_secs(20);

/// A small node: little is written ahead, so that hundreds of them can be started.
fn config(data: &std::path::Path, archive: &str) -> Config {
    let mut config = Config::default();
    data.clone_into(&mut config.node.data);
    config.cluster.shards = Some(3);
    config.wal.segment_size = bytesize::ByteSize::mib(1);
    config.wal.reserve = bytesize::ByteSize::mib(1);
    config.archive.url = Some(archive.to_owned());
    config.archive.segment_age = std::time::Duration::from_secs(1);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_at_200_random_instants_is_what_a_model_says() -> Result<()> {
    let seed: u64 =
        std::env::var("DURAMEN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_180_207);
    println!("DURAMEN_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir()?;
    let url = format!("file://{}", directory.path().join("archive").display());
    let node = Node::start(&config(&directory.path().join("node"), &url)).await?;
    let mut player = Player::new(&STREAMS, &[None]);
    for operation in 0..OPERATIONS {
        let played = player.play(&node, &mut random).await;
        let what = || format!("seed {seed}, operation {operation}");
        ensure!(played.with_context(what)?, "{}: no answer", what());
        // Cuts fall wherever they fall; some are forced, so that the history has many segments.
        if operation % 40 == 39 {
            node.archive_flush().await?;
        }
        if operation % 150 == 149 {
            node.snapshot().await?;
        }
    }
    node.archive_flush().await?;
    let instants = (0..INSTANTS).map(|_| player.some_instant(&mut random).context("nothing was done"));
    let instants = instants.collect::<Result<Vec<_>>>()?;

    for time in &instants {
        player.check_as_of(&node, *time).await.with_context(|| format!("seed {seed}"))?;
    }

    let clock = Arc::new(SystemClock::new());
    let store = Store::open(&url, &StoreOptions::default(), clock, Random::from_seed(seed)).await?;
    let main = BranchName::parse("main")?;
    let ways = instants.iter().flat_map(|time| [(*time, false), (*time, true)]);
    for (number, (time, hydrated)) in ways.enumerate() {
        let name = BranchName::parse(&format!("instant-{number}"))?;
        let data = directory.path().join(name.as_str());
        if hydrated {
            let options =
                HydrateOptions { branch: Some(name.clone()), ..HydrateOptions::new(NodeId::new(1)) };
            duramen_restore::hydrate(&store, &main, &Target::Time(time), &data, &options).await?;
        } else {
            let options = BranchOptions::default();
            duramen_restore::branch(&store, &main, Some(&name), &Target::Time(time), &options).await?;
        }
        let mut config = config(&data, &url);
        config.archive.branch = Some(name.clone());
        let restored = Node::start(&config).await.with_context(|| format!("seed {seed}: starting {name}"))?;
        let found = observe::now(&restored).await?;
        let how = if hydrated { "hydrate" } else { "branch" };
        player.check_restored(&found, time).with_context(|| format!("seed {seed}: {how}"))?;
        restored.shutdown(STOP).await?;
        std::fs::remove_dir_all(&data)?;
    }
    node.shutdown(STOP).await?;
    Ok(())
}
