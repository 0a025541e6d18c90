//! Every setting of a node with its unit, its default and its consequence. `docs/CONFIGURATION.md` is made of this.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use duramen_types::{Acknowledgement, BranchName};

use super::section::section;
use super::value::{Fsync, LogFormat};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

section! {
    /// Which node this is, and where its files are.
    Node ["node"] {
        /// The node's number, unique in its cluster. It is written into the data directory when that is made; a
        /// node refuses to start on another node's directory.
        id: u64 = 1, in 1 => (1 << 48) - 1;
        /// The directory that holds everything the node keeps on the local disk; created if absent. One process
        /// at a time may use it.
        data: PathBuf = PathBuf::from("./duramen-data");
    }
}

/// The data shards of a new cluster whose configuration doesn't say.
pub const DEFAULT_SHARDS: u16 = 8;

section! {
    /// What is fixed when a cluster is created.
    Cluster ["cluster"] {
        /// How many data shards the cluster has; streams are spread over them by the hash of their names. Each
        /// is a log of its own, so more shards allow more parallelism and cost more objects in the archive. It
        /// can't be changed once there is data: a node refuses to start with another number. When absent: as the data
        /// directory or the archive has it, and 8 where both are new.
        shards: Option<u16> = None, in Some(1) => Some(256);
    }
}

section! {
    /// Addresses, and how connections are treated.
    Listen ["listen"] {
        /// The address for clients: gRPC and HTTP/JSON on one port. Port 0 takes a free one.
        clients: SocketAddr = loopback(7700);
        /// The address for operators: `/health`, `/ready`, `/metrics`, `/status`, `/stats` and `/admin/*`. Whoever
        /// reaches it can make the node work. Port 0 takes a free one.
        admin: SocketAddr = loopback(7702);
        /// Permits addresses other than loopback. There is no TLS and there are no tokens yet: everybody who can
        /// reach such an address can read, write and delete everything.
        allow_insecure: bool = false;
        /// Connections open at once on each port; one more waits in the kernel's queue until another closes.
        connections: usize = 4096, in 1 => 1_000_000;
        /// How long a client may take to send a request's headers before its connection is closed. A body or a gRPC message is
        /// refused where it pauses for longer than this, or comes slower than 64 KiB/s for longer than this.
        header_timeout: Duration = 10 * SECOND, in SECOND => 600 * SECOND;
        /// The largest header block of a request, in bytes; a larger one is refused.
        header_limit: ByteSize = ByteSize::kib(32), in ByteSize::kib(8) => ByteSize::mib(1);
        /// How often an idle HTTP/2 connection is pinged. One that doesn't answer within the same time is closed,
        /// so that a peer which vanished holds nothing for longer than twice this.
        keep_alive: Duration = 20 * SECOND, in SECOND => 3600 * SECOND;
        /// Appends of one gRPC session that wait for their acknowledgement at once; at this number the node stops
        /// reading from the session until one is acknowledged.
        session_appends: usize = 256, in 1 => 65_536;
    }
}

section! {
    /// The local write-ahead log.
    Wal ["wal"] {
        /// Size of a segment file, in bytes. Files are written ahead at this size, so the disk must have room for
        /// two of them; smaller ones free space sooner, larger ones mean fewer files. A segment holds the largest
        /// batch at least twice.
        segment_size: ByteSize = ByteSize::mib(128), in ByteSize::mib(1) => ByteSize::gib(4);
        /// `always` syncs before anything is acknowledged. `interval` syncs in the background: faster, but a
        /// power cut takes what was acknowledged since the last sync with it.
        fsync: Fsync = Fsync::Always;
        /// The time between two syncs with `fsync = "interval"`, and the most that a power cut then takes.
        /// Without effect with `always`.
        fsync_interval: Duration = Duration::from_millis(100), in Duration::from_millis(1) => 60 * SECOND;
        /// Free disk space, in bytes, below which appends are refused with `disk_full` while reads go on. It keeps
        /// room for what the node must still write to recover by itself.
        reserve: ByteSize = ByteSize::mib(256), in ByteSize::mib(1) => ByteSize::tib(1);
        /// Memory, in bytes, for the newest entries of all shards. Followers that keep up are served from it and
        /// touch no disk.
        cache: ByteSize = ByteSize::mib(64), in ByteSize::mib(1) => ByteSize::tib(1);
        /// Bytes of committed entries of one shard after which its state is saved, so that a restart replays no more
        /// than that. Saving takes about as long as writing the shard's catalogue once.
        checkpoint_bytes: ByteSize = ByteSize::mib(256), in ByteSize::mib(1) => ByteSize::tib(1);
    }
}

section! {
    /// Streams and appends.
    Log ["log"] {
        /// The largest record, in bytes as encoded: key, value and headers. A larger one is refused with
        /// `record_too_large`.
        record_limit: ByteSize = ByteSize::mib(1), in ByteSize::kib(1) => ByteSize::mib(64);
        /// The largest batch, in bytes as sent. It also bounds the messages and bodies that are accepted. A larger
        /// one is refused with `batch_too_large`.
        batch_limit: ByteSize = ByteSize::mib(10), in ByteSize::kib(1) => ByteSize::mib(64);
        /// Memory, in bytes, for appends that are received and not yet acknowledged, in the whole process, and as much
        /// again for requests that are not received completely. Over it, a single append is refused with
        /// `resource_exhausted` and a session has to wait.
        byte_budget: ByteSize = ByteSize::mib(128), in ByteSize::mib(1) => ByteSize::tib(1);
        /// What an append waits for when neither it nor its stream says: `local` (fsynced here), `quorum` (fsynced
        /// by a majority) or `archived` (in the object store too).
        default_acknowledgement: Acknowledgement = Acknowledgement::Local;
        /// Whether the first append to an unknown stream creates it. When false, it is refused with
        /// `unknown_stream`.
        auto_create_streams: bool = true;
        /// How long an append waits for its acknowledgement. After that it is answered with `unknown_outcome`: it
        /// may still happen.
        append_timeout: Duration = 10 * SECOND, in Duration::from_millis(100) => 3600 * SECOND;
    }
}

