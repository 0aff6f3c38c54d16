//! Where a callback's work is done: in the callback itself, or in a task of its own, and how long it took.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::passthrough::Backings;
use super::session::SessionOptions;
use crate::clock::Clock;
use crate::fs::FileSystem;
use crate::metrics::{Latency, Metrics};

/// A file system behind the kernel's interface.
pub(super) struct Adapter {
    pub(super) fs: Arc<FileSystem>,
    pub(super) options: SessionOptions,
    pub(super) ttl: Duration,
    metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    pub(super) backings: Arc<Backings>,
}

impl Adapter {
    pub(super) fn new(fs: Arc<FileSystem>, options: SessionOptions, metrics: Arc<Metrics>, runtime: Handle) -> Self {
        let ttl = fs.options().metadata_ttl;
        Self { fs, options, ttl, metrics, clock: Clock::system(), runtime, backings: Arc::default() }
    }

    /// Runs what may wait as a task of its own and records how long it took.
    pub(super) fn task<W>(&self, latency: Latency, started: Instant, work: impl FnOnce(Arc<FileSystem>) -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (metrics, clock, work) = (Arc::clone(&self.metrics), self.clock.clone(), work(Arc::clone(&self.fs)));
        self.runtime.spawn(async move {
            work.await;
            metrics.observe(latency, clock.now() - started);
        });
    }

    /// Runs what memory can answer; gives the reply back where it cannot.
    pub(super) fn in_place<R>(
        &self,
        latency: Latency,
        started: Instant,
        reply: R,
        fast: impl FnOnce(R) -> Option<R>,
    ) -> Option<R> {
        // A panic drops the reply inside; the kernel then hears EIO.
        let left = catch_unwind(AssertUnwindSafe(|| fast(reply))).unwrap_or(None);
        if left.is_none() {
            self.metrics.observe(latency, self.clock.now() - started);
        }
        left
    }
}
