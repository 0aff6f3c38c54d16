//! An object store in memory that behaves as S3 does: conditions, multipart with gaps, tags, errors, order of LIST.
//!
//! For tests and benchmarks; never part of a mount. Every call is atomic and counted. Invariant: an object is replaced as a whole or
//! not at all, and its tag depends on its bytes (and, for multipart, its parts) alone.

mod content;
mod requests;
#[cfg(test)]
mod tests;
mod uploads;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use self::content::Content;
pub use self::requests::LoggedRequest;
use self::uploads::Upload;
use super::{
    CompleteRequest, CopyRequest, Fingerprint, GetRange, GetRequest, GetResponse, KEYS_PER_REQUEST_MAX, ListPage,
    ListRequest, ObjectAttributes, ObjectStore, PART_BYTES_MIN, PUT_BYTES_MAX, Payload, PendingUpload, PutRequest,
    StoreCapabilities, StoreError, StoreResult, UploadId, UploadedPart, WriteCondition,
};
use crate::clock::Clock;
use crate::metrics::RequestKind;
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

/// S3 user guide, "User-defined object metadata".
const METADATA_BYTES_MAX: usize = 2 << 10;

/// A bucket in memory. Clones are the same bucket.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    options: MemoryOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Object>,
    uploads: BTreeMap<Arc<str>, Upload>,
    uploads_begun: u64,
    log: Vec<LoggedRequest>,
    bytes_sent: u64,
}

#[derive(Clone, Debug)]
struct Object {
    content: Content,
    etag: ETag,
    last_modified: SystemTime,
    attributes: ObjectAttributes,
}

/// How a memory store differs from S3.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// Where Last-Modified comes from.
    pub clock: Clock,
    /// Conditions that are honoured; the others are silently ignored, as some servers do.
    pub capabilities: StoreCapabilities,
    /// Smallest part but the last, in bytes; less than S3's spares tests big files.
    pub part_bytes_min: u64,
    /// Most names of a LIST page; less than S3's spares tests many objects.
    pub page_keys_max: usize,
    /// LIST honours start-after; some servers do not.
    pub starts_after: bool,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            capabilities: StoreCapabilities::ALL,
            part_bytes_min: PART_BYTES_MIN,
            page_keys_max: KEYS_PER_REQUEST_MAX,
            starts_after: true,
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty bucket with the limits of S3.
    pub fn new() -> Self {
        Self::with_options(MemoryOptions::default())
    }

    /// An empty bucket that takes smaller parts than S3, so that tests need no big files.
    pub fn with_part_bytes_min(part_bytes_min: u64) -> Self {
        Self::with_options(MemoryOptions { part_bytes_min, ..MemoryOptions::default() })
    }

    /// An empty bucket.
    pub fn with_options(options: MemoryOptions) -> Self {
        Self(Arc::new(Bucket { options, state: Mutex::default() }))
    }

    /// Puts an object as another client would, uncounted.
    pub fn put_directly(&self, key: &str, body: impl Into<Bytes>) -> ObjectInfo {
        self.put_directly_with(key, body, ObjectAttributes::default())
    }

    /// The same, with attributes.
    pub fn put_directly_with(&self, key: &str, body: impl Into<Bytes>, attributes: ObjectAttributes) -> ObjectInfo {
        let content = Content::copy_of(&[body.into()]);
        self.0.store(&mut self.0.state.lock(), key.into(), content, None, attributes)
    }

    /// Deletes an object as another client would, uncounted.
    pub fn delete_directly(&self, key: &str) {
        self.0.state.lock().objects.remove(&ObjectKey::from(key));
    }

    /// What the object carries, uncounted.
    pub fn attributes(&self, key: &str) -> Option<ObjectAttributes> {
        self.0.state.lock().objects.get(&ObjectKey::from(key)).map(|object| object.attributes.clone())
    }

    /// The bytes of an object, uncounted.
    pub fn content(&self, key: &str) -> Option<Bytes> {
        let content = self.0.state.lock().objects.get(&ObjectKey::from(key))?.content.clone();
        let mut bytes = BytesMut::with_capacity(content.len_bytes() as usize);
        content.pieces().for_each(|piece| bytes.extend_from_slice(&piece));
        Some(bytes.freeze())
    }

    /// What a HEAD would say, uncounted.
    pub fn info(&self, key: &str) -> Option<ObjectInfo> {
        let key = ObjectKey::from(key);
        self.0.state.lock().objects.get(&key).map(|object| object.info(&key))
    }

    /// All keys in UTF-8 order, uncounted.
    pub fn keys(&self) -> Vec<String> {
        self.0.state.lock().objects.keys().map(ToString::to_string).collect()
    }

    /// How many multipart uploads are neither completed nor aborted.
    pub fn uploads_pending(&self) -> usize {
        self.0.state.lock().uploads.len()
    }
}

impl Bucket {
    fn now(&self) -> SystemTime {
        self.options.clock.wall()
    }

