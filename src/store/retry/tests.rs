//! Lost replies, deadlines and budgets, on a memory store with scripted faults and a paused clock.

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::store::GetRange;
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};
use crate::store::memory::MemoryStore;

struct Bench {
    memory: MemoryStore,
    faults: Faults,
    metrics: Arc<Metrics>,
    store: Arc<RetryStore>,
}

fn bench() -> Bench {
    let memory = MemoryStore::new();
    let faults = Faults::seeded(1);
    let metrics = Arc::new(Metrics::default());
    let faulty = FaultyStore::new(Arc::new(memory.clone()), faults.clone());
    let store = RetryStore::new(Arc::new(faulty), RetryPolicy::default(), Arc::clone(&metrics));
    Bench { memory, faults, metrics, store: Arc::new(store) }
}

fn lost() -> StoreError {
    StoreError::Transient("connection reset".into())
}

fn slow_down(retry_after: Option<u64>) -> StoreError {
    StoreError::Throttled { detail: "SlowDown".into(), retry_after: retry_after.map(Duration::from_secs) }
}

fn put(bytes: &'static str, condition: WriteCondition) -> PutRequest {
    PutRequest {
        key: "k".into(),
        payload: Bytes::from_static(bytes.as_bytes()).into(),
        attributes: ObjectAttributes::default(),
        condition,
    }
}

async fn upload(bench: &Bench, condition: WriteCondition) -> CompleteRequest {
    let key = ObjectKey::from("k");
    let upload = bench.memory.create_upload(&key, ObjectAttributes::default()).await.unwrap();
    let part = bench.memory.upload_part(&key, &upload, 3, Bytes::from_static(b"new").into()).await.unwrap();
    CompleteRequest { key, upload, parts: vec![part], size_bytes: 3, condition }
}

