//! One request, understood: which operation on which key, with which headers, and its body.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::request::Parts;

use crate::answer::{MALFORMED, Refusal};
use crate::storage::Carried;

/// A request of S3.
#[derive(Debug)]
pub struct Call {
    /// Operation, in S3's spelling.
    pub operation: &'static str,
    /// Bucket.
    pub bucket: String,
    /// Key; empty for operations on the bucket.
    pub key: String,
    /// Query parameters, decoded.
    pub query: BTreeMap<String, String>,
    /// Head of the request.
    pub head: Parts,
    /// Body in chunks as they came.
    pub body: Vec<Bytes>,
}

/// Percent decoding; `plus` also turns `+` into a blank, as in queries.
fn decoded(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if plus && bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What S3 keeps of a content and gives back, beside its type.
const CONTENT_HEADERS: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
];

impl Call {
    /// Understands the head of a request; the body is added by [`Call::with_body`].
    pub fn of(head: Parts) -> Self {
        let path = head.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (bucket, key) = (decoded(bucket, false), decoded(key, false));
        let query: BTreeMap<String, String> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name, true), decoded(value, true))
            })
            .collect();
        let has = |name: &str| query.contains_key(name);
        let copy = head.headers.contains_key("x-amz-copy-source");
        let operation = match (head.method.as_str(), key.is_empty()) {
            ("GET", true) if has("uploads") => "ListMultipartUploads",
            ("GET", true) if has("location") => "GetBucketLocation",
            ("GET", true) if bucket.is_empty() => "ListBuckets",
            ("GET", true) => "ListObjectsV2",
            ("HEAD", true) => "HeadBucket",
            ("PUT", true) => "CreateBucket",
            ("POST", true) if has("delete") => "DeleteObjects",
            ("GET", false) if has("uploadId") => "ListParts",
            ("GET", false) => "GetObject",
            ("HEAD", false) => "HeadObject",
            ("PUT", false) if has("partNumber") && copy => "UploadPartCopy",
            ("PUT", false) if has("partNumber") => "UploadPart",
            ("PUT", false) if copy => "CopyObject",
            ("PUT", false) => "PutObject",
            ("DELETE", false) if has("uploadId") => "AbortMultipartUpload",
            ("DELETE", false) => "DeleteObject",
            ("POST", false) if has("uploads") => "CreateMultipartUpload",
            ("POST", false) if has("uploadId") => "CompleteMultipartUpload",
            _ => "Unknown",
        };
        Self { operation, bucket, key, query, head, body: Vec::new() }
    }

    /// Adds the body, taken out of its aws-chunked wrapping where it has one.
    pub fn with_body(mut self, chunks: Vec<Bytes>) -> Result<Self, Refusal> {
        let streaming = self.header("x-amz-content-sha256").is_some_and(|it| it.starts_with("STREAMING-"));
        self.body = if streaming { unwrapped(&chunks.concat().into()).ok_or(MALFORMED)? } else { chunks };
        Ok(self)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The access key of `Authorization: AWS4-HMAC-SHA256 Credential=KEY/DATE/...`.
    pub fn access_key(&self) -> Option<&str> {
        self.header("authorization")?.split_once("Credential=")?.1.split('/').next()
    }

    /// When it was signed: `x-amz-date: 20261125T220717Z`.
    pub fn signed_at(&self) -> Option<SystemTime> {
        let text = self.header("x-amz-date").filter(|text| text.len() == 16 && text.is_ascii())?;
        let (date, time) = text.split_once('T')?;
        let spelled = format!(
            "{}-{}-{}T{}:{}:{}",
            date.get(..4)?,
            date.get(4..6)?,
            date.get(6..)?,
            time.get(..2)?,
            time.get(2..4)?,
            time.get(4..)?
        );
        humantime::parse_rfc3339(&spelled).ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.concat()).into_owned()
    }

    /// A number in the query.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.query.get(name)?.parse().ok()
    }

    /// What an object that this request writes carries.
    pub fn carried(&self) -> Carried {
        let text = |name: &str| self.header(name).map(str::to_owned);
        let mut carried = Carried {
            content_type: text("content-type"),
            storage_class: text("x-amz-storage-class").filter(|class| class != "STANDARD"),
            ..Carried::default()
        };
        for (name, value) in &self.head.headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            if CONTENT_HEADERS.contains(&name.as_str()) {
                carried.headers.insert(name.as_str().to_owned(), value);
            } else if let Some(name) = name.as_str().strip_prefix("x-amz-meta-") {
                carried.metadata.insert(name.to_owned(), value);
            } else if name.as_str().starts_with("x-amz-checksum-crc") || name.as_str().starts_with("x-amz-checksum-sha")
            {
                carried.checksums.insert(name.as_str().to_owned(), value);
            }
        }
        carried
    }

    /// Bucket and key that a copy reads.
    pub fn copy_source(&self) -> Option<(String, String)> {
        let source = decoded(self.header("x-amz-copy-source")?, false);
        let source = source.trim_start_matches('/').split("?versionId=").next()?;
        let (bucket, key) = source.split_once('/')?;
        Some((bucket.to_owned(), key.to_owned()))
    }
}

/// The payload of an aws-chunked body: `HEX[;chunk-signature=..]\r\n BYTES \r\n .. 0\r\n trailers`.
fn unwrapped(body: &Bytes) -> Option<Vec<Bytes>> {
    let mut chunks = Vec::new();
    let mut at = 0;
    loop {
        let line_len = body[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&body[at..at + line_len]).ok()?;
        let len = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        at += line_len + 2;
        if len == 0 {
            return Some(chunks);
        }
        if at + len > body.len() {
            return None;
        }
        chunks.push(body.slice(at..at + len));
        at += len + 2;
    }
}

/// A `bytes=a-b` range of an object of `size` bytes: `None` for no range or one that is ignored.
pub fn range_of(header: Option<&str>, size: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let Some((first, last)) = header.and_then(|it| it.strip_prefix("bytes=")).and_then(|it| it.split_once('-')) else {
        return Ok(None);
    };
    let (start, end) = if first.is_empty() {
        let Ok(suffix) = last.parse::<u64>() else { return Ok(None) };
        (size.saturating_sub(suffix), size)
    } else {
        let Ok(start) = first.parse::<u64>() else { return Ok(None) };
        let end = if last.is_empty() { size } else { last.parse::<u64>().unwrap_or(u64::MAX).saturating_add(1) };
        (start, end.min(size))
    };
    if start >= end { Err(crate::answer::INVALID_RANGE) } else { Ok(Some((start, end))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_and_refused_behind_it() {
        assert_eq!(range_of(Some("bytes=0-9"), 5).ok(), Some(Some((0, 5))));
        assert_eq!(range_of(Some("bytes=-3"), 5).ok(), Some(Some((2, 5))));
        assert_eq!(range_of(Some("bytes=2-"), 5).ok(), Some(Some((2, 5))));
        assert!(range_of(Some("bytes=5-9"), 5).is_err());
        assert!(range_of(Some("bytes=0-0"), 0).is_err());
        assert_eq!(range_of(None, 5).ok(), Some(None));
    }

    #[test]
    fn aws_chunked_bodies_are_unwrapped() {
        let body =
            Bytes::from_static(b"3;chunk-signature=x\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAA=\r\n\r\n");
        assert_eq!(unwrapped(&body).expect("well formed").concat(), b"abcde");
    }
}