    fn answer(&self, kind: RequestKind, key: &str, range: Option<ByteRange>) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.log.push(LoggedRequest { kind, key: key.into(), range });
        state
    }

    fn store(
        &self,
        state: &mut State,
        key: ObjectKey,
        content: Content,
        etag: Option<ETag>,
        attributes: ObjectAttributes,
    ) -> ObjectInfo {
        let etag = etag.unwrap_or_else(|| ETag::new(format!("\"{}\"", digest(&content))));
        let object = Object { content, etag, last_modified: self.now(), attributes };
        let info = object.info(&key);
        state.objects.insert(key, object);
        info
    }
}

impl Object {
    /// As headers say it: with metadata and with whole seconds.
    fn info(&self, key: &ObjectKey) -> ObjectInfo {
        let since_epoch = self.last_modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        ObjectInfo {
            version: ObjectVersion::new(key.clone(), self.etag.clone(), None),
            size_bytes: self.content.len_bytes(),
            last_modified: UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs()),
            metadata: Some(Arc::clone(&self.attributes.metadata)),
            content_type: Some(self.attributes.content_type.clone().unwrap_or_else(|| "binary/octet-stream".into())),
            storage_class: self.attributes.storage_class.clone(),
            headers: self.attributes.headers.clone(),
        }
    }

    fn refuse_archived(&self) -> StoreResult<()> {
        match self.attributes.storage_class.as_deref() {
            Some("GLACIER" | "DEEP_ARCHIVE") => Err(StoreError::Archived),
            _ => Ok(()),
        }
    }

    /// As LIST says it: without metadata and with milliseconds.
    fn listed(&self, key: &ObjectKey) -> ObjectInfo {
        let since_epoch = self.last_modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        ObjectInfo {
            last_modified: UNIX_EPOCH + Duration::from_millis(since_epoch.as_millis() as u64),
            metadata: None,
            content_type: None,
            headers: None,
            ..self.info(key)
        }
    }
}

/// 32 hex digits that depend on the bytes alone, where S3 has their MD5.
fn digest(content: &Content) -> String {
    let crc = content.crc64nvme().to_base64();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ content.len_bytes();
    let mut hex = String::with_capacity(32);
    for round in 0..2_u8 {
        for byte in crc.bytes().chain([round]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hex.push_str(&format!("{hash:016x}"));
    }
    hex
}

fn check_key(key: &ObjectKey) -> StoreResult<()> {
    match key.as_str().len() {
        0 => Err(StoreError::BadKey("the key is empty".into())),
        1..=ObjectKey::LEN_BYTES_MAX => Ok(()),
        _ => Err(StoreError::BadKey("KeyTooLongError: Your key is too long".into())),
    }
}

fn check_attributes(attributes: &ObjectAttributes) -> StoreResult<()> {
    let bytes: usize = attributes.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(StoreError::TooLarge("MetadataTooLarge: Your metadata headers exceed 2 KB".into()));
    }
    Ok(())
}

/// S3 says 404 for If-Match on a key that holds nothing, 412 for every other condition that does not hold.
fn check_condition(held: Option<&Object>, condition: &WriteCondition) -> StoreResult<()> {
    match (condition, held) {
        (WriteCondition::None, _) | (WriteCondition::Absent, None) => Ok(()),
        (WriteCondition::Matches(_), None) => Err(StoreError::NotFound),
        (WriteCondition::Matches(etag), Some(object)) if object.etag == *etag => Ok(()),
        (WriteCondition::Absent | WriteCondition::Matches(_), Some(_)) => Err(StoreError::PreconditionFailed),
    }
}

impl GetRange {
    /// The bytes meant in an object of `size_bytes`; `None` where S3 answers 416.
    fn resolve(self, size_bytes: u64) -> Option<ByteRange> {
        let whole = ByteRange::new(0, size_bytes);
        match self {
            Self::Whole => Some(whole),
            Self::Bytes(range) => Some(whole.intersect(&range)).filter(|range| !range.is_empty()),
            Self::Suffix(len) => {
                Some(ByteRange::new(size_bytes.saturating_sub(len), size_bytes)).filter(|range| !range.is_empty())
            }
        }
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        let state = self.0.answer(RequestKind::Head, key.as_str(), None);
        check_key(key)?;
        state.objects.get(key).map(|object| object.info(key)).ok_or(StoreError::NotFound)
    }