section! {
    /// The archive in the object store.
    Archive ["archive"] {
        /// Where the archive is: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///directory`, or `memory:` for a
        /// try. Without one nothing leaves this disk: there is no restore, no `as_of` into the past beyond what is
        /// here, no `archived` acknowledgement, and local segments are never deleted. Credentials don't belong in
        /// it: they come from the environment, the profile or the instance.
        url: Option<String> = None;
        /// The branch that this node writes; exactly one cluster owns a branch. When absent: the one that the data
        /// directory is bound to, and `main` for a new directory.
        branch: Option<BranchName> = None;
        /// The store's endpoint, for stores other than the provider's own, like `http://127.0.0.1:9000`.
        endpoint: Option<String> = None;
        /// The bucket's region; when absent, as the environment or the profile says.
        region: Option<String> = None;
        /// Addresses buckets as `endpoint/bucket` rather than `bucket.endpoint`; most self-hosted stores need it.
        /// When absent: true with an endpoint, else false.
        path_style: Option<bool> = None;
        /// Permits an endpoint with `http://` that is not this machine: what is stored and the requests' signatures
        /// then travel in the clear.
        allow_http: bool = false;
        /// Bytes of committed entries of one shard that are cut and uploaded at once, at the latest.
        segment_size: ByteSize = ByteSize::mib(64), in ByteSize::kib(64) => ByteSize::mib(64);
        /// How old the oldest committed record of a shard may become before it is cut and uploaded. It is, with
        /// the time of two uploads, what the loss of this disk costs; halving it doubles the number of requests.
        segment_age: Duration = 5 * SECOND, in SECOND => 3600 * SECOND;
        /// Uploads at once. Each holds up to one archived segment in memory.
        uploads: usize = 4, in 1 => 64;
        /// When snapshots are taken of shards that changed since their last one: a cron expression with seconds, in UTC. More snapshots
        /// make a restore's plan shorter; they hold the catalogue, never records.
        snapshot_schedule: String = "0 0 * * * *".to_owned();
        /// How often the node asks its store whether it answers, for its metrics and alerts: one request each time, also of an
        /// idle node. `/health` and `/ready` ask by themselves, at most once in ten seconds.
        check_interval: Duration = 60 * SECOND, in 10 * SECOND => DAY;
        /// Memory, in bytes, for blocks read from the archive.
        cache: ByteSize = ByteSize::mib(64), in ByteSize::mib(1) => ByteSize::tib(1);
        /// How far back `as_of` may go. Restores go back as far as the archive does.
        recovery_window: Duration = 30 * DAY, in 60 * SECOND => 36_500 * DAY;
    }
}

section! {
    /// How long sealed segments stay on the local disk once they are archived; reads of older records go to the
    /// archive. What is not archived is never deleted.
    LocalRetention ["local_retention"] {
        /// Bytes of archived segments to keep; the oldest beyond them go.
        bytes: ByteSize = ByteSize::gib(4), in ByteSize::b(0) => ByteSize::pib(1);
        /// Age, by their newest record, after which archived segments go even where `bytes` has room; without it
        /// only `bytes` counts.
        age: Option<Duration> = None;
    }
}

section! {
    /// Logs and traces of the process.
    Telemetry ["telemetry"] {
        /// `text` for people, `json` for one object a line. Both go to standard error.
        log_format: LogFormat = LogFormat::Text;
        /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives like `info,duramen=debug`.
        log_level: String = "info".to_owned();
        /// Where traces of appends and of archiving go: a collector that takes OTLP over gRPC, like
        /// `http://127.0.0.1:4317`. It is reached without TLS: let it run beside the node. Without one nothing is traced.
        /// A collector that is away costs its traces and nothing else.
        otlp_endpoint: Option<String> = None;
        /// The share of traces that is sent, in percent. It is of those that begin here: a client that sends W3C trace
        /// context along (`traceparent`) has decided for its own.
        trace_percent: u16 = 100, in 0 => 100;
    }
}

section! {
    /// Metrics for CloudWatch: lines in its Embedded Metric Format on standard output, for what brings the process's output
    /// to CloudWatch Logs (the container's `awslogs`, or the agent). docs/METRICS.md has their names; each is billed as a
    /// custom metric. Logs go to standard error as ever.
    CloudWatch ["cloudwatch"] {
        /// Whether they are written.
        emf: bool = false;
        /// The time between two lines. CloudWatch keeps values by the minute.
        interval: Duration = 60 * SECOND, in SECOND => 3600 * SECOND;
        /// The namespace of the metrics.
        namespace: String = "Duramen".to_owned();
        /// The dimension `cluster` of the metrics, a name that tells this cluster from others; the other dimension is
        /// `node`, from `node.id`.
        cluster: String = "duramen".to_owned();
    }
}

section! {
    /// The end of a node that is told to stop.
    Shutdown ["shutdown"] {
        /// How long requests under way, and then the archiver, may take to finish after SIGTERM or SIGINT. What is
        /// not archived by then is kept on the local disk.
        timeout: Duration = 30 * SECOND, in Duration::ZERO => 3600 * SECOND;
    }
}
