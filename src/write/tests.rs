//! Facts.

pub(super) mod bed;
mod kept;
mod spilled;

use std::sync::Arc;

use super::*;
use crate::metrics::{Gauge, Metrics, RequestKind};
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};
use crate::store::memory::MemoryStore;

const MIB: u64 = 1 << 20;

fn engine(store: Arc<dyn ObjectStore>, limits: WriteLimits) -> WriteEngine {
    WriteEngine::new(store, PagePool::new(0), limits, Arc::default(), Clock::system(), Journal::disabled())
}

#[tokio::test]
async fn a_part_fetches_its_rest_from_the_base_only_when_its_upload_has_its_turn() {
    let (bucket, faults, gate) = (MemoryStore::with_part_bytes_min(1), Faults::seeded(0), Gate::closed());
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::UploadPart));
    let limits = WriteLimits { staging_bytes: 64 * MIB, part_bytes: MIB, single_put_bytes_max: 0, uploads_max: 2 };
    let engine = engine(Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults)), limits);
    let mut expected = vec![7; 8 * MIB as usize];
    let base = Base::Object(bucket.put_directly("k", expected.clone()));
    let writer = engine.writer(WriteTarget { key: "k".into(), base, attributes: ObjectAttributes::default() });
    for part in 0..8 {
        writer.write(part * MIB, Bytes::from_static(b"x")).await.expect("written");
        expected[(part * MIB) as usize] = b'x';
    }
    let publishing = tokio::spawn({
        let writer = writer.clone();
        async move { writer.publish().await }
    });
    gate.arrived(2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bucket.requests(RequestKind::Get), 2);
    gate.open();
    publishing.await.expect("no panic").expect("published");
    assert_eq!(bucket.content("k").as_deref(), Some(&expected[..]));
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_no_longer_on_its_way() {
    let (bucket, faults, gate) = (MemoryStore::with_part_bytes_min(1), Faults::seeded(0), Gate::closed());
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::UploadPart));
    let limits = WriteLimits { staging_bytes: 64 * MIB, part_bytes: MIB, single_put_bytes_max: 0, uploads_max: 2 };
    let (store, metrics) = (FaultyStore::new(Arc::new(bucket.clone()), faults), Arc::new(Metrics::default()));
    let (pages, journal) = (PagePool::new(0), Journal::disabled());
    let engine = WriteEngine::new(Arc::new(store), pages, limits, Arc::clone(&metrics), Clock::system(), journal);
    let base = Base::Object(bucket.put_directly("k", vec![7; 8 * MIB as usize]));
    let writer = engine.writer(WriteTarget { key: "k".into(), base, attributes: ObjectAttributes::default() });
    for part in 0..8 {
        writer.write(part * MIB, Bytes::from_static(b"x")).await.expect("written");
    }
    let publishing = tokio::spawn(async move { writer.publish().await });
    gate.arrived(2).await;
    assert_eq!(metrics.gauge(Gauge::UploadingBytes), 2 * MIB as i64);
    publishing.abort();
    publishing.await.expect_err("it was given up");
    assert_eq!(metrics.gauge(Gauge::UploadingBytes), 0);
}

#[tokio::test]
async fn files_whose_rests_are_larger_than_the_budget_for_them_are_published_side_by_side() {
    let bucket = MemoryStore::with_part_bytes_min(1);
    let limits = WriteLimits { staging_bytes: 2 * MIB, part_bytes: MIB, single_put_bytes_max: 4 * MIB, uploads_max: 1 };
    let engine = engine(Arc::new(bucket.clone()), limits);
    // Half of them are sent whole, half as parts: neither kind may wait for what the other holds.
    let publishing = (0..8_u64).map(|file| {
        let key = format!("k{file}");
        let base = Base::Object(bucket.put_directly(&key, vec![7; (3 + file % 2 * 3) as usize * MIB as usize]));
        let writer = engine.writer(WriteTarget { key: (&*key).into(), base, attributes: ObjectAttributes::default() });
        async move {
            writer.write(MIB + 5, Bytes::from_static(b"x")).await.expect("written");
            writer.publish().await.expect("published")
        }
    });
    futures_util::future::join_all(publishing).await;
    for file in 0..8 {
        let content = bucket.content(&format!("k{file}")).expect("it is there");
        assert!(content.iter().enumerate().all(|(at, &byte)| byte == if at == MIB as usize + 5 { b'x' } else { 7 }));
    }
}

#[tokio::test]
async fn a_file_that_is_being_renamed_begins_no_upload_under_the_key_that_it_loses() {
    let bucket = MemoryStore::with_part_bytes_min(1);
    let limits = WriteLimits { staging_bytes: 64 * MIB, part_bytes: MIB, single_put_bytes_max: 0, uploads_max: 2 };
    let engine = engine(Arc::new(bucket.clone()), limits);
    let base = Base::Absent { exclusive: false };
    let writer = engine.writer(WriteTarget { key: "old".into(), base, attributes: ObjectAttributes::default() });
    let page = Bytes::from(vec![7; MIB as usize]);
    writer.freeze(true);
    for at in 0..4 {
        writer.write(at * MIB, page.clone()).await.expect("written");
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bucket.requests(RequestKind::CreateUpload), 0);
    assert!(writer.retarget("new".into()).is_some());
    writer.freeze(false);
    writer.write(4 * MIB, page).await.expect("written");
    writer.publish().await.expect("published");
    assert_eq!(bucket.keys(), ["new"]);
    assert_eq!(bucket.content("new").expect("it is there"), vec![7; 5 * MIB as usize]);
}
