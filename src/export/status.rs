//! What a mount tells of itself over its local socket, and the request to end it.
//!
//! A client sends one word and a newline. `status` is answered with one JSON object; `unmount` with one for each step
//! until the mount has ended or cannot; `follow` the same for a client that unmounts by itself. The socket is for its owner alone (mode 0600), named by the mount's device number,
//! so that a client finds it without touching a mount that may be dead. The fields are described in docs/STATUS.md.

mod socket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::socket::{StatusSocket, UnmountRequest, connect, serve, socket_paths};
use crate::clock::Clock;
use crate::metrics::{
    Counter, Gauge, HistogramSnapshot, Latency, Metrics, PriceTable, RequestKind, Snapshot, StorageClass, estimate_usd,
};

/// Version of the answer: raised when a field is taken away or changes its meaning, not when one is added.
pub const STATUS_VERSION: u32 = 1;

/// Files of a kind that an answer names; they are all counted.
const FILES_MAX: usize = 1000;

/// What a mount tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// See [`STATUS_VERSION`].
    pub version: u32,
    /// `serving`, `draining`, `busy` (not unmounted: in use), `failed`, `ended`.
    pub state: String,
    /// Bucket and prefix.
    pub source: String,
    /// Where it is mounted.
    pub dir: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Version of the program.
    pub program: String,
    /// How long it has been mounted.
    pub uptime_seconds: f64,
    /// What the S3 server honours, where that falls short.
    pub warnings: Vec<String>,
    /// What the S3 server honours.
    pub capabilities: BTreeMap<String, bool>,
    /// Options in force, with defaults filled in.
    pub options: BTreeMap<String, String>,
    /// Memory that staged pages of unpublished files take.
    pub dirty_bytes: i64,
    /// Files that are not in S3 yet.
    pub dirty_files: i64,
    /// These files, the one that has waited longest first; at most 1000.
    pub files: Vec<DirtyFile>,
    /// Bytes of parts on their way.
    pub uploading_bytes: i64,
    /// Open file handles.
    pub open_handles: i64,
    /// Blocks in memory, and how often they were there.
    pub cache: CacheUse,
    /// Memory beside the cache.
    pub memory: MemoryInUse,
    /// Bytes answered to applications.
    pub bytes_read: u64,
    /// Bytes taken from applications.
    pub bytes_written: u64,
    /// Bytes received from S3.
    pub s3_bytes_received: u64,
    /// Bytes sent to S3.
    pub s3_bytes_sent: u64,
    /// Bytes that the disk cache takes.
    #[serde(default)]
    pub disk_cache_bytes: i64,
    /// Segments of requests that the disk cache answered, and those that it did not have.
    #[serde(default)]
    pub disk_cache_hits_and_misses: (u64, u64),
    /// Bytes read from the disk cache, but by passthrough.
    #[serde(default)]
    pub disk_cache_bytes_read: u64,
    /// Bytes written to the disk cache.
    #[serde(default)]
    pub disk_cache_bytes_written: u64,
    /// Opens whose reads the kernel answers from the disk cache itself.
    #[serde(default)]
    pub passthrough_opens: u64,
    /// Requests repeated.
    pub retries: u64,
    /// GETs that were sent a second time because their first byte was late.
    pub hedges: u64,
    /// Uploads that failed or conflicted, whose bytes were kept.
    pub uploads_kept: u64,
    /// Requests to S3 by operation.
    pub requests: BTreeMap<String, u64>,
    /// Those that ended in an error by operation; also such as found no connection, which are no requests.
    pub errors: BTreeMap<String, u64>,
    /// What it costs.
    pub cost: Cost,
    /// Latencies by name.
    pub latencies: BTreeMap<String, LatencyTold>,
    /// Files kept for `s3mount recover` at the end.
    pub kept: usize,
    /// Files that neither S3 nor the journal took: here only, and lost at the end.
    pub unkept_files: usize,
    /// These files; at most 1000.
    pub unkept: Vec<UnkeptFile>,
    /// One line of cause and remedy, where something failed.
    pub message: Option<String>,
}

