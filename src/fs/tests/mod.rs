//! Facts about whole operations: what they answer, what they cost in requests, what is left in the bucket.

mod carried;
mod costs;
mod kept;
mod moves;
mod neighbours;
mod old_names;
mod renamed;
mod shown;
mod versions;

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{FileSystem, FileSystemOptions, FsResult, NewFile, Opened};
use crate::clock::Clock;
use crate::config::{AttributeDefaults, NamespaceLimits, ReadLimits, WriteLimits};
use crate::memory::{PAGE_BYTES, PagePool};
use crate::metrics::Metrics;
use crate::namespace::{Namespace, Node};
use crate::read::ReadEngine;
use crate::store::ObjectStore;
use crate::store::memory::MemoryStore;
use crate::types::{ByteRange, FileHandle, Ino};
use crate::write::{Journal, WriteEngine};

/// How old names may be in these tests.
const TTL: Duration = Duration::from_secs(1);
/// Flags of an ordinary create.
const CREATE: i32 = libc::O_RDWR | libc::O_CREAT;

/// One mount on a bucket in memory, with the calls of a program on it.
struct Mount {
    bucket: Arc<MemoryStore>,
    fs: Arc<FileSystem>,
    clock: Clock,
}

impl Mount {
    fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    /// A further mount on a bucket.
    fn on(bucket: Arc<MemoryStore>) -> Self {
        Self::opening_ahead(bucket, Duration::ZERO)
    }

    /// The same with `--open-ahead`.
    fn opening_ahead(bucket: Arc<MemoryStore>, open_ahead: Duration) -> Self {
        Self::composed(bucket, open_ahead, Journal::disabled())
    }

    fn composed(bucket: Arc<MemoryStore>, open_ahead: Duration, journal: Journal) -> Self {
        let store = bucket.clone();
        Self::over((bucket, store), open_ahead, journal, WriteLimits::default())
    }

    /// A mount that sees its bucket through a store.
    fn over(
        (bucket, store): (Arc<MemoryStore>, Arc<dyn ObjectStore>),
        open_ahead: Duration,
        journal: Journal,
        limits: WriteLimits,
    ) -> Self {
        let read = |store, pages, metrics, _: &Clock| ReadEngine::new(store, pages, ReadLimits::default(), metrics);
        Self::reading_by(read, (bucket, store), open_ahead, journal, limits)
    }

    /// The same with a read engine of its own kind.
    fn reading_by(
        read: impl FnOnce(Arc<dyn ObjectStore>, Arc<PagePool>, Arc<Metrics>, &Clock) -> ReadEngine,
        (bucket, store): (Arc<MemoryStore>, Arc<dyn ObjectStore>),
        open_ahead: Duration,
        journal: Journal,
        limits: WriteLimits,
    ) -> Self {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let metrics = Arc::new(Metrics::default());
        let pages = PagePool::new(16 * PAGE_BYTES);
        let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix: false };
        let names = NamespaceLimits { metadata_ttl: TTL, ..NamespaceLimits::default() };
        let namespace = Namespace::new(store.clone(), "", defaults, names, clock.clone(), None);
        let read = read(store.clone(), pages.clone(), metrics.clone(), &clock);
        let write = WriteEngine::new(store, pages, limits, metrics.clone(), clock.clone(), journal);
        let options = FileSystemOptions { open_ahead, ..FileSystemOptions::new(defaults, TTL) };
        let (fs, _) = FileSystem::new(namespace, read, write, options, metrics, clock.clone());
        Self { bucket, fs, clock }
    }

    async fn lookup(&self, name: &str) -> FsResult<Node> {
        self.fs.lookup(Ino::ROOT, OsStr::new(name)).await
    }

    async fn create(&self, name: &str) -> Opened {
        let new = NewFile { mode: 0o100_644, uid: 0, gid: 0 };
        self.fs.create(Ino::ROOT, OsStr::new(name), new, CREATE).await.expect("the name is new").1
    }

    /// Opens as the kernel does: an ESTALE makes it look the name up again.
    async fn open(&self, name: &str, flags: i32) -> FsResult<Opened> {
        let node = self.lookup(name).await?;
        match self.fs.open(node.ino, flags).await {
            Err(super::FsError::Stale) => self.fs.open(self.lookup(name).await?.ino, flags).await,
            outcome => outcome,
        }
    }

    async fn write(&self, handle: FileHandle, offset: u64, data: &[u8]) -> FsResult<()> {
        match self.fs.try_write(handle, offset, data) {
            Some(outcome) => outcome,
            None => self.fs.write(handle, offset, Bytes::copy_from_slice(data)).await,
        }
    }

    async fn read(&self, handle: FileHandle) -> FsResult<Vec<u8>> {
        let range = ByteRange::new(0, 1 << 20);
        match self.fs.try_read(handle, range) {
            Some(outcome) => outcome.map(|bytes| bytes.to_vec()),
            None => self.fs.read(handle, range).await.map(|bytes| bytes.to_vec()),
        }
    }

    async fn close(&self, handle: FileHandle) -> FsResult<()> {
        let flushed = self.fs.flush(handle).await;
        self.fs.release(handle).await;
        flushed
    }

    /// Writes a whole new file.
    async fn put(&self, name: &str, data: &[u8]) {
        let opened = self.create(name).await;
        self.write(opened.handle, 0, data).await.expect("staging has room");
        self.close(opened.handle).await.expect("the store does not fail");
    }

    /// Reads a whole file.
    async fn get(&self, name: &str) -> FsResult<Vec<u8>> {
        let opened = self.open(name, libc::O_RDONLY).await?;
        let bytes = self.read(opened.handle).await;
        self.close(opened.handle).await?;
        bytes
    }

    /// Lets what is known of names grow old.
    fn wait(&self) {
        self.clock.advance(TTL * 2);
    }
}
