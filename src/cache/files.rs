//! The directory of the disk cache: its lock, and the two files of each version.
//!
//! Owns the descriptor of the directory, through which every file is opened, so that a directory that was deleted or replaced
//! under a running mount is never written to by two processes. Follows no symbolic link. Never deletes a name that is not of
//! this cache's spelling.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, Flock, FlockArg, OFlag, fallocate, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::format::{BLOCK_BYTES, HEADER_BYTES, Header, Identity, ROW_BYTES};

/// Endings of the two files.
pub(super) const DATA: &str = "data";
pub(super) const MAP: &str = "map";

/// The files of one version.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) data: File,
    pub(super) map: File,
}

/// A directory that is locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Files {
    dir: Flock<File>,
}

impl Files {
    /// Makes the directory if it is not there, and locks it. `WouldBlock` if another process has the lock, `PermissionDenied`
    /// if others than the owner could put files into it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let dir = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)?;
        let meta = dir.metadata()?;
        if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it belongs to another user, or others may write to it",
            ));
        }
        let dir = Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        Ok(Self { dir })
    }

    fn at(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
        let opened: OwnedFd = openat(self.dir.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(opened.into())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        match unlinkat(self.dir.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Both files, for reading.
    pub(super) fn reading(&self, identity: &Identity) -> io::Result<Pair> {
        let map = self.at(&format!("{identity}.{MAP}"), OFlag::O_RDONLY)?;
        Ok(Pair { data: self.data(identity)?, map })
    }

    /// The content, for reading.
    pub(super) fn data(&self, identity: &Identity) -> io::Result<File> {
        self.at(&format!("{identity}.{DATA}"), OFlag::O_RDONLY)
    }

    /// The map, for reading.
    pub(super) fn map(&self, identity: &Identity) -> io::Result<File> {
        self.at(&format!("{identity}.{MAP}"), OFlag::O_RDONLY)
    }

    /// Both files, for writing.
    pub(super) fn writing(&self, identity: &Identity) -> io::Result<Pair> {
        let data = self.at(&format!("{identity}.{DATA}"), OFlag::O_RDWR)?;
        Ok(Pair { data, map: self.at(&format!("{identity}.{MAP}"), OFlag::O_RDWR)? })
    }

    /// Makes both files, empty, in place of whatever stands there.
    pub(super) fn create(&self, identity: &Identity, header: &Header) -> io::Result<Pair> {
        self.remove(identity)?;
        let made = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let head = header.encode().ok_or(io::ErrorKind::InvalidFilename)?;
        let data = self.at(&format!("{identity}.{DATA}"), made)?;
        data.set_len(header.size_bytes)?;
        let map = self.at(&format!("{identity}.{MAP}"), made)?;
        map.write_all_at(&head, 0)?;
        Ok(Pair { data, map })
    }

    /// Deletes both files, if they are there.
    pub(super) fn remove(&self, identity: &Identity) -> io::Result<()> {
        // The map first: content without a map is nothing.
        self.unlink(&format!("{identity}.{MAP}"))?;
        self.unlink(&format!("{identity}.{DATA}"))
    }

    /// Deletes one file of this cache's spelling.
    pub(super) fn remove_name(&self, name: &str) -> io::Result<()> {
        self.unlink(name)
    }

    /// Takes blocks out of the map, and gives the room of their bytes back.
    pub(super) fn wipe(&self, identity: &Identity, blocks: Range<u64>) -> io::Result<()> {
        let pair = self.writing(identity)?;
        let (first, count) = (blocks.start, blocks.end - blocks.start);
        // Zeros, where holes would be rounded to the blocks of the file system.
        let mapped = pair.map.metadata()?.len().saturating_sub(HEADER_BYTES + first * ROW_BYTES);
        let blank = vec![0; usize::try_from(mapped.min(count * ROW_BYTES)).unwrap_or(0)];
        pair.map.write_all_at(&blank, HEADER_BYTES + first * ROW_BYTES)?;
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let start = i64::try_from(first * BLOCK_BYTES).map_err(too_far)?;
        Ok(fallocate(&pair.data, hole, start, i64::try_from(count * BLOCK_BYTES).map_err(too_far)?)?)
    }
}
