//! The only table from [`FsError`] to errno, and the one place where a failed operation is logged.

use fuser::Errno;

use crate::fs::FsError;

/// The errno for a failed operation.
pub(super) fn errno_of(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotADirectory => Errno::ENOTDIR,
        FsError::IsADirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::InvalidName => Errno::EILSEQ,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::Invalid(_) => Errno::EINVAL,
        FsError::BadHandle => Errno::EBADF,
        FsError::ReadOnly => Errno::EROFS,
        FsError::Stale => Errno::ESTALE,
        FsError::AccessDenied(_) => Errno::EACCES,
        FsError::NotPermitted => Errno::EPERM,
        FsError::Unsupported => Errno::EOPNOTSUPP,
        FsError::NoAttribute => Errno::ENODATA,
        FsError::NoSpace(_) => Errno::ENOSPC,
        FsError::TooLarge => Errno::EFBIG,
        FsError::Io(_) => Errno::EIO,
    }
}

/// Logs a failed operation, loudly where an operator must act, and gives its errno.
pub(super) fn answer(operation: &'static str, error: &FsError) -> Errno {
    match error {
        FsError::Io(_) | FsError::AccessDenied(_) | FsError::NoSpace(_) => {
            tracing::warn!(operation, %error, "operation failed");
        }
        FsError::Stale => tracing::info!(operation, %error, "operation failed"),
        FsError::NotFound
        | FsError::Exists
        | FsError::NotADirectory
        | FsError::IsADirectory
        | FsError::NotEmpty
        | FsError::InvalidName
        | FsError::NameTooLong
        | FsError::Invalid(_)
        | FsError::BadHandle
        | FsError::ReadOnly
        | FsError::NotPermitted
        | FsError::Unsupported
        | FsError::NoAttribute
        | FsError::TooLarge => tracing::debug!(operation, %error, "operation refused"),
    }
    errno_of(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn what_s3_answers_becomes_the_documented_errno() {
        let table = [
            (StoreError::NotFound, libc::ENOENT),
            (StoreError::AccessDenied { action: "s3:GetObject", detail: String::new() }, libc::EACCES),
            (StoreError::PreconditionFailed, libc::ESTALE),
            (StoreError::Conflict, libc::ESTALE),
            (StoreError::Archived, libc::EACCES),
            (StoreError::Throttled { detail: String::new(), retry_after: None }, libc::EIO),
            (StoreError::Deadline(String::new()), libc::EIO),
            (StoreError::TooLarge(String::new()), libc::EFBIG),
        ];
        for (error, errno) in table {
            let text = error.to_string();
            assert_eq!(errno_of(&error.into()).code(), errno, "{text}");
        }
    }
}