/// A file that is not in S3 as it is here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirtyFile {
    /// Path below the mount point.
    pub path: String,
    /// Key in the bucket.
    pub key: String,
    /// Length of the file.
    pub size_bytes: u64,
    /// Written bytes that S3 has not got yet.
    pub dirty_bytes: u64,
    /// Bytes of the new object that S3 has got.
    pub in_s3_bytes: u64,
    /// How long the oldest change has been waiting.
    pub oldest_seconds: f64,
}

/// A file that neither S3 nor the journal has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnkeptFile {
    /// Key in the bucket.
    pub key: String,
    /// Why S3 did not take it.
    pub upload: String,
    /// Why the journal did not.
    pub journal: String,
}

/// Blocks in memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheUse {
    /// Bytes they take.
    pub memory_bytes: u64,
    /// Bytes they may take.
    pub memory_bytes_max: u64,
    /// Blocks found in the cache.
    pub hits: u64,
    /// Blocks that had to be fetched.
    pub misses: u64,
}

/// Memory beside the cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryInUse {
    /// Asked of S3 and not handed over yet.
    pub in_flight_bytes: u64,
    /// The most that this may be.
    pub in_flight_bytes_max: u64,
    /// Pages of written bytes.
    pub staged_bytes: u64,
    /// The most that this may be.
    pub staged_bytes_max: u64,
    /// Written bytes on local disk, which memory has no room for.
    pub spilled_bytes: u64,
}

/// What requests and retrieval cost, in US dollars.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Since the mount began.
    pub usd: f64,
    /// In the last five minutes, made an hour's.
    pub usd_per_hour: f64,
    /// The budget, if there is one.
    pub budget_usd_per_hour: Option<f64>,
    /// Whether the budget is exceeded.
    pub over_budget: bool,
    /// What read-ahead windows are divided by to save; 1 is full speed.
    pub read_ahead_divisor: u64,
    /// Date of the price table.
    pub prices_dated: String,
    /// Region of the price table.
    pub prices_region: String,
    /// Bytes read by storage class, of those that bill it.
    pub retrieved_bytes: BTreeMap<String, u64>,
}

/// A latency since the mount began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyTold {
    /// How many were measured.
    pub count: u64,
    /// Median in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
    /// Longest in milliseconds.
    pub max_ms: f64,
    /// Those of a histogram's buckets that are not empty: the bucket's middle in milliseconds, and how many fell into it.
    pub buckets: Vec<(f64, u64)>,
}

impl LatencyTold {
    fn of(it: &HistogramSnapshot) -> Self {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let filled = it.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        Self {
            count: it.count,
            p50_ms: milliseconds(it.quantile(0.5)),
            p99_ms: milliseconds(it.quantile(0.99)),
            max_ms: milliseconds(it.max),
            buckets: filled
                .map(|(bucket, count)| (milliseconds(HistogramSnapshot::bucket_middle(bucket)), *count))
                .collect(),
        }
    }
}

/// What only the engines know.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Files that are not in S3 yet, the one that has waited longest first.
    pub files: Vec<DirtyFile>,
    /// Files that neither S3 nor the journal took.
    pub unkept: Vec<UnkeptFile>,
    /// Bytes of cached blocks, and the most that this may be.
    pub cached_bytes: (u64, u64),
    /// Memory beside the cache.
    pub memory: MemoryInUse,
    /// What is spent, its total aside.
    pub cost: Cost,
}

impl Status {
    /// The same with the files that neither S3 nor the journal took.
    #[must_use]
    pub fn with_unkept(mut self, mut files: Vec<UnkeptFile>) -> Self {
        self.unkept_files = files.len();
        files.truncate(FILES_MAX);
        self.unkept = files;
        self
    }

