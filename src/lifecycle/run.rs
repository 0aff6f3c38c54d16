//! The composition root: from a configuration to a mount that is served until it ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;

use super::daemonize::Speaking;
use super::instance::Surroundings;
use super::place::MountPoint;
use super::shutdown::{self, Mount};
use super::state::{Claimed, StateDir};
use super::utab::Record;
use super::{Failure, budget, disk_cache, exports, log, place, systemd, telling, unkept};
use crate::clock::Clock;
use crate::config::{MountConfig, S3Config};
use crate::export::status;
use crate::fs::{FileSystem, FileSystemOptions};
use crate::fuse::mount::{self, MountRequest, Mounted};
use crate::fuse::session::{self, SessionOptions};
use crate::memory::{PagePool, Spill};
use crate::metrics::Metrics;
use crate::namespace::Namespace;
use crate::read::ReadEngine;
use crate::store::ObjectStore;
use crate::store::s3::{ConnectError, S3Settings, connect};
use crate::write::{Journal, WriteEngine};

/// Read-ahead of the kernel in KiB: at 4 MiB the page cache passes 2.3 GB/s, at the default of 128 KiB 0.5-1.5.
const READ_AHEAD_KIBIBYTES: u64 = 4096;
/// How long, and how often, a mount that has to go tries to: whoever lies upon it is going as well.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
const LEAVE_PAUSE: Duration = Duration::from_millis(20);
/// Pages that are kept for the next taker, in bytes: enough for a stream's window.
const RETAINED_BYTES_MAX: u64 = 64 << 20;

/// How to reach a bucket, for the store.
pub fn s3_settings(s3: &S3Config, bucket: &str, prefix: &str, read_only: bool, here: &Surroundings) -> S3Settings {
    S3Settings {
        instance_region: here.region().map(str::to_owned),
        imds_absent: here.imds_absent(),
        prefix: prefix.to_owned(),
        endpoint_url: s3.endpoint_url.clone(),
        region: s3.region.clone(),
        profile: s3.profile.clone(),
        no_sign_request: s3.no_sign_request,
        force_path_style: s3.force_path_style,
        read_only,
        ..S3Settings::new(bucket)
    }
}

/// A failure to reach a bucket as a failure of a command.
pub fn connect_failure(error: &ConnectError) -> Failure {
    if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::mount(error.to_string()) }
}

/// Mounts and serves until the mount ends; says what its end left behind, if anything. `parent` hears when the mount answers.
///
/// # Errors
/// The mount did not come to be; then nothing is left mounted.
pub fn serve(
    config: &MountConfig,
    point: MountPoint,
    claimed: Claimed,
    parent: Option<Speaking>,
) -> Result<Option<String>, Failure> {
    raise_descriptors();
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_name("s3mount")
        .build()
        .map_err(|error| Failure::system(format!("no threads can be made: {error}")))?;
    let outcome = runtime.block_on(serve_here(config, point, claimed, parent));
    // Tasks that still wait for S3 have nobody who waits for them.
    runtime.shutdown_background();
    log::tell_left_out(true);
    outcome
}

/// The engines over a bucket, composed.
async fn compose(
    config: &MountConfig,
    store: Arc<dyn ObjectStore>,
    own: &StateDir,
    abandoned: Vec<StateDir>,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<FileSystem>, mpsc::UnboundedReceiver<crate::fs::KernelEvent>), Failure> {
    let clock = Clock::system();
    let broken = |what: &str, error: &dyn std::fmt::Display| Failure::system(format!("{what}: {error}"));
    let state = own.path();
    let journal = Journal::open(state).map_err(|error| broken("the journal cannot be opened", &error))?;
    let retained = usize::try_from(RETAINED_BYTES_MAX.min(config.read.in_flight_bytes)).unwrap_or(usize::MAX);
    let pages = PagePool::new(retained);
    let renames = state.join("renames");
    std::fs::create_dir_all(&renames).map_err(|error| broken("the journal cannot be opened", &error))?;
    let namespace = Namespace::new(
        Arc::clone(&store),
        &config.prefix,
        config.defaults,
        config.namespace,
        clock.clone(),
        Some(renames),
    );
    let disk = disk_cache::open(config, metrics, &clock).await?;
    let spill = Spill::in_dir(state)
        .and_then(|spill| spill.kept_in(state))
        .inspect_err(|error| tracing::warn!(%error, "no local disk for unpublished bytes that memory has no room for"));
    let (readable, shared) = (Arc::clone(&store), Arc::clone(&pages));
    let read = match disk {
        None => ReadEngine::new(readable, shared, config.read, Arc::clone(metrics)),
        Some(disk) => ReadEngine::with_disk(readable, shared, config.read, Arc::clone(metrics), disk)
            .map_err(|error| broken("no thread can be made", &error))?,
    };
    let mut write = WriteEngine::new(store, pages, config.write, Arc::clone(metrics), clock.clone(), journal);
    if let Ok(spill) = spill {
        write = write.spilling_to(spill);
    }
    if !config.read_only {
        let finished = async {
            for left in std::iter::once(own).chain(&abandoned) {
                finish(left.path(), &namespace, &write).await;
            }
        };
        tokio::select! {
            // Where nothing was left there is nothing to tell.
            biased;
            () = finished => {}
            // A directory of many objects takes its time.
            never = systemd::while_resuming() => match never {},
        }
    }
    drop(abandoned);
    let options = FileSystemOptions {
        read_only: config.read_only,
        defaults: config.defaults,
        metadata_ttl: config.namespace.metadata_ttl,
        open_ahead: config.open_ahead,
        direct_io: config.direct_io,
        invalidate_direct_writes: kernel_version().is_some_and(|version| version < (6, 6)),
    };
    Ok(FileSystem::new(namespace, read, write, options, Arc::clone(metrics), clock))
}

