//! Reading: one engine a mount, one reader an open handle, each reader pinned to one version of its object.
//!
//! Owns what is read ahead and when S3 is asked; the blocks themselves belong to `cache`. Never mixes bytes of two versions:
//! every request but the one of `open` carries If-Match, and every answer's tag is compared. No lock is held across a wait,
//! and reads of one handle run side by side.
//!
//! - `window`: which bytes a handle's reads make worth fetching ahead; pure
//! - `fetch`: cache, then what is on its way, then a request; single flight
//! - `in_flight`: the table of what is on its way
//! - `flight`: one request in its own task, its blocks handed over as they fill
//! - `filling`: memory that is read while it is being filled
//! - `disk`: a request's stop at the disk cache
//! - `streaming`: how many streams share the windows; pure
//! - `shown`: files of the disk cache for the kernel to read itself
//! - `open`: the one request of an open, and what is fetched beside it
//! - `brought`: small files that are asked for before they are opened
//! - `tails`: which kinds of files are read from their end; learned

mod brought;
mod disk;
mod fetch;
mod filling;
mod flight;
mod in_flight;
mod open;
mod shown;
mod streaming;
mod tails;
mod window;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use self::brought::Brought;
use self::disk::DiskTier;
use self::fetch::{BLOCK_BYTES, Fetcher, Parts, Shape};
use self::flight::{FlightOf, Owner};
use self::in_flight::InFlight;
use self::streaming::{Counted, Streaming};
use self::tails::Tails;
use self::window::{Plan, Share, Streams, WindowLimits};
pub use crate::cache::WholeFile;
use crate::cache::{DiskCache, MemoryCache, WriteBehind};
use crate::config::ReadLimits;
use crate::memory::{Budget, PagePool};
use crate::metrics::Metrics;
use crate::store::{ObjectStore, StoreError};
use crate::types::{BlockId, ByteRange, ObjectInfo, ObjectVersion};

/// The share of the cache that all read-ahead windows together may fill, as a divisor: blocks that were read ahead must still
/// be there when the reader comes to them.
const WINDOWS_CACHE_DIVISOR: u64 = 2;
/// The window that every stream may have however many there are.
const WINDOW_BYTES_MIN: u64 = 2 * BLOCK_BYTES;

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The version that the reader is pinned to is gone from S3 (412 or 404 under If-Match), and the bytes are not cached.
    #[error("the object was replaced or deleted while it was read")]
    Stale,
    /// S3 could not be asked.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ReadError {
    /// What went wrong with a request that was pinned to a version.
    fn from(error: StoreError) -> Self {
        if error.is_changed() { Self::Stale } else { Self::Store(error) }
    }
}

/// Everything that the readers of a mount share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReadEngine(Arc<Engine>);

#[derive(Debug)]
struct Engine {
    fetcher: Arc<Fetcher>,
    windows: WindowLimits,
    streaming: Streaming,
    /// What the largest window is divided by; see [`ReadEngine::slow_read_ahead`].
    window_divisor: AtomicU64,
    tails: Tails,
    brought: Mutex<Brought>,
    /// How many readers each version has.
    readers: Mutex<HashMap<ObjectVersion, usize>>,
}

impl ReadEngine {
    /// An engine with an empty cache. Must be called within a tokio runtime; requests run there.
    pub fn new(store: Arc<dyn ObjectStore>, pages: Arc<PagePool>, limits: ReadLimits, metrics: Arc<Metrics>) -> Self {
        let cache = MemoryCache::new(limits.cache_bytes);
        Self::compose(store, pages, limits, metrics, cache, None)
    }

    /// The same with a disk cache under the one in memory.
    ///
    /// # Errors
    /// No thread can be made for writing to it.
    pub fn with_disk(
        store: Arc<dyn ObjectStore>,
        pages: Arc<PagePool>,
        limits: ReadLimits,
        metrics: Arc<Metrics>,
        disk: DiskCache,
    ) -> std::io::Result<Self> {
        let cache = MemoryCache::new(limits.cache_bytes);
        let behind = WriteBehind::start(cache.clone(), disk, Arc::clone(&metrics))?;
        Ok(Self::compose(store, pages, limits, metrics, cache, Some(Arc::new(DiskTier::new(behind)))))
    }

