//! Multipart uploads.

use std::time::SystemTime;

use md5::{Digest, Md5};

use crate::answer::{Answer, INVALID_RANGE, MALFORMED, NO_SUCH_BUCKET, NO_SUCH_UPLOAD, Refusal, elements, escaped};
use crate::call::{Call, range_of};
use crate::content::Content;
use crate::endpoint::Endpoint;
use crate::objects::{PUT_BYTES_MAX, check_digests, check_write, copy_source, digest, hex, iso_date, of_version};
use crate::storage::{Held, Object, Part, Upload};

/// Smallest part but the last: 5 MiB.
const PART_BYTES_MIN: u64 = 5 << 20;

fn upload<'a>(call: &Call, held: &'a mut Held) -> Result<&'a mut Upload, Refusal> {
    let id = call.query.get("uploadId").ok_or(MALFORMED)?;
    let upload = held.uploads.get_mut(id).ok_or(NO_SUCH_UPLOAD)?;
    if upload.bucket == call.bucket && upload.key == call.key { Ok(upload) } else { Err(NO_SUCH_UPLOAD) }
}

fn part_number(call: &Call) -> Result<u32, Refusal> {
    call.number("partNumber").filter(|number| (1..=10_000).contains(number)).ok_or(Refusal(
        400,
        "InvalidArgument",
        "Part number must be an integer between 1 and 10000, inclusive",
    ))
}

/// CreateMultipartUpload.
pub(crate) fn create(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let mut held = endpoint.storage.held.lock();
    if !held.buckets.contains_key(&call.bucket) {
        return Err(NO_SUCH_BUCKET);
    }
    held.next += 1;
    let id = format!("upload-{}-{:08x}", held.next, fastrand::u32(..));
    let new = Upload {
        bucket: call.bucket.clone(),
        key: call.key.clone(),
        carried: call.carried(),
        initiated: SystemTime::now(),
        parts: std::collections::BTreeMap::new(),
    };
    held.uploads.insert(id.clone(), new);
    Ok(Answer::xml(&format!(
        "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
        escaped(&call.bucket),
        escaped(&call.key)
    )))
}

/// UploadPart.
pub(crate) fn put_part(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let number = part_number(call)?;
    check_digests(call)?;
    let digest = digest(endpoint, &call.body);
    let etag = format!("\"{}\"", hex(&digest));
    let checksum = call.header("x-amz-checksum-crc64nvme").map(str::to_owned);
    let mut held = endpoint.storage.held.lock();
    upload(call, &mut held)?;
    let content = endpoint.content(call.body.clone());
    upload(call, &mut held)?.parts.insert(number, Part { content, etag: etag.clone(), digest });
    let answer = Answer::of(200).with("etag", etag);
    Ok(match checksum {
        Some(checksum) => answer.with("x-amz-checksum-crc64nvme", checksum),
        None => answer,
    })
}

/// UploadPartCopy.
pub(crate) fn copy_part(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let number = part_number(call)?;
    let mut held = endpoint.storage.held.lock();
    let source = copy_source(call, &held)?;
    let size = source.content.len();
    let header = call.header("x-amz-copy-source-range");
    let (start, end) = range_of(header, size)?.unwrap_or((0, size));
    // A copy's range is not cut at the end, as a GET's is.
    let asked_end = header.and_then(|it| it.rsplit('-').next()?.parse::<u64>().ok());
    if asked_end.is_some_and(|last| last >= size) {
        return Err(INVALID_RANGE);
    }
    if end - start > PUT_BYTES_MAX {
        return Err(Refusal(
            400,
            "InvalidRequest",
            "The specified copy range is larger than the maximum allowable size",
        ));
    }
    let content = source.content.part(start, end);
    // What a copied part's tag is made of nobody can check: its source and range are as good as its bytes.
    let digest: [u8; 16] = Md5::digest(format!("{}{start}-{end}", source.etag)).into();
    let etag = format!("\"{}\"", hex(&digest));
    upload(call, &mut held)?.parts.insert(number, Part { content, etag: etag.clone(), digest });
    Ok(Answer::xml(&format!(
        "<CopyPartResult><LastModified>{}</LastModified><ETag>{}</ETag></CopyPartResult>",
        iso_date(SystemTime::now()),
        escaped(&etag)
    )))
}

