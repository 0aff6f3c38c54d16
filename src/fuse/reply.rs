//! Outcomes of the file system as replies to the kernel; failures pass through the errno table.

use std::time::Duration;

use bytes::Bytes;
use fuser::{
    FileHandle as KernelHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
};

use super::attr::{absent, file_attr};
use super::errno::answer;
use crate::fs::{FileSystem, FsError, FsResult, LookedUp, Node, Opened};
use crate::types::{FileHandle, Ino};

/// An inode number is never used twice in a mount, so one generation serves all.
pub(super) const GENERATION: Generation = Generation(0);

/// The kernel's inode number as ours.
pub(super) fn ino(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

/// The kernel's handle as ours.
pub(super) fn handle(handle: KernelHandle) -> FileHandle {
    FileHandle(handle.0)
}

/// How long the kernel keeps what is good for `fresh_for`, of `ttl` at most: it asks again while its directory can still be
/// listed anew in time.
pub(super) fn kept_for(fresh_for: Duration, ttl: Duration) -> Duration {
    let late = FileSystem::late(ttl);
    if fresh_for > late { (fresh_for - late).min(ttl) } else { fresh_for }
}

/// Answers a lookup. The kernel keeps names and attributes, and also that there is no such name, no longer than until they
/// are as old as `ttl`, counted from when S3 was asked.
pub(super) fn found(
    reply: ReplyEntry,
    ttl: Duration,
    outcome: FsResult<LookedUp>,
    absent_for: impl FnOnce() -> Duration,
) {
    match outcome {
        Ok(LookedUp { node, name_for }) => {
            reply.entry_with_ttls(
                &kept_for(node.fresh_for, ttl),
                &kept_for(name_for, ttl),
                &file_attr(&node),
                GENERATION,
            );
        }
        Err(FsError::NotFound) => match absent_for() {
            Duration::ZERO => reply.error(answer("lookup", &FsError::NotFound)),
            absent_for => reply.entry(&kept_for(absent_for, ttl), &absent(), GENERATION),
        },
        Err(error) => reply.error(answer("lookup", &error)),
    }
}

/// Answers an operation that makes a name.
pub(super) fn entry(reply: ReplyEntry, operation: &'static str, ttl: Duration, outcome: FsResult<Node>) {
    match outcome {
        Ok(node) => reply.entry(&kept_for(node.fresh_for, ttl), &file_attr(&node), GENERATION),
        Err(error) => reply.error(answer(operation, &error)),
    }
}

/// Answers with attributes.
pub(super) fn attr(reply: ReplyAttr, operation: &'static str, ttl: Duration, outcome: FsResult<Node>) {
    match outcome {
        Ok(node) => reply.attr(&kept_for(node.fresh_for, ttl), &file_attr(&node)),
        Err(error) => reply.error(answer(operation, &error)),
    }
}

/// Answers with bytes.
pub(super) fn data(reply: ReplyData, outcome: FsResult<Bytes>) {
    match outcome {
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(answer("read", &error)),
    }
}

/// Answers with success or failure alone.
pub(super) fn empty(reply: ReplyEmpty, operation: &'static str, outcome: FsResult<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(answer(operation, &error)),
    }
}

/// How the kernel shall treat an opened handle.
pub(super) fn open_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags
}
