//! What an operation on the mount can fail with, before it becomes an errno (`fuse::errno` has the only table).
//!
//! A variant exists where an application can act differently. The cause stays inside for the log line.

use crate::namespace::NamespaceError;
use crate::read::ReadError;
use crate::store::StoreError;
use crate::write::WriteError;

/// Result of a file system operation.
pub type FsResult<T> = Result<T, FsError>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The name or inode does not exist.
    #[error("no such file or directory")]
    NotFound,
    /// The name exists already.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsADirectory,
    /// The directory still holds names.
    #[error("directory not empty")]
    NotEmpty,
    /// The name cannot be spelled as an S3 key.
    #[error("name cannot be stored as an S3 key")]
    InvalidName,
    /// The name, or the key that it would have, is too long.
    #[error("name too long")]
    NameTooLong,
    /// An argument makes no sense.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// The handle is not open, or not open for this.
    #[error("bad file handle")]
    BadHandle,
    /// The mount is read-only.
    #[error("mounted read-only")]
    ReadOnly,
    /// The version that the handle reads no longer exists, or a conflicting writer was first.
    #[error("the object was changed by another writer")]
    Stale,
    /// S3 says that we may not.
    #[error("{0}")]
    AccessDenied(String),
    /// The file system does not do this to this kind of file.
    #[error("operation not permitted")]
    NotPermitted,
    /// The file system does not do this at all, and the caller has another way.
    #[error("not supported")]
    Unsupported,
    /// There is no extended attribute of this name.
    #[error("no such attribute")]
    NoAttribute,
    /// No room for staged bytes.
    #[error("no space: {0}")]
    NoSpace(String),
    /// Larger than an S3 object can be.
    #[error("file too large")]
    TooLarge,
    /// Everything that no application can mend.
    #[error("{0}")]
    Io(String),
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            StoreError::PreconditionFailed | StoreError::Conflict => Self::Stale,
            StoreError::AccessDenied { .. } | StoreError::Archived => Self::AccessDenied(error.to_string()),
            StoreError::TooLarge(_) => Self::TooLarge,
            StoreError::BadKey(_) => Self::InvalidName,
            StoreError::Unexplained(refusal) => (*refusal).into(),
            StoreError::NoSuchBucket(_)
            | StoreError::NoSuchUpload
            | StoreError::Credentials(_)
            | StoreError::ExpiredCredentials(_)
            | StoreError::WrongRegion(_)
            | StoreError::NotModified
            | StoreError::RangeNotSatisfiable { .. }
            | StoreError::Unsupported(_)
            | StoreError::Corrupt(_)
            | StoreError::Throttled { .. }
            | StoreError::Transient(_)
            | StoreError::Unsent(_)
            | StoreError::Deadline(_)
            | StoreError::Fatal(_) => Self::Io(error.to_string()),
        }
    }
}

impl From<ReadError> for FsError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stale => Self::Stale,
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<WriteError> for FsError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict | WriteError::Stale => Self::Stale,
            WriteError::NoSpace => Self::NoSpace("memory and local disk for unpublished bytes are full".into()),
            WriteError::Spill(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Self::NoSpace("local disk for unpublished bytes is full".into())
            }
            WriteError::Spill(error) => Self::Io(format!("local disk for unpublished bytes: {error}")),
            WriteError::TooLarge => Self::TooLarge,
            WriteError::Store(error) => error.into(),
            WriteError::Journal(error) => Self::Io(format!("journal: {error}")),
        }
    }
}

impl From<NamespaceError> for FsError {
    fn from(error: NamespaceError) -> Self {
        match error {
            NamespaceError::NotFound => Self::NotFound,
            NamespaceError::NotADirectory => Self::NotADirectory,
            NamespaceError::IsADirectory => Self::IsADirectory,
            NamespaceError::NotEmpty => Self::NotEmpty,
            NamespaceError::Exists => Self::Exists,
            NamespaceError::InvalidName => Self::InvalidName,
            NamespaceError::NameTooLong => Self::NameTooLong,
            NamespaceError::Stale => Self::Stale,
            NamespaceError::IntoItself => Self::Invalid("a directory cannot move into itself"),
            NamespaceError::TooLarge => Self::TooLarge,
            NamespaceError::Store(error) => error.into(),
            NamespaceError::Panicked => Self::Io(error.to_string()),
            NamespaceError::Journal(error) => Self::Io(format!("journal of renames: {error}")),
        }
    }
}
