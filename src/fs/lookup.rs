//! Names to inodes: lookup and forget, and the attributes that an answer carries.
//!
//! Invariant: while an inode is open, its answers carry the size of the view that its handles see, not what S3 holds
//! meanwhile; otherwise the kernel would cut or stretch the open file.

use std::ffi::OsStr;
use std::time::Duration;

use super::FileSystem;
use super::error::{FsError, FsResult};
use crate::namespace::{Namespace, Node, NodeKind};
use crate::types::Ino;

impl FileSystem {
    /// The name as the namespace spells it: UTF-8, since S3 keys are.
    pub(super) fn name(name: &OsStr) -> FsResult<&str> {
        name.to_str().ok_or(FsError::InvalidName)
    }

    /// Looks a name up in memory; `None` where S3 must be asked. A found node's lookup count has been raised.
    pub fn try_lookup(&self, parent: Ino, name: &OsStr) -> Option<FsResult<Node>> {
        // No key can spell a name that is not UTF-8, so nothing has it.
        let Ok(name) = Self::name(name) else { return Some(Err(FsError::NotFound)) };
        let found = self.namespace.try_lookup(parent, name)?;
        Some(found.map(|node| self.as_found(node)).map_err(Into::into))
    }

    /// Looks a name up. A found node's lookup count has been raised.
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> FsResult<Node> {
        let name = Self::name(name).map_err(|_| FsError::NotFound)?;
        let node = self.namespace.lookup(parent, name).await?;
        Ok(self.as_found(node))
    }

    /// The last part of the time for which names are good: who asks for them then shows that they are still needed.
    pub fn late(ttl: Duration) -> Duration {
        Namespace::late(ttl)
    }

    /// A name in a directory is asked for; `opening` has the flags if by open(2), which asks S3 for a file by itself. Names that will soon be too old are
    /// then listed anew in the background. Call it in a tokio runtime.
    pub fn looked_up(&self, parent: Ino, opening: impl FnOnce() -> Option<i32>) {
        if self.namespace.is_late(parent) && opening().is_none_or(|flags| flags & libc::O_DIRECTORY != 0) {
            self.namespace.asked_late(parent);
        }
    }

    /// How long the kernel may take a name for absent.
    pub fn absent_for(&self, parent: Ino, name: &OsStr) -> Duration {
        // What is not UTF-8 is never there.
        Self::name(name).map_or(self.options.metadata_ttl, |name| self.namespace.absent_for(parent, name))
    }

    /// The node as the kernel is told of it, which may then keep the name for a while.
    pub(super) fn as_found(&self, node: Node) -> Node {
        self.lookups.forget(node.ino);
        self.as_opened(node)
    }

    /// The kernel dropped `lookups` references to an inode.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.namespace.forget(ino, lookups);
    }

    /// The node with the size that its open handles see.
    pub(super) fn as_opened(&self, mut node: Node) -> Node {
        if node.kind == NodeKind::File
            && let Some(size_bytes) = self.opened_size(node.ino)
        {
            node.attributes.size_bytes = size_bytes;
        }
        node
    }

    /// The size that the open handles of a file see.
    pub(super) fn opened_size(&self, ino: Ino) -> Option<u64> {
        let inode = self.open.get(ino)?;
        let view = inode.view.lock();
        if view.settled { view.size_bytes() } else { None }
    }
}
