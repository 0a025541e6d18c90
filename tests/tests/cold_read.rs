//! A read that waits for the disk holds up nobody else.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use bytesize::ByteSize;
use duramen::api::{AppendPayload, AppendRequest, ReadFrom, ReadRequest, StreamRef};
use duramen::config::Config;
use duramen::{Environment, Node};
use duramen_types::batch::Record;
use duramen_types::{HybridTime, StreamName, TenantName};
use duramen_wal::sim::SimDisk;
use duramen_wal::{Disk, DiskFile, File, LockGuard};
use parking_lot::{Condvar, Mutex};

/// While it is shut, reads of files wait.
#[derive(Debug, Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    somebody_waits: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        let mut shut = self.shut.lock();
        while *shut {
            self.somebody_waits.store(true, Ordering::Relaxed);
            self.opened.wait(&mut shut);
        }
    }

    fn set(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.opened.notify_all();
    }
}

#[derive(Debug)]
struct Gated {
    disk: SimDisk,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct GatedFile {
    file: File,
    gate: Arc<Gate>,
}

impl Gated {
    fn file(&self, file: File) -> File {
        Arc::new(GatedFile { file, gate: Arc::clone(&self.gate) })
    }
}

impl Disk for Gated {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.disk.create(path).map(|file| self.file(file))
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        self.disk.open(path).map(|file| self.file(file))
    }
    fn open_read(&self, path: &Path) -> io::Result<File> {
        self.disk.open_read(path).map(|file| self.file(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn available(&self, dir: &Path) -> io::Result<u64> {
        self.disk.available(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<LockGuard> {
        self.disk.lock(path)
    }
}

impl DiskFile for GatedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.gate.pass();
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

fn stream() -> StreamRef {
    StreamRef { tenant: TenantName::parse("default").unwrap(), name: StreamName::parse("s").unwrap() }
}

async fn append(node: &Node) -> Result<()> {
    let record = Record { value: Some(Bytes::from(vec![b'x'; 10_000])), ..Record::default() };
    let request = AppendRequest {
        stream: stream(),
        payload: AppendPayload::Records(vec![record]),
        acknowledgement: None,
        match_offset: None,
        fencing_token: None,
        producer: None,
        seen: HybridTime::ZERO,
    };
    node.append(request, true).await?.acknowledged().await?;
    Ok(())
}

async fn first(node: &Node) -> Result<u64> {
    let request = ReadRequest {
        stream: stream(),
        from: ReadFrom::Earliest,
        max_records: Some(1),
        max_bytes: None,
        follow: false,
        as_of: None,
        seen: HybridTime::ZERO,
    };
    let mut read = node.read(request).await?;
    let batch = read.next().await.context("the first batch")??;
    Ok(batch.base.get())
}

// One thread for all tasks: whoever blocks it stops everything.
#[tokio::test]
async fn appends_go_on_while_a_read_waits_for_the_disk() -> Result<()> {
    let gate = Arc::new(Gate::default());
    let mut config = Config::default();
    config.node.data = PathBuf::from("/data");
    config.cluster.shards = Some(1);
    config.wal.segment_size = ByteSize::mib(1);
    config.wal.cache = ByteSize::kib(64);
    let disk = Arc::new(Gated { disk: SimDisk::new(1), gate: Arc::clone(&gate) });
    let node = Node::start_in(Environment { disk, ..Environment::machine() }, &config).await?;
    for _ in 0..50 {
        append(&node).await?;
    }
    // Should the read block the only thread, somebody else has to open the gate, or the test would never end.
    let late = Arc::new(AtomicBool::new(false));
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn({
        let (gate, late) = (Arc::clone(&gate), Arc::clone(&late));
        move || {
            if finished.recv_timeout(Duration::from_secs(20)).is_err() {
                late.store(true, Ordering::Relaxed);
                gate.set(false);
            }
        }
    });
    gate.set(true);
    let reader = tokio::spawn({
        let node = node.clone();
        async move { first(&node).await }
    });
    while !gate.somebody_waits.load(Ordering::Relaxed) && !late.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    append(&node).await?;
    ensure!(!late.load(Ordering::Relaxed), "nothing went on while the read waited for the disk");
    ensure!(!reader.is_finished());
    done.send(())?;
    gate.set(false);
    ensure!(reader.await?? == 0);
    watchdog.join().unwrap();
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}
