//! getattr, setattr and statfs.
//!
//! A size that is set through a handle is published by that handle's flush; one that is set by path is published before
//! the call returns, because no close will follow: a writer that seems open may be one whose release is still to come.

use std::time::SystemTime;

use super::FileSystem;
use super::data::VIEW_MOVES_MAX;
use super::error::{FsError, FsResult};
use super::opened::OpenInode;
use super::stored::Change;
use crate::namespace::{AttributeChanges, Node, NodeKind};
use crate::types::{FileHandle, Ino};
use crate::write::Writer;

/// A time to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This one.
    At(SystemTime),
}

/// What setattr changes; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// New length in bytes.
    pub size_bytes: Option<u64>,
    /// New permission bits (file type bits are ignored).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
}

/// What statfs answers. S3 has no size, so that these are large round numbers which no program finds too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Blocks in all, and free.
    pub blocks: u64,
    /// Inodes in all, and free.
    pub inodes: u64,
    /// Longest name in bytes.
    pub name_bytes_max: u32,
}

impl FileSystem {
    /// Attributes from memory; `None` where they are older than the mount allows.
    pub fn try_getattr(&self, ino: Ino) -> Option<Node> {
        if self.is_open_file(ino) {
            return self.namespace.peek(ino).map(|node| self.as_handles_see(node));
        }
        self.namespace.try_node(ino)
    }

    /// Attributes, asked anew where they are older than the mount allows. Those of an open file are its handles' own.
    pub async fn getattr(&self, ino: Ino) -> FsResult<Node> {
        if self.is_open_file(ino)
            && let Some(node) = self.namespace.peek(ino)
        {
            return Ok(self.as_handles_see(node));
        }
        let node = self.namespace.node(ino).await?;
        Ok(self.as_opened(node))
    }

    /// What an open file is does not grow old.
    fn as_handles_see(&self, node: Node) -> Node {
        Node { fresh_for: self.options.metadata_ttl, ..self.as_opened(node) }
    }

    fn is_open_file(&self, ino: Ino) -> bool {
        self.open.get(ino).is_some_and(|inode| {
            let view = inode.view.lock();
            view.settled && view.handles > 0
        })
    }

    /// Changes attributes. `handle` is the one through which ftruncate(2) was called.
    pub async fn setattr(&self, ino: Ino, handle: Option<FileHandle>, set: SetAttributes) -> FsResult<Node> {
        self.refuse_if_read_only()?;
        if let Some(size_bytes) = set.size_bytes {
            self.set_size(ino, handle, size_bytes).await?;
        }
        let changes = AttributeChanges {
            mode: set.mode.map(|mode| mode & 0o7777),
            uid: set.uid,
            gid: set.gid,
            atime: set.atime.map(|time| self.time(time)),
            mtime: set.mtime.map(|time| self.time(time)),
        };
        if changes != AttributeChanges::default() && self.options.defaults.posix {
            self.change_stored(ino, Change::Attributes(changes)).await?;
        } else if changes != AttributeChanges::default() {
            self.namespace.set_attributes(ino, changes)?;
            if let Some(inode) = self.open.get(ino) {
                let writer = inode.view.lock().writer.clone();
                if let Some(writer) = writer {
                    writer.set_attributes(self.namespace.object_attributes(ino));
                }
            }
        }
        let node = self.namespace.peek(ino).ok_or(FsError::Stale)?;
        Ok(self.as_opened(node))
    }

    fn time(&self, time: SetTime) -> SystemTime {
        match time {
            SetTime::Now => self.clock.wall(),
            SetTime::At(time) => time,
        }
    }

    async fn set_size(&self, ino: Ino, handle: Option<FileHandle>, size_bytes: u64) -> FsResult<()> {
        let node = self.namespace.peek(ino).ok_or(FsError::Stale)?;
        match node.kind {
            NodeKind::File => {}
            NodeKind::Directory => return Err(FsError::IsADirectory),
            _ => return Err(FsError::Invalid("not a regular file")),
        }
        if let Some(handle) = handle
            && !self.handles.file(handle)?.writable
        {
            return Err(FsError::Invalid("not open for writing"));
        }
        let inode = self.open.acquire(ino);
        let _tree = self.tree.read().await;
        let _order = inode.order.lock().await;
        self.refuse_if_shown(&inode)?;
        let was_dirty = inode.view.lock().is_dirty();
        if !was_dirty {
            self.refuse_if_too_many_unkept()?;
        }
        self.settle_for_writing(&inode, size_bytes).await?;
        let writer = self.writer_of(&inode).await?;
        self.truncate_in_order(&inode, &writer, size_bytes).await?;
        self.note_written(ino, &writer);
        if let Some(handle) = handle {
            self.wrote(handle, None);
            return Ok(());
        }
        let published = self.publish_in_order(&inode).await;
        if inode.view.lock().write_handles > 0 {
            // Those who write to it publish it, or give it up.
            return published;
        }
        match &published {
            Ok(()) => inode.view.lock().forget_clean_writer(),
            // What was written before is nowhere else, and the call did not ask to give it up.
            Err(error) if was_dirty => {
                self.give_up(&inode, &writer, &error.to_string()).await;
            }
            Err(error) => self.let_go_if_unwritten(&inode, &error.to_string()),
        }
        published
    }

    /// Cuts or lengthens what a writer holds, for a caller who holds the tree and the inode's order.
    pub(super) async fn truncate_in_order(&self, inode: &OpenInode, writer: &Writer, size_bytes: u64) -> FsResult<()> {
        for _ in 0..VIEW_MOVES_MAX {
            if let Some(outcome) = writer.try_truncate(size_bytes) {
                return Ok(outcome?);
            }
            self.publish_in_order(inode).await?;
        }
        Err(FsError::Stale)
    }

    /// Gives the inode a view to write on, if it has none: nothing of the object is needed for an empty file, its
    /// current version otherwise.
    async fn settle_for_writing(&self, inode: &OpenInode, size_bytes: u64) -> FsResult<()> {
        {
            let view = inode.view.lock();
            if view.settled && (view.handles > 0 || view.writer.is_some()) {
                return Ok(());
            }
        }
        if size_bytes == 0 {
            return self.writer_of_emptied(inode).map(|_| ());
        }
        let key = self.namespace.key(inode.ino)?;
        let known = self.namespace.peek(inode.ino).and_then(|node| node.info);
        let moment = self.namespace.moment();
        let reader = self.read.open(&key, known.as_ref()).await?;
        self.namespace.learned(inode.ino, reader.info(), &moment);
        inode.view.lock().move_to(Some(reader.info().clone()));
        Ok(())
    }

    /// What statfs(2) says.
    pub fn statfs(&self) -> Statistics {
        Statistics { block_bytes: 4096, blocks: 1 << 38, inodes: 1 << 40, name_bytes_max: 255 }
    }
}
