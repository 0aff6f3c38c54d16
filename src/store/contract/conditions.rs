//! Conditional writes: nobody's bytes are replaced that the writer has not seen. Where the server ignores a condition
//! (the store's capabilities say so), the fact says nothing.

use super::{Bed, name_facts};
use crate::store::{CopyRequest, StoreError, WriteCondition};

name_facts!(
    an_exclusive_put_fails_on_a_key_that_holds_something,
    a_pinned_put_fails_on_another_version,
    a_pinned_put_of_what_is_gone_fails,
    a_pinned_delete_spares_another_version,
    an_exclusive_copy_fails_on_a_key_that_holds_something,
);

async fn an_exclusive_put_fails_on_a_key_that_holds_something(bed: Bed) {
    if !bed.store.capabilities().conditional_writes {
        return;
    }
    bed.put_if("k", b"first", WriteCondition::Absent).await.expect("the key holds nothing");
    let second = bed.put_if("k", b"second", WriteCondition::Absent).await;
    assert!(matches!(second, Err(StoreError::PreconditionFailed | StoreError::Conflict)), "{second:?}");
    assert_eq!(bed.content("k").await, "first");
}

async fn a_pinned_put_fails_on_another_version(bed: Bed) {
    if !bed.store.capabilities().conditional_writes {
        return;
    }
    let first = bed.put("k", b"first").await;
    let second = bed.put_if("k", b"second", WriteCondition::Matches(first.etag().clone())).await.expect("a PUT");
    let third = bed.put_if("k", b"third", WriteCondition::Matches(first.etag().clone())).await;
    assert!(matches!(third, Err(StoreError::PreconditionFailed | StoreError::Conflict)), "{third:?}");
    assert_eq!(bed.content("k").await, "second");
    bed.put_if("k", b"fourth", WriteCondition::Matches(second.etag().clone())).await.expect("a PUT");
}

async fn a_pinned_put_of_what_is_gone_fails(bed: Bed) {
    if !bed.store.capabilities().conditional_writes {
        return;
    }
    let first = bed.put("k", b"first").await;
    bed.store.delete(&bed.key("k"), None).await.expect("a DELETE");
    let second = bed.put_if("k", b"second", WriteCondition::Matches(first.etag().clone())).await;
    assert!(second.as_ref().is_err_and(StoreError::is_changed), "{second:?}");
    assert!(!bed.is_there("k").await);
}

async fn a_pinned_delete_spares_another_version(bed: Bed) {
    if !bed.store.capabilities().conditional_deletes {
        return;
    }
    let old = bed.put("k", b"old").await;
    let new = bed.put("k", b"new").await;
    let refused = bed.store.delete(&bed.key("k"), Some(old.etag())).await;
    assert!(matches!(refused, Err(StoreError::PreconditionFailed)), "{refused:?}");
    assert!(bed.is_there("k").await);
    bed.store.delete(&bed.key("k"), Some(new.etag())).await.expect("a DELETE");
    assert!(!bed.is_there("k").await);
}

async fn an_exclusive_copy_fails_on_a_key_that_holds_something(bed: Bed) {
    if !bed.store.capabilities().conditional_copies {
        return;
    }
    let source = bed.put("source", b"source").await;
    let copy = || CopyRequest {
        source: source.version.clone(),
        key: bed.key("copy"),
        attributes: None,
        source_class: None,
        condition: WriteCondition::Absent,
    };
    bed.store.copy(copy()).await.expect("a copy");
    bed.put("copy", b"other").await;
    let refused = bed.store.copy(copy()).await;
    assert!(matches!(refused, Err(StoreError::PreconditionFailed | StoreError::Conflict)), "{refused:?}");
    assert_eq!(bed.content("copy").await, "other");
}
