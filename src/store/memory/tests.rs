//! What the fake adds to the contract that every store passes: S3's limits and errors, and the helpers of tests.

use super::*;

fn store() -> MemoryStore {
    let clock = Clock::manual(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
    MemoryStore::with_options(MemoryOptions { clock, ..MemoryOptions::default() })
}

fn part(len_bytes: usize, fill: u8) -> Payload {
    Bytes::from(vec![fill; len_bytes]).into()
}

async fn begin(store: &MemoryStore) -> UploadId {
    store.create_upload(&"k".into(), ObjectAttributes::default()).await.unwrap()
}

fn complete(upload: &UploadId, parts: &[UploadedPart], size_bytes: u64) -> CompleteRequest {
    CompleteRequest {
        key: "k".into(),
        upload: upload.clone(),
        parts: parts.to_vec(),
        size_bytes,
        condition: WriteCondition::None,
    }
}

#[tokio::test]
async fn a_part_under_five_mib_is_refused_unless_it_is_the_last() {
    let store = store();
    let upload = begin(&store).await;
    let small = store.upload_part(&"k".into(), &upload, 1, part(5, 1)).await.unwrap();
    let last = store.upload_part(&"k".into(), &upload, 7, part(6, 2)).await.unwrap();
    let refused = store.complete_upload(complete(&upload, &[small, last.clone()], 11)).await;
    assert!(matches!(refused, Err(StoreError::Fatal(detail)) if detail.starts_with("EntityTooSmall")));
    let info = store.complete_upload(complete(&upload, &[last], 6)).await.unwrap();
    assert!(info.etag().as_str().ends_with("-1\""), "{:?}", info.etag());
    assert_eq!(store.content("k").unwrap(), vec![2; 6]);
    assert_eq!(store.uploads_pending(), 0);
}

#[tokio::test]
async fn parts_out_of_order_and_a_wrong_size_are_refused() {
    let store = store();
    let upload = begin(&store).await;
    let a = store.upload_part(&"k".into(), &upload, 1, part(5 << 20, 1)).await.unwrap();
    let b = store.upload_part(&"k".into(), &upload, 2, part(1, 2)).await.unwrap();
    for refused in [complete(&upload, &[b.clone(), a.clone()], (5 << 20) + 1), complete(&upload, &[a, b], 5)] {
        assert!(matches!(store.complete_upload(refused).await, Err(StoreError::Fatal(_))));
    }
    assert!(store.keys().is_empty());
}

#[tokio::test]
async fn a_range_of_a_source_under_five_mib_cannot_be_copied() {
    let store = store();
    let source = store.put_directly("source", vec![1; 100]);
    let upload = begin(&store).await;
    let refused = store.copy_part(&"k".into(), &upload, 1, &source.version, ByteRange::new(0, 50)).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))));
    store.copy_part(&"k".into(), &upload, 1, &source.version, ByteRange::new(0, 100)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_ignores_conditions_writes_all_the_same() {
    let none = StoreCapabilities::NONE;
    let store = MemoryStore::with_options(MemoryOptions { capabilities: none, ..MemoryOptions::default() });
    store.put_directly("k", "old");
    let request = PutRequest {
        key: "k".into(),
        payload: Bytes::from_static(b"new").into(),
        attributes: ObjectAttributes::default(),
        condition: WriteCondition::Absent,
    };
    store.put(request).await.unwrap();
    assert_eq!(store.content("k").unwrap(), "new");
    store.delete(&"k".into(), Some(&"\"other\"".into())).await.unwrap();
    assert!(store.keys().is_empty());
}

#[tokio::test]
async fn requests_are_counted_and_insertions_are_not() {
    let store = store();
    store.put_directly("k", "hello");
    let request = GetRequest {
        key: "k".into(),
        range: GetRange::Bytes(ByteRange::new(1, 100)),
        if_match: None,
        if_none_match: None,
    };
    let response = store.get(request).await.unwrap();
    assert_eq!(response.range, ByteRange::new(1, 5));
    assert_eq!(store.requests(RequestKind::Get), 1);
    assert_eq!(store.bytes_sent(), 4);
    assert_eq!(store.log()[0].range, Some(ByteRange::new(1, 100)));
    store.reset_requests();
    assert_eq!(store.all_requests(), 0);
}

#[tokio::test]
async fn headers_say_whole_seconds_and_lists_say_milliseconds() {
    let store = store();
    store.put_directly("k", "hello");
    let head = store.head(&"k".into()).await.unwrap();
    assert_eq!(head.last_modified, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let listed = store.list(ListRequest::default()).await.unwrap().objects.remove(0);
    assert_eq!(listed.last_modified, UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
    assert_eq!(listed.metadata, None);
}
