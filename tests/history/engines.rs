//! The file system that histories run on: the real engines over a bucket in memory that may fail.

use std::sync::Arc;
use std::time::Duration;

use s3mount::clock::Clock;
use s3mount::config::{AttributeDefaults, NamespaceLimits, ReadLimits, WriteLimits};
use s3mount::fs::{FileSystem, FileSystemOptions};
use s3mount::memory::{PAGE_BYTES, PagePool, Spill};
use s3mount::metrics::Metrics;
use s3mount::namespace::Namespace;
use s3mount::read::ReadEngine;
use s3mount::store::faulty::{Fault, Faults, FaultyStore, Rule};
use s3mount::store::memory::MemoryStore;
use s3mount::store::retry::{RetryPolicy, RetryStore};
use s3mount::store::{ObjectStore, StoreError};
use s3mount::write::{Journal, WriteEngine};

/// Names and attributes may be this old; the clock is moved past it before what another client did must be seen.
pub const METADATA_TTL: Duration = Duration::from_secs(1);

/// A mount of the bucket; with little memory all unpublished bytes but one page are on disk.
pub fn build(store: &Arc<dyn ObjectStore>, clock: &Clock, little_memory: bool) -> Arc<FileSystem> {
    let metrics = Arc::new(Metrics::default());
    let pages = PagePool::new(16 * PAGE_BYTES);
    let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix: false };
    let limits = NamespaceLimits { metadata_ttl: METADATA_TTL, ..NamespaceLimits::default() };
    let namespace = Namespace::new(Arc::clone(store), "", defaults, limits, clock.clone(), None);
    let read_limits = ReadLimits { cache_bytes: 4 << 20, in_flight_bytes: 8 << 20, ..ReadLimits::default() };
    let read = ReadEngine::new(Arc::clone(store), Arc::clone(&pages), read_limits, Arc::clone(&metrics));
    // Parts are as small as the store lets them be, so that histories of small files meet multipart uploads. They are smaller
    // than pages, which no configuration allows: only whole pages can leave memory, so that there is room for all of them.
    let write_limits = WriteLimits {
        staging_bytes: 64 << 20,
        part_bytes: PART_BYTES,
        single_put_bytes_max: PART_BYTES,
        uploads_max: 4,
    };
    // Parts are whole pages here, as every configuration has them: what was uploaded may leave.
    let little = WriteLimits { staging_bytes: 2 * PART_BYTES, part_bytes: PAGE_BYTES as u64, ..write_limits };
    let write_limits = if little_memory { little } else { write_limits };
    let journal = Journal::disabled();
    let mut write =
        WriteEngine::new(Arc::clone(store), pages, write_limits, Arc::clone(&metrics), clock.clone(), journal);
    if little_memory {
        write = write.spilling_to(Spill::in_dir(&std::env::temp_dir()).expect("room for a file"));
    }
    let options = FileSystemOptions::new(defaults, METADATA_TTL);
    FileSystem::new(namespace, read, write, options, metrics, clock.clone()).0
}

/// The bucket as the engines see it: with a seed it fails now and then, before or after the effect, and the retry layer
/// hides that.
pub fn stack(bucket: &Arc<MemoryStore>, faults: Option<u64>) -> Arc<dyn ObjectStore> {
    let bucket = Arc::clone(bucket) as Arc<dyn ObjectStore>;
    let Some(seed) = faults else { return bucket };
    let faults = Faults::seeded(seed);
    let broken = || StoreError::Transient("the connection broke".into());
    faults.add(Rule::new(Fault::Before(broken())).rate(0.05));
    faults.add(Rule::new(Fault::After(broken())).rate(0.05));
    faults.add(
        Rule::new(Fault::Before(StoreError::Throttled { detail: "slow down".into(), retry_after: None })).rate(0.03),
    );
    faults.add(Rule::new(Fault::BrokenBody { after_bytes: 700, error: broken() }).rate(0.05));
    Arc::new(RetryStore::new(Arc::new(FaultyStore::new(bucket, faults)), RetryPolicy::default(), Arc::default()))
}

/// Part size of the histories in bytes.
pub const PART_BYTES: u64 = 64 << 10;