#[tokio::test(start_paused = true)]
async fn throttled_requests_are_repeated_until_they_succeed() {
    let bench = bench();
    bench.memory.put_directly("k", "hello");
    bench.faults.add(Rule::new(Fault::Before(slow_down(None))).times(5));
    bench.store.head(&"k".into()).await.unwrap();
    assert_eq!(bench.metrics.counter(Counter::Retries), 5);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let bench = bench();
    bench.memory.put_directly("k", "hello");
    bench.faults.add(Rule::new(Fault::Before(slow_down(Some(9)))).times(1));
    let began = Instant::now();
    bench.store.head(&"k".into()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn a_request_never_outlives_its_deadline() {
    let bench = bench();
    let gate = Gate::closed();
    bench.faults.add(Rule::new(Fault::Hold(gate)));
    let began = Instant::now();
    let error = bench.store.head(&"k".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Deadline(_)), "{error}");
    assert!(began.elapsed() <= RetryPolicy::default().deadline + Duration::from_millis(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_no_repeat_mends_comes_at_once() {
    let bench = bench();
    assert!(matches!(bench.store.head(&"k".into()).await, Err(StoreError::NotFound)));
    assert_eq!(bench.memory.all_requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_new_credentials_may_mend_is_repeated_once() {
    for error in [
        StoreError::ExpiredCredentials("ExpiredToken".into()),
        StoreError::Unexplained(Box::new(StoreError::Fatal("HTTP 400".into()))),
    ] {
        let bench = bench();
        bench.memory.put_directly("k", "x");
        bench.faults.fail_nth(RequestKind::Head, 1, error.clone());
        bench.store.head(&"k".into()).await.unwrap();
        bench.faults.add(Rule::new(Fault::Before(error)).on(RequestKind::Head));
        let refused = bench.store.head(&"k".into()).await.unwrap_err();
        assert_eq!(bench.faults.injected(), 3, "{refused}");
        assert!(matches!(refused, StoreError::ExpiredCredentials(_) | StoreError::Fatal(_)), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_an_exclusive_put_is_settled_by_looking() {
    let bench = bench();
    bench.faults.lose_reply_of_nth(RequestKind::Put, 1, lost());
    let info = bench.store.put(put("mine", WriteCondition::Absent)).await.unwrap();
    assert_eq!(Some(info), bench.memory.info("k"));
    assert_eq!(bench.memory.requests(RequestKind::Put), 1);
    assert_eq!(bench.memory.requests(RequestKind::Head), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_and_another_writer_is_a_conflict() {
    let bench = bench();
    bench.memory.put_directly("k", "theirs");
    bench.faults.fail_nth(RequestKind::Put, 1, lost());
    let error = bench.store.put(put("mine", WriteCondition::Absent)).await.unwrap_err();
    assert!(matches!(error, StoreError::PreconditionFailed), "{error}");
    assert_eq!(bench.memory.content("k").unwrap(), "theirs");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_lost_on_its_way_is_sent_again() {
    let bench = bench();
    let base = bench.memory.put_directly("k", "base");
    bench.faults.fail_nth(RequestKind::Put, 1, lost());
    bench.store.put(put("mine", WriteCondition::Matches(base.etag().clone()))).await.unwrap();
    assert_eq!(bench.memory.content("k").unwrap(), "mine");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_doubt_is_no_refusal_while_nobody_can_look() {
    let bench = bench();
    let base = bench.memory.put_directly("k", "base");
    bench.faults.lose_reply_of_nth(RequestKind::Put, 1, lost());
    bench.faults.add(Rule::new(Fault::Before(lost())).on(RequestKind::Head));
    let error = bench.store.put(put("mine", WriteCondition::Matches(base.etag().clone()))).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(bench.memory.content("k").unwrap(), "mine");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_complete_is_settled_by_looking() {
    for condition in [WriteCondition::None, WriteCondition::Absent] {
        let bench = bench();
        let request = upload(&bench, condition).await;
        bench.faults.lose_reply_of_nth(RequestKind::CompleteUpload, 1, lost());
        let info = bench.store.complete_upload(request).await.unwrap();
        assert_eq!(Some(info), bench.memory.info("k"));
        assert_eq!(bench.memory.requests(RequestKind::CompleteUpload), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_whose_look_failed_is_settled_at_the_next_try() {
    let bench = bench();
    let request = upload(&bench, WriteCondition::None).await;
    bench.faults.lose_reply_of_nth(RequestKind::CompleteUpload, 1, lost());
    bench.faults.fail_nth(RequestKind::Head, 1, lost());
    let info = bench.store.complete_upload(request).await.unwrap();
    assert_eq!(Some(info), bench.memory.info("k"));
    assert_eq!(bench.memory.requests(RequestKind::CompleteUpload), 2, "the second says NoSuchUpload");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_gone_without_a_trace_of_ours_is_told() {
    let bench = bench();
    let request = upload(&bench, WriteCondition::None).await;
    bench.memory.abort_upload(&request.key, &request.upload).await.unwrap();
    bench.memory.put_directly("k", "theirs");
    bench.faults.fail_nth(RequestKind::CompleteUpload, 1, lost());
    assert!(matches!(bench.store.complete_upload(request).await, Err(StoreError::NoSuchUpload)));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_conditional_copy_is_settled_by_looking() {
    let bench = bench();
    let source = bench.memory.put_directly("source", "bytes");
    bench.faults.lose_reply_of_nth(RequestKind::Copy, 1, lost());
    let request = CopyRequest {
        source: source.version,
        key: "k".into(),
        attributes: None,
        source_class: None,
        condition: WriteCondition::Absent,
    };
    bench.store.copy(request).await.unwrap();
    assert_eq!(bench.memory.content("k").unwrap(), "bytes");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_delete_is_a_success_when_the_key_is_gone() {
    let bench = bench();
    let info = bench.memory.put_directly("k", "x");
    bench.faults.lose_reply_of_nth(RequestKind::Delete, 1, lost());
    bench.faults.add(Rule::new(Fault::Before(StoreError::PreconditionFailed)).on(RequestKind::Delete).after(1));
    bench.store.delete(&"k".into(), Some(info.etag())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_does_not_storm_the_server() {
    let bench = bench();
    bench.faults.add(Rule::new(Fault::Before(lost())));
    let calls = (0..500).map(|_| {
        let store = Arc::clone(&bench.store);
        tokio::spawn(async move { store.head(&"k".into()).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().is_err());
    }
    let sent = bench.faults.injected();
    // The first try of each, the tokens, and a last try of each.
    assert!(sent <= 500 + 200 + 10 * 60 + 500, "{sent} requests in a minute of outage");
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_get_is_repeated_and_its_body_is_not() {
    use futures_util::StreamExt as _;
    let bench = bench();
    bench.memory.put_directly("k", "hello");
    bench.faults.fail_nth(RequestKind::Get, 1, lost());
    bench.faults.add(Rule::new(Fault::BrokenBody { after_bytes: 2, error: lost() }).on(RequestKind::Get));
    let request = GetRequest { key: "k".into(), range: GetRange::Whole, if_match: None, if_none_match: None };
    let mut body = bench.store.get(request).await.unwrap().body;
    assert_eq!(body.next().await.unwrap().unwrap(), "he");
    assert!(body.next().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_away_is_an_error_only_at_the_deadline() {
    let bench = bench();
    bench.memory.put_directly("k", "hello");
    bench.faults.add(Rule::new(Fault::Before(StoreError::Unsent("connection refused".into()))));
    let began = Instant::now();
    let error = bench.store.head(&"k".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Deadline(_)), "{error}");
    let deadline = RetryPolicy::default().deadline;
    assert!(
        began.elapsed() + Duration::from_secs(2) >= deadline && began.elapsed() <= deadline,
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_whole_is_deleted_in_smaller_ones() {
    let bench = bench();
    let keys: Vec<ObjectKey> = (0..8).map(|n| ObjectKey::from(format!("k{n}").as_str())).collect();
    for key in &keys {
        bench.memory.put_directly(key.as_str(), "x");
    }
    // The whole, its first half, and so on down to the one that is bad; the rest goes in batches.
    let malformed = Fault::Before(StoreError::BadKey("MalformedXML".into()));
    bench.faults.add(Rule::new(malformed).on(RequestKind::DeleteMany).times(4));
    assert!(bench.store.delete_many(keys.clone()).await.expect("they are deleted").is_empty());
    for key in &keys {
        assert!(matches!(bench.memory.head(key).await, Err(StoreError::NotFound)), "{key:?}");
    }
    // What is not about the keys is not asked again key by key.
    bench.faults.add(Rule::new(Fault::Before(StoreError::Fatal("no".into()))).on(RequestKind::DeleteMany));
    let injected = bench.faults.injected();
    bench.store.delete_many(keys).await.expect_err("it is refused");
    assert_eq!(bench.faults.injected() - injected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_happened_behind_a_503_is_settled_by_one_look() {
    let bench = bench();
    bench.faults.lose_reply_of_nth(RequestKind::Put, 1, slow_down(None));
    bench.store.put(put("mine", WriteCondition::Absent)).await.unwrap();
    assert_eq!((bench.memory.requests(RequestKind::Put), bench.memory.requests(RequestKind::Head)), (2, 1));

    let bench = self::bench();
    let request = upload(&bench, WriteCondition::None).await;
    bench.faults.lose_reply_of_nth(RequestKind::CompleteUpload, 1, slow_down(None));
    let info = bench.store.complete_upload(request).await.unwrap();
    assert_eq!(Some(info), bench.memory.info("k"));
    assert_eq!((bench.memory.requests(RequestKind::CompleteUpload), bench.memory.requests(RequestKind::Head)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_503_that_did_nothing_and_another_writer_is_a_conflict() {
    let bench = bench();
    bench.memory.put_directly("k", "theirs");
    bench.faults.fail_nth(RequestKind::Put, 1, slow_down(None));
    let error = bench.store.put(put("mine", WriteCondition::Absent)).await.unwrap_err();
    assert!(matches!(error, StoreError::PreconditionFailed), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_throttled_writes_for_good_leaves_them_in_doubt_and_is_not_asked_for_more() {
    let bench = bench();
    bench.faults.add(Rule::new(Fault::After(slow_down(None))).on(RequestKind::Put));
    let error = bench.store.put(put("mine", WriteCondition::None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Throttled { .. }) && error.is_ambiguous(), "{error}");
    assert_eq!(bench.memory.requests(RequestKind::Head), 0);
}

/// Parts of 8 MiB over a line that brings so little to each of them.
async fn part_over_a_line(bench: &Bench, bytes_per_second: u64, until_bytes: u64) -> StoreResult<UploadedPart> {
    let key = ObjectKey::from("k");
    let upload = bench.memory.create_upload(&key, ObjectAttributes::default()).await.unwrap();
    bench.faults.add(Rule::new(Fault::SlowLine { bytes_per_second, until_bytes }).on(RequestKind::UploadPart));
    bench.store.upload_part(&key, &upload, 1, Bytes::from(vec![7; 8 << 20]).into()).await
}

#[tokio::test(start_paused = true)]
async fn an_upload_over_a_slow_line_goes_on_while_it_moves() {
    let bench = bench();
    let began = Instant::now();
    part_over_a_line(&bench, 16 << 10, u64::MAX).await.unwrap();
    assert_eq!(bench.faults.injected(), 1, "one try");
    assert!(began.elapsed() > RetryPolicy::default().deadline * 8, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stands_still_is_repeated_until_the_deadline() {
    let (bench, policy) = (bench(), RetryPolicy::default());
    let began = Instant::now();
    let error = part_over_a_line(&bench, 64 << 10, 4 << 20).await.unwrap_err();
    assert!(matches!(&error, StoreError::Deadline(told) if told.contains("stood still")), "{error}");
    // 64 s of each try do not count.
    let (tries, limits) = (bench.faults.injected() as u32, policy.limits(RequestKind::UploadPart, 8 << 20));
    assert!(tries >= 2, "{tries}");
    assert!(began.elapsed() <= limits.deadline + Duration::from_secs(64) * tries + Duration::from_secs(1), "{tries}");
}
