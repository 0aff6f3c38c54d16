//! Making bytes durable: flush, fsync, release.
//!
//! Promise: when flush or fsync answered success, everything written before is committed in S3. flush is not close:
//! dup(2) and fork(2) repeat it, so publishing is idempotent, and who only inherited a descriptor publishes nothing. release reports to nobody, so that errors are said at flush
//! and fsync; what is unpublished at the last release is kept for recovery where flush has failed, and published otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::FileSystem;
use super::error::{FsError, FsResult};
use super::handles::Opener;
use super::opened::OpenInode;
use super::unkept::Fate;
use crate::metrics::Gauge;
use crate::types::{FileHandle, Ino, ObjectInfo};
use crate::write::{Commit, Committed, Writer};

impl FileSystem {
    /// close(2) of one of the descriptors of a handle: commits what was written.
    pub async fn flush(&self, handle: FileHandle) -> FsResult<()> {
        let file = self.handles.file(handle)?;
        if !file.writable {
            return Ok(());
        }
        file.writers.lock().flushed();
        self.publish(&file.inode).await
    }

    /// A write through a handle came from `owner` (`fuse_write_in.lock_owner`), or from nobody that the kernel names.
    pub fn wrote(&self, handle: FileHandle, owner: Option<u64>) {
        if let Ok(file) = self.handles.file(handle) {
            file.writers.lock().wrote(owner);
        }
    }

    /// A handle was opened, and by whom.
    pub fn opened_by(&self, handle: FileHandle, opener: Opener) {
        if opener.thread != 0
            && let Ok(file) = self.handles.file(handle)
        {
            file.writers.lock().opened(opener);
        }
    }

    /// Whether a close by `owner` (`fuse_flush_in.lock_owner`) has something to publish. It has not where nothing is dirty,
    /// nor where the descriptor was merely inherited and others write through it, or are about to: every fork of a program
    /// that is writing a file closes a copy of its descriptor, and half a file would become the object. `is_foreign` says
    /// whether the opener belongs to another process than the one that closes, and lives.
    pub fn needs_flush(&self, handle: FileHandle, owner: u64, is_foreign: impl FnOnce(Opener) -> bool) -> bool {
        let Ok(file) = self.handles.file(handle) else { return true };
        file.writable && file.inode.view.lock().is_dirty() && !file.writers.lock().are_others_than(owner, is_foreign)
    }

    /// fsync(2) and fdatasync(2): commits what was written through any handle of the file.
    pub async fn fsync(&self, handle: FileHandle) -> FsResult<()> {
        let file = self.handles.file(handle)?;
        self.publish(&file.inode).await
    }

    /// Commits everything written to an inode before the call.
    pub(super) async fn publish(&self, inode: &OpenInode) -> FsResult<()> {
        let _tree = self.tree.read().await;
        let _order = inode.order.lock().await;
        self.publish_in_order(inode).await
    }

    /// The same for a caller who holds the tree and the inode's order.
    pub(super) async fn publish_in_order(&self, inode: &OpenInode) -> FsResult<()> {
        let (writer, generation) = {
            let view = inode.view.lock();
            match &view.writer {
                Some(writer) if writer.is_dirty() && !view.unlinked => (writer.clone(), view.generation),
                _ => return Ok(()),
            }
        };
        // What waits under the key to be deleted goes first: later its tag might be that of what is published now.
        let outcome = match self.namespace.settle_deferred(&writer.key()).await {
            Ok(()) => {
                writer.publish_seen(&|commit| self.committed(inode, &writer, commit)).await.map_err(FsError::from)
            }
            Err(error) => Err(error.into()),
        };
        let Err(error) = outcome else { return Ok(()) };
        let mut view = inode.view.lock();
        view.failed = Some(error.to_string());
        // The first of two commits may have succeeded: then that is what S3 has.
        if let Some(info) = view.info.as_ref().filter(|_| view.generation != generation) {
            self.show(inode, &writer, info);
        }
        Err(error)
    }

