//! One object copied by the server, whole up to 5 GiB and in parts above.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::{Namespace, NamespaceError, NamespaceResult};
use crate::store::{
    CompleteRequest, CopyRequest, ObjectAttributes, PUT_BYTES_MAX, StoreResult, UploadId, UploadedPart, WriteCondition,
};
use crate::types::{ByteRange, ObjectInfo, ObjectKey};

/// Bytes of a copied part, unless the object then needs more than 10,000 of them.
const PART_BYTES: u64 = 256 << 20;
/// Most parts of an object.
const PARTS_MAX: u64 = 10_000;
/// Part copies of one object in flight.
const PARTS_IN_FLIGHT: usize = 16;

impl Namespace {
    /// Copies `source` to `key`. `attributes` replace what the source carries.
    pub(super) async fn copy_object(
        &self,
        source: &ObjectInfo,
        key: &ObjectKey,
        attributes: Option<ObjectAttributes>,
        condition: WriteCondition,
    ) -> NamespaceResult<ObjectInfo> {
        let storage_class = attributes.as_ref().map_or(&source.storage_class, |it| &it.storage_class).clone();
        let single_bytes_max = self.0.limits.rename_single_copy_bytes_max.min(PUT_BYTES_MAX);
        if source.size_bytes <= single_bytes_max {
            let metadata = attributes.as_ref().map(|attributes| Arc::clone(&attributes.metadata));
            let request = CopyRequest {
                source: source.version.clone(),
                key: key.clone(),
                attributes,
                source_class: source.storage_class.clone(),
                condition,
            };
            let info = self.0.store.copy(request).await?;
            return Ok(ObjectInfo {
                size_bytes: source.size_bytes,
                metadata: metadata.or(info.metadata.clone()),
                ..info
            });
        }
        let attributes = match attributes {
            Some(attributes) => attributes,
            None => self.attributes_in_s3(source).await?,
        };
        let metadata = Arc::clone(&attributes.metadata);
        let upload = self.0.store.create_upload(key, attributes).await?;
        let part_bytes = PART_BYTES.max(source.size_bytes.div_ceil(PARTS_MAX));
        let parts = self.copy_parts(source, key, &upload, part_bytes).await;
        let completed = match parts {
            Ok(parts) => {
                let request = CompleteRequest {
                    key: key.clone(),
                    upload: upload.clone(),
                    parts,
                    size_bytes: source.size_bytes,
                    condition,
                };
                self.0.store.complete_upload(request).await
            }
            Err(error) => Err(error),
        };
        match completed {
            Ok(info) => Ok(ObjectInfo { metadata: Some(metadata), storage_class, ..info }),
            Err(error) => {
                if let Err(left) = self.0.store.abort_upload(key, &upload).await {
                    tracing::warn!(%key, error = %left, "an upload that failed could not be aborted");
                }
                Err(error.into())
            }
        }
    }

    async fn copy_parts(
        &self,
        source: &ObjectInfo,
        key: &ObjectKey,
        upload: &UploadId,
        part_bytes: u64,
    ) -> StoreResult<Vec<UploadedPart>> {
        let (store, version, size_bytes) = (Arc::clone(&self.0.store), source.version.clone(), source.size_bytes);
        let (key, upload) = (key.clone(), upload.clone());
        let ranges = (0..size_bytes).step_by(usize::try_from(part_bytes).unwrap_or(usize::MAX)).zip(1..);
        // Everything is owned: a future that borrows from its iterator is not known to be Send.
        let copies = ranges.map(move |(start, number)| {
            let (store, version, key, upload) = (Arc::clone(&store), version.clone(), key.clone(), upload.clone());
            let range = ByteRange::new(start, (start + part_bytes).min(size_bytes));
            async move { store.copy_part(&key, &upload, number, &version, range).await }.boxed()
        });
        stream::iter(copies).buffered(PARTS_IN_FLIGHT).try_collect().await
    }

    /// A multipart copy takes no attributes along by itself.
    async fn attributes_in_s3(&self, source: &ObjectInfo) -> NamespaceResult<ObjectAttributes> {
        let info = match source.metadata {
            Some(_) => source.clone(),
            None => self.0.store.head(source.key()).await?,
        };
        if info.version != source.version {
            return Err(NamespaceError::Stale);
        }
        Ok(ObjectAttributes {
            content_type: info.content_type,
            metadata: info.metadata.unwrap_or_default(),
            storage_class: info.storage_class,
            headers: info.headers,
        })
    }
}
