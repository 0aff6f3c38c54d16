//! unlink and rmdir.
//!
//! An open file that is unlinked stays readable until its last close: its name goes at once, its object with the last
//! handle.

use std::ffi::OsStr;

use super::FileSystem;
use super::error::{FsError, FsResult};
use super::opened::InodeUse;
use crate::namespace::{NodeKind, Unlink};
use crate::types::Ino;

impl FileSystem {
    /// Removes a name of a file.
    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> FsResult<()> {
        self.refuse_if_read_only()?;
        let name = Self::name(name).map_err(|_| FsError::NotFound)?;
        let node = self.namespace.lookup(parent, name).await?;
        let outcome = self.unlink_node(parent, name, node.ino, node.kind).await;
        self.namespace.forget(node.ino, 1);
        outcome
    }

    async fn unlink_node(&self, parent: Ino, name: &str, ino: Ino, kind: NodeKind) -> FsResult<()> {
        if kind == NodeKind::Directory {
            return Err(FsError::IsADirectory);
        }
        let inode = self.open.acquire(ino);
        let _tree = self.tree.read().await;
        let _order = inode.order.lock().await;
        let (open, published) = {
            let view = inode.view.lock();
            let unpublished = self.namespace.peek(ino).is_some_and(|node| node.unpublished);
            (view.handles > 0, !unpublished)
        };
        let how = match (open, published) {
            (_, false) => Unlink::Local,
            (true, true) => Unlink::Deferred,
            (false, true) => Unlink::Now,
        };
        let how = self.namespace.unlink(parent, name, how).await?;
        self.orphan(&inode, how == Unlink::Deferred).await;
        let closed_meanwhile = inode.view.lock().handles == 0;
        if closed_meanwhile {
            self.delete_unlinked(&inode).await;
        }
        Ok(())
    }

    /// The inode has lost its name: it lives on for its handles and never publishes.
    pub(super) async fn orphan(&self, inode: &InodeUse, delete_at_close: bool) {
        let (writer, _unwanted) = {
            let mut view = inode.view.lock();
            view.unlinked = true;
            view.delete_at_close = delete_at_close;
            (view.writer.clone(), view.unkept.take())
        };
        if let Some(writer) = writer {
            writer.abandon().await;
        }
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, parent: Ino, name: &OsStr) -> FsResult<()> {
        self.refuse_if_read_only()?;
        let name = Self::name(name).map_err(|_| FsError::NotFound)?;
        let _tree = self.tree.read().await;
        self.namespace.rmdir(parent, name).await?;
        Ok(())
    }
}
