//! Counts what is put on the wire: requests (repeated ones too), errors, body bytes, time to the first byte.
//!
//! Sits directly over the store that sends. Changes nothing: an answer passes as it came. A request counts when its
//! answer begins, fails or is no longer waited for: S3 has or may have seen it. One that found no connection
//! ([`StoreError::Unsent`]) is an error and no request: nobody saw it, nobody bills it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::{
    CompleteRequest, CopyRequest, Fingerprint, GetRequest, GetResponse, ListPage, ListRequest, ObjectAttributes,
    ObjectStore, Payload, PendingUpload, PutRequest, StoreCapabilities, StoreError, StoreResult, UploadId,
    UploadedPart,
};
use crate::clock::Clock;
use crate::metrics::{Counter, Latency, Metrics, RequestKind, StorageClass};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

/// A store whose requests are counted.
pub struct MeasuredStore {
    inner: Arc<dyn ObjectStore>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl std::fmt::Debug for MeasuredStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeasuredStore").finish_non_exhaustive()
    }
}

/// Requests whose first byte comes as soon as the server has thought: the others wait for a body to be sent or for
/// bytes to be copied.
fn has_first_byte(kind: RequestKind) -> bool {
    match kind {
        RequestKind::Get
        | RequestKind::Head
        | RequestKind::List
        | RequestKind::Delete
        | RequestKind::CreateUpload
        | RequestKind::AbortUpload
        | RequestKind::ListUploads
        | RequestKind::HeadBucket => true,
        RequestKind::Put
        | RequestKind::DeleteMany
        | RequestKind::Copy
        | RequestKind::UploadPart
        | RequestKind::CopyPart
        | RequestKind::CompleteUpload => false,
    }
}

/// Whether the server did what it should, though the answer is no plain success.
fn is_expected(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotFound
            | StoreError::NotModified
            | StoreError::PreconditionFailed
            | StoreError::RangeNotSatisfiable { .. }
    )
}

impl MeasuredStore {
    /// Counts what goes to `inner` in `metrics`.
    pub fn new(inner: Arc<dyn ObjectStore>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { inner, metrics, clock }
    }

    async fn run<T>(
        &self,
        kind: RequestKind,
        sent_bytes: u64,
        call: impl Future<Output = StoreResult<T>> + Send,
    ) -> StoreResult<T> {
        let mut sending = Sending { metrics: &self.metrics, kind, is_sent: true };
        let began = self.clock.now();
        let result = call.await;
        sending.is_sent = !matches!(result, Err(StoreError::Unsent(_)));
        drop(sending);
        match &result {
            Err(error) if !is_expected(error) => self.metrics.error(kind),
            Ok(_) | Err(_) => {
                self.metrics.add(Counter::S3BytesSent, sent_bytes);
                if has_first_byte(kind) {
                    self.metrics.observe(Latency::S3FirstByte, self.clock.now().saturating_duration_since(began));
                }
            }
        }
        result
    }
}

/// Counts a request however its call ends, also when the caller stops waiting.
struct Sending<'a> {
    metrics: &'a Metrics,
    kind: RequestKind,
    is_sent: bool,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.is_sent {
            self.metrics.request(self.kind);
        }
    }
}

