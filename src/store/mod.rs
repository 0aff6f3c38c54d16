//! The border to S3: what the rest of the program may ask of an object store, in the program's own words.
//!
//! Implementations are small and stack: [`retry`](self) over measured over the S3 client, or a memory store with
//! faults in a test. Every one of them passes the same suite (`contract.rs`). No type of the AWS SDK passes this border.

pub mod checksum;
pub mod conditional;
pub mod contract;
mod error;
pub mod faulty;
mod hedge;
pub mod measured;
pub mod memory;
pub mod probe;
pub mod retry;
pub mod s3;

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use self::checksum::Crc64;
pub use self::error::{StoreError, StoreResult};
use crate::types::{ByteRange, ContentHeaders, ETag, ObjectInfo, ObjectKey, ObjectMetadata, ObjectVersion};

/// Largest body of one PutObject and of one part: 5 GiB (S3 user guide, "Multipart upload limits").
pub const PUT_BYTES_MAX: u64 = 5 << 30;
/// Smallest part but the last: 5 MiB.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Highest part number.
pub const PART_NUMBER_MAX: u32 = 10_000;
/// Most keys that one DeleteObjects takes, and one LIST page gives.
pub const KEYS_PER_REQUEST_MAX: usize = 1000;

/// A body to be sent: chunks that are shared, never copied, with their CRC-64/NVME, which is computed once.
#[derive(Clone, Default)]
pub struct Payload(Arc<PayloadBytes>);

#[derive(Default)]
struct PayloadBytes {
    chunks: Vec<Bytes>,
    len_bytes: u64,
    crc64nvme: OnceLock<Crc64>,
    taken_bytes: AtomicU64,
}

impl Payload {
    /// A body made of `chunks` one after another.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        let len_bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self(Arc::new(PayloadBytes { chunks, len_bytes, ..PayloadBytes::default() }))
    }

    /// The chunks in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.0.chunks
    }

    /// Length of the whole body in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.0.len_bytes
    }

    /// A connection has taken so many bytes more, to send them.
    pub(in crate::store) fn take(&self, bytes: u64) {
        self.0.taken_bytes.fetch_add(bytes, Relaxed);
    }

    /// How many bytes connections have taken so far, of all tries to send it together. A sign of life, by which an upload is
    /// judged: some buffer may still hold them.
    pub fn taken_bytes(&self) -> u64 {
        self.0.taken_bytes.load(Relaxed)
    }

    /// The checksum of the whole body; the first call reads every byte (about 0.1 ms a MiB at most), the others none.
    pub fn crc64nvme(&self) -> Crc64 {
        *self.0.crc64nvme.get_or_init(|| Crc64::of_chunks(&self.0.chunks))
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes in {} chunks)", self.len_bytes(), self.chunks().len())
    }
}

/// Which bytes of an object a GET asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetRange {
    /// All of it.
    Whole,
    /// `bytes=start-(end-1)`; the server cuts it at the end of the object. Never empty.
    Bytes(ByteRange),
    /// The last bytes, `bytes=-n`.
    Suffix(u64),
}

/// A GetObject.
#[derive(Clone, Debug)]
pub struct GetRequest {
    /// Key to read.
    pub key: ObjectKey,
    /// Bytes to read.
    pub range: GetRange,
    /// Fail with [`StoreError::PreconditionFailed`] unless the object has this tag.
    pub if_match: Option<ETag>,
    /// Fail with [`StoreError::NotModified`] if the object has this tag.
    pub if_none_match: Option<ETag>,
}

/// The bytes of a GET as they arrive. Must be polled to its end or dropped: back-pressure is applied by not asking.
pub type BodyStream = Pin<Box<dyn Stream<Item = StoreResult<Bytes>> + Send>>;

/// The head of a GET's answer and its body.
pub struct GetResponse {
    /// The object as it is now; `metadata` is always `Some`.
    pub info: ObjectInfo,
    /// The bytes that the body holds.
    pub range: ByteRange,
    /// The end of the body says whether it is what was stored: the answer is the whole object, and brought a checksum of it.
    pub is_summed: bool,
    /// The body.
    pub body: BodyStream,
}

