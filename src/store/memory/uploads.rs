//! Multipart uploads of the memory store, with the limits and errors of S3 (user guide, "Multipart upload limits").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Bucket, Object, State, check_attributes, check_condition, check_key, digest};
use crate::metrics::RequestKind;
use crate::store::memory::content::Content;
use crate::store::{
    CompleteRequest, ObjectAttributes, PART_NUMBER_MAX, PUT_BYTES_MAX, Payload, PendingUpload, StoreError, StoreResult,
    UploadId, UploadedPart,
};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

#[derive(Debug)]
pub(super) struct Upload {
    key: ObjectKey,
    attributes: ObjectAttributes,
    initiated: SystemTime,
    parts: BTreeMap<u32, (UploadedPart, Content)>,
}

impl State {
    pub(super) fn pending_uploads(&self, prefix: &str) -> Vec<PendingUpload> {
        let mut pending: Vec<_> = self
            .uploads
            .iter()
            .filter(|(_, upload)| upload.key.as_str().starts_with(prefix))
            .map(|(id, upload)| PendingUpload {
                key: upload.key.clone(),
                upload: UploadId(Arc::clone(id)),
                initiated: upload.initiated,
            })
            .collect();
        pending.sort_by(|a, b| (&a.key, &a.upload.0).cmp(&(&b.key, &b.upload.0)));
        pending
    }

    fn upload(&mut self, key: &ObjectKey, id: &UploadId) -> StoreResult<&mut Upload> {
        self.uploads.get_mut(&id.0).filter(|upload| upload.key == *key).ok_or(StoreError::NoSuchUpload)
    }

    fn add_part(&mut self, key: &ObjectKey, id: &UploadId, number: u32, content: Content) -> StoreResult<UploadedPart> {
        let upload = self.upload(key, id)?;
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(StoreError::Fatal("InvalidArgument: Part number must be from 1 to 10000".into()));
        }
        if content.len_bytes() > PUT_BYTES_MAX {
            return Err(StoreError::TooLarge("EntityTooLarge: Your proposed upload exceeds the maximum".into()));
        }
        let etag = ETag::new(format!("\"{}\"", digest(&content)));
        let crc64nvme = Some(content.crc64nvme().to_base64());
        let part = UploadedPart { number, size_bytes: content.len_bytes(), etag, crc64nvme };
        upload.parts.insert(number, (part.clone(), content));
        Ok(part)
    }
}

impl Bucket {
    pub(super) fn source(&self, state: &State, source: &ObjectVersion) -> StoreResult<Object> {
        let object = state.objects.get(source.key()).ok_or(StoreError::NotFound)?;
        if self.options.capabilities.pinned_copies && object.etag != *source.etag() {
            return Err(StoreError::PreconditionFailed);
        }
        object.refuse_archived()?;
        Ok(object.clone())
    }

    pub(super) fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        let mut state = self.answer(RequestKind::CreateUpload, key.as_str(), None);
        check_key(key)?;
        check_attributes(&attributes)?;
        state.uploads_begun += 1;
        let id: Arc<str> = format!("upload-{:06}", state.uploads_begun).into();
        let upload = Upload { key: key.clone(), attributes, initiated: self.now(), parts: BTreeMap::new() };
        state.uploads.insert(Arc::clone(&id), upload);
        Ok(UploadId(id))
    }

    pub(super) fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: &Payload,
    ) -> StoreResult<UploadedPart> {
        let content = Content::copy_of(payload.chunks());
        self.answer(RequestKind::UploadPart, key.as_str(), None).add_part(key, upload, number, content)
    }

    pub(super) fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        let mut state = self.answer(RequestKind::CopyPart, key.as_str(), Some(range));
        state.upload(key, upload)?;
        let object = self.source(&state, source)?;
        let size_bytes = object.content.len_bytes();
        if range.is_empty() || range.end > size_bytes {
            return Err(StoreError::RangeNotSatisfiable { size_bytes: Some(size_bytes) });
        }
        // API reference, UploadPartCopy, x-amz-copy-source-range.
        if size_bytes <= self.options.part_bytes_min && range.len() < size_bytes {
            return Err(StoreError::Fatal("InvalidRequest: a range can be copied only of a source over 5 MiB".into()));
        }
        let mut part = state.add_part(key, upload, number, object.content.slice(range))?;
        if !self.options.capabilities.copied_checksums {
            part.crc64nvme = Some(object.content.crc64nvme().to_base64());
        }
        Ok(part)
    }

    pub(super) fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo> {
        let mut state = self.answer(RequestKind::CompleteUpload, request.key.as_str(), None);
        let upload = state.upload(&request.key, &request.upload)?;
        let (content, etag) =
            upload.assemble(&request, self.options.part_bytes_min, self.options.capabilities.copied_checksums)?;
        let attributes = upload.attributes.clone();
        if self.options.capabilities.conditional_completes {
            check_condition(state.objects.get(&request.key), &request.condition)?;
        }
        state.uploads.remove(&request.upload.0);
        Ok(self.store(&mut state, request.key, content, Some(etag), attributes))
    }
}

impl Upload {
    fn assemble(
        &self,
        request: &CompleteRequest,
        part_bytes_min: u64,
        is_strict: bool,
    ) -> StoreResult<(Content, ETag)> {
        if request.parts.is_empty() {
            return Err(StoreError::Fatal("MalformedXML: an upload needs at least one part".into()));
        }
        if !request.parts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(StoreError::Fatal("InvalidPartOrder: The list of parts was not in ascending order".into()));
        }
        let mut content = Content::default();
        let mut tags = Vec::new();
        for (index, named) in request.parts.iter().enumerate() {
            let (stored, part) =
                self.parts.get(&named.number).filter(|(stored, _)| stored.etag == named.etag).ok_or_else(|| {
                    StoreError::Fatal(format!("InvalidPart: part {} could not be found", named.number))
                })?;
            if is_strict && named.crc64nvme.is_some() && named.crc64nvme != stored.crc64nvme {
                return Err(StoreError::Fatal(format!("InvalidPart: checksum of part {}", named.number)));
            }
            if part.len_bytes() < part_bytes_min && index + 1 < request.parts.len() {
                return Err(StoreError::Fatal("EntityTooSmall: Your proposed upload is too small".into()));
            }
            content.append(part);
            tags.push(bytes::Bytes::copy_from_slice(stored.etag.as_str().as_bytes()));
        }
        if content.len_bytes() != request.size_bytes {
            return Err(StoreError::Fatal("InvalidRequest: x-amz-mp-object-size does not match".into()));
        }
        let etag = ETag::new(format!("\"{}-{}\"", digest(&Content::copy_of(&tags)), tags.len()));
        Ok((content, etag))
    }
}
