//! Answers to readdir and readdirplus: as many entries as the kernel's buffer holds, taken in small batches.
//!
//! What memory has is answered at once; the kernel comes back for the rest. An answer is empty only at the end.

use std::time::Duration;

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::attr::{entry_attr, file_attr, file_type};
use super::errno::answer;
use super::reply::{GENERATION, kept_for};
use crate::fs::{DirectoryEntry, FileSystem, FsResult};
use crate::types::{FileHandle, Ino};

/// Entries taken at a time: a page of 4 KiB, which the kernel asks for, holds about 20 with attributes.
const ENTRIES_PER_BATCH: usize = 24;

/// Answers readdir from memory; gives the reply back where S3 must be asked.
pub(super) fn try_names(
    mut reply: ReplyDirectory,
    fs: &FileSystem,
    through: FileHandle,
    offset: u64,
) -> Option<ReplyDirectory> {
    let mut at = offset;
    while let Some(outcome) = fs.try_readdir(through, at, ENTRIES_PER_BATCH) {
        (reply, at) = add_names(reply, outcome)?;
    }
    if at == offset {
        return Some(reply);
    }
    reply.ok();
    None
}

/// Answers readdir.
pub(super) async fn names(reply: ReplyDirectory, fs: &FileSystem, through: FileHandle, offset: u64) {
    let first = fs.readdir(through, offset, ENTRIES_PER_BATCH).await;
    if let Some((reply, at)) = add_names(reply, first)
        && let Some(reply) = try_names(reply, fs, through, at)
    {
        reply.ok();
    }
}

/// Answers readdirplus from memory; gives the reply back where S3 must be asked.
pub(super) fn try_entries(
    mut reply: ReplyDirectoryPlus,
    fs: &FileSystem,
    through: FileHandle,
    ttl: Duration,
    offset: u64,
) -> Option<ReplyDirectoryPlus> {
    let mut at = offset;
    while let Some(outcome) = fs.try_readdir(through, at, ENTRIES_PER_BATCH) {
        (reply, at) = add_entries(reply, fs, through, ttl, outcome)?;
    }
    if at == offset {
        return Some(reply);
    }
    reply.ok();
    None
}

/// Answers readdirplus.
pub(super) async fn entries(
    reply: ReplyDirectoryPlus,
    fs: &FileSystem,
    through: FileHandle,
    ttl: Duration,
    offset: u64,
) {
    let first = fs.readdir(through, offset, ENTRIES_PER_BATCH).await;
    if let Some((reply, at)) = add_entries(reply, fs, through, ttl, first)
        && let Some(reply) = try_entries(reply, fs, through, ttl, at)
    {
        reply.ok();
    }
}

/// Answers readdir with a batch of names; gives the reply back, with the offset to go on from, while it has room.
fn add_names(mut reply: ReplyDirectory, outcome: FsResult<Vec<DirectoryEntry>>) -> Option<(ReplyDirectory, u64)> {
    match outcome {
        Ok(entries) => {
            let next = entries.last().map(|entry| entry.next_offset);
            for entry in entries {
                if reply.add(INodeNo(entry.ino.0), entry.next_offset, file_type(entry.kind), &*entry.name) {
                    reply.ok();
                    return None;
                }
            }
            match next {
                Some(next) => Some((reply, next)),
                None => {
                    reply.ok();
                    None
                }
            }
        }
        Err(error) => {
            reply.error(answer("readdir", &error));
            None
        }
    }
}

/// The same for readdirplus; each entry is a lookup, but for the two dots.
fn add_entries(
    mut reply: ReplyDirectoryPlus,
    fs: &FileSystem,
    through: FileHandle,
    ttl: Duration,
    outcome: FsResult<Vec<DirectoryEntry>>,
) -> Option<(ReplyDirectoryPlus, u64)> {
    match outcome {
        Ok(entries) => {
            let next = entries.last().map(|entry| entry.next_offset);
            for entry in entries {
                let dots = matches!(&*entry.name, "." | "..");
                // The count rises before the reply; an entry that did not fit gives it back.
                let (attr, fresh_for) = if dots {
                    (entry_attr(&entry), Duration::ZERO)
                } else {
                    let Some(node) = fs.remember(through, &entry) else { continue };
                    (file_attr(&node), kept_for(node.fresh_for, ttl))
                };
                if reply.add(attr.ino, entry.next_offset, &*entry.name, &fresh_for, &attr, GENERATION) {
                    if !dots {
                        fs.forget(Ino(attr.ino.0), 1);
                    }
                    reply.ok();
                    return None;
                }
            }
            match next {
                Some(next) => Some((reply, next)),
                None => {
                    reply.ok();
                    None
                }
            }
        }
        Err(error) => {
            reply.error(answer("readdir", &error));
            None
        }
    }
}
