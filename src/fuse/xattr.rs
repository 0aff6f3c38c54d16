//! Extended attributes as the kernel asks for them: sizes first, then names and values.

use std::ffi::OsStr;

use fuser::{Errno, ReplyXattr};

use super::errno;
use crate::fs::{FileSystem, FsResult, SetXattr, Xattrs};

/// Answers at once where no extended attributes are kept, upon which the kernel asks for none any more (ENOSYS); else gives the
/// reply back.
pub(super) fn unavailable<R>(fs: &FileSystem, reply: R, error: fn(R, Errno)) -> Option<R> {
    if fs.options().defaults.posix {
        return Some(reply);
    }
    error(reply, Errno::ENOSYS);
    None
}

/// The same, and where none of this name are kept: the kernel asks for `security.capability` before each write.
pub(super) fn refused<R>(fs: &FileSystem, name: &OsStr, reply: R, error: fn(R, Errno)) -> Option<R> {
    let reply = unavailable(fs, reply, error)?;
    if fs.xattr_name(name).is_ok() {
        return Some(reply);
    }
    error(reply, Errno::EOPNOTSUPP);
    None
}

/// What the flags of setxattr(2) ask for.
pub(super) fn how(flags: i32) -> SetXattr {
    match flags {
        flags if flags & libc::XATTR_CREATE != 0 => SetXattr::Create,
        flags if flags & libc::XATTR_REPLACE != 0 => SetXattr::Replace,
        _ => SetXattr::Any,
    }
}

/// Names as listxattr(2) has them: each with a NUL at its end.
pub(super) fn names(xattrs: &Xattrs) -> Vec<u8> {
    xattrs.keys().flat_map(|name| name.bytes().chain([0])).collect()
}

/// Answers with bytes, or with how many there are where nothing was asked for; ERANGE if they are more than was asked for.
pub(super) fn answer(reply: ReplyXattr, operation: &'static str, size: u32, outcome: FsResult<Vec<u8>>) {
    match outcome {
        Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(errno::answer(operation, &error)),
    }
}
