//! A store that misbehaves on demand, deterministically: errors before or after the effect, bodies that break off or
//! are damaged, calls that hang until a test releases them.
//!
//! For tests; never part of a mount. With no rule it passes every call on unchanged.

mod gate;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;

pub use self::gate::Gate;
pub use self::rules::{Faults, Rule};
use super::{
    BodyStream, CompleteRequest, CopyRequest, Fingerprint, GetRequest, GetResponse, ListPage, ListRequest,
    ObjectAttributes, ObjectStore, Payload, PendingUpload, PutRequest, StoreCapabilities, StoreError, StoreResult,
    UploadId, UploadedPart,
};
use crate::metrics::RequestKind;
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

/// One way to misbehave.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The request never reaches the store.
    Before(StoreError),
    /// The store does what it was asked, and the reply is lost.
    After(StoreError),
    /// The body of a GET breaks off with this error after so many bytes; of other calls: as [`Fault::Before`].
    BrokenBody {
        /// Bytes that still arrive.
        after_bytes: u64,
        /// What the stream then says.
        error: StoreError,
    },
    /// One byte of the body of a GET is wrong, and its end says [`StoreError::Corrupt`], as a store that verifies
    /// checksums does; an upload is refused with `Corrupt`.
    Damaged,
    /// The request waits at the gate before it reaches the store.
    Hold(Gate),
    /// The store does what it was asked, and the reply waits at the gate.
    HoldReply(Gate),
    /// The body of a GET waits at the gate after so many bytes; other calls are not touched.
    HoldBody {
        /// Bytes that arrive before.
        after_bytes: u64,
        /// Where it waits.
        gate: Gate,
    },
    /// The request is slow by so much (tokio's clock).
    Delay(Duration),
    /// The line is slow: an upload's bytes are taken at this pace (tokio's clock), and after so many of them none is.
    SlowLine {
        /// Pace.
        bytes_per_second: u64,
        /// Bytes that are taken.
        until_bytes: u64,
    },
    /// The call panics, as a defect would make it.
    Panic,
}

/// A store behind [`Faults`].
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
    capabilities: StoreCapabilities,
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyStore").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// Puts `faults` in front of `inner`; keep a clone of `faults` to add rules later.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Faults) -> Self {
        Self { capabilities: inner.capabilities(), inner, faults }
    }

    /// Says of itself that it honours these conditions, whatever it does.
    #[must_use]
    pub fn claiming(mut self, capabilities: StoreCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Runs `call` unless a fault forbids it. The fault is handed back where it concerns the body.
    async fn run<T>(
        &self,
        kind: RequestKind,
        key: &str,
        call: impl Future<Output = StoreResult<T>> + Send,
    ) -> (StoreResult<T>, Option<Fault>) {
        self.run_upload(kind, key, None, call).await
    }

    /// The same of a call that brings a body.
    async fn run_upload<T>(
        &self,
        kind: RequestKind,
        key: &str,
        payload: Option<&Payload>,
        call: impl Future<Output = StoreResult<T>> + Send,
    ) -> (StoreResult<T>, Option<Fault>) {
        let fault = self.faults.next(kind, key);
        let is_get = kind == RequestKind::Get;
        match &fault {
            Some(Fault::Before(error)) => return (Err(error.clone()), None),
            Some(Fault::BrokenBody { error, .. }) if !is_get => return (Err(error.clone()), None),
            Some(Fault::Damaged) if !is_get => return (Err(StoreError::Corrupt("BadDigest".into())), None),
            Some(Fault::Hold(gate)) => gate.pass().await,
            Some(Fault::Delay(by)) => tokio::time::sleep(*by).await,
            Some(Fault::SlowLine { bytes_per_second, until_bytes }) => {
                if let Some(payload) = payload {
                    send_slowly(payload, *bytes_per_second, *until_bytes).await;
                }
            }
            Some(Fault::Panic) => panic!("as a test asked for"),
            Some(
                Fault::After(_)
                | Fault::BrokenBody { .. }
                | Fault::Damaged
                | Fault::HoldReply(_)
                | Fault::HoldBody { .. },
            )
            | None => {}
        }
        let result = call.await;
        match &fault {
            // The effect of a call that failed anyway is that failure.
            Some(Fault::After(error)) if result.is_ok() => return (Err(error.clone()), None),
            Some(Fault::HoldReply(gate)) => gate.pass().await,
            _ => {}
        }
        (result, fault)
    }
}

/// Takes the bytes of a body second by second; never ends where it may take only a part of them.
async fn send_slowly(payload: &Payload, bytes_per_second: u64, until_bytes: u64) {
    let end = payload.len_bytes().min(until_bytes);
    let mut at = 0;
    while at < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let bytes = bytes_per_second.min(end - at);
        payload.take(bytes);
        at += bytes;
    }
    if end < payload.len_bytes() {
        std::future::pending::<()>().await;
    }
}

