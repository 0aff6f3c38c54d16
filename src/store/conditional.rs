//! Conditions for servers that ignore them silently: looked at with a HEAD before the write.
//!
//! Between the HEAD and the write another writer may slip in; that is the best such a server allows, and the mount says
//! so. A condition that the server honours is left to it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    CompleteRequest, CopyRequest, Fingerprint, GetRequest, GetResponse, ListPage, ListRequest, ObjectAttributes,
    ObjectStore, Payload, PendingUpload, PutRequest, StoreCapabilities, StoreError, StoreResult, UploadId,
    UploadedPart, WriteCondition,
};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

/// A store that looks before it writes.
pub struct ConditionalStore {
    inner: Arc<dyn ObjectStore>,
    honoured: StoreCapabilities,
}

impl std::fmt::Debug for ConditionalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConditionalStore").field("honoured", &self.honoured).finish_non_exhaustive()
    }
}

impl ConditionalStore {
    /// Looks where `honoured` says that the server of `inner` does not.
    pub fn new(inner: Arc<dyn ObjectStore>, honoured: StoreCapabilities) -> Self {
        Self { inner, honoured }
    }

    async fn look_at_source(&self, source: &ObjectVersion) -> StoreResult<()> {
        if self.honoured.pinned_copies {
            return Ok(());
        }
        self.look(source.key(), &WriteCondition::Matches(source.etag().clone())).await
    }

    /// The errors are those of S3.
    async fn look(&self, key: &ObjectKey, condition: &WriteCondition) -> StoreResult<()> {
        match condition {
            WriteCondition::None => Ok(()),
            WriteCondition::Absent => match self.inner.head(key).await {
                Ok(_) => Err(StoreError::PreconditionFailed),
                Err(StoreError::NotFound) => Ok(()),
                Err(error) => Err(error),
            },
            WriteCondition::Matches(etag) if self.inner.head(key).await?.etag() == etag => Ok(()),
            WriteCondition::Matches(_) => Err(StoreError::PreconditionFailed),
        }
    }
}

#[async_trait]
impl ObjectStore for ConditionalStore {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn fingerprint(&self, key: &ObjectKey) -> StoreResult<Fingerprint> {
        self.inner.fingerprint(key).await
    }

    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        self.inner.get(request).await
    }

    async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        self.inner.list(request).await
    }

    async fn put(&self, mut request: PutRequest) -> StoreResult<ObjectInfo> {
        if !self.honoured.conditional_writes {
            self.look(&request.key, &std::mem::take(&mut request.condition)).await?;
        }
        self.inner.put(request).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()> {
        match if_match {
            Some(etag) if !self.honoured.conditional_deletes => {
                match self.look(key, &WriteCondition::Matches(etag.clone())).await {
                    Ok(()) => self.inner.delete(key, None).await,
                    Err(StoreError::NotFound) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            _ => self.inner.delete(key, if_match).await,
        }
    }

    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        self.inner.delete_many(keys).await
    }

    async fn copy(&self, mut request: CopyRequest) -> StoreResult<ObjectInfo> {
        self.look_at_source(&request.source).await?;
        if !self.honoured.conditional_copies {
            self.look(&request.key, &std::mem::take(&mut request.condition)).await?;
        }
        self.inner.copy(request).await
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        self.inner.create_upload(key, attributes).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart> {
        self.inner.upload_part(key, upload, number, payload).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        self.look_at_source(source).await?;
        self.inner.copy_part(key, upload, number, source, range).await
    }

    async fn complete_upload(&self, mut request: CompleteRequest) -> StoreResult<ObjectInfo> {
        if !self.honoured.conditional_completes {
            self.look(&request.key, &std::mem::take(&mut request.condition)).await?;
        }
        self.inner.complete_upload(request).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        self.inner.abort_upload(key, upload).await
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        self.inner.list_uploads(prefix).await
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.honoured
    }
}