impl fmt::Debug for GetResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GetResponse({:?}, {})", self.info.version, self.range)
    }
}

/// Under which condition a write may replace what the key holds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum WriteCondition {
    /// The last writer wins.
    #[default]
    None,
    /// The key must hold nothing: If-None-Match: *.
    Absent,
    /// The key must hold this content: If-Match.
    Matches(ETag),
}

/// What a new object carries beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ObjectAttributes {
    /// Content-Type; `None` leaves the server's default (binary/octet-stream).
    pub content_type: Option<Arc<str>>,
    /// User metadata.
    pub metadata: Arc<ObjectMetadata>,
    /// Storage class; `None` is STANDARD.
    pub storage_class: Option<Arc<str>>,
    /// What else is said of the content.
    pub headers: Option<Arc<ContentHeaders>>,
}

/// A PutObject.
#[derive(Clone, Debug)]
pub struct PutRequest {
    /// Key to write.
    pub key: ObjectKey,
    /// All bytes of the new object, at most [`PUT_BYTES_MAX`].
    pub payload: Payload,
    /// What it carries.
    pub attributes: ObjectAttributes,
    /// When it may replace what is there.
    pub condition: WriteCondition,
}

/// A CopyObject of one whole object of at most [`PUT_BYTES_MAX`].
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// The content to copy, pinned by its tag (x-amz-copy-source-if-match).
    pub source: ObjectVersion,
    /// Key to write.
    pub key: ObjectKey,
    /// `None` copies the source's content type and metadata (MetadataDirective COPY); `Some` replaces them, and the class.
    pub attributes: Option<ObjectAttributes>,
    /// The storage class of the source, which a copy that keeps its attributes has, too. No server takes it from the source:
    /// what is not told a class becomes STANDARD (API reference, CopyObject, x-amz-storage-class).
    pub source_class: Option<Arc<str>>,
    /// When it may replace what is there. S3 honours it on CopyObject; several servers do not.
    pub condition: WriteCondition,
}

impl CopyRequest {
    /// The class that the copy is to have.
    pub fn storage_class(&self) -> Option<&Arc<str>> {
        self.attributes.as_ref().map_or(&self.source_class, |attributes| &attributes.storage_class).as_ref()
    }
}

/// One page of a ListObjectsV2.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Rolls keys up at `/` behind the prefix, if set.
    pub delimited: bool,
    /// Only keys (and rolled-up prefixes) after this one in UTF-8 order.
    pub start_after: Option<String>,
    /// Goes on where an earlier page ended; then `start_after` is ignored.
    pub continuation: Option<String>,
    /// At most so many names, 1 to 1000; `None` is 1000.
    pub keys_max: Option<usize>,
}

/// What one LIST page holds.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects in UTF-8 order of their keys, without metadata.
    pub objects: Vec<ObjectInfo>,
    /// Rolled-up prefixes in UTF-8 order, each with its closing `/`.
    pub common_prefixes: Vec<String>,
    /// Where the next page begins; `None` on the last.
    pub continuation: Option<String>,
}

/// The server's name for a multipart upload under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(pub Arc<str>);

/// A part that the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadedPart {
    /// 1 to [`PART_NUMBER_MAX`].
    pub number: u32,
    /// Length of the part in bytes.
    pub size_bytes: u64,
    /// Tag that Complete must name.
    pub etag: ETag,
    /// CRC-64/NVME of the part as S3 writes it (base64 of eight big-endian bytes), where known. A copied part has one
    /// only if the server told it.
    pub crc64nvme: Option<String>,
}

/// A CompleteMultipartUpload.
#[derive(Clone, Debug)]
pub struct CompleteRequest {
    /// Key to write.
    pub key: ObjectKey,
    /// The upload.
    pub upload: UploadId,
    /// All parts, ascending by number; numbers may have gaps.
    pub parts: Vec<UploadedPart>,
    /// Length of the whole object in bytes.
    pub size_bytes: u64,
    /// When it may replace what is there.
    pub condition: WriteCondition,
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug)]
pub struct PendingUpload {
    /// Key it would write.
    pub key: ObjectKey,
    /// The upload.
    pub upload: UploadId,
    /// When it was begun.
    pub initiated: std::time::SystemTime,
}

