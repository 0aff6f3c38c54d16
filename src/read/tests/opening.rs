//! What an open asks for, and what it leaves to be asked.

use super::*;
use crate::store::ObjectStore;

#[tokio::test]
async fn open_and_read_of_a_small_file_is_one_get() {
    let bench = Bench::new(300 * KIB);
    let reader = bench.open().await;
    for start in (0..300 * KIB).step_by(100 << 10) {
        bench.check(&reader, range(start, 100 * KIB)).await;
    }
    assert_eq!(bench.store.memory.all_requests(), 1);
    bench.settle().await;
    assert_eq!(bench.engine.cached_bytes(), 300 * KIB + 512, "a small file holds its own size, not a page");
}

#[tokio::test]
async fn open_of_a_small_file_asks_for_the_whole_and_brings_no_more_than_that() {
    let bench = Bench::new(5 * KIB);
    let info = bench.store.memory.head(&key()).await.expect("there");
    let reader = bench.engine.open(&key(), Some(&info)).await.expect("open");
    bench.check(&reader, range(0, 8 * KIB)).await;
    assert_eq!(bench.store.gets.lock()[0].range, GetRange::Whole, "only the whole is sure to come with its checksum");
    assert_eq!(bench.store.memory.bytes_sent(), 5 * KIB);
}

#[tokio::test]
async fn open_answers_before_the_body_has_arrived() {
    let bench = Bench::held(3 * MIB);
    let reader = bench.open().await;
    assert_eq!(reader.info().size_bytes, 3 * MIB);
    assert_eq!(reader.try_read(range(0, 1)), None);
    bench.store.released.add_permits(2 * CHUNK);
    assert_eq!(reader.read(range(0, 128 * KIB)).await.expect("the first chunks"), bench.expect(range(0, 128 * KIB)));
    assert_eq!(reader.try_read(range(128 * KIB, 1)), None);
    assert_eq!(bench.store.ranges(), [range(0, MIB)]);
}

#[tokio::test]
async fn open_of_known_unchanged_version_asks_if_none_match() {
    let bench = Bench::new(300 * KIB);
    let first = bench.open().await;
    bench.check(&first, range(0, 300 * KIB)).await;
    let sent = bench.store.memory.bytes_sent();
    let second = bench.engine.open(&key(), Some(first.info())).await.expect("unchanged");
    assert_eq!(bench.store.gets.lock()[1].if_none_match.as_ref(), Some(first.info().etag()));
    bench.check(&second, range(0, 300 * KIB)).await;
    assert_eq!(bench.store.memory.bytes_sent(), sent, "no byte came twice");
    assert_eq!(bench.store.memory.all_requests(), 2);
}

#[tokio::test]
async fn open_of_known_changed_version_reads_the_new_one() {
    let mut bench = Bench::new(300 * KIB);
    let first = bench.open().await;
    bench.check(&first, range(0, 300 * KIB)).await;
    bench.bytes = content(700 * KIB, 2);
    bench.store.memory.put_directly("key", bench.bytes.clone());
    let second = bench.engine.open(&key(), Some(first.info())).await.expect("changed");
    bench.check(&second, range(0, 700 * KIB)).await;
    assert_eq!(second.info().size_bytes, 700 * KIB);
}

#[tokio::test]
async fn open_of_an_empty_object_costs_a_get_if_that_is_known_and_a_head_more_if_not() {
    let bench = Bench::new(0);
    let reader = bench.open().await;
    assert_eq!(reader.try_read(range(0, 4096)), Some(Bytes::new()));
    assert_eq!(bench.store.memory.all_requests(), 2);
    let reader = bench.engine.open(&key(), Some(reader.info())).await.expect("open");
    assert_eq!(reader.info().size_bytes, 0);
    assert_eq!(bench.store.memory.all_requests(), 3);
    assert_eq!(bench.store.gets.lock()[1].range, GetRange::Whole);
}

#[tokio::test]
async fn an_object_that_grew_from_empty_is_not_read_whole_by_its_open() {
    let mut bench = Bench::new(0);
    let empty = bench.open().await;
    bench.bytes = content(5 * MIB, 2);
    bench.store.memory.put_directly("key", bench.bytes.clone());
    let reader = bench.engine.open(&key(), Some(empty.info())).await.expect("open");
    bench.settle().await;
    assert_eq!(bench.engine.cached_bytes(), MIB + 512);
    bench.check(&reader, range(MIB - 10, 20)).await;
}

#[tokio::test]
async fn open_fails_as_its_get_does() {
    let bench = Bench::new(10);
    let missing = bench.engine.open(&"other".into(), None).await;
    assert!(matches!(missing, Err(StoreError::NotFound)));
    assert_eq!(bench.engine.in_flight_bytes(), 0);
}

#[tokio::test]
async fn blocks_of_our_own_publication_are_read_without_a_request() {
    let bench = Bench::new(2 * MIB + 100);
    let reader = bench.reader().await;
    for (index, block) in bench.bytes.chunks(MIB as usize).enumerate() {
        bench.engine.admit(&std::sync::Arc::new(reader.info().clone()), index as u64, Bytes::copy_from_slice(block));
    }
    bench.check(&reader, range(0, 3 * MIB)).await;
    assert_eq!(bench.store.memory.requests(crate::metrics::RequestKind::Get), 0);
    bench.engine.forget_version(&reader.info().version);
    assert_eq!(reader.try_read(range(0, 1)), None);
}

#[tokio::test]
async fn files_that_are_read_from_their_end_bring_their_tail_with_the_open() {
    let bench = Bench::new(4 * MIB);
    for n in 0..3 {
        bench.store.memory.put_directly(&format!("{n}.parquet"), bench.bytes.clone());
    }
    let tail = range(4 * MIB - 64 * KIB, 64 * KIB);
    for n in 0..3 {
        let key = format!("{n}.parquet").as_str().into();
        let info = bench.store.memory.head(&key).await.expect("there");
        bench.store.gets.lock().clear();
        let reader = bench.engine.open(&key, Some(&info)).await.expect("open");
        bench.settle().await;
        assert_eq!(bench.store.gets.lock().len(), if n < 2 { 1 } else { 2 });
        bench.check(&reader, tail).await;
        assert_eq!(bench.store.gets.lock().len(), 2);
    }
}
