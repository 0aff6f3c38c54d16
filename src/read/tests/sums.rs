//! Small objects whose checksum comes along: no byte of them is read before that was found right.

use super::*;
use crate::metrics::RequestKind;
use crate::store::faulty::{Fault, Faults, FaultyStore, Rule};
use crate::store::memory::MemoryStore;
use crate::store::{ObjectStore, StoreError};

fn summed(size: u64) -> Bench {
    Bench::with(Scripted { sums: true, ..Scripted::new(CHUNK) }, size, ReadLimits::default())
}

fn corrupt() -> Break {
    Break::Error(StoreError::Corrupt("checksum".into()))
}

#[tokio::test]
async fn bytes_of_a_small_object_are_read_when_its_checksum_was_found_right() {
    let store = Scripted { sums: true, ..Scripted::held(CHUNK) };
    let bench = Bench::with(store, 300 * KIB, ReadLimits::default());
    let reader = bench.open().await;
    bench.store.released.add_permits(2 * CHUNK);
    while bench.store.released.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(reader.try_read(range(0, 1)), None);
    bench.store.released.add_permits(10 << 20);
    bench.check(&reader, range(0, 300 * KIB)).await;
    assert_eq!(bench.store.gets.lock().len(), 1);
    assert_eq!(bench.engine.in_flight_bytes(), 0);
}

#[tokio::test]
async fn a_small_object_whose_body_was_damaged_or_broke_off_is_asked_for_anew_as_a_whole() {
    let bench = summed(300 * KIB);
    bench.store.breaks.lock().extend([
        Some((300 * KIB, corrupt())),
        Some((100_000, Break::Truncated)),
        Some((70_000, Break::Error(StoreError::Transient("reset".into())))),
    ]);
    let reader = bench.open().await;
    bench.check(&reader, range(0, 300 * KIB)).await;
    let gets = bench.store.gets.lock();
    assert_eq!(gets.len(), 4);
    assert!(gets[1..].iter().all(|get| get.range == GetRange::Whole && get.if_match.is_some()), "{gets:?}");
}

#[tokio::test]
async fn a_small_object_that_is_partly_there_is_checked_as_a_whole() {
    let bench = summed(300 * KIB);
    let reader = bench.reader().await;
    // In the middle, so that two claims are left, on both sides.
    bench.check(&reader, range(100 * KIB, 10 * KIB)).await;
    bench.settle().await;
    bench.store.breaks.lock().push_back(Some((300 * KIB, corrupt())));
    let opened = bench.open().await;
    bench.check(&opened, range(0, 300 * KIB)).await;
    bench.settle().await;
    assert_eq!(bench.engine.cached_bytes(), 300 * KIB + 512);
    assert_eq!(bench.store.gets.lock().len(), 3);
}

#[tokio::test]
async fn a_damaged_body_is_never_read_and_never_cached() {
    let (memory, faults) = (Arc::new(MemoryStore::new()), Faults::seeded(0));
    let bytes = content(100_000, 1);
    memory.put_directly("key", bytes.clone());
    let store = Arc::new(FaultyStore::new(memory.clone(), faults.clone()));
    let engine = ReadEngine::new(store, PagePool::new(64 << 20), ReadLimits::default(), Arc::default());
    let whole = range(0, 100_000);
    let damaged = Rule::new(Fault::Damaged).on(RequestKind::Get);
    faults.add(damaged.clone().times(1));
    let info = memory.head(&key()).await.expect("there");
    let reader = engine.open(&key(), Some(&info)).await.expect("there");
    assert_eq!(reader.read(whole).await.expect("the second body is right"), bytes);
    memory.put_directly("key", bytes.clone());
    engine.forget_version(&info.version);
    faults.add(damaged);
    let reader = engine.open(&key(), Some(&info)).await.expect("there");
    let failed = reader.read(whole).await;
    assert!(matches!(failed, Err(ReadError::Store(StoreError::Corrupt(_)))), "{failed:?}");
    faults.clear();
    assert_eq!(reader.read(whole).await.expect("bodies are right again"), bytes);
}