/// CompleteMultipartUpload.
pub(crate) fn complete(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let text = call.text();
    let numbers: Option<Vec<u32>> = elements(&text, "PartNumber").iter().map(|number| number.parse().ok()).collect();
    let wanted: Vec<(u32, String)> = numbers.ok_or(MALFORMED)?.into_iter().zip(elements(&text, "ETag")).collect();
    if wanted.is_empty() {
        return Err(MALFORMED);
    }
    let mut held = endpoint.storage.held.lock();
    upload(call, &mut held)?;
    check_write(endpoint, call, &held)?;
    let upload = upload(call, &mut held)?;
    let mut contents = Vec::with_capacity(wanted.len());
    let mut digests = Md5::new();
    let mut before = 0;
    for (index, (number, etag)) in wanted.iter().enumerate() {
        let part = upload.parts.get(number).filter(|part| part.etag.trim_matches('"') == etag.trim_matches('"'));
        let part = part.ok_or(Refusal(400, "InvalidPart", "One or more of the specified parts could not be found."))?;
        if *number <= before {
            return Err(Refusal(400, "InvalidPartOrder", "The list of parts was not in ascending order."));
        }
        before = *number;
        if index + 1 < wanted.len() && part.content.len() < PART_BYTES_MIN {
            return Err(Refusal(
                400,
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
            ));
        }
        digests.update(part.digest);
        contents.push(part.content.clone());
    }
    let etag = format!("\"{}-{}\"", hex(&digests.finalize()), wanted.len());
    let object = Object {
        content: Content::join(&contents),
        etag: etag.clone(),
        modified: SystemTime::now(),
        carried: upload.carried.clone(),
    };
    if call
        .header("x-amz-mp-object-size")
        .and_then(|size| size.parse().ok())
        .is_some_and(|size: u64| size != object.content.len())
    {
        return Err(Refusal(400, "InvalidRequest", "The provided 'x-amz-mp-object-size' header does not match"));
    }
    let id = call.query.get("uploadId").ok_or(MALFORMED)?;
    held.uploads.remove(id);
    endpoint.storage.wrote(&call.bucket, &call.key, &object);
    let answer = Answer::xml(&format!(
        "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
        escaped(&call.bucket),
        escaped(&call.key),
        escaped(&etag)
    ));
    let answer = of_version(endpoint, &object, answer);
    held.buckets.get_mut(&call.bucket).ok_or(NO_SUCH_BUCKET)?.insert(call.key.clone(), object);
    Ok(answer)
}

/// AbortMultipartUpload.
pub(crate) fn abort(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let mut held = endpoint.storage.held.lock();
    upload(call, &mut held)?;
    held.uploads.remove(call.query.get("uploadId").ok_or(MALFORMED)?);
    Ok(Answer::of(204))
}

/// ListMultipartUploads; always one page.
pub(crate) fn list(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let prefix = call.query.get("prefix").map_or("", String::as_str);
    let held = endpoint.storage.held.lock();
    let mut rows = String::new();
    for (id, upload) in &held.uploads {
        if upload.bucket == call.bucket && upload.key.starts_with(prefix) {
            rows.push_str(&format!(
                "<Upload><Key>{}</Key><UploadId>{id}</UploadId><Initiated>{}</Initiated></Upload>",
                crate::listing::spelled(call, &upload.key),
                iso_date(upload.initiated)
            ));
        }
    }
    Ok(Answer::xml(&format!(
        "<ListMultipartUploadsResult><Bucket>{}</Bucket>{}<IsTruncated>false</IsTruncated>{rows}</ListMultipartUploadsResult>",
        escaped(&call.bucket),
        crate::listing::encoding(call)
    )))
}

/// ListParts; always one page.
pub(crate) fn list_parts(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let mut held = endpoint.storage.held.lock();
    let upload = upload(call, &mut held)?;
    let rows: String = upload
        .parts
        .iter()
        .map(|(number, part)| {
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag><Size>{}</Size></Part>",
                escaped(&part.etag),
                part.content.len()
            )
        })
        .collect();
    Ok(Answer::xml(&format!("<ListPartsResult><IsTruncated>false</IsTruncated>{rows}</ListPartsResult>")))
}
