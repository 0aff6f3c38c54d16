//! The words that every room speaks: inode and handle numbers, object keys, versions, ranges.
//!
//! Owns no state and does no I/O. A value here is cheap to clone (at most an atomic increment)
//! and says its unit in its type or its name.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

/// An inode number as the kernel sees it. 1 is the root of the mount (FUSE_ROOT_ID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of the mount: FUSE_ROOT_ID of `include/uapi/linux/fuse.h`.
    pub const ROOT: Self = Self(1);
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An open file or directory as the kernel names it back to us (`fuse_open_out.fh`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileHandle(pub u64);

/// The whole key of an object in its bucket, the mount's prefix included. At most 1024 bytes of UTF-8
/// (S3 user guide, "Creating object key names").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// The longest key that S3 stores, in bytes of UTF-8.
    pub const LEN_BYTES_MAX: usize = 1024;

    /// Wraps a key as it is; nothing is checked or escaped.
    pub fn new(key: impl Into<Arc<str>>) -> Self {
        Self(key.into())
    }

    /// The key as S3 spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for ObjectKey {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for ObjectKey {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

/// An entity tag exactly as the server sent it, quotes included. Opaque: it is no MD5 under SSE-KMS or multipart.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ETag(Arc<str>);

impl ETag {
    /// Wraps a tag as it is.
    pub fn new(tag: impl Into<Arc<str>>) -> Self {
        Self(tag.into())
    }

    /// The tag as the server sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ETag {
    fn from(tag: &str) -> Self {
        Self(tag.into())
    }
}

#[derive(Debug)]
struct VersionIdentity {
    key: ObjectKey,
    etag: ETag,
    version_id: Option<Arc<str>>,
    hash: u64,
}

/// One immutable content of one key: what a read is pinned to and what a cached block belongs to.
/// Two values are equal when key and ETag are: LIST tells no version id, and reads are pinned by the tag. The hash is
/// computed once.
#[derive(Clone)]
pub struct ObjectVersion(Arc<VersionIdentity>);

impl ObjectVersion {
    /// Names the content that `key` had under `etag` (and `version_id`, where the bucket keeps versions).
    pub fn new(key: ObjectKey, etag: ETag, version_id: Option<Arc<str>>) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        key.hash(&mut hasher);
        etag.hash(&mut hasher);
        let hash = hasher.finish();
        Self(Arc::new(VersionIdentity { key, etag, version_id, hash }))
    }

    /// The key that held this content.
    pub fn key(&self) -> &ObjectKey {
        &self.0.key
    }

    /// The entity tag of this content.
    pub fn etag(&self) -> &ETag {
        &self.0.etag
    }

    /// The S3 version id, where the bucket keeps versions.
    pub fn version_id(&self) -> Option<&Arc<str>> {
        self.0.version_id.as_ref()
    }
}

impl PartialEq for ObjectVersion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash && self.0.key == other.0.key && self.0.etag == other.0.etag)
    }
}

impl Eq for ObjectVersion {}

impl Hash for ObjectVersion {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for ObjectVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.0.key, self.0.etag)
    }
}

/// One cached block: `index` counts blocks of the reader's block size from the start of the version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockId {
    /// The content that the block belongs to.
    pub version: ObjectVersion,
    /// Block number, 0 at offset 0.
    pub index: u64,
}

/// A half-open range of byte offsets, `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// The range `[start, end)`; an `end` before `start` gives the empty range at `start`.
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, end: end.max(start) }
    }

    /// `len` bytes from `start`, cut at `u64::MAX`.
    pub fn of_len(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds no byte.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes in both ranges; empty (at the larger start) where they do not meet.
    pub fn intersect(&self, other: &Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether every byte of `other` lies in `self`.
    pub fn contains_range(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// User metadata of an object: lower-case names without `x-amz-meta-`, values as sent. At most 2 KiB together
/// (S3 user guide, "User-defined object metadata").
pub type ObjectMetadata = std::collections::BTreeMap<String, String>;

/// What S3 says of one object, from LIST, HEAD, GET or the answer to our own write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key, ETag and version id.
    pub version: ObjectVersion,
    /// Whole length in bytes.
    pub size_bytes: u64,
    /// Last-Modified; S3 gives whole seconds in headers, milliseconds in LIST.
    pub last_modified: SystemTime,
    /// User metadata; `None` where the answer does not carry it (LIST).
    pub metadata: Option<Arc<ObjectMetadata>>,
    /// Content-Type, where the answer carries it.
    pub content_type: Option<Arc<str>>,
    /// Storage class; `None` is STANDARD.
    pub storage_class: Option<Arc<str>>,
    /// What else is said of the content, where the answer carries it and it says anything.
    pub headers: Option<Arc<ContentHeaders>>,
}

/// Headers of an object beside its Content-Type, as S3 keeps and returns them (S3 user guide, "System-defined object metadata"). Other
/// programs live by them: a browser reads nothing of what has lost its Content-Encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContentHeaders {
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// Content-Disposition.
    pub content_disposition: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// Content-Language.
    pub content_language: Option<String>,
    /// Expires, as it is spelled.
    pub expires: Option<String>,
    /// Where a web site sends those who ask for the object.
    pub website_redirect_location: Option<String>,
}

impl ContentHeaders {
    /// Nothing, if they say nothing.
    pub fn if_any(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}

impl ObjectInfo {
    /// The key of the object.
    pub fn key(&self) -> &ObjectKey {
        self.version.key()
    }

    /// The entity tag of the object.
    pub fn etag(&self) -> &ETag {
        self.version.etag()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_equal_by_key_and_etag_for_a_list_tells_no_version_id() {
        let one = ObjectVersion::new("k".into(), "\"e\"".into(), None);
        assert_eq!(one, ObjectVersion::new("k".into(), "\"e\"".into(), None));
        assert_ne!(one, ObjectVersion::new("k".into(), "\"f\"".into(), None));
        assert_eq!(one, ObjectVersion::new("k".into(), "\"e\"".into(), Some("v1".into())));
    }

    #[test]
    fn ranges_that_do_not_meet_intersect_in_nothing() {
        assert!(ByteRange::new(0, 4).intersect(&ByteRange::new(8, 9)).is_empty());
        assert_eq!(ByteRange::new(0, 4).intersect(&ByteRange::new(2, 9)), ByteRange::new(2, 4));
    }
}