/// The body as the fault leaves it.
fn spoil(body: BodyStream, fault: Option<Fault>) -> BodyStream {
    match fault {
        Some(Fault::BrokenBody { after_bytes, error }) => {
            let end = futures_util::stream::once(std::future::ready(Err(error)));
            Box::pin(first_bytes(body, after_bytes).chain(end))
        }
        Some(Fault::Damaged) => {
            let end = StoreError::Corrupt("checksum of the body does not match".into());
            Box::pin(flip_first_byte(body).chain(futures_util::stream::once(std::future::ready(Err(end)))))
        }
        Some(Fault::HoldBody { after_bytes, gate }) => Box::pin(hold(body, after_bytes, gate)),
        _ => body,
    }
}

fn first_bytes(body: BodyStream, mut left: u64) -> impl futures_util::Stream<Item = StoreResult<Bytes>> {
    body.map(move |item| {
        item.map(|bytes| {
            let len = left.min(bytes.len() as u64);
            left -= len;
            bytes.slice(..len as usize)
        })
    })
    .filter(|item| std::future::ready(item.as_ref().map_or(true, |bytes| !bytes.is_empty())))
}

fn flip_first_byte(body: BodyStream) -> impl futures_util::Stream<Item = StoreResult<Bytes>> {
    body.enumerate().map(|(index, item)| {
        item.map(|bytes| {
            if index > 0 || bytes.is_empty() {
                return bytes;
            }
            let mut damaged = bytes.to_vec();
            damaged[0] ^= 0xff;
            damaged.into()
        })
    })
}

fn hold(body: BodyStream, after_bytes: u64, gate: Gate) -> impl futures_util::Stream<Item = StoreResult<Bytes>> {
    let pieces = body.scan(0_u64, move |seen, item| {
        let pieces = match item {
            Err(error) => vec![(false, Err(error))],
            Ok(bytes) => {
                let start = *seen;
                *seen += bytes.len() as u64;
                if (start..*seen).contains(&after_bytes) {
                    let at = (after_bytes - start) as usize;
                    vec![(false, Ok(bytes.slice(..at))), (true, Ok(bytes.slice(at..)))]
                } else {
                    vec![(false, Ok(bytes))]
                }
            }
        };
        std::future::ready(Some(futures_util::stream::iter(pieces)))
    });
    pieces.flatten().filter_map(move |(waits, item)| {
        let gate = gate.clone();
        async move {
            if waits {
                gate.pass().await;
            }
            Some(item).filter(|item| item.as_ref().map_or(true, |bytes: &Bytes| !bytes.is_empty()))
        }
    })
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        self.run(RequestKind::Head, key.as_str(), self.inner.head(key)).await.0
    }

    async fn fingerprint(&self, key: &ObjectKey) -> StoreResult<Fingerprint> {
        self.run(RequestKind::Head, key.as_str(), self.inner.fingerprint(key)).await.0
    }

    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        let key = request.key.clone();
        let (result, fault) = self.run(RequestKind::Get, key.as_str(), self.inner.get(request)).await;
        result.map(|response| {
            let is_whole = response.range == ByteRange::new(0, response.info.size_bytes);
            let is_summed = response.is_summed || (is_whole && matches!(fault, Some(Fault::Damaged)));
            GetResponse { body: spoil(response.body, fault), is_summed, ..response }
        })
    }

    async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        let prefix = request.prefix.clone();
        self.run(RequestKind::List, &prefix, self.inner.list(request)).await.0
    }

    async fn put(&self, request: PutRequest) -> StoreResult<ObjectInfo> {
        let key = request.key.clone();
        let payload = request.payload.clone();
        self.run_upload(RequestKind::Put, key.as_str(), Some(&payload), self.inner.put(request)).await.0
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()> {
        self.run(RequestKind::Delete, key.as_str(), self.inner.delete(key, if_match)).await.0
    }

    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        let first = keys.first().cloned();
        let key = first.as_ref().map_or("", ObjectKey::as_str);
        self.run(RequestKind::DeleteMany, key, self.inner.delete_many(keys)).await.0
    }

    async fn copy(&self, request: CopyRequest) -> StoreResult<ObjectInfo> {
        let key = request.key.clone();
        self.run(RequestKind::Copy, key.as_str(), self.inner.copy(request)).await.0
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        self.run(RequestKind::CreateUpload, key.as_str(), self.inner.create_upload(key, attributes)).await.0
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart> {
        let call = self.inner.upload_part(key, upload, number, payload.clone());
        self.run_upload(RequestKind::UploadPart, key.as_str(), Some(&payload), call).await.0
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        let call = self.inner.copy_part(key, upload, number, source, range);
        self.run(RequestKind::CopyPart, key.as_str(), call).await.0
    }

    async fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo> {
        let key = request.key.clone();
        self.run(RequestKind::CompleteUpload, key.as_str(), self.inner.complete_upload(request)).await.0
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        self.run(RequestKind::AbortUpload, key.as_str(), self.inner.abort_upload(key, upload)).await.0
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        self.run(RequestKind::ListUploads, prefix, self.inner.list_uploads(prefix)).await.0
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.capabilities
    }
}
