//! S3 through the AWS SDK: each call of the trait is one request, sent once.
//!
//! The only caller of aws-sdk-s3. Owns the client and the bucket's name; never retries (`retry.rs` does), never decides.
//! Invariants: what is sent carries a CRC-64/NVME that was computed here, in a header, over an unsigned and unchunked
//! body; what is received has exactly the promised length.

mod answers;
mod body;
mod check;
mod client;
mod connect;
mod credentials;
mod date;
mod errors;
mod examine;
mod profile;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Delete, EncodingType,
    MetadataDirective, ObjectIdentifier, StorageClass,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use self::client::Access;
pub use self::client::{ServiceAccess, service_access};
pub use self::connect::{ConnectError, S3Settings, connect};
pub use self::credentials::{CredentialsTold, Renewing};
use self::date::AnswerDate;
use self::errors::{Asked, Refusal, classify, store_error};
pub use self::examine::{Examination, examine};
use super::checksum::Crc64;
use super::{
    CompleteRequest, CopyRequest, Fingerprint, GetRange, GetRequest, GetResponse, KEYS_PER_REQUEST_MAX, ListPage,
    ListRequest, ObjectAttributes, ObjectStore, Payload, PendingUpload, PutRequest, StoreError, StoreResult, UploadId,
    UploadedPart, WriteCondition,
};
use crate::clock::Clock;
use crate::metrics::RequestKind;
use crate::types::{ByteRange, ContentHeaders, ETag, ObjectInfo, ObjectKey, ObjectMetadata, ObjectVersion};

/// Refusals without a code are laid to the clock for so long after that was noticed: their requests were on their way.
const SKEW_GRACE: Duration = Duration::from_secs(30);

/// A bucket behind the SDK.
#[derive(Clone, Debug)]
pub struct S3Store {
    client: Client,
    credentials: Option<Renewing>,
    bucket: Arc<str>,
    clock: Clock,
    /// Uploads are declared to have a CRC-64/NVME, and Complete names that of the whole.
    sums_up_uploads: bool,
    /// When it was first noticed, and told, that the clock is wrong.
    skew_noticed: Arc<OnceLock<Instant>>,
}

/// The header values of a condition: If-Match and If-None-Match.
fn condition_headers(condition: &WriteCondition) -> (Option<String>, Option<String>) {
    match condition {
        WriteCondition::None => (None, None),
        WriteCondition::Absent => (None, Some("*".to_owned())),
        WriteCondition::Matches(etag) => (Some(etag.as_str().to_owned()), None),
    }
}

