//! The local socket of a mount: what it is doing, and the request to end it.
//!
//! A client sends one word and a newline. `status` is answered with one JSON object; `unmount` with one for each step
//! until the mount has ended or cannot; `follow` the same for a client that unmounts by itself. The socket is for its owner alone (mode 0600), named by the mount's device number,
//! so that a client finds it without touching a mount that may be dead.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::metrics::{Counter, Gauge, Latency, Metrics, PriceTable, RequestKind, Snapshot, estimate_usd};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What a mount tells of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// `serving`, `draining`, `busy` (not unmounted: in use), `failed`, `ended`.
    pub state: String,
    /// Bucket and prefix.
    pub source: String,
    /// Where it is mounted.
    pub dir: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// What the S3 server honours, where that falls short.
    pub warnings: Vec<String>,
    /// Bytes and files that are not in S3 yet.
    pub dirty_bytes: i64,
    /// Files that are not in S3 yet.
    pub dirty_files: i64,
    /// Bytes of parts on their way.
    pub uploading_bytes: i64,
    /// Open file handles.
    pub open_handles: i64,
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
    /// Requests to S3 by operation.
    pub requests: std::collections::BTreeMap<String, u64>,
    /// What they cost, in US dollars.
    pub estimated_usd: f64,
    /// Latencies in milliseconds: median and 99th percentile.
    pub latency_ms: std::collections::BTreeMap<String, (f64, f64)>,
    /// Files kept for `s3mount recover` at the end.
    pub kept: usize,
    /// One line of cause and remedy, where something failed.
    pub message: Option<String>,
}

impl Status {
    /// The numbers of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let counter = |wanted: Counter| snapshot.counters.iter().find(|(it, _)| *it == wanted).map_or(0, |(_, n)| *n);
        let gauge = |wanted: Gauge| snapshot.gauges.iter().find(|(it, _)| *it == wanted).map_or(0, |(_, n)| *n);
        let requests = snapshot.requests.iter().filter(|(_, count)| *count > 0);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let latencies = snapshot.latencies.iter().filter(|(_, it)| it.count > 0);
        Self {
            state: "serving".into(),
            dirty_bytes: gauge(Gauge::DirtyBytes),
            dirty_files: gauge(Gauge::DirtyFiles),
            uploading_bytes: gauge(Gauge::UploadingBytes),
            open_handles: gauge(Gauge::OpenHandles),
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
            requests: requests.map(|(kind, count)| (RequestKind::name(*kind).to_owned(), *count)).collect(),
            estimated_usd: estimate_usd(snapshot, PriceTable::default()),
            latency_ms: latencies
                .map(|(latency, it)| {
                    let both = (milliseconds(it.quantile(0.5)), milliseconds(it.quantile(0.99)));
                    (Latency::name(*latency).to_owned(), both)
                })
                .collect(),
            ..Self::default()
        }
    }
}

/// Where sockets are: `/run/s3mount` for root, the user's runtime directory otherwise.
pub fn socket_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/s3mount");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("s3mount"),
        _ => std::env::temp_dir().join(format!("s3mount-{}", nix::unistd::geteuid())),
    }
}

/// The socket of the mount with this device number.
pub fn socket_path(device: u64) -> PathBuf {
    socket_dir().join(format!("{}-{}.sock", libc::major(device), libc::minor(device)))
}

/// A client that waits for the end of the mount.
#[derive(Debug)]
pub struct UnmountRequest {
    /// Takes the steps.
    pub steps: mpsc::Sender<Status>,
    /// The client unmounts by itself, and only wants to hear of the end.
    pub follows: bool,
}

/// What a status server needs to know.
#[derive(Clone, Debug)]
pub struct StatusSource {
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// What does not change: source, dir, pid, warnings.
    pub fixed: Status,
}

impl StatusSource {
    /// Everything as of now.
    pub fn now(&self) -> Status {
        let fixed = self.fixed.clone();
        let numbers = Status::of(&self.metrics.snapshot());
        Status { source: fixed.source, dir: fixed.dir, pid: fixed.pid, warnings: fixed.warnings, ..numbers }
    }
}

/// The socket, served until dropped; it then disappears.
#[derive(Debug)]
pub struct StatusSocket {
    path: PathBuf,
    _stop: watch::Sender<()>,
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // Another mount may have taken a number that was given back; then it is its socket.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the socket at `path`. Wishes to end the mount come out of `unmount`.
///
/// # Errors
/// The directory or the socket cannot be made.
pub fn serve(path: &Path, source: StatusSource, unmount: mpsc::Sender<UnmountRequest>) -> io::Result<StatusSocket> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    // A daemon that was killed leaves its socket; the device number is ours now.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let (stop, mut stopped) = watch::channel(());
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                _ = stopped.changed() => return,
            };
            let Ok((stream, _)) = connection else { return };
            let (source, unmount) = (source.clone(), unmount.clone());
            tokio::spawn(async move {
                if let Err(error) = answer(stream, source, unmount).await {
                    tracing::debug!(%error, "a client of the status socket went away");
                }
            });
        }
    });
    Ok(StatusSocket { path: path.to_owned(), _stop: stop })
}

async fn answer(stream: UnixStream, source: StatusSource, unmount: mpsc::Sender<UnmountRequest>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut word = String::new();
    BufReader::new(reading).read_line(&mut word).await?;
    match word.trim() {
        word @ ("unmount" | "follow") => {
            let (sender, mut steps) = mpsc::channel(16);
            if unmount.send(UnmountRequest { steps: sender, follows: word == "follow" }).await.is_err() {
                let ended = Status { state: "ended".into(), ..source.now() };
                return write(&mut writing, &ended).await;
            }
            loop {
                let step = tokio::time::timeout(PROGRESS_EVERY, steps.recv()).await;
                match step {
                    Ok(Some(step)) => write(&mut writing, &step).await?,
                    Ok(None) => return Ok(()),
                    Err(_) => write(&mut writing, &Status { state: "draining".into(), ..source.now() }).await?,
                }
            }
        }
        _ => write(&mut writing, &source.now()).await,
    }
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), status: &Status) -> io::Result<()> {
    let mut line = serde_json::to_vec(status)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
