//! One session with the kernel over an open /dev/fuse: the handshake, the threads that take requests, the end.
//!
//! The mount itself is made and unmade by `mount.rs`; a session only serves the descriptor, so that ending it can never
//! unmount somebody else's file system at the same path.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{Config, InitFlags, KernelConfig, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::notify;
use super::tasks::Adapter;
use crate::fs::{FileSystem, KernelEvent};
use crate::metrics::Metrics;

/// Fewest and most threads that serve the kernel; between them there is one for each core. Measured
/// (docs/decisions/0026-a-thread-for-each-core.md).
const THREADS: std::ops::RangeInclusive<usize> = 2..=16;

/// How the kernel is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Requests of read-ahead and asynchronous direct I/O that the kernel keeps in flight.
    pub background_max: u16,
    /// Users beside the owner are let in by the kernel (allow_other).
    pub allow_other: bool,
    /// Root is let in beside the owner.
    pub allow_root: bool,
    /// Files of the disk cache may be read by the kernel itself, where it can.
    pub passthrough: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(*THREADS.start(), usize::from);
        let threads = cores.clamp(*THREADS.start(), *THREADS.end());
        // 128 in the background: a window of 128 MiB at 1 MiB a request.
        Self { threads, background_max: 128, allow_other: false, allow_root: false, passthrough: false }
    }
}

/// Largest request of the kernel in bytes: FUSE_MAX_MAX_PAGES (256) pages of 4 KiB (`fs/fuse/fuse_i.h`).
const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Asks the kernel for what serves us, and does without what it has not. Answers whether it would read files itself.
pub(super) fn negotiate(config: &mut KernelConfig, options: SessionOptions) -> bool {
    let wanted = [
        InitFlags::FUSE_ASYNC_READ,
        InitFlags::FUSE_BIG_WRITES,
        InitFlags::FUSE_MAX_PAGES,
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        InitFlags::FUSE_CACHE_SYMLINKS,
    ];
    for flag in wanted {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "this kernel does without");
        }
    }
    // Each setter answers the nearest value that the kernel takes; that is then the best there is.
    let _ = config.set_max_write(REQUEST_BYTES_MAX).or_else(|nearest| config.set_max_write(nearest));
    let _ = config.set_max_background(options.background_max);
    let _ = config.set_congestion_threshold(options.background_max / 4 * 3);
    // Depth 1: the files lie on a file system of a disk, and another one may be stacked over ours.
    options.passthrough
        && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(1).is_ok()
}

/// A session that is being served.
#[derive(Debug)]
pub struct Served {
    requests: JoinHandle<io::Result<()>>,
}

impl Served {
    /// Waits until the kernel has ended the session, which it does when the file system is unmounted.
    ///
    /// # Errors
    /// What ended the session otherwise.
    pub fn join(self) -> io::Result<()> {
        self.requests.join().map_err(|_| io::Error::other("a thread that serves the kernel panicked"))?
    }

    /// Whether the kernel has ended the session.
    pub fn is_finished(&self) -> bool {
        self.requests.is_finished()
    }
}

/// Shakes hands with the kernel on `device`, which must be mounted already, and serves it in threads of its own.
///
/// # Errors
/// The kernel's FUSE is too old (before 7.6), or a thread could not be made.
pub fn serve(
    device: OwnedFd,
    fs: Arc<FileSystem>,
    events: mpsc::UnboundedReceiver<KernelEvent>,
    options: SessionOptions,
    metrics: Arc<Metrics>,
    runtime: Handle,
) -> io::Result<Served> {
    let acl = match (options.allow_other, options.allow_root) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let adapter = Adapter::new(fs, options, metrics, runtime);
    let session = Session::from_fd(adapter, device, acl, config)?;
    notify::spawn(session.notifier(), events)?;
    let requests = std::thread::Builder::new().name("fuse".into()).spawn(move || session.run())?;
    Ok(Served { requests })
}
