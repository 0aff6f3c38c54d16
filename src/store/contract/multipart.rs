//! Multipart uploads: parts with gaps, parts sent anew, parts copied; nothing shows before Complete.

use std::sync::Arc;

use bytes::Bytes;

use super::objects::headers;
use super::{Bed, in_chunks, name_facts, pattern};
use crate::store::{
    CompleteRequest, ObjectAttributes, PART_BYTES_MIN, Payload, StoreError, StoreResult, UploadId, UploadedPart,
    WriteCondition,
};
use crate::types::{ByteRange, ObjectInfo};

name_facts!(
    parts_with_gaps_between_their_numbers_are_joined,
    nothing_shows_before_complete,
    a_part_that_is_sent_anew_replaces_the_earlier_one,
    parts_are_copied_from_another_object,
    a_part_of_a_changed_source_is_not_copied,
    attributes_of_an_upload_are_kept,
    an_aborted_upload_is_gone,
    a_complete_with_a_wrong_tag_makes_no_object,
    a_small_part_in_the_middle_makes_no_object,
    an_exclusive_complete_fails_on_a_key_that_holds_something,
    a_pinned_complete_fails_on_another_version,
    pending_uploads_are_listed,
);

const PART: usize = PART_BYTES_MIN as usize;

async fn begin(bed: &Bed, name: &str) -> UploadId {
    bed.store.create_upload(&bed.key(name), ObjectAttributes::default()).await.expect("an upload")
}

async fn send(bed: &Bed, name: &str, upload: &UploadId, number: u32, payload: Payload) -> UploadedPart {
    let part = bed.store.upload_part(&bed.key(name), upload, number, payload.clone()).await.expect("a part");
    assert_eq!((part.number, part.size_bytes), (number, payload.len_bytes()));
    part
}

async fn complete(
    bed: &Bed,
    name: &str,
    upload: &UploadId,
    parts: &[UploadedPart],
    condition: WriteCondition,
) -> StoreResult<ObjectInfo> {
    let size_bytes = parts.iter().map(|part| part.size_bytes).sum();
    let (key, upload, parts) = (bed.key(name), upload.clone(), parts.to_vec());
    bed.store.complete_upload(CompleteRequest { key, upload, parts, size_bytes, condition }).await
}

async fn parts_with_gaps_between_their_numbers_are_joined(bed: Bed) {
    let (head, tail) = (pattern(PART, 1), pattern(1000, 2));
    let upload = begin(&bed, "k").await;
    let last = send(&bed, "k", &upload, 10_000, tail.clone().into()).await;
    let first = send(&bed, "k", &upload, 3, in_chunks(&head)).await;
    let info = complete(&bed, "k", &upload, &[first, last], WriteCondition::None).await.expect("a Complete");
    assert_eq!(info.size_bytes, (PART + 1000) as u64);
    let whole = bed.content("k").await;
    assert!(whole[..PART] == head && whole[PART..] == tail);
    let head = bed.store.head(&bed.key("k")).await.expect("a HEAD");
    assert_eq!(head.version, info.version);
}

async fn nothing_shows_before_complete(bed: Bed) {
    bed.put("k", b"old").await;
    let upload = begin(&bed, "k").await;
    let part = send(&bed, "k", &upload, 1, Bytes::from_static(b"new").into()).await;
    assert_eq!(bed.content("k").await, "old");
    complete(&bed, "k", &upload, &[part], WriteCondition::None).await.expect("a Complete");
    assert_eq!(bed.content("k").await, "new");
}

async fn a_part_that_is_sent_anew_replaces_the_earlier_one(bed: Bed) {
    let upload = begin(&bed, "k").await;
    send(&bed, "k", &upload, 1, Bytes::from_static(b"first").into()).await;
    let part = send(&bed, "k", &upload, 1, Bytes::from_static(b"second").into()).await;
    complete(&bed, "k", &upload, &[part], WriteCondition::None).await.expect("a Complete");
    assert_eq!(bed.content("k").await, "second");
}

async fn parts_are_copied_from_another_object(bed: Bed) {
    let base = pattern(2 * PART + 77, 3);
    let source = bed.put("source +", &base).await;
    let upload = begin(&bed, "k").await;
    let range = ByteRange::new(5, 5 + PART as u64);
    let copied = bed.store.copy_part(&bed.key("k"), &upload, 1, &source.version, range).await.expect("a copied part");
    assert_eq!(copied.size_bytes, range.len());
    let sent = send(&bed, "k", &upload, 2, Bytes::from_static(b"tail").into()).await;
    complete(&bed, "k", &upload, &[copied, sent], WriteCondition::None).await.expect("a Complete");
    let whole = bed.content("k").await;
    assert!(whole[..PART] == base[5..5 + PART] && whole[PART..] == *b"tail");
}

async fn a_part_of_a_changed_source_is_not_copied(bed: Bed) {
    if !bed.store.capabilities().pinned_copies {
        return;
    }
    let old = bed.put("source", &pattern(PART + 1, 4)).await;
    bed.put("source", &pattern(PART + 1, 5)).await;
    let upload = begin(&bed, "k").await;
    let range = ByteRange::new(0, PART as u64);
    let refused = bed.store.copy_part(&bed.key("k"), &upload, 1, &old.version, range).await;
    assert!(matches!(refused, Err(StoreError::PreconditionFailed)), "{refused:?}");
    bed.store.abort_upload(&bed.key("k"), &upload).await.expect("an abort");
}