    async fn fingerprint(&self, key: &ObjectKey) -> StoreResult<Fingerprint> {
        let info = self.head(key).await?;
        let content = self.0.state.lock().objects.get(key).ok_or(StoreError::NotFound)?.content.clone();
        Ok(Fingerprint { info, crc64nvme: Some(content.crc64nvme()) })
    }

    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        let key = &request.key;
        let range = match request.range {
            GetRange::Bytes(range) => Some(range),
            GetRange::Whole | GetRange::Suffix(_) => None,
        };
        let mut state = self.0.answer(RequestKind::Get, key.as_str(), range);
        check_key(key)?;
        let object = state.objects.get(key).ok_or(StoreError::NotFound)?;
        if request.if_match.as_ref().is_some_and(|etag| *etag != object.etag) {
            return Err(StoreError::PreconditionFailed);
        }
        if request.if_none_match.as_ref() == Some(&object.etag) {
            return Err(StoreError::NotModified);
        }
        object.refuse_archived()?;
        let info = object.info(key);
        let range = request
            .range
            .resolve(info.size_bytes)
            .ok_or(StoreError::RangeNotSatisfiable { size_bytes: Some(info.size_bytes) })?;
        let body = futures_util::stream::iter(object.content.slice(range).pieces().map(Ok));
        state.bytes_sent += range.len();
        Ok(GetResponse { info, range, is_summed: false, body: Box::pin(body) })
    }

    async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        let state = self.0.answer(RequestKind::List, &request.prefix, None);
        let keys_max = request.keys_max.unwrap_or(KEYS_PER_REQUEST_MAX).clamp(1, self.0.options.page_keys_max);
        let start_after = request.start_after.as_deref().filter(|_| self.0.options.starts_after);
        let after = request.continuation.as_deref().or(start_after).unwrap_or_default();
        let from = ObjectKey::from(after.max(request.prefix.as_str()));
        let mut page = ListPage::default();
        let mut last: Option<String> = None;
        for (key, object) in state.objects.range((Bound::Included(from), Bound::Unbounded)) {
            let Some(rest) = key.as_str().strip_prefix(request.prefix.as_str()) else { break };
            let rolled_up = rest.find('/').filter(|_| request.delimited);
            let name = rolled_up.map_or(key.as_str(), |slash| &key.as_str()[..request.prefix.len() + slash + 1]);
            if name <= after && !after.is_empty() || last.as_deref() == Some(name) {
                continue;
            }
            if page.objects.len() + page.common_prefixes.len() == keys_max {
                page.continuation = last;
                break;
            }
            last = Some(name.to_owned());
            if rolled_up.is_some() {
                page.common_prefixes.push(name.to_owned());
            } else {
                page.objects.push(object.listed(key));
            }
        }
        Ok(page)
    }

    async fn put(&self, request: PutRequest) -> StoreResult<ObjectInfo> {
        let content = Content::copy_of(request.payload.chunks());
        let mut state = self.0.answer(RequestKind::Put, request.key.as_str(), None);
        check_key(&request.key)?;
        check_attributes(&request.attributes)?;
        if content.len_bytes() > PUT_BYTES_MAX {
            return Err(StoreError::TooLarge("EntityTooLarge: Your proposed upload exceeds the maximum".into()));
        }
        if self.0.options.capabilities.conditional_writes {
            check_condition(state.objects.get(&request.key), &request.condition)?;
        }
        Ok(self.0.store(&mut state, request.key, content, None, request.attributes))
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()> {
        let mut state = self.0.answer(RequestKind::Delete, key.as_str(), None);
        check_key(key)?;
        if self.0.options.capabilities.conditional_deletes
            && let (Some(etag), Some(object)) = (if_match, state.objects.get(key))
            && *etag != object.etag
        {
            return Err(StoreError::PreconditionFailed);
        }
        state.objects.remove(key);
        Ok(())
    }

    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.0.answer(RequestKind::DeleteMany, keys[0].as_str(), None);
        if keys.len() > KEYS_PER_REQUEST_MAX {
            return Err(StoreError::Fatal("MalformedXML: more than 1000 keys".into()));
        }
        for key in keys {
            state.objects.remove(&key);
        }
        Ok(Vec::new())
    }

    async fn copy(&self, request: CopyRequest) -> StoreResult<ObjectInfo> {
        let mut state = self.0.answer(RequestKind::Copy, request.key.as_str(), None);
        check_key(&request.key)?;
        let source = self.0.source(&state, &request.source)?;
        if source.content.len_bytes() > PUT_BYTES_MAX {
            return Err(StoreError::TooLarge("InvalidRequest: the copy source is larger than 5 GiB".into()));
        }
        if request.attributes.is_none() && request.key == *request.source.key() {
            return Err(StoreError::Fatal("InvalidRequest: a copy to itself must change the metadata".into()));
        }
        if self.0.options.capabilities.conditional_copies {
            check_condition(state.objects.get(&request.key), &request.condition)?;
        }
        let storage_class = request.storage_class().cloned();
        let attributes = ObjectAttributes { storage_class, ..request.attributes.unwrap_or(source.attributes) };
        check_attributes(&attributes)?;
        Ok(self.0.store(&mut state, request.key, source.content, None, attributes))
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        self.0.create_upload(key, attributes)
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart> {
        self.0.upload_part(key, upload, number, &payload)
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        self.0.copy_part(key, upload, number, source, range)
    }

    async fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo> {
        self.0.complete_upload(request)
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        self.0.answer(RequestKind::AbortUpload, key.as_str(), None).uploads.remove(&upload.0);
        Ok(())
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        Ok(self.0.answer(RequestKind::ListUploads, prefix, None).pending_uploads(prefix))
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.0.options.capabilities
    }
}
