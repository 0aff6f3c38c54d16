//! Files of the disk cache that the kernel reads itself.
//!
//! The kernel serves all handles of an inode so or none, and while it does, it asks us for nothing: so an inode that is shown
//! never changes. Whoever would write to it, or opens another version, is told ESTALE after its name was led to a new inode, upon
//! which the kernel looks the name up again; the handles of before keep the version that they opened
//! (docs/decisions/0011).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::FileSystem;
use super::error::{FsError, FsResult};
use super::opened::OpenInode;
use crate::metrics::Counter;
use crate::read::WholeFile;
use crate::types::FileHandle;

impl FileSystem {
    /// Allows or forbids handing files to the kernel: it, or our rights, may not permit it.
    pub fn allow_passthrough(&self, allowed: bool) {
        self.passthrough.store(allowed, Relaxed);
    }

    /// The file that the kernel is to read for a handle whose open said so.
    pub fn shown_file(&self, handle: FileHandle) -> Option<Arc<WholeFile>> {
        let file = self.handles.file(handle).ok().filter(|file| file.shown.load(Relaxed))?;
        let view = file.inode.view.lock();
        view.shown.as_ref().map(|shown| Arc::clone(&shown.file))
    }

    /// The kernel took the file of a handle, or did not and asks us as usual.
    pub fn was_shown(&self, handle: FileHandle, taken: bool) {
        if taken {
            self.metrics.add(Counter::PassthroughOpens, 1);
            return;
        }
        if let Ok(file) = self.handles.file(handle)
            && file.shown.swap(false, Relaxed)
        {
            file.inode.view.lock().leave_shown();
        }
    }

    /// `Stale`, and a new inode for the name, where the kernel reads the inode's content itself.
    pub(super) fn refuse_if_shown(&self, inode: &OpenInode) -> FsResult<()> {
        let info = {
            let view = inode.view.lock();
            if view.shown.is_none() {
                return Ok(());
            }
            view.info.clone()
        };
        if let Some(info) = info {
            self.namespace.supersede(inode.ino, &info);
        }
        Err(FsError::Stale)
    }
}
