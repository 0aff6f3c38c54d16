//! Operations on single objects.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use md5::{Digest, Md5};
use serde::Deserialize;

use crate::answer::{
    Answer, BAD_DIGEST, INVALID_OBJECT_STATE, KEY_TOO_LONG, MALFORMED, NO_SUCH_BUCKET, NO_SUCH_KEY,
    PRECONDITION_FAILED, Refusal, elements, escaped,
};
use crate::call::{Call, range_of};
use crate::content::Content;
use crate::endpoint::Endpoint;
use crate::storage::{Held, Object};

/// Largest object that one request writes: 5 GiB.
pub(crate) const PUT_BYTES_MAX: u64 = 5 << 30;

/// The digest of a body from which its tag is made.
pub(crate) fn digest(endpoint: &Endpoint, chunks: &[Bytes]) -> [u8; 16] {
    if endpoint.fast_etags {
        let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        let mut len = 0_u64;
        for chunk in chunks {
            crc.update(chunk);
            len += chunk.len() as u64;
        }
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&crc.finalize().to_be_bytes());
        digest[8..].copy_from_slice(&len.to_be_bytes());
        return digest;
    }
    let mut md5 = Md5::new();
    for chunk in chunks {
        md5.update(chunk);
    }
    md5.finalize().into()
}

/// The tag of an object whose bytes came in one request. One that is no MD5 has the form of those of multipart uploads:
/// clients compare every other tag with the MD5 of what they read or wrote.
fn tag(endpoint: &Endpoint, chunks: &[Bytes]) -> String {
    let digits = hex(&digest(endpoint, chunks));
    if endpoint.fast_etags { format!("\"{digits}-1\"") } else { format!("\"{digits}\"") }
}

