//! Files that the kernel reads itself: the ids under which it knows them.
//!
//! Owns one id for each inode that is read so, for as long as a handle is: the kernel wants the same for all of them. Where it
//! refuses (no CAP_SYS_ADMIN, a stacked file system below), the handle becomes an ordinary one.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fuser::{BackingId, FileAttr, FileHandle as KernelHandle, FopenFlags, ReplyCreate, ReplyOpen};
use parking_lot::Mutex;

use super::reply::{GENERATION, open_flags};
use crate::fs::{FileSystem, Opened};
use crate::types::Ino;

/// The ids of a session.
#[derive(Debug, Default)]
pub(super) struct Backings(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_handle: HashMap<u64, (Ino, Arc<BackingId>)>,
    by_inode: HashMap<Ino, Weak<BackingId>>,
}

/// The answer to a request that opens a file.
pub(super) trait OpeningReply {
    /// Makes a file known to the kernel.
    fn backing(&self, file: impl AsFd) -> io::Result<BackingId>;
    /// The kernel asks us for the file's bytes.
    fn plain(self, opened: Opened);
    /// The kernel reads the file that is known under this id. FOPEN_KEEP_CACHE beside it is EIO (FOPEN_PASSTHROUGH_MASK of
    /// `fs/fuse/iomode.c`).
    fn by_passthrough(self, opened: Opened, id: &BackingId);
}

impl OpeningReply for ReplyOpen {
    fn backing(&self, file: impl AsFd) -> io::Result<BackingId> {
        self.open_backing(file)
    }

    fn plain(self, opened: Opened) {
        self.opened(KernelHandle(opened.handle.0), open_flags(opened));
    }

    fn by_passthrough(self, opened: Opened, id: &BackingId) {
        self.opened_passthrough(KernelHandle(opened.handle.0), FopenFlags::empty(), id);
    }
}

/// The answer to a create, which opens a file that was there if somebody else was faster.
pub(super) struct Creating {
    pub(super) reply: ReplyCreate,
    pub(super) fresh_for: Duration,
    pub(super) attr: FileAttr,
}

impl OpeningReply for Creating {
    fn backing(&self, file: impl AsFd) -> io::Result<BackingId> {
        self.reply.open_backing(file)
    }

    fn plain(self, opened: Opened) {
        let handle = KernelHandle(opened.handle.0);
        self.reply.created(&self.fresh_for, &self.attr, GENERATION, handle, open_flags(opened));
    }

    fn by_passthrough(self, opened: Opened, id: &BackingId) {
        let handle = KernelHandle(opened.handle.0);
        self.reply.created_passthrough(&self.fresh_for, &self.attr, GENERATION, handle, FopenFlags::empty(), id);
    }
}

impl Backings {
    /// Answers what opened a file, by passthrough where that was decided and the kernel takes it.
    pub(super) fn reply(&self, fs: &FileSystem, ino: Ino, opened: Opened, reply: impl OpeningReply) {
        let Some(file) = fs.shown_file(opened.handle) else {
            reply.plain(opened);
            return;
        };
        let mut known = self.0.lock();
        let present = known.by_inode.get(&ino).and_then(Weak::upgrade);
        let id = match present.map_or_else(|| reply.backing(&*file).map(Arc::new), Ok) {
            Ok(id) => id,
            Err(error) => {
                drop(known);
                tracing::debug!(%error, "the kernel does not read the disk cache itself");
                fs.was_shown(opened.handle, false);
                fs.allow_passthrough(false);
                reply.plain(opened);
                return;
            }
        };
        known.by_inode.insert(ino, Arc::downgrade(&id));
        known.by_handle.insert(opened.handle.0, (ino, Arc::clone(&id)));
        drop(known);
        fs.was_shown(opened.handle, true);
        reply.by_passthrough(opened, &id);
    }

    /// A handle is gone.
    pub(super) fn release(&self, handle: KernelHandle) {
        let mut known = self.0.lock();
        let Some((ino, id)) = known.by_handle.remove(&handle.0) else { return };
        drop(id);
        if known.by_inode.get(&ino).is_some_and(|id| id.strong_count() == 0) {
            known.by_inode.remove(&ino);
        }
    }
}
