//! Files that the kernel reads itself: the ids under which it knows them.
//!
//! Owns one id for each inode that is read so, for as long as a handle is: the kernel wants the same for all of them. Where it
//! refuses (no CAP_SYS_ADMIN, a stacked file system below), the handle becomes an ordinary one.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fuser::{BackingId, FileHandle as KernelHandle, FopenFlags, ReplyOpen};
use parking_lot::Mutex;

use super::reply::open_flags;
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

impl Backings {
    /// Answers an open, by passthrough where that was decided and the kernel takes it.
    pub(super) fn reply(&self, fs: &FileSystem, ino: Ino, opened: Opened, reply: ReplyOpen) {
        let handle = KernelHandle(opened.handle.0);
        let Some(file) = fs.shown_file(opened.handle) else {
            reply.opened(handle, open_flags(opened));
            return;
        };
        let mut known = self.0.lock();
        let present = known.by_inode.get(&ino).and_then(Weak::upgrade);
        let id = match present.map_or_else(|| reply.open_backing(&*file).map(Arc::new), Ok) {
            Ok(id) => id,
            Err(error) => {
                drop(known);
                tracing::debug!(%error, "the kernel does not read the disk cache itself");
                fs.was_shown(opened.handle, false);
                fs.allow_passthrough(false);
                reply.opened(handle, open_flags(opened));
                return;
            }
        };
        known.by_inode.insert(ino, Arc::downgrade(&id));
        known.by_handle.insert(opened.handle.0, (ino, Arc::clone(&id)));
        drop(known);
        fs.was_shown(opened.handle, true);
        // FOPEN_KEEP_CACHE beside it is EIO (FOPEN_PASSTHROUGH_MASK of `fs/fuse/iomode.c`).
        reply.opened_passthrough(handle, FopenFlags::empty(), &id);
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