/// Digits of a digest.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A time as HTTP headers have it (RFC 9110, IMF-fixdate).
pub(crate) fn http_date(time: SystemTime) -> String {
    let (days, seconds, (year, month, day)) = civil(time);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = months[month as usize - 1];
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {name} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// A time as LIST has it.
pub(crate) fn iso_date(time: SystemTime) -> String {
    let (_, seconds, (year, month, day)) = civil(time);
    let milliseconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// Days since 1970, seconds of the day, and the date (Howard Hinnant's `civil_from_days`).
fn civil(time: SystemTime) -> (u64, u64, (u64, u64, u64)) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, seconds) = (since / 86_400, since % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (days, seconds, (year_of_era + era * 400 + u64::from(month <= 2), month, day))
}

/// Checks the checksums that came with a body.
pub(crate) fn check_digests(call: &Call) -> Result<(), Refusal> {
    if let Some(sent) = call.header("x-amz-checksum-crc64nvme") {
        let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        for chunk in &call.body {
            crc.update(chunk);
        }
        if base64(&crc.finalize().to_be_bytes()) != sent {
            return Err(BAD_DIGEST);
        }
    }
    for (name, algorithm) in [
        ("x-amz-checksum-crc32", crc_fast::CrcAlgorithm::Crc32IsoHdlc),
        ("x-amz-checksum-crc32c", crc_fast::CrcAlgorithm::Crc32Iscsi),
    ] {
        if let Some(sent) = call.header(name) {
            let mut crc = crc_fast::Digest::new(algorithm);
            for chunk in &call.body {
                crc.update(chunk);
            }
            if base64(&(crc.finalize() as u32).to_be_bytes()) != sent {
                return Err(BAD_DIGEST);
            }
        }
    }
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, &byte| (word << 8) | u32::from(byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * index)) as usize & 63];
            out.push(if index <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// The condition of a write against what the key holds now.
pub(crate) fn check_write(endpoint: &Endpoint, call: &Call, held: &Held) -> Result<(), Refusal> {
    if call.key.len() > 1024 {
        return Err(KEY_TOO_LONG);
    }
    let objects = held.buckets.get(&call.bucket).ok_or(NO_SUCH_BUCKET)?;
    if endpoint.shaping.ignores_conditions() {
        return Ok(());
    }
    let present = objects.get(&call.key);
    if call.header("if-none-match").is_some() && present.is_some() {
        return Err(PRECONDITION_FAILED);
    }
    match (call.header("if-match"), present) {
        (Some(_), None) => Err(NO_SUCH_KEY),
        (Some(wanted), Some(object)) if wanted != "*" && wanted != object.etag => Err(PRECONDITION_FAILED),
        _ => Ok(()),
    }
}

/// Names a version of an object: the same for as long as it is not written anew.
fn version_id(object: &Object) -> String {
    let written = object.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    hex(&Md5::digest(format!("{} {written}", object.etag)))
}

/// An answer about an object, which names its version where the bucket keeps versions.
pub(crate) fn of_version(endpoint: &Endpoint, object: &Object, answer: Answer) -> Answer {
    if endpoint.shaping.is_versioned() { answer.with("x-amz-version-id", version_id(object)) } else { answer }
}

/// PutObject.
pub(crate) fn put(endpoint: &Endpoint, call: Call) -> Result<Answer, Refusal> {
    check_digests(&call)?;
    let etag = tag(endpoint, &call.body);
    let carried = call.carried();
    let mut held = endpoint.storage.held.lock();
    check_write(endpoint, &call, &held)?;
    let content = endpoint.content(call.body);
    if content.len() > PUT_BYTES_MAX {
        return Err(Refusal(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size"));
    }
    let object = Object { content, etag: etag.clone(), modified: SystemTime::now(), carried };
    endpoint.storage.wrote(&call.bucket, &call.key, &object);
    let answer = of_version(endpoint, &object, Answer::of(200).with("etag", etag));
    let objects = held.buckets.get_mut(&call.bucket).ok_or(NO_SUCH_BUCKET)?;
    objects.insert(call.key, object);
    Ok(answer)
}

/// GetObject and HeadObject.
pub(crate) fn get(endpoint: &Endpoint, call: &Call, with_body: bool) -> Result<Answer, Refusal> {
    let object = {
        let held = endpoint.storage.held.lock();
        let objects = held.buckets.get(&call.bucket).ok_or(NO_SUCH_BUCKET)?;
        objects.get(&call.key).cloned().ok_or(NO_SUCH_KEY)?
    };
    if call.query.get("versionId").is_some_and(|wanted| *wanted != version_id(&object)) {
        return Err(Refusal(404, "NoSuchVersion", "The specified version does not exist."));
    }
    if call.header("if-match").is_some_and(|wanted| wanted != "*" && wanted != object.etag) {
        return Err(PRECONDITION_FAILED);
    }
    if call.header("if-none-match").is_some_and(|known| known == "*" || known == object.etag) {
        return Ok(Answer::of(304).with("etag", object.etag));
    }
    if with_body && matches!(object.carried.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE")) {
        return Err(INVALID_OBJECT_STATE);
    }
    let size = object.content.len();
    let range = range_of(call.header("range"), size)?;
    let (start, end) = range.unwrap_or((0, size));
    let mut answer = Answer::of(if range.is_some() { 206 } else { 200 })
        .with("etag", object.etag.clone())
        .with("last-modified", http_date(object.modified))
        .with("accept-ranges", "bytes")
        .with("content-length", (end - start).to_string())
        .with("content-type", object.carried.content_type.clone().unwrap_or("binary/octet-stream".into()));
    if range.is_some() {
        answer = answer.with("content-range", format!("bytes {start}-{}/{size}", end - 1));
    }
    if let Some(class) = object.carried.storage_class.clone() {
        answer = answer.with("x-amz-storage-class", class);
    }
    for (name, value) in &object.carried.headers {
        if let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) {
            answer.headers.push((name, value.clone()));
        }
    }
    for (name, value) in &object.carried.metadata {
        if let Ok(name) = http::HeaderName::from_bytes(format!("x-amz-meta-{name}").as_bytes()) {
            answer.headers.push((name, value.clone()));
        }
    }
    if call.header("x-amz-checksum-mode").is_some() && range.is_none() {
        for (name, value) in &object.carried.checksums {
            if let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) {
                answer.headers.push((name, value.clone()));
            }
        }
    }
    answer = of_version(endpoint, &object, answer);
    if with_body {
        answer.body = object.content.slice(start, end);
    }
    Ok(answer)
}

/// DeleteObject.
pub(crate) fn delete(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let mut held = endpoint.storage.held.lock();
    if call.header("if-match").is_some() {
        check_write(endpoint, call, &held)?;
    }
    let objects = held.buckets.get_mut(&call.bucket).ok_or(NO_SUCH_BUCKET)?;
    if objects.remove(&call.key).is_some() {
        endpoint.storage.deleted(&call.bucket, &call.key);
    }
    // A bucket with versions hides the object behind a marker.
    let answer = Answer::of(204);
    Ok(if endpoint.shaping.is_versioned() { answer.with("x-amz-delete-marker", "true") } else { answer })
}

/// What cannot be in XML 1.0.
fn is_forbidden(letter: char) -> bool {
    matches!(letter, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// DeleteObjects.
pub(crate) fn delete_many(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let text = call.text();
    let keys = elements(&text, "Key");
    // Neither raw nor as a reference (XML 1.0, "Characters").
    if text.contains(is_forbidden) || keys.iter().any(|key| key.contains(is_forbidden)) {
        return Err(MALFORMED);
    }
    if keys.is_empty() || keys.len() > 1000 {
        return Err(MALFORMED);
    }
    let mut held = endpoint.storage.held.lock();
    let objects = held.buckets.get_mut(&call.bucket).ok_or(NO_SUCH_BUCKET)?;
    let mut deleted = String::new();
    for key in keys {
        if objects.remove(&key).is_some() {
            endpoint.storage.deleted(&call.bucket, &key);
        }
        deleted.push_str(&format!("<Deleted><Key>{}</Key></Deleted>", escaped(&key)));
    }
    Ok(Answer::xml(&format!("<DeleteResult>{deleted}</DeleteResult>")))
}

/// The source of a copy, its conditions checked.
pub(crate) fn copy_source(call: &Call, held: &Held) -> Result<Object, Refusal> {
    let (bucket, key) = call.copy_source().ok_or(MALFORMED)?;
    let objects = held.buckets.get(&bucket).ok_or(NO_SUCH_BUCKET)?;
    let object = objects.get(&key).cloned().ok_or(NO_SUCH_KEY)?;
    if call.header("x-amz-copy-source-if-match").is_some_and(|wanted| wanted != object.etag) {
        return Err(PRECONDITION_FAILED);
    }
    Ok(object)
}

/// CopyObject.
pub(crate) fn copy(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let mut held = endpoint.storage.held.lock();
    let mut object = copy_source(call, &held)?;
    if object.content.len() > PUT_BYTES_MAX {
        return Err(Refusal(
            400,
            "InvalidRequest",
            "The specified copy source is larger than the maximum allowable size",
        ));
    }
    check_write(endpoint, call, &held)?;
    if call.header("x-amz-metadata-directive") == Some("REPLACE") {
        object.carried = call.carried();
    }
    // Of all that the source carries this is never taken along: without the header the copy is STANDARD.
    object.carried.storage_class = call.carried().storage_class;
    // S3 computes a new tag for what came in parts. Synthetic bytes are not worth it.
    if object.etag.contains('-') && !matches!(object.content, Content::Synthetic { .. }) {
        object.etag = tag(endpoint, &object.content.slice(0, object.content.len()));
    }
    object.modified = SystemTime::now();
    endpoint.storage.wrote(&call.bucket, &call.key, &object);
    let text = format!(
        "<CopyObjectResult><LastModified>{}</LastModified><ETag>{}</ETag></CopyObjectResult>",
        iso_date(object.modified),
        escaped(&object.etag)
    );
    let answer = of_version(endpoint, &object, Answer::xml(&text));
    let objects = held.buckets.get_mut(&call.bucket).ok_or(NO_SUCH_BUCKET)?;
    objects.insert(call.key.clone(), object);
    Ok(answer)
}

/// A synthetic object, put by control.
pub(crate) fn put_synthetic(endpoint: &Endpoint, bucket: &str, key: &str, size: u64, seed: u64) {
    let object = Object {
        content: Content::Synthetic { seed, len: size },
        etag: format!("\"{seed:016x}{size:016x}-1\""),
        modified: SystemTime::now(),
        carried: crate::storage::Carried::default(),
    };
    endpoint.storage.create_bucket(bucket);
    endpoint.storage.held.lock().buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), object);
}

/// Many objects at once, put by control: a flat directory, or a tree of one level.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticTree {
    /// Bucket, made if it is not there.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: String,
    /// Directories `d0000`, `d0001`, ... to put the files in; 0 puts them under the prefix itself.
    #[serde(default)]
    pub directories: u64,
    /// Files in each directory.
    pub files: u64,
    /// Length of each object in bytes.
    #[serde(default)]
    pub size: u64,
    /// Names are numbers in order (`f0000000.dat`), or 16 hexadecimal digits that are spread evenly.
    #[serde(default)]
    pub hashed: bool,
}

