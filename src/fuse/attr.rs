//! A namespace node as the kernel's attributes, and the kernel's times as ours.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::fs::{Attributes, DirectoryEntry, Node, NodeKind, SetTime};
use crate::types::Ino;

/// st_blksize: programs such as cp(1) and Python size their buffers by it; the largest FUSE request serves best.
const PREFERRED_IO_BYTES: u32 = 1 << 20;
/// Unit of st_blocks (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// The kernel's word for a kind of node.
pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharacterDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The attributes of a node.
pub(super) fn file_attr(node: &Node) -> FileAttr {
    attr_of(node.ino, node.kind, &node.attributes)
}

/// The attributes of an entry of a directory.
pub(super) fn entry_attr(entry: &DirectoryEntry) -> FileAttr {
    attr_of(entry.ino, entry.kind, &entry.attributes)
}

fn attr_of(ino: Ino, kind: NodeKind, attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.0),
        size: attributes.size_bytes,
        blocks: attributes.size_bytes.div_ceil(BLOCK_BYTES),
        atime: attributes.atime,
        mtime: attributes.mtime,
        ctime: attributes.ctime,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(kind),
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: PREFERRED_IO_BYTES,
        flags: 0,
    }
}

/// A name that does not exist, for the kernel to remember: an entry with inode 0 (`fuse_entry_out.nodeid`).
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// A time of setattr. fuser 0.18 subtracts the nanoseconds of a time before 1970 that it should add: `-1.9 s` arrives
/// as the second `-2` less `0.1 s`; this adds them back twice.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(mended(time)),
    }
}

fn mended(time: SystemTime) -> SystemTime {
    match SystemTime::UNIX_EPOCH.duration_since(time) {
        Ok(before) if before.subsec_nanos() != 0 => time + Duration::from_nanos(2 * u64::from(before.subsec_nanos())),
        Ok(_) | Err(_) => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_keeps_its_nanoseconds() {
        // utimensat of -1.9 s is tv_sec -2, tv_nsec 100_000_000; fuser gives EPOCH - (2 s + 0.1 s).
        let from_fuser = SystemTime::UNIX_EPOCH - Duration::new(2, 100_000_000);
        assert_eq!(mended(from_fuser), SystemTime::UNIX_EPOCH - Duration::from_millis(1900));
    }
}