/// What tells one content of a key from another more surely than its tag: for settling a write whose reply was lost.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    /// What a HEAD says.
    pub info: ObjectInfo,
    /// CRC-64/NVME of the whole object, where the server keeps one.
    pub crc64nvme: Option<Crc64>,
}

/// What the server was found to honour, by probing it once (DESIGN section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCapabilities {
    /// If-Match and If-None-Match on PutObject.
    pub conditional_writes: bool,
    /// The same on CompleteMultipartUpload (moto ignores If-Match there).
    pub conditional_completes: bool,
    /// If-Match on DeleteObject.
    pub conditional_deletes: bool,
    /// If-None-Match on CopyObject.
    pub conditional_copies: bool,
    /// x-amz-copy-source-if-match on CopyObject and UploadPartCopy (moto ignores it).
    pub pinned_copies: bool,
    /// A copied part is answered with the checksum of its own bytes, so that uploads may be summed up (versitygw 1.8
    /// tells that of the whole source).
    pub copied_checksums: bool,
}

impl StoreCapabilities {
    /// What S3 itself honours.
    pub const ALL: Self = Self {
        conditional_writes: true,
        conditional_completes: true,
        conditional_deletes: true,
        conditional_copies: true,
        pinned_copies: true,
        copied_checksums: true,
    };

    /// A server that honours nothing and sums up nothing.
    pub const NONE: Self = Self {
        conditional_writes: false,
        conditional_completes: false,
        conditional_deletes: false,
        conditional_copies: false,
        pinned_copies: false,
        copied_checksums: false,
    };
}

/// An S3 bucket. Every call is one S3 request; wrappers may repeat it. Dropping the future of a call cancels it.
///
/// A write that answered `Ok` is durable. A write that answered an error of [`StoreError::is_ambiguous`] may or may not
/// have happened; the S3 store settles that itself by looking wherever it can.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// HeadObject. `NotFound` if the key holds nothing.
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo>;

    /// HeadObject that asks for the checksum too.
    async fn fingerprint(&self, key: &ObjectKey) -> StoreResult<Fingerprint> {
        Ok(Fingerprint { info: self.head(key).await?, crc64nvme: None })
    }

    /// GetObject. `RangeNotSatisfiable` if the range begins at or behind the end (always so for an empty object).
    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse>;

    /// ListObjectsV2, one page.
    async fn list(&self, request: ListRequest) -> StoreResult<ListPage>;

    /// PutObject. `PreconditionFailed` or `Conflict` if the condition does not hold.
    async fn put(&self, request: PutRequest) -> StoreResult<ObjectInfo>;

    /// DeleteObject; deleting what is not there succeeds. With a tag, only that content is deleted
    /// (`PreconditionFailed` otherwise).
    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()>;

    /// DeleteObjects of at most [`KEYS_PER_REQUEST_MAX`] keys. The answer holds the keys that could not be deleted.
    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>>;

    /// CopyObject. `PreconditionFailed` if the source has changed, or the condition does not hold. S3 tells the tag and
    /// the time of the copy, not its length nor what it carries: `size_bytes` may be 0 and `metadata` `None`, and the
    /// caller, who knows the source, fills them in.
    async fn copy(&self, request: CopyRequest) -> StoreResult<ObjectInfo>;

    /// CreateMultipartUpload.
    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId>;

    /// UploadPart.
    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart>;

    /// UploadPartCopy of `range` of `source`, pinned by its tag.
    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart>;

    /// CompleteMultipartUpload. `Conflict` (409) means: begin a new upload. The answer's `metadata` may be `None`.
    async fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo>;

    /// AbortMultipartUpload; an unknown upload is a success.
    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()>;

    /// ListMultipartUploads under a prefix, all pages.
    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>>;

    /// What the server honours; everything until a probe says otherwise.
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::ALL
    }
}