    fn compose(
        store: Arc<dyn ObjectStore>,
        pages: Arc<PagePool>,
        limits: ReadLimits,
        metrics: Arc<Metrics>,
        cache: MemoryCache,
        disk: Option<Arc<DiskTier>>,
    ) -> Self {
        let request_bytes_max = limits.request_bytes_max.max(BLOCK_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
        let limits = ReadLimits { request_bytes_max, ..limits };
        let fetcher = Arc::new(Fetcher {
            store,
            cache,
            disk,
            in_flight: InFlight::new(),
            budget: Budget::new(limits.in_flight_bytes),
            requests: Arc::new(Semaphore::new(limits.requests_max.max(1))),
            pages,
            limits,
            metrics,
            runtime: Handle::current(),
        });
        let windows = WindowLimits {
            window_bytes_max: limits.window_bytes_max,
            request_bytes_max,
            gap_bytes_max: limits.gap_bytes_max,
            // Of a file over the cache that is read from one end to the other the least recently used block would be dropped just
            // before it is asked for again, and everything else with it. The disk cache takes its blocks from memory, later.
            kept_bytes_max: if fetcher.disk.is_some() { u64::MAX } else { limits.cache_bytes },
        };
        Self(Arc::new(Engine {
            fetcher,
            windows,
            streaming: Streaming::default(),
            window_divisor: AtomicU64::new(1),
            tails: Tails::default(),
            brought: Mutex::default(),
            readers: Mutex::default(),
        }))
    }

    /// Divides the largest read-ahead window from now on: 1 is full speed. A window never becomes less than two of the
    /// largest requests: smaller requests for the same bytes would cost more, not less.
    pub fn slow_read_ahead(&self, divisor: u64) {
        self.0.window_divisor.store(divisor.max(1), Relaxed);
    }

    /// A reader of a version that is known already; asks for nothing.
    pub fn reader(&self, info: &ObjectInfo) -> Reader {
        self.reader_of(Arc::new(info.clone()), Arc::new(Owner::default()), 0)
    }

    /// Puts a block that this mount has just published into the cache. `index` counts blocks of
    /// [`PAGE_BYTES`](crate::memory::PAGE_BYTES); `block` begins at the block's first byte and ends at its end or the end of the
    /// object.
    pub fn admit(&self, info: &Arc<ObjectInfo>, index: u64, block: Bytes) {
        if block.is_empty() {
            return;
        }
        // A short block may stand in a whole page, which the cache would hold and not weigh.
        let is_short = block.len() as u64 <= BLOCK_BYTES / 2;
        let block = if is_short { Bytes::copy_from_slice(&block) } else { block };
        let range = ByteRange::of_len(index.saturating_mul(BLOCK_BYTES), block.len() as u64);
        let id = BlockId { version: info.version.clone(), index };
        self.0.fetcher.cache.insert(id, range, range.start, block);
        self.0.fetcher.keep_block(info, index);
    }

    /// Waits until the disk cache, if there is one, has what it was to keep, for `limit` at most. Blocks.
    pub fn settle_disk(&self, limit: std::time::Duration) {
        if let Some(disk) = &self.0.fetcher.disk {
            disk.behind.settle(limit);
        }
    }

    /// Drops what is cached of a version that is known to be gone. Speed only: LRU would drop it in time.
    pub fn forget_version(&self, version: &ObjectVersion) {
        self.0.fetcher.cache.forget_version(version);
    }

    /// Bytes of memory that cached blocks hold.
    pub fn cached_bytes(&self) -> u64 {
        self.0.fetcher.cache.used_bytes()
    }

    /// Bytes that were asked of S3 and are not handed over yet.
    pub fn in_flight_bytes(&self) -> u64 {
        self.0.fetcher.budget.used_bytes()
    }

    fn reader_of(&self, info: Arc<ObjectInfo>, owner: Arc<Owner>, opened_bytes: u64) -> Reader {
        let streams = Streams::new(info.size_bytes, opened_bytes);
        *self.0.readers.lock().entry(info.version.clone()).or_default() += 1;
        Reader(Arc::new(Handled {
            engine: Arc::clone(&self.0),
            of: FlightOf { owner, info },
            streams: Mutex::new(Observed { streams, counted: Counted::default() }),
            has_read: AtomicBool::new(false),
        }))
    }
}

/// An open handle's view of one version of an object. Cheap to clone; all clones share the stream detectors.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Handled>);

#[derive(Debug)]
struct Handled {
    engine: Arc<Engine>,
    of: FlightOf,
    streams: Mutex<Observed>,
    has_read: AtomicBool,
}

#[derive(Debug)]
struct Observed {
    streams: Streams,
    counted: Counted,
}

impl Reader {
    /// The version that is read, with its size.
    pub fn info(&self) -> &ObjectInfo {
        &self.0.of.info
    }

