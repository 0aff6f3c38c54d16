//! What the disk cache has is not asked of S3, and what S3 gave is there the next time.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::cache::DiskCache;
use crate::clock::Clock;

const PATIENCE: Duration = Duration::from_secs(20);

/// A bench with a disk cache in `dir`, whose object is the same every time.
fn bench(dir: &Path, size: u64) -> Bench {
    let bytes = content(size, 1);
    let store = Arc::new(Scripted::new(CHUNK));
    store.memory.put_directly("key", bytes.clone());
    let shared = Arc::new(Shared(Arc::clone(&store)));
    let metrics: Arc<Metrics> = Arc::default();
    let disk = DiskCache::open(dir, "source", 256 << 20, Arc::clone(&metrics), Clock::system()).expect("the lock");
    disk.recover();
    let pages = PagePool::new(64 << 20);
    let engine = ReadEngine::with_disk(shared, pages, ReadLimits::default(), metrics, disk).expect("a thread");
    Bench { store, engine, bytes }
}

impl Bench {
    fn disk(&self) -> DiskCache {
        self.engine.0.fetcher.disk.as_ref().expect("there is one").cache().clone()
    }

    /// Forgets memory, as a restart does.
    async fn forget(&self) {
        self.settle().await;
        self.engine.settle_disk(PATIENCE);
        self.engine.forget_version(&self.reader().await.info().version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fetched_is_read_from_disk_when_memory_has_lost_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bench = bench(&dir.path().join("c"), 20 * MIB + 5);
    let reader = bench.open().await;
    for start in (0..20 * MIB + 5).step_by(MIB as usize) {
        bench.check(&reader, range(start, MIB)).await;
    }
    bench.forget().await;
    let before = bench.store.asked_bytes();
    let reader = bench.reader().await;
    for start in (0..20 * MIB + 5).step_by(MIB as usize) {
        bench.check(&reader, range(start, MIB)).await;
    }
    assert_eq!(bench.store.asked_bytes(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_gaps_between_blocks_on_disk_are_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bench = bench(&dir.path().join("c"), 64 * MIB);
    let reader = bench.reader().await;
    for block in [33, 35, 36] {
        let at = range(block * MIB, MIB);
        assert!(bench.disk().write(reader.info(), at.start, bench.expect(at)));
    }
    let plan = [range(32 * MIB, 8 * MIB)];
    let fetcher = &bench.engine.0.fetcher;
    assert_eq!(fetcher.prefetch(&reader.0.of, &plan), None);
    bench.settle().await;
    let mut asked = bench.store.ranges();
    asked.sort_by_key(|range| range.start);
    assert_eq!(asked, [range(32 * MIB, MIB), range(34 * MIB, MIB), range(37 * MIB, 3 * MIB)]);
    bench.check(&reader, range(32 * MIB, 8 * MIB)).await;
    assert_eq!(bench.store.ranges().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_of_which_the_disk_has_the_beginning_is_completed_from_s3() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bench = bench(&dir.path().join("c"), 64 * MIB);
    let reader = bench.reader().await;
    let there = range(40 * MIB, 256 * KIB);
    assert!(bench.disk().write(reader.info(), there.start, bench.expect(there)));
    let fetcher = &bench.engine.0.fetcher;
    assert_eq!(fetcher.prefetch(&reader.0.of, &[range(40 * MIB, MIB)]), None);
    bench.settle().await;
    assert_eq!(bench.store.ranges(), [range(40 * MIB + 256 * KIB, 768 * KIB)]);
    bench.check(&reader, range(40 * MIB, MIB)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_whose_last_check_failed_do_not_reach_the_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bench = bench(&dir.path().join("c"), 64 * MIB);
    let reader = bench.reader().await;
    bench.store.breaks.lock().push_back(Some((MIB, Break::Error(StoreError::Corrupt("bad checksum".into())))));
    let fetcher = &bench.engine.0.fetcher;
    assert_eq!(fetcher.prefetch(&reader.0.of, &[range(50 * MIB, MIB)]), None);
    bench.settle().await;
    assert!(bench.store.breaks.lock().is_empty(), "its body did not end well");
    bench.engine.settle_disk(PATIENCE);
    assert!(!bench.disk().may_hold(reader.info(), range(50 * MIB, MIB)));
}
