//! Objects that change, bodies that break, servers that ignore conditions.

use super::*;

fn transient() -> Break {
    Break::Error(StoreError::Transient("connection reset".into()))
}

#[tokio::test]
async fn changed_object_gives_stale_and_never_mixed_bytes() {
    let bench = Bench::new(64 * MIB);
    let reader = bench.open().await;
    bench.check(&reader, range(0, 128 * KIB)).await;
    bench.settle().await;
    bench.store.memory.put_directly("key", content(64 * MIB, 2));
    bench.check(&reader, range(256 * KIB, 128 * KIB)).await;
    assert!(matches!(reader.read(range(40 * MIB, KIB)).await, Err(ReadError::Stale)));
    bench.store.memory.delete_directly("key");
    assert!(matches!(reader.read(range(41 * MIB, KIB)).await, Err(ReadError::Stale)));
    assert!(matches!(reader.read(range(MIB - KIB, 2 * KIB)).await, Err(ReadError::Stale)), "no half of a read either");
}

#[tokio::test]
async fn a_server_that_ignores_conditions_gives_stale_all_the_same() {
    let store = Scripted { ignores_conditions: true, ..Scripted::new(CHUNK) };
    let bench = Bench::with(store, 64 * MIB, ReadLimits::default());
    let reader = bench.open().await;
    bench.store.memory.put_directly("key", content(64 * MIB, 2));
    assert!(matches!(reader.read(range(40 * MIB, KIB)).await, Err(ReadError::Stale)));
}

#[tokio::test]
async fn truncated_body_is_resumed_where_it_broke() {
    let bench = Bench::new(64 * MIB);
    let reader = bench.reader().await;
    bench.store.breaks.lock().extend([Some((100_000, Break::Truncated)), Some((7, transient()))]);
    let wanted = range(40 * MIB, 200_000);
    bench.check(&reader, wanted).await;
    let broke = [wanted.start, wanted.start + 100_000, wanted.start + 100_007];
    assert_eq!(bench.store.ranges(), broke.map(|start| ByteRange::new(start, wanted.end)));
    assert!(bench.store.gets.lock().iter().all(|get| get.if_match.as_ref() == Some(reader.info().etag())));
}

#[tokio::test]
async fn the_body_of_an_open_is_resumed_with_if_match() {
    let bench = Bench::new(800 * KIB);
    bench.store.breaks.lock().push_back(Some((300_000, transient())));
    let reader = bench.open().await;
    bench.check(&reader, range(0, 800 * KIB)).await;
    let gets = bench.store.gets.lock();
    assert_eq!(gets[1].if_match.as_ref(), Some(reader.info().etag()));
    assert_eq!(gets[1].range, GetRange::Bytes(ByteRange::new(300_000, 800 * KIB)));
}

#[tokio::test]
async fn an_object_that_changes_while_a_broken_body_is_resumed_gives_stale() {
    let bench = Bench::held(800 * KIB);
    bench.store.breaks.lock().push_back(Some((CHUNK as u64, transient())));
    let reader = bench.open().await;
    bench.store.memory.put_directly("key", content(800 * KIB, 2));
    bench.store.released.add_permits(10 << 20);
    assert!(matches!(reader.read(range(0, 800 * KIB)).await, Err(ReadError::Stale)));
}

#[tokio::test]
async fn a_body_that_breaks_again_and_again_is_given_up_and_the_next_read_tries_anew() {
    let bench = Bench::new(64 * MIB);
    let reader = bench.reader().await;
    bench.store.breaks.lock().extend(std::iter::repeat_n(Some((0, transient())), 5));
    let wanted = range(40 * MIB, KIB);
    let failed = reader.read(wanted).await;
    assert!(matches!(failed, Err(ReadError::Store(StoreError::Transient(_)))), "{failed:?}");
    assert_eq!(bench.store.ranges().len(), 5);
    bench.check(&reader, wanted).await;
}

#[tokio::test]
async fn bytes_whose_last_check_failed_are_not_cached() {
    let bench = Bench::new(64 * MIB);
    let reader = bench.reader().await;
    let corrupt = Break::Error(StoreError::Corrupt("checksum".into()));
    bench.store.breaks.lock().push_back(Some((KIB, corrupt)));
    let wanted = range(40 * MIB, KIB);
    let _ = reader.read(wanted).await;
    bench.settle().await;
    assert_eq!(reader.try_read(wanted), None);
    bench.check(&reader, wanted).await;
}

#[tokio::test]
async fn waiters_learn_of_a_failure_together() {
    let bench = Bench::held(64 * MIB);
    let (one, two) = (bench.reader().await, bench.reader().await);
    bench.store.breaks.lock().push_back(Some((0, Break::Error(StoreError::Fatal("no".into())))));
    let wanted = range(40 * MIB, KIB);
    let (a, b) = tokio::join!(one.read(wanted), two.read(wanted));
    assert!(matches!((a, b), (Err(ReadError::Store(_)), Err(ReadError::Store(_)))));
    assert_eq!(bench.store.ranges().len(), 1);
    assert_eq!(bench.engine.in_flight_bytes(), 0);
}

#[test]
fn a_runtime_that_ends_leaves_no_reader_waiting() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let (theirs, ours) = (runtime(), runtime());
    let bench = theirs.block_on(async { Bench::held(64 * MIB) });
    let reader = ours.block_on(bench.reader());
    let waits = ours.spawn(async move { reader.read(range(40 * MIB, KIB)).await });
    while bench.store.ranges().is_empty() {
        std::thread::yield_now();
    }
    theirs.shutdown_background();
    assert!(matches!(ours.block_on(waits).expect("no panic"), Err(ReadError::Store(_))));
}
