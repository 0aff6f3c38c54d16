//! Single objects: what is put is read, whole or in part; what is not there is told; attributes stay.

use std::sync::Arc;

use super::{Bed, in_chunks, name_facts, pattern};
use crate::store::{CopyRequest, GetRange, ObjectAttributes, PutRequest, StoreError, WriteCondition};
use crate::types::{ByteRange, ContentHeaders, ObjectMetadata};

name_facts!(
    an_object_is_read_back_as_it_was_put,
    an_empty_object_is_read_whole_and_has_no_range,
    a_range_is_cut_at_the_end,
    a_suffix_longer_than_the_object_is_the_object,
    a_range_behind_the_end_is_not_satisfiable,
    what_is_not_there_is_not_found,
    attributes_are_kept,
    overwriting_changes_the_tag,
    the_same_bytes_have_the_same_checksum,
    a_get_pinned_to_another_version_fails,
    a_get_of_a_version_that_is_known_is_not_modified,
    deleting_what_is_not_there_succeeds,
    many_are_deleted_at_once,
    a_key_that_xml_cannot_name_is_deleted_with_the_others,
    a_copy_keeps_bytes_and_attributes,
    a_copy_keeps_its_storage_class,
    a_copy_may_replace_attributes,
    a_copy_of_a_changed_source_fails,
    odd_keys_survive,
);

async fn an_object_is_read_back_as_it_was_put(bed: Bed) {
    let bytes = pattern(3_000_001, 1);
    let put = PutRequest { payload: in_chunks(&bytes), ..bed.request("k", b"") };
    let info = bed.store.put(put).await.expect("a PUT");
    assert_eq!(info.size_bytes, bytes.len() as u64);
    let (got, body) = bed.get("k", GetRange::Whole).await.expect("a GET");
    assert!(body == bytes);
    assert_eq!(got.version, info.version);
    assert_eq!(got.size_bytes, info.size_bytes);
    let head = bed.store.head(&bed.key("k")).await.expect("a HEAD");
    assert_eq!(head, got, "HEAD and GET tell the same");
    assert!(head.metadata.is_some());
}

async fn an_empty_object_is_read_whole_and_has_no_range(bed: Bed) {
    let info = bed.put("empty", b"").await;
    assert_eq!(info.size_bytes, 0);
    assert_eq!(bed.content("empty").await, "");
    let ranged = bed.get("empty", GetRange::Bytes(ByteRange::new(0, 10))).await;
    assert!(matches!(ranged, Err(StoreError::RangeNotSatisfiable { size_bytes: None | Some(0) })), "{ranged:?}");
}

async fn a_range_is_cut_at_the_end(bed: Bed) {
    bed.put("k", b"0123456789").await;
    for (start, end, wanted) in [(0, 4, "0123"), (3, 4, "3"), (7, 100, "789"), (0, 10, "0123456789")] {
        let (info, body) = bed.get("k", GetRange::Bytes(ByteRange::new(start, end))).await.expect("a ranged GET");
        assert_eq!((body.as_ref(), info.size_bytes), (wanted.as_bytes(), 10));
    }
}

async fn a_suffix_longer_than_the_object_is_the_object(bed: Bed) {
    bed.put("k", b"0123456789").await;
    for (len, wanted) in [(3, "789"), (10, "0123456789"), (1000, "0123456789")] {
        let (info, body) = bed.get("k", GetRange::Suffix(len)).await.expect("a GET of a suffix");
        assert_eq!((body.as_ref(), info.size_bytes), (wanted.as_bytes(), 10));
    }
}

async fn a_range_behind_the_end_is_not_satisfiable(bed: Bed) {
    bed.put("k", b"0123456789").await;
    let behind = bed.get("k", GetRange::Bytes(ByteRange::new(10, 20))).await;
    assert!(matches!(behind, Err(StoreError::RangeNotSatisfiable { size_bytes: None | Some(10) })), "{behind:?}");
}

async fn what_is_not_there_is_not_found(bed: Bed) {
    assert!(matches!(bed.store.head(&bed.key("no")).await, Err(StoreError::NotFound)));
    assert!(matches!(bed.get("no", GetRange::Whole).await, Err(StoreError::NotFound)));
    assert!(matches!(bed.store.fingerprint(&bed.key("no")).await, Err(StoreError::NotFound)));
}

