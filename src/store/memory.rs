//! A bucket in memory: what tests run the engines against.
//!
//! It answers as S3 does, conditions, limits and listing order included, and counts what it is asked. It is no cache and
//! no product: nothing outside of tests and benchmarks builds one.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::*;
use crate::metrics::RequestKind;

/// Bytes of one chunk of a GET's body; about what hyper hands over.
const BODY_CHUNK_BYTES: usize = 256 << 10;

#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    etag: ETag,
    attributes: ObjectAttributes,
    last_modified: SystemTime,
}

#[derive(Debug)]
struct Upload {
    key: ObjectKey,
    attributes: ObjectAttributes,
    parts: BTreeMap<u32, (Bytes, ETag)>,
    initiated: SystemTime,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: HashMap<UploadId, Upload>,
    next: u64,
}

/// A bucket in memory.
#[derive(Debug)]
pub struct MemoryStore {
    bucket: Mutex<Bucket>,
    counts: [AtomicU64; RequestKind::ALL.len()],
    bytes_sent: AtomicU64,
    part_bytes_min: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty bucket with the limits of S3.
    pub fn new() -> Self {
        Self::with_part_bytes_min(PART_BYTES_MIN)
    }

    /// An empty bucket that takes smaller parts than S3, so that tests need no big files.
    pub fn with_part_bytes_min(part_bytes_min: u64) -> Self {
        Self {
            bucket: Mutex::default(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            bytes_sent: AtomicU64::new(0),
            part_bytes_min,
        }
    }

    /// How many requests of a kind came.
    pub fn requests(&self, kind: RequestKind) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// How many requests came in all.
    pub fn all_requests(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of bodies that GETs carried (as far as they were polled).
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// The bytes of an object, uncounted.
    pub fn content(&self, key: &str) -> Option<Bytes> {
        self.bucket.lock().objects.get(key).map(|object| object.body.clone())
    }

    /// What the object carries, uncounted.
    pub fn attributes(&self, key: &str) -> Option<ObjectAttributes> {
        self.bucket.lock().objects.get(key).map(|object| object.attributes.clone())
    }

    /// All keys, uncounted.
    pub fn keys(&self) -> Vec<String> {
        self.bucket.lock().objects.keys().cloned().collect()
    }

    /// Puts an object as another client would, uncounted.
    pub fn put_directly(&self, key: &str, body: impl Into<Bytes>) -> ObjectInfo {
        let mut bucket = self.bucket.lock();
        bucket.store(&key.into(), body.into(), ObjectAttributes::default(), None)
    }

    /// Deletes an object as another client would, uncounted.
    pub fn delete_directly(&self, key: &str) {
        self.bucket.lock().objects.remove(key);
    }

    fn count(&self, kind: RequestKind) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn digest(chunks: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for chunk in chunks {
        hasher.write(chunk);
    }
    hasher.finish()
}

fn joined(payload: &Payload) -> Bytes {
    if let [only] = payload.chunks() {
        return only.clone();
    }
    let mut body = BytesMut::new();
    for chunk in payload.chunks() {
        body.extend_from_slice(chunk);
    }
    body.freeze()
}

impl Object {
    fn info(&self, key: &ObjectKey, with_metadata: bool) -> ObjectInfo {
        ObjectInfo {
            version: ObjectVersion::new(key.clone(), self.etag.clone(), None),
            size_bytes: self.body.len() as u64,
            last_modified: self.last_modified,
            metadata: with_metadata.then(|| Arc::clone(&self.attributes.metadata)),
            content_type: if with_metadata { self.attributes.content_type.clone() } else { None },
            storage_class: self.attributes.storage_class.clone(),
        }
    }

    fn refuse_archived(&self) -> StoreResult<()> {
        match self.attributes.storage_class.as_deref() {
            Some("GLACIER" | "DEEP_ARCHIVE") => Err(StoreError::Archived),
            _ => Ok(()),
        }
    }
}

impl Bucket {
    fn find(&self, key: &ObjectKey) -> StoreResult<&Object> {
        self.objects.get(key.as_str()).ok_or(StoreError::NotFound)
    }

    fn check(&self, key: &ObjectKey, condition: &WriteCondition) -> StoreResult<()> {
        if key.as_str().len() > ObjectKey::LEN_BYTES_MAX {
            return Err(StoreError::BadKey("longer than 1024 bytes".into()));
        }
        match (condition, self.objects.get(key.as_str())) {
            (WriteCondition::None, _) | (WriteCondition::Absent, None) => Ok(()),
            (WriteCondition::Absent, Some(_)) => Err(StoreError::PreconditionFailed),
            (WriteCondition::Matches(_), None) => Err(StoreError::NotFound),
            (WriteCondition::Matches(etag), Some(object)) if object.etag == *etag => Ok(()),
            (WriteCondition::Matches(_), Some(_)) => Err(StoreError::PreconditionFailed),
        }
    }

    fn store(&mut self, key: &ObjectKey, body: Bytes, attributes: ObjectAttributes, etag: Option<ETag>) -> ObjectInfo {
        let etag = etag.unwrap_or_else(|| {
            // Like S3's: the same bytes give the same tag.
            ETag::new(format!("\"{:032x}\"", digest(&[&body])))
        });
        let object = Object { body, etag, attributes, last_modified: SystemTime::now() };
        let info = object.info(key, true);
        self.objects.insert(key.as_str().to_owned(), object);
        info
    }

    fn upload(&mut self, key: &ObjectKey, upload: &UploadId) -> StoreResult<&mut Upload> {
        self.uploads.get_mut(upload).filter(|it| it.key == *key).ok_or(StoreError::NoSuchUpload)
    }

    fn add_part(&mut self, key: &ObjectKey, upload: &UploadId, number: u32, body: Bytes) -> StoreResult<UploadedPart> {
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(StoreError::Fatal("part number out of range".into()));
        }
        let etag = ETag::new(format!("\"{:032x}\"", digest(&[&body])));
        self.upload(key, upload)?.parts.insert(number, (body, etag.clone()));
        Ok(UploadedPart { number, etag, crc64nvme: None })
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        self.count(RequestKind::Head);
        Ok(self.bucket.lock().find(key)?.info(key, true))
    }

    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        self.count(RequestKind::Get);
        let object = self.bucket.lock().find(&request.key)?.clone();
        if request.if_match.as_ref().is_some_and(|etag| *etag != object.etag) {
            return Err(StoreError::PreconditionFailed);
        }
        if request.if_none_match.as_ref().is_some_and(|etag| *etag == object.etag) {
            return Err(StoreError::NotModified);
        }
        object.refuse_archived()?;
        let size = object.body.len() as u64;
        let range = match request.range {
            GetRange::Whole => ByteRange::new(0, size),
            GetRange::Bytes(range) => ByteRange::new(range.start, range.end.min(size)),
            GetRange::Suffix(len) => ByteRange::new(size.saturating_sub(len), size),
        };
        if request.range != GetRange::Whole && (range.is_empty() || range.start >= size) {
            return Err(StoreError::RangeNotSatisfiable { size_bytes: Some(size) });
        }
        let body = object.body.slice(range.start as usize..range.end as usize);
        self.bytes_sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        let chunks: Vec<StoreResult<Bytes>> = (0..body.len())
            .step_by(BODY_CHUNK_BYTES)
            .map(|start| Ok(body.slice(start..(start + BODY_CHUNK_BYTES).min(body.len()))))
            .collect();
        let info = object.info(&request.key, true);
        Ok(GetResponse { info, range, body: Box::pin(futures_util::stream::iter(chunks)) })
    }

    async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        self.count(RequestKind::List);
        let bucket = self.bucket.lock();
        let limit = request.keys_max.unwrap_or(KEYS_PER_REQUEST_MAX).clamp(1, KEYS_PER_REQUEST_MAX);
        let after = request.continuation.or(request.start_after).unwrap_or_default();
        let mut page = ListPage::default();
        let mut last = after.clone();
        let from =
            if after < request.prefix { Bound::Included(request.prefix.clone()) } else { Bound::Excluded(after) };
        let start = match &from {
            Bound::Included(from) | Bound::Excluded(from) => from.clone(),
            Bound::Unbounded => String::new(),
        };
        for (key, object) in bucket.objects.range::<String, _>((from, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(request.prefix.as_str()) else { break };
            let rolled = if request.delimited { rest.find('/') } else { None };
            let name = match rolled {
                Some(slash) => &key[..request.prefix.len() + slash + 1],
                None => key.as_str(),
            };
            // A prefix that an earlier page rolled up is not told again.
            if rolled.is_some() && (page.common_prefixes.last().is_some_and(|it| it == name) || *name <= *start) {
                continue;
            }
            if page.objects.len() + page.common_prefixes.len() == limit {
                page.continuation = Some(last);
                return Ok(page);
            }
            last = name.to_owned();
            match rolled {
                Some(_) => page.common_prefixes.push(name.to_owned()),
                None => page.objects.push(object.info(&key.as_str().into(), false)),
            }
        }
        Ok(page)
    }

    async fn put(&self, request: PutRequest) -> StoreResult<ObjectInfo> {
        self.count(RequestKind::Put);
        if request.payload.len_bytes() > PUT_BYTES_MAX {
            return Err(StoreError::TooLarge("one PUT takes at most 5 GiB".into()));
        }
        let body = joined(&request.payload);
        let mut bucket = self.bucket.lock();
        bucket.check(&request.key, &request.condition)?;
        Ok(bucket.store(&request.key, body, request.attributes, None))
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()> {
        self.count(RequestKind::Delete);
        let mut bucket = self.bucket.lock();
        if let Some(etag) = if_match {
            bucket.check(key, &WriteCondition::Matches(etag.clone()))?;
        }
        bucket.objects.remove(key.as_str());
        Ok(())
    }

    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        self.count(RequestKind::DeleteMany);
        if keys.len() > KEYS_PER_REQUEST_MAX {
            return Err(StoreError::Fatal("DeleteObjects takes at most 1000 keys".into()));
        }
        let mut bucket = self.bucket.lock();
        for key in keys {
            bucket.objects.remove(key.as_str());
        }
        Ok(Vec::new())
    }

    async fn copy(&self, request: CopyRequest) -> StoreResult<ObjectInfo> {
        self.count(RequestKind::Copy);
        let mut bucket = self.bucket.lock();
        let source = bucket.find(request.source.key())?.clone();
        if source.etag != *request.source.etag() {
            return Err(StoreError::PreconditionFailed);
        }
        source.refuse_archived()?;
        if source.body.len() as u64 > PUT_BYTES_MAX {
            return Err(StoreError::TooLarge("one copy takes at most 5 GiB".into()));
        }
        bucket.check(&request.key, &request.condition)?;
        let attributes = request.attributes.unwrap_or_else(|| source.attributes.clone());
        Ok(bucket.store(&request.key, source.body.clone(), attributes, None))
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        self.count(RequestKind::CreateUpload);
        let mut bucket = self.bucket.lock();
        bucket.next += 1;
        let id = UploadId(format!("upload-{}", bucket.next).into());
        let upload = Upload { key: key.clone(), attributes, parts: BTreeMap::new(), initiated: SystemTime::now() };
        bucket.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart> {
        self.count(RequestKind::UploadPart);
        let body = joined(&payload);
        self.bucket.lock().add_part(key, upload, number, body)
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        self.count(RequestKind::CopyPart);
        let mut bucket = self.bucket.lock();
        let object = bucket.find(source.key())?.clone();
        if object.etag != *source.etag() {
            return Err(StoreError::PreconditionFailed);
        }
        if range.is_empty() || range.end > object.body.len() as u64 || range.len() > PUT_BYTES_MAX {
            return Err(StoreError::RangeNotSatisfiable { size_bytes: Some(object.body.len() as u64) });
        }
        let body = object.body.slice(range.start as usize..range.end as usize);
        bucket.add_part(key, upload, number, body)
    }

    async fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo> {
        self.count(RequestKind::CompleteUpload);
        let mut bucket = self.bucket.lock();
        bucket.upload(&request.key, &request.upload)?;
        bucket.check(&request.key, &request.condition)?;
        let upload = bucket.upload(&request.key, &request.upload)?;
        let mut body = BytesMut::new();
        let mut hasher = DefaultHasher::new();
        let mut before = 0;
        for (index, part) in request.parts.iter().enumerate() {
            let Some((bytes, etag)) = upload.parts.get(&part.number) else {
                return Err(StoreError::Fatal(format!("InvalidPart: {}", part.number)));
            };
            if *etag != part.etag || part.number <= before {
                return Err(StoreError::Fatal(format!("InvalidPart or InvalidPartOrder: {}", part.number)));
            }
            before = part.number;
            if index + 1 < request.parts.len() && (bytes.len() as u64) < self.part_bytes_min {
                return Err(StoreError::Fatal(format!("EntityTooSmall: part {}", part.number)));
            }
            etag.hash(&mut hasher);
            body.extend_from_slice(bytes);
        }
        if request.parts.is_empty() || body.len() as u64 != request.size_bytes {
            return Err(StoreError::Fatal("MalformedXML or wrong x-amz-mp-object-size".into()));
        }
        let etag = ETag::new(format!("\"{:032x}-{}\"", hasher.finish(), request.parts.len()));
        let attributes = upload.attributes.clone();
        bucket.uploads.remove(&request.upload);
        Ok(bucket.store(&request.key, body.freeze(), attributes, Some(etag)))
    }

    async fn abort_upload(&self, _key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        self.count(RequestKind::AbortUpload);
        self.bucket.lock().uploads.remove(upload);
        Ok(())
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        self.count(RequestKind::ListUploads);
        let bucket = self.bucket.lock();
        let pending = bucket.uploads.iter().filter(|(_, upload)| upload.key.as_str().starts_with(prefix));
        Ok(pending
            .map(|(id, upload)| PendingUpload {
                key: upload.key.clone(),
                upload: id.clone(),
                initiated: upload.initiated,
            })
            .collect())
    }
}
