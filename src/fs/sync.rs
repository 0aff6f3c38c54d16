//! Making bytes durable: flush, fsync, release, and the drain at the end of a mount.
//!
//! Promise: when flush or fsync answered success, everything written before is committed in S3. flush is not close:
//! dup(2) and fork(2) repeat it, so publishing is idempotent, and who only inherited a descriptor publishes nothing. release reports to nobody, so that errors are said at flush
//! and fsync; what is unpublished at the last release is kept for recovery where flush has failed, and published otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::error::{FsError, FsResult};
use super::handles::Opener;
use super::opened::{InodeUse, OpenInode};
use super::{FileSystem, KernelEvent};
use crate::metrics::Gauge;
use crate::types::{FileHandle, Ino};
use crate::write::Writer;

/// What a drain came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Files that were published.
    pub published: usize,
    /// Files that could not be published and were kept for `s3mount recover`.
    pub kept: usize,
}

/// Files published at the same time by a drain; each of them uploads several parts at once.
const DRAIN_FILES_MAX: usize = 16;

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
        let writer = {
            let view = inode.view.lock();
            match &view.writer {
                Some(writer) if writer.is_dirty() && !view.unlinked => writer.clone(),
                _ => return Ok(()),
            }
        };
        // What waits under the key to be deleted goes first: later its tag might be that of what is published now.
        let outcome = match self.namespace.settle_deferred(&writer.key()).await {
            Ok(()) => writer.publish().await.map_err(FsError::from),
            Err(error) => Err(error.into()),
        };
        let published = match outcome {
            Ok(published) => published,
            Err(error) => {
                inode.view.lock().failed = Some(error.to_string());
                return Err(error);
            }
        };
        let info = Arc::new(published.info.clone());
        for (index, block) in published.blocks {
            self.read.admit(&info, index, block);
        }
        let _unkept = {
            let mut view = inode.view.lock();
            view.failed = None;
            view.move_to(Some(published.info.clone()));
            view.unkept.take()
        };
        self.namespace.publish(inode.ino, &published.info);
        // Bytes that came in while the upload was under way are newer than what S3 told us.
        self.note_written(inode.ino, &writer);
        Ok(())
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
        let (writer, unlinked) = {
            let view = inode.view.lock();
            (view.writer.clone(), view.unlinked)
        };
        let Some(writer) = writer else { return };
        if unlinked {
            if last {
                writer.abandon().await;
                inode.view.lock().writer = None;
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
            self.give_up(inode, &writer, &reason).await;
            return;
        }
        let mut view = inode.view.lock();
        if !view.is_dirty() {
            view.writer = None;
        }
    }

    /// Puts what is unpublished into the journal. While somebody has the file open for writing it stays here, too: what
    /// that program writes on must meet what it wrote before; and where the journal does not take it. Otherwise the file is again what
    /// S3 has.
    async fn give_up(&self, inode: &OpenInode, writer: &Writer, reason: &str) {
        tracing::error!(ino = %inode.ino, reason, "a file could not be uploaded");
        let is_written = {
            let mut view = inode.view.lock();
            view.given_up = view.write_handles == 0;
            if !view.given_up {
                view.failed = Some(reason.to_owned());
            }
            !view.given_up
        };
        let (keeping, why) = (writer.clone(), reason.to_owned());
        let kept = tokio::task::spawn_blocking(move || keeping.keep(&why)).await.is_ok_and(|kept| kept.is_ok());
        if is_written {
            return;
        }
        if !kept {
            let stays = self.open.join(inode.ino);
            let mut view = inode.view.lock();
            view.given_up = false;
            let _before = std::mem::replace(&mut view.unkept, stays);
            drop(view);
            return;
        }
        self.namespace.revert(inode.ino);
        let mut view = inode.view.lock();
        view.writer = None;
        view.given_up = false;
        let base = view.info.take();
        view.move_to(base);
        let _unkept = view.unkept.take();
        drop(view);
        // The kernel still caches pages of what was given up.
        self.tell_kernel(KernelEvent::Inode { ino: inode.ino, offset: 0, len: 0 });
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

    /// Publishes every file with unpublished bytes; what fails is kept for recovery. For the end of a mount.
    pub async fn drain(self: &Arc<Self>) -> Drained {
        let mut drained = Drained::default();
        let mut waiting = self.open.dirty().into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < DRAIN_FILES_MAX
                && let Some(inode) = waiting.next()
            {
                running.push(self.drain_one(inode));
            }
            match running.next().await {
                Some(true) => drained.published += 1,
                Some(false) => drained.kept += 1,
                None => return drained,
            }
        }
    }

    async fn drain_one(&self, inode: InodeUse) -> bool {
        let _tree = self.tree.read().await;
        let _order = inode.order.lock().await;
        let Err(error) = self.publish_in_order(&inode).await else { return true };
        let writer = inode.view.lock().writer.clone();
        if let Some(writer) = writer {
            self.give_up(&inode, &writer, &error.to_string()).await;
        }
        false
    }

    /// Keeps every unpublished byte for recovery without another try at S3. For an end that cannot wait.
    pub fn keep_all(&self) -> usize {
        let mut kept = 0;
        for inode in self.open.dirty() {
            let writer = inode.view.lock().writer.clone();
            if let Some(writer) = writer {
                kept += usize::from(writer.keep("the mount was ended before the upload finished").is_ok());
            }
        }
        kept
    }

    /// Has the disk cache finish what it was to keep, within `limit`: for the end of a mount. Blocks.
    pub fn settle_disk_cache(&self, limit: std::time::Duration) {
        self.read.settle_disk(limit);
    }

    /// Objects of unlinked files that are still open, deleted now: for the end of a mount.
    pub async fn delete_all_unlinked(&self) {
        for inode in self.open.unlinked() {
            let _order = inode.order.lock().await;
            self.delete_unlinked(&inode).await;
        }
    }
}
