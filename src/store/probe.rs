//! Which conditions a server honours, found out by asking for what must be refused.
//!
//! Works on one tiny object of a random name of its own and leaves nothing behind; no key of the user is ever the
//! subject of a probe. A server that will not let us write is not judged: writes will fail anyway.

use bytes::Bytes;

use super::checksum::Crc64;
use super::{
    CompleteRequest, CopyRequest, ObjectAttributes, ObjectStore, Payload, PutRequest, StoreCapabilities, StoreError,
    StoreResult, WriteCondition,
};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

/// A tag that no object has: the probe's object holds other bytes.
const NOBODYS_TAG: &str = "\"00000000000000000000000000000000\"";

/// The probe's object: two bytes, of which one is copied.
const BYTES: &[u8] = b"ab";

/// Asks the server behind `store`, under `prefix`.
pub async fn capabilities(store: &dyn ObjectStore, prefix: &str) -> StoreCapabilities {
    let probe = Probe { store, key: format!("{prefix}.s3mount-probe-{:016x}", fastrand::u64(..)).into() };
    let made = match probe.put(WriteCondition::None).await {
        Ok(info) => info.version,
        Err(error) => {
            tracing::debug!("conditions are not probed: {error}");
            return StoreCapabilities::ALL;
        }
    };
    let nobodys = ETag::from(NOBODYS_TAG);
    let not_made = ObjectVersion::new(probe.key.clone(), nobodys.clone(), None);
    let writes_if_absent = is_refused(&probe.put(WriteCondition::Absent).await);
    let writes_if_match = is_refused(&probe.put(WriteCondition::Matches(nobodys.clone())).await);
    let conditional_copies = is_refused(&probe.copy(made.clone(), WriteCondition::Absent).await);
    let pinned_copies = is_refused(&probe.copy(not_made, WriteCondition::None).await);
    // After the copies: where it is not refused, the tag of the object changes.
    let (copied_checksums, conditional_completes) = probe.upload(&made, &nobodys).await;
    let found = StoreCapabilities {
        conditional_writes: writes_if_absent && writes_if_match,
        conditional_copies,
        pinned_copies,
        copied_checksums,
        conditional_completes,
        conditional_deletes: is_refused(&store.delete(&probe.key, Some(&nobodys)).await),
    };
    if let Err(error) = store.delete(&probe.key, None).await {
        tracing::warn!("the object {:?} is left over from a probe: {error}", probe.key);
    }
    found
}

struct Probe<'a> {
    store: &'a dyn ObjectStore,
    key: ObjectKey,
}

impl Probe<'_> {
    async fn put(&self, condition: WriteCondition) -> StoreResult<ObjectInfo> {
        let (key, payload) = (self.key.clone(), Payload::from(Bytes::from_static(BYTES)));
        self.store.put(PutRequest { key, payload, attributes: ObjectAttributes::default(), condition }).await
    }

    /// To itself; such a copy must change something.
    async fn copy(&self, source: ObjectVersion, condition: WriteCondition) -> StoreResult<ObjectInfo> {
        let attributes = ObjectAttributes { content_type: Some("text/plain".into()), ..ObjectAttributes::default() };
        let attributes = Some(attributes);
        self.store.copy(CopyRequest { source, key: self.key.clone(), attributes, source_class: None, condition }).await
    }

    /// Whether copied parts are summed up rightly, and whether a Complete is refused that is pinned to `nobodys` tag.
    async fn upload(&self, source: &ObjectVersion, nobodys: &ETag) -> (bool, bool) {
        let Ok(upload) = self.store.create_upload(&self.key, ObjectAttributes::default()).await else {
            return (true, true);
        };
        // S3 itself copies no range of a small object: then nothing is known against the server.
        let copied = self.store.copy_part(&self.key, &upload, 1, source, ByteRange::new(0, 1)).await;
        let right = Crc64::of_chunks(&[Bytes::from_static(&BYTES[..1])]).to_base64();
        let sums_up = copied.ok().and_then(|part| part.crc64nvme).is_none_or(|told| told == right);
        let payload = Payload::from(Bytes::from_static(BYTES));
        let completes = match self.store.upload_part(&self.key, &upload, 2, payload).await {
            Err(_) => true,
            Ok(part) => {
                let condition = WriteCondition::Matches(nobodys.clone());
                let (key, upload, size_bytes) = (self.key.clone(), upload.clone(), part.size_bytes);
                let request = CompleteRequest { key, upload, parts: vec![part], size_bytes, condition };
                is_refused(&self.store.complete_upload(request).await)
            }
        };
        if let Err(error) = self.store.abort_upload(&self.key, &upload).await {
            tracing::debug!("an upload of {:?} may be left over from a probe: {error}", self.key);
        }
        (sums_up, completes)
    }
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
        for mask in 0..64_u8 {
            let honoured = StoreCapabilities {
                conditional_writes: mask & 1 != 0,
                conditional_deletes: mask & 2 != 0,
                conditional_copies: mask & 4 != 0,
                pinned_copies: mask & 8 != 0,
                copied_checksums: mask & 16 != 0,
                conditional_completes: mask & 32 != 0,
            };
            let options = MemoryOptions { capabilities: honoured, part_bytes_min: 1, ..MemoryOptions::default() };
            let store = MemoryStore::with_options(options);
            store.put_directly("a/b", "untouched");
            assert_eq!(capabilities(&store, "a/").await, honoured);
            assert_eq!((store.keys(), store.uploads_pending()), (vec!["a/b".to_owned()], 0));
        }
    }
}
