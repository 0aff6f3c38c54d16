//! A store whose GETs are logged, held back and broken as a test wants it; the bytes come from a memory store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::store::memory::MemoryStore;
use crate::store::*;
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

/// How a body ends before its time.
#[derive(Clone, Debug)]
pub(super) enum Break {
    /// It just ends.
    Truncated,
    /// It fails.
    Error(StoreError),
}

#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) memory: MemoryStore,
    /// Every GET in order.
    pub(super) gets: Mutex<Vec<GetRequest>>,
    /// For each of the next GETs, after how many bytes its body ends; `None` lets it be.
    pub(super) breaks: Mutex<VecDeque<Option<(u64, Break)>>>,
    /// Body bytes that may still be delivered.
    pub(super) released: Semaphore,
    /// Bytes in bodies that are neither delivered nor dropped, and the most there ever were.
    pub(super) open_bytes: Arc<AtomicU64>,
    pub(super) open_bytes_max: AtomicU64,
    /// Bytes of one chunk.
    pub(super) chunk_bytes: usize,
    /// The end of a whole body says whether it is right.
    pub(super) sums: bool,
    /// Answer as if no condition had been sent.
    pub(super) ignores_conditions: bool,
}

/// Counts a body's undelivered bytes while it lives.
struct Open {
    count: Arc<AtomicU64>,
    left: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(self.left, SeqCst);
    }
}

impl Scripted {
    /// Delivers as fast as it is asked.
    pub(super) fn new(chunk_bytes: usize) -> Self {
        Self {
            memory: MemoryStore::new(),
            gets: Mutex::default(),
            breaks: Mutex::default(),
            released: Semaphore::new(Semaphore::MAX_PERMITS),
            open_bytes: Arc::default(),
            open_bytes_max: AtomicU64::new(0),
            chunk_bytes,
            sums: false,
            ignores_conditions: false,
        }
    }

    /// Delivers nothing until bytes are released.
    pub(super) fn held(chunk_bytes: usize) -> Self {
        Self { released: Semaphore::new(0), ..Self::new(chunk_bytes) }
    }

    /// The ranges of all GETs so far.
    pub(super) fn ranges(&self) -> Vec<ByteRange> {
        let gets = self.gets.lock();
        gets.iter()
            .map(|get| match get.range {
                GetRange::Bytes(range) => range,
                GetRange::Whole | GetRange::Suffix(_) => ByteRange::new(0, 0),
            })
            .collect()
    }

    /// Bytes that all GETs asked for so far.
    pub(super) fn asked_bytes(&self) -> u64 {
        self.ranges().iter().map(ByteRange::len).sum()
    }
}

/// The engine asks for nothing else.
fn refused<T>() -> StoreResult<T> {
    Err(StoreError::Unsupported("the read engine only reads".into()))
}

fn body_of(store: &Arc<Scripted>, bytes: Bytes, end: Option<Break>) -> BodyStream {
    let len = bytes.len() as u64;
    let now = store.open_bytes.fetch_add(len, SeqCst) + len;
    store.open_bytes_max.fetch_max(now, SeqCst);
    let open = Open { count: Arc::clone(&store.open_bytes), left: len };
    let state = (Arc::clone(store), bytes, open, end);
    let chunks = futures_util::stream::unfold(state, |(store, mut bytes, mut open, end)| async move {
        if bytes.is_empty() {
            return match end {
                Some(Break::Error(error)) => Some((Err(error), (store, bytes, open, None))),
                Some(Break::Truncated) | None => None,
            };
        }
        let chunk = bytes.split_to(store.chunk_bytes.min(bytes.len()));
        let permit = store.released.acquire_many(chunk.len() as u32).await.expect("never closed");
        permit.forget();
        open.left -= chunk.len() as u64;
        store.open_bytes.fetch_sub(chunk.len() as u64, SeqCst);
        Some((Ok(chunk), (store, bytes, open, end)))
    });
    chunks.boxed()
}

#[derive(Clone, Debug)]
pub(super) struct Shared(pub(super) Arc<Scripted>);

#[async_trait]
impl ObjectStore for Shared {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        self.0.memory.head(key).await
    }

    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        self.0.gets.lock().push(request.clone());
        let scripted = self.0.breaks.lock().pop_front().flatten();
        let request = if self.0.ignores_conditions {
            GetRequest { if_match: None, if_none_match: None, ..request }
        } else {
            request
        };
        let mut response = self.0.memory.get(request).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.body.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        response.is_summed = self.0.sums && response.range == ByteRange::new(0, response.info.size_bytes);
        let end = scripted.map(|(after, end)| {
            bytes.truncate(after as usize);
            end
        });
        response.body = body_of(&self.0, bytes.into(), end);
        Ok(response)
    }

    async fn list(&self, _: ListRequest) -> StoreResult<ListPage> {
        refused()
    }

    async fn put(&self, _: PutRequest) -> StoreResult<ObjectInfo> {
        refused()
    }

    async fn delete(&self, _: &ObjectKey, _: Option<&ETag>) -> StoreResult<()> {
        refused()
    }

    async fn delete_many(&self, _: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        refused()
    }

    async fn copy(&self, _: CopyRequest) -> StoreResult<ObjectInfo> {
        refused()
    }

    async fn create_upload(&self, _: &ObjectKey, _: ObjectAttributes) -> StoreResult<UploadId> {
        refused()
    }

    async fn upload_part(&self, _: &ObjectKey, _: &UploadId, _: u32, _: Payload) -> StoreResult<UploadedPart> {
        refused()
    }

    async fn copy_part(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: u32,
        _: &ObjectVersion,
        _: ByteRange,
    ) -> StoreResult<UploadedPart> {
        refused()
    }

    async fn complete_upload(&self, _: CompleteRequest) -> StoreResult<ObjectInfo> {
        refused()
    }

    async fn abort_upload(&self, _: &ObjectKey, _: &UploadId) -> StoreResult<()> {
        refused()
    }

    async fn list_uploads(&self, _: &str) -> StoreResult<Vec<PendingUpload>> {
        refused()
    }
}