/// Sets what an object is to carry beside its bytes and its class, on the calls that make one: the SDK's builders have no trait in
/// common.
macro_rules! carrying {
    ($call:expr, $attributes:expr) => {{
        let headers = $attributes.headers.clone().unwrap_or_default();
        $call
            .set_content_type($attributes.content_type.as_deref().map(str::to_owned))
            .set_metadata(user_metadata(&$attributes.metadata))
            .set_cache_control(headers.cache_control.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_language(headers.content_language.clone())
            .set_website_redirect_location(headers.website_redirect_location.clone())
            .set_expires(expires(&headers))
    }};
}

/// Expires as the SDK wants it; what is no date is left out.
fn expires(headers: &ContentHeaders) -> Option<aws_smithy_types::DateTime> {
    let format = aws_smithy_types::date_time::Format::HttpDate;
    aws_smithy_types::DateTime::from_str(headers.expires.as_deref()?, format).ok()
}

fn user_metadata(metadata: &ObjectMetadata) -> Option<std::collections::HashMap<String, String>> {
    (!metadata.is_empty()).then(|| metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn range_header(range: ByteRange) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// The checksum of the whole object, if that of every part is known.
fn combined_checksum(parts: &[UploadedPart]) -> Option<Crc64> {
    parts.iter().try_fold(Crc64::EMPTY, |so_far, part| {
        Some(so_far.followed_by(Crc64::from_base64(part.crc64nvme.as_deref()?)?, part.size_bytes))
    })
}

impl S3Store {
    fn new(access: Access, bucket: &str, clock: Clock) -> Self {
        let Access { client, credentials } = access;
        Self { client, credentials, bucket: bucket.into(), clock, sums_up_uploads: true, skew_noticed: Arc::default() }
    }

    /// For a server that sums up copied parts wrongly: an object with a wrong checksum is one that other programs
    /// refuse to read.
    fn without_sums_of_uploads(mut self) -> Self {
        self.sums_up_uploads = false;
        self
    }

    fn failed<E>(&self, kind: RequestKind) -> impl FnOnce(SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        move |error| {
            let told = store_error(Asked { kind, bucket: &self.bucket }, &error);
            if let (StoreError::ExpiredCredentials(_), Some(credentials)) = (&told, &self.credentials) {
                credentials.refused();
            }
            // The SDK measures the difference by each answer and signs the next request with S3's time.
            let Some(skew) = errors::skew(&error, self.clock.wall()) else {
                let is_doubted =
                    errors::is_unexplained(kind, &error) && self.credentials.as_ref().is_some_and(Renewing::doubted);
                return if is_doubted { StoreError::Unexplained(Box::new(told)) } else { told };
            };
            let now = self.clock.now();
            let noticed = *self.skew_noticed.get_or_init(|| {
                tracing::warn!("{skew}");
                now
            });
            if now.saturating_duration_since(noticed) < SKEW_GRACE { skew } else { told }
        }
    }

    /// What we know of an object that we have just written. Its time is the server's when it answered (a later HEAD may
    /// tell another: S3 dates a multipart object by the begin of its upload), else ours.
    fn written(
        &self,
        version: ObjectVersion,
        size_bytes: u64,
        date: &AnswerDate,
        attributes: Option<&ObjectAttributes>,
    ) -> ObjectInfo {
        ObjectInfo {
            version,
            size_bytes,
            last_modified: date.get().unwrap_or_else(|| self.clock.wall()),
            metadata: attributes.map(|attributes| Arc::clone(&attributes.metadata)),
            content_type: attributes.and_then(|attributes| attributes.content_type.clone()),
            storage_class: attributes.and_then(|attributes| attributes.storage_class.clone()),
            headers: attributes.and_then(|attributes| attributes.headers.clone()),
        }
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        let request = self.client.head_object().bucket(&*self.bucket).key(key.as_str());
        let output = request.send().await.map_err(self.failed(RequestKind::Head))?;
        answers::head(key, &output)
    }

    async fn fingerprint(&self, key: &ObjectKey) -> StoreResult<Fingerprint> {
        let request = self.client.head_object().bucket(&*self.bucket).key(key.as_str());
        let request = request.checksum_mode(ChecksumMode::Enabled);
        let output = request.send().await.map_err(self.failed(RequestKind::Head))?;
        let crc64nvme = output.checksum_crc64_nvme().and_then(Crc64::from_base64);
        Ok(Fingerprint { info: answers::head(key, &output)?, crc64nvme })
    }

    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        let key = request.key;
        let range = match request.range {
            GetRange::Whole => None,
            GetRange::Bytes(range) => Some(range_header(range)),
            GetRange::Suffix(len) => Some(format!("bytes=-{len}")),
        };
        // Asked for by hand: the SDK would verify whatever comes, and there are servers that answer a range with the
        // checksum of the whole, or one algorithm's under the name of another.
        // One of a range that begins the object may turn out to be all of it.
        let wants_checksum = match request.range {
            GetRange::Whole => true,
            GetRange::Bytes(range) => range.start == 0,
            GetRange::Suffix(_) => false,
        };
        let mut output = self
            .client
            .get_object()
            .bucket(&*self.bucket)
            .key(key.as_str())
            .set_range(range)
            .set_if_match(request.if_match.map(|etag| etag.as_str().to_owned()))
            .set_if_none_match(request.if_none_match.map(|etag| etag.as_str().to_owned()))
            .customize()
            .mutate_request(move |request| {
                if wants_checksum {
                    request.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
                }
            })
            .send()
            .await
            .map_err(self.failed(RequestKind::Get))?;
        let (info, range) = answers::get(&key, request.range, &output)?;
        let of_whole = output.checksum_type().is_none_or(|kind| *kind == ChecksumType::FullObject);
        let is_whole = range == ByteRange::new(0, info.size_bytes);
        let checksum = output.checksum_crc64_nvme().filter(|_| wants_checksum && of_whole && is_whole);
        let checksum = checksum.and_then(Crc64::from_base64);
        let body = body::receive(std::mem::take(&mut output.body), range.len(), checksum);
        Ok(GetResponse { info, range, is_summed: checksum.is_some(), body })
    }

    async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        let keys_max = request.keys_max.unwrap_or(KEYS_PER_REQUEST_MAX).clamp(1, KEYS_PER_REQUEST_MAX);
        let start_after = request.start_after.clone().filter(|_| request.continuation.is_none());
        let output = self
            .client
            .list_objects_v2()
            .bucket(&*self.bucket)
            .set_prefix(Some(request.prefix.clone()).filter(|prefix| !prefix.is_empty()))
            .set_delimiter(request.delimited.then(|| "/".to_owned()))
            .set_start_after(start_after)
            .set_continuation_token(request.continuation.clone())
            .max_keys(keys_max as i32)
            .encoding_type(EncodingType::Url)
            .send()
            .await
            .map_err(self.failed(RequestKind::List))?;
        answers::page(&request, &output)
    }

    async fn put(&self, request: PutRequest) -> StoreResult<ObjectInfo> {
        let date = AnswerDate::default();
        let size_bytes = request.payload.len_bytes();
        let attributes = &request.attributes;
        let (if_match, if_none_match) = condition_headers(&request.condition);
        let output = carrying!(self.client.put_object(), attributes)
            .bucket(&*self.bucket)
            .key(request.key.as_str())
            .set_storage_class(attributes.storage_class.as_deref().map(StorageClass::from))
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .content_length(size_bytes as i64)
            .checksum_crc64_nvme(request.payload.crc64nvme().to_base64())
            .body(body::send(request.payload.clone()))
            .customize()
            .disable_payload_signing()
            .interceptor(date.clone())
            .send()
            .await
            .map_err(self.failed(RequestKind::Put))?;
        let version = answers::version(&request.key, output.e_tag(), output.version_id())?;
        Ok(self.written(version, size_bytes, &date, Some(attributes)))
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()> {
        let request = self.client.delete_object().bucket(&*self.bucket).key(key.as_str());
        let request = request.set_if_match(if_match.map(|etag| etag.as_str().to_owned()));
        match request.send().await.map_err(self.failed(RequestKind::Delete)) {
            Ok(_) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let objects = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(key.as_str()).build())
            .collect::<Result<Vec<_>, _>>()
            .and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build())
            .map_err(|error| StoreError::Fatal(error.to_string()))?;
        let request = self.client.delete_objects().bucket(&*self.bucket).delete(objects);
        let output = request.send().await.map_err(self.failed(RequestKind::DeleteMany))?;
        let mut failures = Vec::new();
        for refused in output.errors() {
            let refusal = Refusal { code: refused.code(), message: refused.message(), ..Refusal::default() };
            let error = classify(Asked { kind: RequestKind::DeleteMany, bucket: &self.bucket }, refusal);
            if !matches!(error, StoreError::NotFound) {
                failures.push((ObjectKey::from(refused.key().unwrap_or_default()), error));
            }
        }
        Ok(failures)
    }

    async fn copy(&self, request: CopyRequest) -> StoreResult<ObjectInfo> {
        let date = AnswerDate::default();
        let (if_match, if_none_match) = condition_headers(&request.condition);
        let mut call = self
            .client
            .copy_object()
            .bucket(&*self.bucket)
            .key(request.key.as_str())
            .copy_source(answers::copy_source(&self.bucket, &request.source))
            .copy_source_if_match(request.source.etag().as_str())
            .set_storage_class(request.storage_class().map(|class| StorageClass::from(&**class)))
            .set_if_match(if_match)
            .set_if_none_match(if_none_match);
        if let Some(attributes) = &request.attributes {
            call = carrying!(call.metadata_directive(MetadataDirective::Replace), attributes);
        }
        let output = call.customize().interceptor(date.clone()).send().await.map_err(self.failed(RequestKind::Copy))?;
        let result = output.copy_object_result();
        let etag = result.and_then(|result| result.e_tag());
        let version = answers::version(&request.key, etag, output.version_id())?;
        let mut info = self.written(version, 0, &date, request.attributes.as_ref());
        info.storage_class = request.storage_class().cloned();
        if let Some(modified) = result.and_then(|result| result.last_modified()) {
            info.last_modified = answers::time(modified);
        }
        Ok(info)
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        let output = carrying!(self.client.create_multipart_upload(), attributes)
            .bucket(&*self.bucket)
            .key(key.as_str())
            .set_storage_class(attributes.storage_class.as_deref().map(StorageClass::from))
            .set_checksum_algorithm(self.sums_up_uploads.then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(self.sums_up_uploads.then_some(ChecksumType::FullObject))
            .send()
            .await
            .map_err(self.failed(RequestKind::CreateUpload))?;
        let id = output.upload_id().filter(|id| !id.is_empty());
        let missing = || StoreError::Unsupported("the server names no upload".into());
        Ok(UploadId(id.ok_or_else(missing)?.into()))
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart> {
        let size_bytes = payload.len_bytes();
        let crc64nvme = payload.crc64nvme().to_base64();
        let output = self
            .client
            .upload_part()
            .bucket(&*self.bucket)
            .key(key.as_str())
            .upload_id(&*upload.0)
            .part_number(number as i32)
            .content_length(size_bytes as i64)
            .checksum_crc64_nvme(&crc64nvme)
            .body(body::send(payload))
            .customize()
            .disable_payload_signing()
            .send()
            .await
            .map_err(self.failed(RequestKind::UploadPart))?;
        let etag = answers::version(key, output.e_tag(), None)?.etag().clone();
        Ok(UploadedPart { number, size_bytes, etag, crc64nvme: Some(crc64nvme) })
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        let output = self
            .client
            .upload_part_copy()
            .bucket(&*self.bucket)
            .key(key.as_str())
            .upload_id(&*upload.0)
            .part_number(number as i32)
            .copy_source(answers::copy_source(&self.bucket, source))
            .copy_source_if_match(source.etag().as_str())
            .copy_source_range(range_header(range))
            .send()
            .await
            .map_err(self.failed(RequestKind::CopyPart))?;
        let result = output.copy_part_result();
        let etag = answers::version(key, result.and_then(|part| part.e_tag()), None)?.etag().clone();
        let crc64nvme = result.and_then(|part| part.checksum_crc64_nvme()).map(str::to_owned);
        let crc64nvme = crc64nvme.filter(|_| self.sums_up_uploads);
        Ok(UploadedPart { number, size_bytes: range.len(), etag, crc64nvme })
    }

    async fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo> {
        let date = AnswerDate::default();
        let (if_match, if_none_match) = condition_headers(&request.condition);
        let parts = request.parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number as i32)
                .e_tag(part.etag.as_str())
                .set_checksum_crc64_nvme(part.crc64nvme.clone().filter(|_| self.sums_up_uploads))
                .build()
        });
        let checksum = combined_checksum(&request.parts).filter(|_| self.sums_up_uploads);
        let output = self
            .client
            .complete_multipart_upload()
            .bucket(&*self.bucket)
            .key(request.key.as_str())
            .upload_id(&*request.upload.0)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build())
            .set_checksum_type(checksum.map(|_| ChecksumType::FullObject))
            .set_checksum_crc64_nvme(checksum.map(Crc64::to_base64))
            .mpu_object_size(request.size_bytes as i64)
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .customize()
            .interceptor(date.clone())
            .send()
            .await
            .map_err(self.failed(RequestKind::CompleteUpload))?;
        // Without a tag nothing says that the object stands: to be settled by looking.
        let tag = output.e_tag().filter(|tag| !tag.is_empty());
        let etag = tag.ok_or_else(|| StoreError::Transient("Complete was answered without an ETag".into()))?;
        let version = answers::version(&request.key, Some(etag), output.version_id())?;
        Ok(self.written(version, request.size_bytes, &date, None))
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        let request = self.client.abort_multipart_upload().bucket(&*self.bucket).key(key.as_str());
        match request.upload_id(&*upload.0).send().await.map_err(self.failed(RequestKind::AbortUpload)) {
            Ok(_) | Err(StoreError::NoSuchUpload | StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        let mut pending = Vec::new();
        let (mut key_marker, mut upload_marker) = (None, None);
        loop {
            let output = self
                .client
                .list_multipart_uploads()
                .bucket(&*self.bucket)
                .set_prefix(Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()))
                .set_key_marker(key_marker)
                .set_upload_id_marker(upload_marker)
                .encoding_type(EncodingType::Url)
                .send()
                .await
                .map_err(self.failed(RequestKind::ListUploads))?;
            let is_encoded = output.encoding_type() == Some(&EncodingType::Url);
            for upload in output.uploads() {
                pending.push(PendingUpload {
                    key: answers::listed_key(upload.key().unwrap_or_default(), is_encoded)?.into(),
                    upload: UploadId(upload.upload_id().unwrap_or_default().into()),
                    initiated: upload.initiated().map_or(std::time::UNIX_EPOCH, answers::time),
                });
            }
            let next = output.next_key_marker().filter(|_| output.is_truncated() == Some(true));
            let Some(next) = next else { return Ok(pending) };
            key_marker = Some(answers::listed_key(next, is_encoded)?);
            upload_marker = output.next_upload_id_marker().map(str::to_owned);
        }
    }
}