    /// What S3 has committed becomes what the writer, the view and the name show, in one step for everybody who looks at the view:
    /// between two of them our own version would be taken for another writer's, or the old one for the file.
    fn committed(&self, inode: &OpenInode, writer: &Writer, commit: Commit<'_>) -> Committed {
        let (mut committed, _unkept) = {
            let mut view = inode.view.lock();
            let committed = commit.settle();
            self.read.wrote(&committed.info);
            view.move_to(Some(committed.info.clone()));
            let mut unkept = None;
            // Until then the file is unpublished, for the name too.
            if committed.is_whole {
                view.failed = None;
                unkept = view.unkept.take();
                self.show(inode, writer, &committed.info);
            }
            (committed, unkept)
        };
        let info = Arc::new(committed.info.clone());
        for (index, block) in std::mem::take(&mut committed.blocks) {
            self.read.admit(&info, index, block);
        }
        committed
    }

    fn show(&self, inode: &OpenInode, writer: &Writer, info: &ObjectInfo) {
        self.namespace.publish(inode.ino, info);
        // Bytes that came in while the upload was under way are newer than what S3 told us.
        self.note_written(inode.ino, writer);
    }

    /// Tells the namespace of bytes or a size that S3 does not have.
    pub(super) fn note_written(&self, ino: Ino, writer: &Writer) {
        if writer.has_new_content() {
            self.namespace.set_written(ino, writer.size_bytes(), self.clock.wall());
        }
    }

    /// The last descriptor of a handle is gone. Never fails: there is nobody to tell.
    pub async fn release(&self, handle: FileHandle) {
        let Ok(file) = self.handles.remove_file(handle) else { return };
        self.metrics.shift(Gauge::OpenHandles, -1);
        let inode = file.inode.clone();
        {
            // A file that was only read is let go at once.
            let mut view = inode.view.lock();
            if view.writer.is_none() && !view.unlinked {
                view.leave(file.writable, file.shown.load(Relaxed));
                return;
            }
        }
        let _tree = self.tree.read().await;
        let _order = inode.order.lock().await;
        let (last_writer, last) = {
            let mut view = inode.view.lock();
            view.leave(file.writable, file.shown.load(Relaxed));
            (view.write_handles == 0, view.handles == 0)
        };
        if last_writer {
            self.let_writer_go(&inode, last).await;
        }
        if last {
            self.delete_unlinked(&inode).await;
        }
    }

    /// No handle writes any more: what is unpublished is published, or kept.
    async fn let_writer_go(&self, inode: &OpenInode, last: bool) {
        // Others may wait for its memory.
        let drain = self.write.draining();
        let (writer, unlinked) = {
            let view = inode.view.lock();
            (view.writer.clone(), view.unlinked)
        };
        let Some(writer) = writer else { return };
        if unlinked {
            if last {
                writer.abandon().await;
                inode.view.lock().writer = None;
                drop(writer);
                drain.freed();
            }
            return;
        }
        // Whom close told that it failed must not find it done all the same a moment later.
        let failed = inode.view.lock().failed.take().filter(|_| writer.is_dirty());
        let outcome = match failed {
            Some(reason) => Err(reason),
            None => self.publish_in_order(inode).await.map_err(|error| error.to_string()),
        };
        if let Err(reason) = outcome {
            let fate = self.give_up(inode, &writer, &reason).await;
            drop(writer);
            if !matches!(fate, Fate::Unkept(_)) {
                drain.freed();
            }
            return;
        }
        inode.view.lock().forget_clean_writer();
    }

    /// Deletes the object that waited for the last close, if one did.
    pub(super) async fn delete_unlinked(&self, inode: &OpenInode) {
        let delete = {
            let mut view = inode.view.lock();
            std::mem::take(&mut view.delete_at_close)
        };
        if delete && let Err(error) = self.namespace.delete_deferred(inode.ino).await {
            tracing::error!(ino = %inode.ino, %error, "an unlinked file could not be deleted at its last close");
        }
    }
}
