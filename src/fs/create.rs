//! New names: files, directories, symbolic links.
//!
//! A created file exists locally at once and in S3 when it is published; no empty stub is put meanwhile.

use std::ffi::OsStr;

use super::FileSystem;
use super::error::{FsError, FsResult};
use super::open::{Access, Opened};
use crate::namespace::{NewNode, Node, NodeKind};
use crate::types::Ino;
use crate::write::{Base, WriteTarget};

/// What a new name starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// `st_mode` bits, file type included, umask applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl NewFile {
    fn node(self) -> NewNode {
        NewNode { mode: self.mode & 0o7777, uid: self.uid, gid: self.gid }
    }
}

impl FileSystem {
    /// Creates a file and opens it (open(2) with O_CREAT where the name was not known). The node's lookup count has
    /// been raised.
    pub async fn create(&self, parent: Ino, name: &OsStr, new: NewFile, flags: i32) -> FsResult<(Node, Opened)> {
        self.refuse_if_read_only()?;
        let name = Self::name(name)?;
        self.refuse_if_too_many_unkept()?;
        let exclusive = flags & libc::O_EXCL != 0;
        let _tree = self.tree.read().await;
        match self.namespace.create(parent, name, NodeKind::File, new.node()) {
            Ok(node) => {
                let opened = self.open_created(&node, exclusive, Access::of(flags))?;
                Ok((node, opened))
            }
            Err(crate::namespace::NamespaceError::Exists) if !exclusive => {
                // Somebody was faster between the kernel's lookup and this call.
                drop(_tree);
                let node = self.namespace.lookup(parent, name).await?;
                match self.open(node.ino, flags).await {
                    Ok(opened) => Ok((self.as_opened(node), opened)),
                    Err(error) => {
                        self.namespace.forget(node.ino, 1);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn open_created(&self, node: &Node, exclusive: bool, access: Access) -> FsResult<Opened> {
        let inode = self.open.acquire(node.ino);
        let key = self.namespace.key(node.ino)?;
        let attributes = self.namespace.object_attributes(node.ino);
        // Who did not ask for an empty file believes that there is none: what another writer puts there meanwhile is not lost.
        let base = Base::Absent { exclusive: exclusive || !access.truncate };
        let writer = self.write.writer(WriteTarget { key, base, attributes });
        {
            let mut view = inode.view.lock();
            view.writer = Some(writer);
            view.settled = true;
        }
        self.insert_handle(inode, access)
    }

    /// Creates a regular file without opening it (mknod(2)): it is published at once, for no close will follow. The
    /// node's lookup count has been raised.
    ///
    /// # Errors
    /// `NotPermitted` for a pipe, a socket or a device without `--posix`.
    pub async fn mknod(&self, parent: Ino, name: &OsStr, new: NewFile, rdev: u32) -> FsResult<Node> {
        match NodeKind::of_mode(new.mode) {
            Some(NodeKind::File) | None => {}
            Some(kind) if self.options.defaults.posix && !matches!(kind, NodeKind::Directory | NodeKind::Symlink) => {
                self.refuse_if_read_only()?;
                let name = Self::name(name)?;
                let _tree = self.tree.read().await;
                return Ok(self.namespace.create_special(parent, name, kind, new.node(), rdev).await?);
            }
            Some(_) => return Err(FsError::NotPermitted),
        }
        let (node, opened) = self.create(parent, name, new, libc::O_WRONLY | libc::O_EXCL).await?;
        let published = self.flush(opened.handle).await;
        self.release(opened.handle).await;
        if let Err(error) = published {
            self.namespace.forget(node.ino, 1);
            return Err(error);
        }
        self.namespace.peek(node.ino).ok_or(FsError::Stale)
    }

    /// Creates a directory. The node's lookup count has been raised.
    pub async fn mkdir(&self, parent: Ino, name: &OsStr, new: NewFile) -> FsResult<Node> {
        self.refuse_if_read_only()?;
        let name = Self::name(name)?;
        let _tree = self.tree.read().await;
        Ok(self.namespace.mkdir(parent, name, new.node()).await?)
    }

    /// Creates a symbolic link. The node's lookup count has been raised.
    pub async fn symlink(&self, parent: Ino, name: &OsStr, target: &OsStr, new: NewFile) -> FsResult<Node> {
        self.refuse_if_read_only()?;
        let name = Self::name(name)?;
        let target = target.to_str().ok_or(FsError::InvalidName)?;
        let _tree = self.tree.read().await;
        Ok(self.namespace.create_symlink(parent, name, target, new.node()).await?)
    }

    /// The target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> FsResult<String> {
        Ok(self.namespace.read_link(ino).await?)
    }
}