/// Raises the soft limit of open descriptors to the hard one: connections to S3, files of the disk cache and of the journal
/// need more than the 1024 that a shell gives. Where that is refused, requests are merely repeated more often.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
}

/// Finishes what an earlier process left in a state directory that is ours now.
async fn finish(state: &Path, namespace: &Namespace, write: &WriteEngine) {
    match namespace.resume_renames(&state.join("renames")).await {
        Ok(0) => {}
        Ok(resumed) => tracing::info!(resumed, "directory renames that a crash interrupted are finished"),
        Err(error) => tracing::error!(%error, "an interrupted directory rename could not be finished yet"),
    }
    let aborted = match Journal::open(state) {
        Ok(journal) => write.abort_orphans(&journal).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = aborted {
        tracing::warn!(%error, "uploads of an earlier process could not be aborted");
    }
}

async fn serve_here(
    config: &MountConfig,
    point: MountPoint,
    claimed: Claimed,
    parent: Option<Speaking>,
) -> Result<Option<String>, Failure> {
    let dir = &*point.dir.clone();
    let metrics = Arc::new(Metrics::default());
    let prices = Arc::new(budget::prices(config.price_table.as_deref())?);
    let mut signals = shutdown::Signals::new().map_err(|error| Failure::system(format!("no signals: {error}")))?;
    log::tend().map_err(|error| Failure::system(format!("no signals: {error}")))?;
    let here = Surroundings::look().await;
    let mut config = config.clone();
    config.fit(&here.machine());
    tracing::info!(
        memory_bytes = config.memory_limit_bytes,
        uploads = config.write.uploads_max,
        window_bytes = config.read.window_bytes_max,
        "limits"
    );
    let config = &config;
    let settings = s3_settings(&config.s3, &config.bucket, &config.prefix, config.read_only, &here);
    let store = signals.unless_ended(Box::pin(connect(&settings, Arc::clone(&metrics)))).await?;
    let store = store.map_err(|error| connect_failure(&error))?;
    let source = config.source.clone();
    let fixed = telling::fixed(config, dir, &source, store.capabilities());
    for warning in &fixed.warnings {
        tracing::warn!("{warning}");
    }
    let Claimed { own, abandoned } = claimed;
    let (fs, events) = signals.unless_ended(compose(config, store, &own, abandoned, &metrics)).await??;
    let exports = exports::start(config, &settings, dir, here.id(), (&metrics, &prices)).await?;
    let request = MountRequest {
        dir: dir.to_owned(),
        source: source.clone(),
        read_only: config.read_only,
        no_exec: config.no_exec,
        others: config.allow_other || config.allow_root,
    };
    let (device, mounted) = mount::mount_fuse(&request).map_err(|error| mount_failure(dir, &error))?;
    let mounted = Arc::new(mounted);
    let (major, minor) = mounted.device();
    let device_number = libc::makedev(major as u32, minor as u32);
    if let Some(first) = place::beneath(dir, device_number) {
        // A connection without a daemon answers at once, with an error: whoever looks meanwhile does not hang.
        drop(device);
        leave(&mounted).await;
        return Err(mounted_meanwhile(dir, &first.source));
    }
    let options = SessionOptions {
        allow_other: config.allow_other,
        allow_root: config.allow_root,
        passthrough: config.disk_cache.is_some(),
        ..SessionOptions::default()
    };
    // Before the kernel is answered: whoever finds the mount finds its socket.
    let (wishes, unmount) = mpsc::channel(1);
    let clock = Clock::system();
    let spent = budget::Watch::new(config, &clock);
    spent.begin(&metrics, &prices, &fs, clock.clone());
    let told = telling::source(fixed, config, &fs, &metrics, &prices, &spent, &clock);
    let paths = status::socket_paths(device_number);
    let socket = status::serve(&paths, &told, &wishes);
    drop(wishes);
    for (path, error) in socket.iter().filter_map(|(path, socket)| Some((path, socket.as_ref().err()?))) {
        tracing::warn!(path = %path.display(), %error, "no status socket");
    }
    let session = session::serve(device, Arc::clone(&fs), events, options, Arc::clone(&metrics), Handle::current());
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            let _ = mounted.detach();
            return Err(Failure::mount(format!("the kernel does not speak with us: {error}")));
        }
    };
    if let Err(error) = answers(&mounted).await {
        let _ = mounted.detach();
        return Err(Failure::mount(format!("the mount does not answer: {error}")));
    }
    if let Err(error) = mount::raise_read_ahead(&mounted, READ_AHEAD_KIBIBYTES) {
        tracing::debug!(%error, "read-ahead of the kernel stays as it is");
    }
    let record = Record::put(dir, &source);
    tracing::info!(source, dir = %dir.display(), "mounted");
    let serving = format!("{source} on {}", dir.display());
    drop(point);
    systemd::ready(&serving);
    let unkept = unkept::ask_again(&fs, serving);
    let watchdog = systemd::watch(dir);
    let is_in_background = parent.is_some();
    if let Some(parent) = parent
        && let Err(error) = parent.ready()
    {
        let _ = mounted.detach();
        return Err(Failure::system(error.to_string()));
    }
    if is_in_background {
        signals.leave_terminal();
    }
    let left_behind = shutdown::until_the_end(Mount {
        fs,
        mounted,
        session,
        told,
        unmount,
        signals,
        spot: here.spot(),
        watchdog,
        unkept,
        cloudwatch: exports.cloudwatch,
        prometheus: exports.prometheus,
    })
    .await;
    drop((socket, record));
    // Until here nobody else may take our journals for left ones.
    drop(own);
    Ok(left_behind)
}