#[async_trait]
impl ObjectStore for MeasuredStore {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        self.run(RequestKind::Head, 0, self.inner.head(key)).await
    }

    async fn fingerprint(&self, key: &ObjectKey) -> StoreResult<Fingerprint> {
        self.run(RequestKind::Head, 0, self.inner.fingerprint(key)).await
    }

    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        let response = self.run(RequestKind::Get, 0, self.inner.get(request)).await?;
        let metrics = Arc::clone(&self.metrics);
        let class = response.info.storage_class.as_deref().and_then(StorageClass::named);
        if let Some(class) = class {
            metrics.retrieval(class);
        }
        let body = response.body.inspect(move |item| match item {
            Ok(bytes) => {
                metrics.add(Counter::S3BytesReceived, bytes.len() as u64);
                if let Some(class) = class {
                    metrics.retrieved(class, bytes.len() as u64);
                }
            }
            Err(_) => metrics.error(RequestKind::Get),
        });
        Ok(GetResponse { body: Box::pin(body), ..response })
    }

    async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        self.run(RequestKind::List, 0, self.inner.list(request)).await
    }

    async fn put(&self, request: PutRequest) -> StoreResult<ObjectInfo> {
        self.run(RequestKind::Put, request.payload.len_bytes(), self.inner.put(request)).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()> {
        self.run(RequestKind::Delete, 0, self.inner.delete(key, if_match)).await
    }

    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.run(RequestKind::DeleteMany, 0, self.inner.delete_many(keys)).await
    }

    async fn copy(&self, request: CopyRequest) -> StoreResult<ObjectInfo> {
        self.run(RequestKind::Copy, 0, self.inner.copy(request)).await
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        self.run(RequestKind::CreateUpload, 0, self.inner.create_upload(key, attributes)).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart> {
        let sent_bytes = payload.len_bytes();
        self.run(RequestKind::UploadPart, sent_bytes, self.inner.upload_part(key, upload, number, payload)).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        self.run(RequestKind::CopyPart, 0, self.inner.copy_part(key, upload, number, source, range)).await
    }

    async fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo> {
        self.run(RequestKind::CompleteUpload, 0, self.inner.complete_upload(request)).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        self.run(RequestKind::AbortUpload, 0, self.inner.abort_upload(key, upload)).await
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        self.run(RequestKind::ListUploads, 0, self.inner.list_uploads(prefix)).await
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{GetRange, WriteCondition};

    #[tokio::test]
    async fn requests_errors_and_bytes_are_counted() {
        let memory = MemoryStore::new();
        memory.put_directly("k", vec![1; 1000]);
        let metrics = Arc::new(Metrics::default());
        let store = MeasuredStore::new(Arc::new(memory), Arc::clone(&metrics), Clock::system());
        let request = GetRequest { key: "k".into(), range: GetRange::Suffix(600), if_match: None, if_none_match: None };
        let bytes = store.get(request).await.unwrap().body.map(|item| item.unwrap().len()).collect::<Vec<_>>().await;
        assert_eq!(bytes.iter().sum::<usize>(), 600);
        assert!(matches!(store.head(&"missing".into()).await, Err(StoreError::NotFound)));
        assert!(store.upload_part(&"k".into(), &UploadId("no".into()), 1, Payload::default()).await.is_err());
        assert_eq!(metrics.counter(Counter::S3BytesReceived), 600);
        let snapshot = metrics.snapshot();
        let count = |table: &[(RequestKind, u64)], kind| table.iter().find(|(k, _)| *k == kind).unwrap().1;
        assert_eq!(count(&snapshot.requests, RequestKind::Get), 1);
        assert_eq!(count(&snapshot.requests, RequestKind::Head), 1);
        assert_eq!(count(&snapshot.errors, RequestKind::Head), 0, "an absent key is an answer");
        assert_eq!(count(&snapshot.errors, RequestKind::UploadPart), 1);
        let first_byte = snapshot.latencies.iter().find(|(l, _)| *l == Latency::S3FirstByte).unwrap();
        assert_eq!(first_byte.1.count, 2);
    }

    #[tokio::test]
    async fn what_is_read_of_a_class_that_bills_it_is_counted() {
        let memory: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        let metrics = Arc::new(Metrics::default());
        for (key, class) in [("cold", Some("GLACIER_IR")), ("warm", None)] {
            let attributes = ObjectAttributes { storage_class: class.map(Into::into), ..ObjectAttributes::default() };
            let (payload, condition) = (Payload::from(bytes::Bytes::from_static(&[7; 1000])), WriteCondition::None);
            let put = PutRequest { key: key.into(), payload, attributes, condition };
            memory.put(put).await.expect("it is taken");
        }
        let store = MeasuredStore::new(memory, Arc::clone(&metrics), Clock::system());
        for key in ["cold", "warm"] {
            let range = GetRange::Bytes(ByteRange::new(0, 300));
            let request = GetRequest { key: key.into(), range, if_match: None, if_none_match: None };
            store.get(request).await.expect("it is there").body.for_each(|_| std::future::ready(())).await;
        }
        let read: Vec<_> = metrics.snapshot().retrieved.into_iter().filter(|(_, read)| read.requests > 0).collect();
        let (class, read) = read.first().expect("one class bills");
        assert_eq!((*class, read.requests, read.bytes), (StorageClass::GlacierInstantRetrieval, 1, 300));
    }
}
