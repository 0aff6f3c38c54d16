//! Which conditions a server honours, found out by asking for what must be refused.
//!
//! Works on one empty object of a random name of its own and leaves nothing behind; no key of the user is ever the
//! subject of a probe. A server that will not let us write is not judged: writes will fail anyway.

use bytes::Bytes;

use super::{
    CopyRequest, ObjectAttributes, ObjectStore, Payload, PutRequest, StoreCapabilities, StoreError, StoreResult,
    WriteCondition,
};
use crate::types::{ETag, ObjectKey};

/// A tag that no object has: the probe's object holds other bytes.
const NOBODYS_TAG: &str = "\"00000000000000000000000000000000\"";

/// Asks the server behind `store`, under `prefix`.
pub async fn capabilities(store: &dyn ObjectStore, prefix: &str) -> StoreCapabilities {
    let key = ObjectKey::from(format!("{prefix}.s3mount-probe-{:016x}", fastrand::u64(..)));
    let put = |condition| PutRequest {
        key: key.clone(),
        payload: Payload::from(Bytes::new()),
        attributes: ObjectAttributes::default(),
        condition,
    };
    let made = match store.put(put(WriteCondition::None)).await {
        Ok(info) => info,
        Err(error) => {
            tracing::debug!("conditions are not probed: {error}");
            return StoreCapabilities::ALL;
        }
    };
    let nobodys = ETag::from(NOBODYS_TAG);
    let absent = is_refused(&store.put(put(WriteCondition::Absent)).await);
    let matches = is_refused(&store.put(put(WriteCondition::Matches(nobodys.clone()))).await);
    let copy = CopyRequest {
        source: made.version,
        key: key.clone(),
        // A copy of an object to itself must change something.
        attributes: Some(ObjectAttributes { content_type: Some("text/plain".into()), ..ObjectAttributes::default() }),
        condition: WriteCondition::Absent,
    };
    let conditional_copies = is_refused(&store.copy(copy).await);
    let conditional_deletes = is_refused(&store.delete(&key, Some(&nobodys)).await);
    if let Err(error) = store.delete(&key, None).await {
        tracing::warn!("the empty object {key:?} is left over from a probe: {error}");
    }
    StoreCapabilities { conditional_writes: absent && matches, conditional_deletes, conditional_copies }
}

fn is_refused<T>(result: &StoreResult<T>) -> bool {
    // An answer that says nothing about the condition (no permission to delete, a network that is away) counts as
    // refused: S3's behaviour is assumed until a server shows another.
    match result {
        Ok(_) | Err(StoreError::Unsupported(_)) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{MemoryOptions, MemoryStore};

    #[tokio::test]
    async fn each_condition_is_found_out_and_nothing_is_left() {
        for mask in 0..8_u8 {
            let honoured = StoreCapabilities {
                conditional_writes: mask & 1 != 0,
                conditional_deletes: mask & 2 != 0,
                conditional_copies: mask & 4 != 0,
            };
            let store = MemoryStore::with_options(MemoryOptions { capabilities: honoured, ..MemoryOptions::default() });
            store.put_directly("a/b", "untouched");
            assert_eq!(capabilities(&store, "a/").await, honoured);
            assert_eq!(store.keys(), ["a/b"]);
        }
    }
}