/// Puts a tree of synthetic objects.
pub(crate) fn put_synthetic_tree(endpoint: &Endpoint, tree: &SyntheticTree) {
    endpoint.storage.create_bucket(&tree.bucket);
    let mut held = endpoint.storage.held.lock();
    let objects = held.buckets.entry(tree.bucket.clone()).or_default();
    let modified = SystemTime::now();
    for directory in 0..tree.directories.max(1) {
        let below = if tree.directories == 0 { String::new() } else { format!("d{directory:04}/") };
        for file in 0..tree.files {
            // An odd multiplier permutes the 64-bit numbers, so that names stay distinct.
            let spread = (file + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let name = if tree.hashed { format!("{spread:016x}") } else { format!("f{file:07}.dat") };
            let object = Object {
                content: Content::Synthetic { seed: 1, len: tree.size },
                etag: format!("\"{spread:016x}{directory:016x}-1\""),
                modified,
                carried: crate::storage::Carried::default(),
            };
            objects.insert(format!("{}{below}{name}", tree.prefix), object);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_what_http_and_s3_write() {
        let time = UNIX_EPOCH + Duration::from_millis(784_111_777_123);
        assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso_date(time), "1994-11-06T08:49:37.123Z");
    }

    #[test]
    fn a_tag_that_is_no_md5_is_not_taken_for_one() {
        let mut endpoint = Endpoint {
            storage: crate::storage::Storage::open(None, &[]).expect("no folder"),
            shaping: crate::shaping::Shaping::default(),
            region: String::new(),
            fast_etags: false,
            discard: false,
            began: std::time::Instant::now(),
        };
        let chunks = [Bytes::from_static(b"hello")];
        assert_eq!(tag(&endpoint, &chunks), "\"5d41402abc4b2a76b9719d911017c592\"");
        endpoint.fast_etags = true;
        assert!(tag(&endpoint, &chunks).ends_with("-1\""));
    }

    #[test]
    fn base64_is_padded() {
        assert_eq!(base64(b"hello"), "aGVsbG8=");
        assert_eq!(base64(b""), "");
    }
}
