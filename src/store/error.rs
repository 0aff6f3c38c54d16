//! What can go wrong between us and S3, as outcomes that a caller treats differently.

use std::time::Duration;

/// Result of a store call.
pub type StoreResult<T> = Result<T, StoreError>;

/// Why a store call failed. A variant exists only where a caller acts differently.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// 404 NoSuchKey: the key holds nothing.
    #[error("no such key")]
    NotFound,
    /// 404 NoSuchBucket.
    #[error("bucket {0} does not exist")]
    NoSuchBucket(String),
    /// 404 NoSuchUpload: the multipart upload is gone (aborted, completed, expired).
    #[error("no such multipart upload")]
    NoSuchUpload,
    /// 403. The IAM action that the request needs, such as `s3:GetObject`.
    #[error("access denied: {action} is not allowed ({detail})")]
    AccessDenied {
        /// IAM action.
        action: &'static str,
        /// What the server said.
        detail: String,
    },
    /// No credentials, or credentials that the server does not take (unknown key, bad signature).
    #[error("credentials: {0}")]
    Credentials(String),
    /// 400 ExpiredToken, 403 InvalidAccessKeyId: new credentials are loaded for the next request, so one repeat is worth it.
    #[error("credentials are no longer taken ({0}): log in again, or see whether the role still hands out new ones")]
    ExpiredCredentials(String),
    /// A refusal without a reason, as a HEAD has it. The credentials may be at fault, and the next request has new ones: one repeat is
    /// worth it, and if nothing is mended by that the refusal is what it holds. Never passes the retry layer.
    #[error("{0}")]
    Unexplained(Box<StoreError>),
    /// 301/307/400: the bucket lives in another region.
    #[error("bucket is in another region ({0:?})")]
    WrongRegion(Option<String>),
    /// 304: the object has the tag of If-None-Match.
    #[error("not modified")]
    NotModified,
    /// 412: a condition does not hold; the object is another than expected.
    #[error("precondition failed: the object was changed by another writer")]
    PreconditionFailed,
    /// 409: a conditional write raced another one; for a Complete, begin a new upload.
    #[error("conflict with another writer")]
    Conflict,
    /// 416, with the size of the object where the server told it.
    #[error("range not satisfiable")]
    RangeNotSatisfiable {
        /// Length of the object in bytes.
        size_bytes: Option<u64>,
    },
    /// 403 InvalidObjectState: the object is archived and must be restored first.
    #[error("object is archived; restore it first")]
    Archived,
    /// EntityTooLarge, or a limit of ours that mirrors it.
    #[error("too large: {0}")]
    TooLarge(String),
    /// 400 KeyTooLongError or a key that this server refuses.
    #[error("the server refuses this key: {0}")]
    BadKey(String),
    /// 501 or an answer that shows that the server cannot do this.
    #[error("not supported by this server: {0}")]
    Unsupported(String),
    /// Bytes do not match their checksum, or fewer came than were promised.
    #[error("damaged in transit: {0}")]
    Corrupt(String),
    /// 503 SlowDown and its like.
    #[error("throttled: {detail}")]
    Throttled {
        /// What the server said.
        detail: String,
        /// Retry-After, where it was sent.
        retry_after: Option<Duration>,
    },
    /// 500, 503, a body that broke off: worth another try.
    #[error("{0}")]
    Transient(String),
    /// Nothing was sent: no connection came about, or nobody gave the credentials to sign with. Worth another try.
    #[error("{0}")]
    Unsent(String),
    /// The deadline of the request passed.
    #[error("deadline passed: {0}")]
    Deadline(String),
    /// Anything else that no retry mends.
    #[error("{0}")]
    Fatal(String),
}

impl StoreError {
    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Transient(_) | Self::Unsent(_) | Self::Corrupt(_))
    }

    /// Whether a write that ended so may have happened all the same. A proxy or a gateway says 503 and 429 also of what the
    /// server behind it has done.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Transient(_) | Self::Deadline(_) | Self::Corrupt(_))
    }

    /// Whether the object is another than the one that was asked for by its tag.
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::PreconditionFailed | Self::Conflict | Self::NotFound)
    }
}
