//! The handles that the kernel holds: numbers to open files and open directories.
//!
//! A number is never used twice in the life of a mount, so that a late request of the kernel meets nobody else's file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::error::{FsError, FsResult};
use super::opened::InodeUse;
use crate::namespace::DirectoryHandle;
use crate::read::Reader;
use crate::types::FileHandle;

/// One open file description of the kernel.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) inode: InodeUse,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The kernel reads the inode's shown file for this handle.
    pub(super) shown: AtomicBool,
    /// The handle's own reader: of the view's version, or of one that it had before.
    pub(super) reader: Mutex<Option<Reader>>,
    /// Who wrote through it.
    pub(super) writers: Mutex<Writers>,
}

/// Who opened a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// The thread, by its number; 0 is one that the kernel cannot name.
    pub thread: u32,
    /// When it did so, in clock ticks since the machine began: a thread that began later only has the same number.
    pub at_ticks: u64,
}

/// The processes that wrote through a handle since one of them flushed it, as far as the kernel says who they are.
#[derive(Debug, Default)]
pub(super) struct Writers {
    /// What the kernel calls the lock owner: the table of descriptors, one for all threads of a process.
    owners: Vec<u64>,
    /// Some write came without an owner (through the page cache, by fallocate and the like).
    unknown: bool,
    /// Somebody has written through the handle since it was opened.
    ever_written: bool,
    /// Who opened the file.
    opener: Option<Opener>,
}

impl Writers {
    pub(super) fn wrote(&mut self, owner: Option<u64>) {
        self.ever_written = true;
        match owner {
            Some(owner) if self.owners.contains(&owner) => {}
            Some(owner) => self.owners.push(owner),
            None => self.unknown = true,
        }
    }

    pub(super) fn opened(&mut self, opener: Opener) {
        self.opener = Some(opener);
    }

    /// Whether everything was done by others, each of whom has yet to close its own descriptor. Where nobody has written it is
    /// the opener who made the file or emptied it; `is_foreign` says whether that one belongs to another process than the one
    /// that closes, and lives.
    pub(super) fn are_others_than(&self, owner: u64, is_foreign: impl FnOnce(Opener) -> bool) -> bool {
        if self.unknown {
            return false;
        }
        if !self.ever_written {
            return self.opener.is_some_and(is_foreign);
        }
        // What was written may be on its way by another close: this one waits for the same end.
        !self.owners.is_empty() && !self.owners.contains(&owner)
    }

    /// What was written is about to be published.
    pub(super) fn flushed(&mut self) {
        *self = Self { ever_written: self.ever_written, opener: self.opener, ..Self::default() };
    }
}

/// Everything that is open.
#[derive(Debug, Default)]
pub(super) struct Handles {
    next: AtomicU64,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    directories: RwLock<HashMap<u64, Arc<DirectoryHandle>>>,
}

impl Handles {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn insert_file(&self, file: OpenFile) -> FileHandle {
        let number = self.number();
        self.files.write().insert(number, Arc::new(file));
        FileHandle(number)
    }

    pub(super) fn file(&self, handle: FileHandle) -> FsResult<Arc<OpenFile>> {
        self.files.read().get(&handle.0).cloned().ok_or(FsError::BadHandle)
    }

    pub(super) fn remove_file(&self, handle: FileHandle) -> FsResult<Arc<OpenFile>> {
        self.files.write().remove(&handle.0).ok_or(FsError::BadHandle)
    }

    pub(super) fn insert_directory(&self, directory: DirectoryHandle) -> FileHandle {
        let number = self.number();
        self.directories.write().insert(number, Arc::new(directory));
        FileHandle(number)
    }

    pub(super) fn directory(&self, handle: FileHandle) -> FsResult<Arc<DirectoryHandle>> {
        self.directories.read().get(&handle.0).cloned().ok_or(FsError::BadHandle)
    }

    pub(super) fn remove_directory(&self, handle: FileHandle) {
        self.directories.write().remove(&handle.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_closes_while_another_close_publishes_waits_for_it() {
        let mut writers = Writers::default();
        writers.opened(Opener { thread: 1, at_ticks: 0 });
        assert!(writers.are_others_than(7, |_| true), "the opener has yet to write");
        writers.wrote(Some(7));
        assert!(writers.are_others_than(8, |_| true), "7 has yet to close");
        assert!(!writers.are_others_than(7, |_| true));
        writers.flushed();
        assert!(!writers.are_others_than(8, |_| true), "what 7 wrote is on its way, and may fail");
    }
}