fn attributes() -> ObjectAttributes {
    let metadata: ObjectMetadata =
        [("mode", "33188"), ("mtime", "1700000000.000000001")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    ObjectAttributes {
        content_type: Some("text/x-fact".into()),
        metadata: Arc::new(metadata),
        storage_class: None,
        headers: headers(),
    }
}

/// What else is said of a content.
pub(super) fn headers() -> Option<Arc<ContentHeaders>> {
    let headers = ContentHeaders {
        cache_control: Some("max-age=60".into()),
        content_disposition: Some("attachment".into()),
        content_encoding: Some("gzip".into()),
        content_language: Some("ko".into()),
        ..ContentHeaders::default()
    };
    headers.if_any()
}

async fn attributes_are_kept(bed: Bed) {
    let put = PutRequest { attributes: attributes(), ..bed.request("k", b"x") };
    bed.store.put(put).await.expect("a PUT");
    let head = bed.store.head(&bed.key("k")).await.expect("a HEAD");
    assert_eq!(head.metadata, Some(attributes().metadata));
    assert_eq!((head.content_type.as_deref(), &head.headers), (Some("text/x-fact"), &headers()));
    assert_eq!(head.storage_class, None);
}

async fn overwriting_changes_the_tag(bed: Bed) {
    let old = bed.put("k", b"old").await;
    let new = bed.put("k", b"new").await;
    assert_ne!(old.etag(), new.etag());
    assert_eq!(bed.content("k").await, "new");
}

async fn the_same_bytes_have_the_same_checksum(bed: Bed) {
    let put = bed.request("k", b"some bytes");
    let crc = put.payload.crc64nvme();
    bed.store.put(put).await.expect("a PUT");
    let found = bed.store.fingerprint(&bed.key("k")).await.expect("a HEAD");
    assert_eq!(found.info.size_bytes, 10);
    assert!(found.crc64nvme.is_none_or(|found| found == crc));
}

async fn a_get_pinned_to_another_version_fails(bed: Bed) {
    let old = bed.put("k", b"old").await;
    let new = bed.put("k", b"new").await;
    let range = GetRange::Bytes(ByteRange::new(0, 2));
    let pinned = bed.get_if("k", range, Some(old.etag()), None).await;
    assert!(matches!(pinned, Err(StoreError::PreconditionFailed)), "{pinned:?}");
    assert_eq!(bed.get_if("k", range, Some(new.etag()), None).await.expect("a GET").1, "ne");
}

async fn a_get_of_a_version_that_is_known_is_not_modified(bed: Bed) {
    let info = bed.put("k", b"known").await;
    let range = GetRange::Bytes(ByteRange::new(0, 2));
    let known = bed.get_if("k", range, None, Some(info.etag())).await;
    assert!(matches!(known, Err(StoreError::NotModified)), "{known:?}");
    bed.put("k", b"newer").await;
    assert_eq!(bed.get_if("k", range, None, Some(info.etag())).await.expect("a GET").1, "ne");
}

async fn deleting_what_is_not_there_succeeds(bed: Bed) {
    bed.put("k", b"x").await;
    for _ in 0..2 {
        bed.store.delete(&bed.key("k"), None).await.expect("a DELETE");
        assert!(!bed.is_there("k").await);
    }
}

async fn many_are_deleted_at_once(bed: Bed) {
    for name in ["a", "b & <c>", "d/e", "kept"] {
        bed.put(name, b"x").await;
    }
    let keys = ["a", "b & <c>", "d/e", "never there"].map(|name| bed.key(name)).to_vec();
    let failed = bed.store.delete_many(keys).await.expect("a DeleteObjects");
    assert!(failed.is_empty(), "{failed:?}");
    assert!(!bed.is_there("a").await && !bed.is_there("b & <c>").await && !bed.is_there("d/e").await);
    assert!(bed.is_there("kept").await);
    assert!(bed.store.delete_many(Vec::new()).await.expect("nothing to do").is_empty());
}

async fn a_key_that_xml_cannot_name_is_deleted_with_the_others(bed: Bed) {
    if bed.quirks.refuses_odd_keys {
        return;
    }
    let names = ["a", "bell \u{7}", "\u{1}", "\u{b}\u{1f}", "tab\tand return\r", "\u{ffff}", "z"];
    for name in names {
        bed.put(name, b"x").await;
    }
    let keys = names.map(|name| bed.key(name)).to_vec();
    let failed = bed.store.delete_many(keys).await.expect("all are deleted");
    assert!(failed.is_empty(), "{failed:?}");
    for name in names {
        assert!(!bed.is_there(name).await, "{name:?}");
    }
}

async fn a_copy_keeps_bytes_and_attributes(bed: Bed) {
    let put = PutRequest { attributes: attributes(), ..bed.request("source +%", b"bytes") };
    let source = bed.store.put(put).await.expect("a PUT");
    let copy = CopyRequest {
        source: source.version,
        key: bed.key("copy"),
        attributes: None,
        source_class: None,
        condition: WriteCondition::None,
    };
    let copied = bed.store.copy(copy).await.expect("a copy");
    let (info, body) = bed.get("copy", GetRange::Whole).await.expect("a GET");
    assert_eq!(body, "bytes");
    assert_eq!(info.version, copied.version);
    assert_eq!(info.metadata, Some(attributes().metadata));
    assert_eq!((info.content_type.as_deref(), &info.headers), (Some("text/x-fact"), &headers()));
}

async fn a_copy_keeps_its_storage_class(bed: Bed) {
    // The one class beside STANDARD that every server with classes takes.
    let carried = ObjectAttributes { storage_class: Some("REDUCED_REDUNDANCY".into()), ..attributes() };
    bed.store.put(PutRequest { attributes: carried, ..bed.request("source", b"bytes") }).await.expect("a PUT");
    let (source, _) = bed.get("source", GetRange::Whole).await.expect("a GET");
    let copy = CopyRequest {
        source: source.version,
        key: bed.key("copy"),
        attributes: None,
        source_class: source.storage_class.clone(),
        condition: WriteCondition::None,
    };
    let copied = bed.store.copy(copy).await.expect("a copy");
    let (found, _) = bed.get("copy", GetRange::Whole).await.expect("a GET");
    // A server without classes tells none of either.
    assert_eq!(found.storage_class, source.storage_class);
    assert_eq!(copied.storage_class, source.storage_class);
}

async fn a_copy_may_replace_attributes(bed: Bed) {
    let source = bed.put("k", b"bytes").await;
    let copy = CopyRequest {
        source: source.version,
        key: bed.key("k"),
        attributes: Some(attributes()),
        source_class: None,
        condition: WriteCondition::None,
    };
    bed.store.copy(copy).await.expect("a copy of an object to itself");
    let (info, body) = bed.get("k", GetRange::Whole).await.expect("a GET");
    assert_eq!((body.as_ref(), info.metadata), (&b"bytes"[..], Some(attributes().metadata)));
}

async fn a_copy_of_a_changed_source_fails(bed: Bed) {
    if !bed.store.capabilities().pinned_copies {
        return;
    }
    let old = bed.put("source", b"old").await;
    bed.put("source", b"new").await;
    let copy = CopyRequest {
        source: old.version,
        key: bed.key("copy"),
        attributes: None,
        source_class: None,
        condition: WriteCondition::None,
    };
    let refused = bed.store.copy(copy).await;
    assert!(matches!(refused, Err(StoreError::PreconditionFailed)), "{refused:?}");
    assert!(!bed.is_there("copy").await);
}

async fn odd_keys_survive(bed: Bed) {
    let mut names = vec!["a b", "a+b", "a%20b", "한글/파일", "📦", "'\"&<>", "~!@#$^*()=[]{}|;,?", "trailing "];
    if !bed.quirks.refuses_odd_keys {
        names.extend(["a//b", "tab\tnewline\n", "\\back"]);
    }
    if !bed.quirks.is_a_file_system {
        names.extend(["d", "d/", "d/e"]);
    }
    for name in &names {
        bed.put(name, name.as_bytes()).await;
    }
    let page = bed.list(crate::store::ListRequest::default()).await;
    let mut wanted = names.clone();
    wanted.sort_unstable();
    assert_eq!(bed.names(&page).0, wanted);
    for name in &names {
        assert_eq!(bed.content(name).await, *name, "{name}");
    }
    let keys = names.iter().map(|name| bed.key(name)).collect();
    assert!(bed.store.delete_many(keys).await.expect("a DeleteObjects").is_empty());
    assert_eq!(bed.names(&bed.list(crate::store::ListRequest::default()).await).0, [""; 0]);
}