    /// The bytes of `range`, cut at the end of the file, if memory has them all; never waits. Keeps the read-ahead going when
    /// it answers, and leaves that to [`Reader::read`] when it does not. May be called on any thread.
    pub fn try_read(&self, range: ByteRange) -> Option<Bytes> {
        let range = self.cut(range);
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let fetcher = &self.0.engine.fetcher;
        let bytes = fetcher.ready(&self.0.of.info.version, range)?;
        let plan = self.0.observe(range, false);
        if !plan.ranges.is_empty()
            && let Some(from) = fetcher.prefetch(&self.0.of, &plan.ranges)
        {
            self.0.streams.lock().streams.retract(&plan, from);
        }
        Some(bytes)
    }

    /// The bytes of `range`, cut at the end of the file. Bytes that are already on their way are waited for; dropping the
    /// future harms nobody else who waits for them.
    pub async fn read(&self, range: ByteRange) -> Result<Bytes, ReadError> {
        let range = self.cut(range);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let plan = self.0.observe(range, true);
        let shape = if plan.sequential { Shape::Streaming } else { Shape::Random(Parts::of(range)) };
        let refused = |from| self.0.streams.lock().streams.retract(&plan, from);
        self.0.engine.fetcher.read(&self.0.of, range, shape, &plan.ranges, refused).await
    }

    fn cut(&self, range: ByteRange) -> ByteRange {
        let end = self.0.of.info.size_bytes;
        ByteRange { start: range.start.min(end), end: range.end.min(end).max(range.start.min(end)) }
    }
}

impl Handled {
    fn observe(&self, range: ByteRange, waited: bool) -> Plan {
        if !self.has_read.load(Relaxed) && !self.has_read.swap(true, Relaxed) {
            self.engine.tails.learn(&self.of.info, range);
        }
        let streams = self.engine.streaming.count();
        let slowed = self.engine.windows.window_bytes_max / self.engine.window_divisor.load(Relaxed);
        let slowed = slowed.max(2 * self.engine.windows.request_bytes_max);
        let cap = (self.engine.fetcher.limits.cache_bytes / WINDOWS_CACHE_DIVISOR / streams).min(slowed);
        let share = Share { window_bytes_max: cap.max(WINDOW_BYTES_MIN), streams };
        let mut observed = self.streams.lock();
        let plan = observed.streams.observe(range, waited, share, &self.engine.windows);
        let Observed { streams, counted } = &mut *observed;
        self.engine.streaming.note(counted, streams.streaming());
        drop(observed);
        let is_alone = || self.engine.readers.lock().get(&self.of.info.version).is_none_or(|&readers| readers == 1);
        if let Some(passed) = plan.passed.filter(|_| is_alone()) {
            self.engine.fetcher.let_go(&self.of.info.version, passed);
        }
        plan
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        self.engine.streaming.leave(&self.streams.get_mut().counted);
        let mut readers = self.engine.readers.lock();
        if let Some(count) = readers.get_mut(&self.of.info.version) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.of.info.version);
            }
        }
        drop(readers);
        self.of.owner.leave();
    }
}
