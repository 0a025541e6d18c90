//! What a restart reads: it must not grow with what is on the disk.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use duramen::api::{AppendPayload, AppendRequest, StreamRef};
use duramen::config::Config;
use duramen::{Environment, Node};
use duramen_types::batch::{BatchBuilder, Limits, Options};
use duramen_types::{HybridTime, StreamName, TenantName};
use duramen_wal::{Disk, DiskFile, File, LockGuard, RealDisk};

const MIB: u64 = 1 << 20;

/// The real disk, and how many bytes were read from it.
#[derive(Debug, Clone, Default)]
struct Counting(Arc<AtomicU64>);

#[derive(Debug)]
struct CountingFile {
    file: File,
    read: Arc<AtomicU64>,
}

impl Counting {
    fn wrap(&self, file: io::Result<File>) -> io::Result<File> {
        Ok(Arc::new(CountingFile { file: file?, read: Arc::clone(&self.0) }))
    }
}

impl Disk for Counting {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.wrap(RealDisk.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.wrap(RealDisk.open(path))
    }

    fn open_read(&self, path: &Path) -> io::Result<File> {
        self.wrap(RealDisk.open_read(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.available(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<LockGuard> {
        RealDisk.lock(path)
    }
}

impl DiskFile for CountingFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// Starts a node; gives it and what its start read.
async fn start(config: &Config) -> (Node, u64) {
    let disk = Counting::default();
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::machine() };
    let node = Node::start_in(environment, config).await.unwrap();
    (node, disk.0.load(Ordering::Relaxed))
}

async fn append(node: &Node, mib: u64) {
    let mut builder = BatchBuilder::new(Limits::default());
    let value = vec![b'x'; 1024];
    for _ in 0..1000 {
        builder.push(1_700_000_000_000, None, Some(&value), []).unwrap();
    }
    let batch: Bytes = builder.finish(Options::default()).unwrap().into_bytes();
    for number in 0..mib {
        let request = AppendRequest {
            stream: StreamRef {
                tenant: TenantName::parse("default").unwrap(),
                name: StreamName::parse(&format!("stream-{}", number % 7)).unwrap(),
            },
            payload: AppendPayload::Encoded(batch.clone()),
            acknowledgement: None,
            match_offset: None,
            fencing_token: None,
            producer: None,
            seen: HybridTime::ZERO,
        };
        node.append(request, true).await.unwrap().acknowledged().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_reads_footers_names_and_checkpoints_and_not_what_they_speak_of() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.node.data = directory.path().to_owned();
    config.cluster.shards = Some(2);
    config.wal.segment_size = bytesize::ByteSize::mib(32);
    let stop = |node: Node| async move { node.shutdown(Duration::from_secs(30)).await.unwrap() };

    let (node, _) = start(&config).await;
    append(&node, 16).await;
    stop(node).await;
    let (node, little) = start(&config).await;
    append(&node, 160).await;
    stop(node).await;
    let (node, much) = start(&config).await;
    println!("with 16 MiB a start reads {little} bytes, with 176 MiB it reads {much}");
    assert!(little < MIB / 4, "a start with 16 MiB on the disk reads {little} bytes");
    assert!(much < MIB / 4, "a start with 176 MiB on the disk reads {much} bytes");
    stop(node).await;
}
