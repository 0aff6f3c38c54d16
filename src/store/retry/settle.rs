//! Lost replies: whether a write that ended in doubt has happened, decided by what stands in the bucket.
//!
//! Pure but for the HEAD that the caller makes. A write is ours if the object has our bytes (by checksum, else by the
//! tag that S3 gives to such bytes) and carries what we gave it; anything less is not. Where nothing can be told, the
//! doubt is passed on as an error, and the caller keeps its bytes.

use md5::{Digest as _, Md5};

use crate::store::checksum::Crc64;
use crate::store::{CompleteRequest, Fingerprint, ObjectAttributes, PutRequest, UploadedPart, WriteCondition};

/// Whether `found` is what `request` would have written.
pub(super) fn is_put(request: &PutRequest, found: &Fingerprint) -> bool {
    let info = &found.info;
    if info.size_bytes != request.payload.len_bytes() || !carries(found, &request.attributes) {
        return false;
    }
    match found.crc64nvme {
        Some(crc) => crc == request.payload.crc64nvme(),
        None => info.etag().as_str() == md5_tag(&request.payload),
    }
}

/// Whether `found` is what `request` would have written. `is_consumed`: the upload is gone from the server. While it is
/// not, an object with the tag that was to be replaced is that one, however alike.
pub(super) fn is_completed(request: &CompleteRequest, found: &Fingerprint, is_consumed: bool) -> bool {
    let info = &found.info;
    let is_replaced = matches!(&request.condition, WriteCondition::Matches(etag) if etag == info.etag());
    if info.size_bytes != request.size_bytes || (is_replaced && !is_consumed) {
        return false;
    }
    match (found.crc64nvme, combined(&request.parts)) {
        (Some(found), Some(ours)) => found == ours,
        _ => multipart_tag(&request.parts).is_some_and(|tag| info.etag().as_str() == tag),
    }
}

/// Whether two objects hold the same bytes.
pub(super) fn is_copied(source: &Fingerprint, found: &Fingerprint) -> bool {
    source.info.size_bytes == found.info.size_bytes
        && match (source.crc64nvme, found.crc64nvme) {
            (Some(source), Some(found)) => source == found,
            _ => source.info.etag() == found.info.etag(),
        }
}

/// Servers lower the case of metadata names, and may add a content type of their own.
fn carries(found: &Fingerprint, wanted: &ObjectAttributes) -> bool {
    let Some(metadata) = &found.info.metadata else { return false };
    metadata.len() == wanted.metadata.len()
        && wanted.metadata.iter().all(|(name, value)| metadata.get(&name.to_ascii_lowercase()) == Some(value))
        && wanted.content_type.as_ref().is_none_or(|wanted| found.info.content_type.as_ref() == Some(wanted))
}

fn combined(parts: &[UploadedPart]) -> Option<Crc64> {
    parts.iter().try_fold(Crc64::EMPTY, |so_far, part| {
        Some(so_far.followed_by(Crc64::from_base64(part.crc64nvme.as_deref()?)?, part.size_bytes))
    })
}

/// The tag of a PUT without KMS: the MD5 of its bytes.
fn md5_tag(payload: &crate::store::Payload) -> String {
    let mut md5 = Md5::new();
    payload.chunks().iter().for_each(|chunk| md5.update(chunk));
    format!("\"{}\"", hex(&md5.finalize()))
}

/// The tag of a multipart object without KMS: the MD5 of the MD5s of its parts, and their number.
fn multipart_tag(parts: &[UploadedPart]) -> Option<String> {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(unhex(part.etag.as_str().trim_matches('"'))?);
    }
    Some(format!("\"{}-{}\"", hex(&md5.finalize()), parts.len()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;

    use super::*;
    use crate::store::UploadId;
    use crate::types::{ETag, ObjectInfo, ObjectVersion};

    fn found(etag: &str, size_bytes: u64, crc64nvme: Option<Crc64>) -> Fingerprint {
        let info = ObjectInfo {
            version: ObjectVersion::new("k".into(), etag.into(), None),
            size_bytes,
            last_modified: UNIX_EPOCH,
            metadata: Some(Arc::default()),
            content_type: Some("binary/octet-stream".into()),
            storage_class: None,
            headers: None,
        };
        Fingerprint { info, crc64nvme }
    }

    fn put(bytes: &'static [u8]) -> PutRequest {
        PutRequest {
            key: "k".into(),
            payload: Bytes::from_static(bytes).into(),
            attributes: ObjectAttributes::default(),
            condition: WriteCondition::Absent,
        }
    }

    #[test]
    fn a_put_is_known_by_its_md5_or_its_checksum() {
        // RFC 1321, A.5: MD5("abc").
        let tag = "\"900150983cd24fb0d6963f7d28e17f72\"";
        assert!(is_put(&put(b"abc"), &found(tag, 3, None)));
        assert!(is_put(&put(b"abc"), &found("\"kms\"", 3, Some(put(b"abc").payload.crc64nvme()))));
        assert!(!is_put(&put(b"abc"), &found("\"kms\"", 3, None)), "nothing can be told: not ours");
        assert!(!is_put(&put(b"abd"), &found(tag, 3, None)));
    }

    #[test]
    fn the_same_bytes_with_other_metadata_are_not_ours() {
        let mut request = put(b"abc");
        request.attributes.metadata = Arc::new([("mode".to_owned(), "33188".to_owned())].into());
        assert!(!is_put(&request, &found("\"900150983cd24fb0d6963f7d28e17f72\"", 3, None)));
    }

    fn part(number: u32, bytes: &'static [u8], with_crc: bool) -> UploadedPart {
        let payload = crate::store::Payload::from(Bytes::from_static(bytes));
        UploadedPart {
            number,
            size_bytes: bytes.len() as u64,
            etag: ETag::new(md5_tag(&payload)),
            crc64nvme: with_crc.then(|| payload.crc64nvme().to_base64()),
        }
    }

    fn complete(parts: Vec<UploadedPart>, condition: WriteCondition) -> CompleteRequest {
        let size_bytes = parts.iter().map(|part| part.size_bytes).sum();
        CompleteRequest { key: "k".into(), upload: UploadId("u".into()), parts, size_bytes, condition }
    }

    #[test]
    fn a_complete_is_known_by_the_tag_of_its_parts_or_their_combined_checksum() {
        let request = complete(vec![part(1, b"ab", true), part(7, b"c", true)], WriteCondition::None);
        let crc = put(b"abc").payload.crc64nvme();
        assert!(is_completed(&request, &found("\"kms-2\"", 3, Some(crc)), false));
        let tag = multipart_tag(&request.parts).unwrap();
        assert!(tag.ends_with("-2\""));
        let without_crc = complete(vec![part(1, b"ab", false), part(7, b"c", true)], WriteCondition::None);
        assert!(is_completed(&without_crc, &found(&tag, 3, Some(crc)), false));
        assert!(!is_completed(&without_crc, &found("\"other-2\"", 3, Some(crc)), false));
    }

    #[test]
    fn an_object_that_was_to_be_replaced_by_its_like_counts_only_once_the_upload_is_gone() {
        let parts = vec![part(1, b"abc", true)];
        let tag = multipart_tag(&parts).unwrap();
        let request = complete(parts, WriteCondition::Matches(tag.as_str().into()));
        let standing = found(&tag, 3, None);
        assert!(!is_completed(&request, &standing, false));
        assert!(is_completed(&request, &standing, true));
    }
}