async fn attributes_of_an_upload_are_kept(bed: Bed) {
    let attributes = ObjectAttributes {
        content_type: Some("text/x-fact".into()),
        metadata: Arc::new([("mode".to_owned(), "33188".to_owned())].into()),
        storage_class: None,
        headers: headers(),
    };
    let upload = bed.store.create_upload(&bed.key("k"), attributes.clone()).await.expect("an upload");
    let part = send(&bed, "k", &upload, 1, Bytes::from_static(b"x").into()).await;
    complete(&bed, "k", &upload, &[part], WriteCondition::None).await.expect("a Complete");
    let head = bed.store.head(&bed.key("k")).await.expect("a HEAD");
    assert_eq!((head.content_type, head.metadata), (attributes.content_type, Some(attributes.metadata)));
    assert_eq!(head.headers, attributes.headers);
}

async fn an_aborted_upload_is_gone(bed: Bed) {
    let upload = begin(&bed, "k").await;
    let part = send(&bed, "k", &upload, 1, Bytes::from_static(b"x").into()).await;
    let aborts = if bed.quirks.loses_track_of_uploads { 1 } else { 2 };
    for _ in 0..aborts {
        bed.store.abort_upload(&bed.key("k"), &upload).await.expect("an abort");
    }
    if bed.quirks.loses_track_of_uploads {
        return;
    }
    let late = bed.store.upload_part(&bed.key("k"), &upload, 2, Bytes::from_static(b"y").into()).await;
    assert!(matches!(late, Err(StoreError::NoSuchUpload)), "{late:?}");
    let completed = complete(&bed, "k", &upload, &[part], WriteCondition::None).await;
    assert!(matches!(completed, Err(StoreError::NoSuchUpload)), "{completed:?}");
    assert!(!bed.is_there("k").await);
}

async fn a_complete_with_a_wrong_tag_makes_no_object(bed: Bed) {
    if bed.quirks.is_lax_about_parts {
        return;
    }
    let upload = begin(&bed, "k").await;
    let mut part = send(&bed, "k", &upload, 1, Bytes::from_static(b"x").into()).await;
    part.etag = "\"00000000000000000000000000000000\"".into();
    let refused = complete(&bed, "k", &upload, &[part], WriteCondition::None).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
    assert!(!bed.is_there("k").await);
}

async fn a_small_part_in_the_middle_makes_no_object(bed: Bed) {
    if bed.quirks.takes_small_parts {
        return;
    }
    let upload = begin(&bed, "k").await;
    let small = send(&bed, "k", &upload, 1, pattern(PART - 1, 1).into()).await;
    let last = send(&bed, "k", &upload, 2, Bytes::from_static(b"x").into()).await;
    let refused = complete(&bed, "k", &upload, &[small, last], WriteCondition::None).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
    assert!(!bed.is_there("k").await);
}

async fn an_exclusive_complete_fails_on_a_key_that_holds_something(bed: Bed) {
    if !bed.store.capabilities().conditional_completes {
        return;
    }
    let upload = begin(&bed, "k").await;
    let part = send(&bed, "k", &upload, 1, Bytes::from_static(b"mine").into()).await;
    bed.put("k", b"theirs").await;
    let refused = complete(&bed, "k", &upload, &[part], WriteCondition::Absent).await;
    assert!(matches!(refused, Err(StoreError::PreconditionFailed | StoreError::Conflict)), "{refused:?}");
    assert_eq!(bed.content("k").await, "theirs");
}

async fn a_pinned_complete_fails_on_another_version(bed: Bed) {
    if !bed.store.capabilities().conditional_completes {
        return;
    }
    let old = bed.put("k", b"old").await;
    for (replaced, wanted) in [(false, "mine"), (true, "theirs")] {
        let base = if replaced { bed.put("k", b"base").await } else { old.clone() };
        let upload = begin(&bed, "k").await;
        let part = send(&bed, "k", &upload, 1, Bytes::from_static(b"mine").into()).await;
        if replaced {
            bed.put("k", b"theirs").await;
        }
        let result = complete(&bed, "k", &upload, &[part], WriteCondition::Matches(base.etag().clone())).await;
        assert_eq!(result.is_err_and(|error| error.is_changed()), replaced);
        assert_eq!(bed.content("k").await, wanted);
    }
}

async fn pending_uploads_are_listed(bed: Bed) {
    let upload = begin(&bed, "d/k +").await;
    let pending = bed.store.list_uploads(&bed.prefix).await.expect("a list of uploads");
    // A lost reply to the begin may leave a second upload of the key, which is listed too.
    assert!(pending.iter().all(|pending| pending.key == bed.key("d/k +")), "{pending:?}");
    assert!(pending.iter().any(|pending| pending.upload == upload), "{pending:?}");
    bed.store.abort_upload(&bed.key("d/k +"), &upload).await.expect("an abort");
    let pending = bed.store.list_uploads(&bed.prefix).await.expect("a list of uploads");
    assert!(pending.iter().all(|pending| pending.upload != upload), "{pending:?}");
}