    /// The numbers of a snapshot.
    pub fn of(snapshot: &Snapshot, prices: &PriceTable) -> Self {
        let counter = |wanted: Counter| snapshot.counters.iter().find(|(it, _)| *it == wanted).map_or(0, |(_, n)| *n);
        let gauge = |wanted: Gauge| snapshot.gauges.iter().find(|(it, _)| *it == wanted).map_or(0, |(_, n)| *n);
        let by_kind = |table: &[(RequestKind, u64)]| {
            let seen = table.iter().filter(|(_, count)| *count > 0);
            seen.map(|(kind, count)| (RequestKind::name(*kind).to_owned(), *count)).collect()
        };
        let retrieved = snapshot.retrieved.iter().filter(|(_, read)| read.requests > 0);
        let latencies = snapshot.latencies.iter().filter(|(_, it)| it.count > 0);
        Self {
            version: STATUS_VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            state: "serving".into(),
            dirty_bytes: gauge(Gauge::DirtyBytes),
            dirty_files: gauge(Gauge::DirtyFiles),
            uploading_bytes: gauge(Gauge::UploadingBytes),
            open_handles: gauge(Gauge::OpenHandles),
            cache: CacheUse {
                hits: counter(Counter::CacheHits),
                misses: counter(Counter::CacheMisses),
                ..CacheUse::default()
            },
            bytes_read: counter(Counter::BytesRead),
            bytes_written: counter(Counter::BytesWritten),
            s3_bytes_received: counter(Counter::S3BytesReceived),
            s3_bytes_sent: counter(Counter::S3BytesSent),
            disk_cache_bytes: gauge(Gauge::DiskCacheBytes),
            disk_cache_hits_and_misses: (counter(Counter::DiskCacheHits), counter(Counter::DiskCacheMisses)),
            disk_cache_bytes_read: counter(Counter::DiskCacheBytesRead),
            disk_cache_bytes_written: counter(Counter::DiskCacheBytesWritten),
            passthrough_opens: counter(Counter::PassthroughOpens),
            retries: counter(Counter::Retries),
            hedges: counter(Counter::Hedges),
            uploads_kept: counter(Counter::UploadsKept),
            requests: by_kind(&snapshot.requests),
            errors: by_kind(&snapshot.errors),
            cost: Cost {
                usd: estimate_usd(snapshot, prices),
                prices_dated: prices.dated.clone(),
                prices_region: prices.region.clone(),
                retrieved_bytes: retrieved
                    .map(|(class, read)| (StorageClass::name(*class).to_owned(), read.bytes))
                    .collect(),
                ..Cost::default()
            },
            latencies: latencies.map(|(name, it)| (Latency::name(*name).to_owned(), LatencyTold::of(it))).collect(),
            ..Self::default()
        }
    }
}

/// What a status server needs to know.
#[derive(Clone)]
pub struct StatusSource {
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// What they cost.
    pub prices: Arc<PriceTable>,
    /// What does not change: source, dir, pid, warnings, capabilities, options.
    pub fixed: Arc<Status>,
    /// What only the engines know.
    pub live: Arc<dyn Fn() -> Live + Send + Sync>,
    /// For the uptime.
    pub clock: Clock,
    /// When the mount began.
    pub began: Instant,
}

impl std::fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusSource").field("source", &self.fixed.source).finish_non_exhaustive()
    }
}

impl StatusSource {
    /// Everything as of now.
    pub fn now(&self) -> Status {
        let (fixed, live) = (&self.fixed, (self.live)());
        let numbers = Status::of(&self.metrics.snapshot(), &self.prices);
        let mut files = live.files;
        files.truncate(FILES_MAX);
        Status {
            source: fixed.source.clone(),
            dir: fixed.dir.clone(),
            pid: fixed.pid,
            warnings: fixed.warnings.clone(),
            capabilities: fixed.capabilities.clone(),
            options: fixed.options.clone(),
            uptime_seconds: self.clock.now().saturating_duration_since(self.began).as_secs_f64(),
            files,
            cache: CacheUse {
                memory_bytes: live.cached_bytes.0,
                memory_bytes_max: live.cached_bytes.1,
                ..numbers.cache
            },
            memory: live.memory,
            cost: Cost {
                usd: numbers.cost.usd,
                prices_dated: numbers.cost.prices_dated,
                prices_region: numbers.cost.prices_region,
                retrieved_bytes: numbers.cost.retrieved_bytes,
                ..live.cost
            },
            ..numbers
        }
        .with_unkept(live.unkept)
    }
}