fn mount_failure(dir: &Path, error: &std::io::Error) -> Failure {
    let shown = dir.display();
    if let Some(first) = place::mounted_at(dir) {
        return mounted_meanwhile(dir, &first.source);
    }
    let line = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!("{shown} cannot be mounted on: {error}; mount as root, or own it"),
        _ => format!("{shown} cannot be mounted: {error}"),
    };
    Failure::mount(line)
}

fn mounted_meanwhile(dir: &Path, source: &str) -> Failure {
    let shown = dir.display();
    Failure::mount(format!(
        "{shown} has been mounted meanwhile ({source}): unmount it first, or take another directory"
    ))
}

/// Whether a mount answers. Where another one lies upon it, that one is waited for: it finds what is beneath it, and goes.
async fn answers(mounted: &Arc<Mounted>) -> std::io::Result<()> {
    let end = Clock::system().now() + LEAVE_LIMIT;
    loop {
        let asked = Arc::clone(mounted);
        let answer = tokio::task::spawn_blocking(move || mount::answers(asked.dir())).await;
        match answer {
            Ok(Err(error)) if mounted.is_there() || Clock::system().now() >= end => return Err(error),
            Ok(Err(_)) => tokio::time::sleep(LEAVE_PAUSE).await,
            _ => return Ok(()),
        }
    }
}

/// Takes a mount back that was never served. Where yet another one lies upon it, that one has to go first, and will.
async fn leave(mounted: &Mounted) {
    let end = Clock::system().now() + LEAVE_LIMIT;
    while place::mounts().iter().any(|entry| entry.dir == mounted.dir() && is_of(mounted, entry.device)) {
        let detached = mounted.detach();
        if Clock::system().now() >= end {
            tracing::warn!(?detached, "a mount upon another could not be taken back");
            return;
        }
        tokio::time::sleep(LEAVE_PAUSE).await;
    }
}

fn is_of(mounted: &Mounted, device: u64) -> bool {
    mounted.device() == (u64::from(libc::major(device)), u64::from(libc::minor(device)))
}

/// Major and minor version of the running kernel.
pub(super) fn kernel_version() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
