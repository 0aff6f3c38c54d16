//! With `--posix`: attributes that are kept with the object, and extended attributes.
//!
//! What is set on a file that is being written goes with its publication; on anything else it is in S3 when the call returns, by a
//! copy of the object onto itself, whose content and time of content stay what they were. What S3 refuses is not shown.

use std::ffi::OsStr;

use super::FileSystem;
use super::error::{FsError, FsResult};
use super::opened::OpenInode;
use crate::namespace::{AttributeChanges, NodeKind, Xattrs};
use crate::types::{Ino, ObjectInfo};

/// Times that a change is tried on what S3 then has, where another writer was first.
const TRIES_MAX: usize = 3;

/// What is to be kept with an object.
pub(super) enum Change {
    /// Mode, owner, times.
    Attributes(AttributeChanges),
    /// An extended attribute, or that it goes.
    Xattr(String, Option<(Vec<u8>, SetXattr)>),
}

/// How setxattr(2) sets an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    /// Whether it is there or not.
    Any,
    /// XATTR_CREATE: only if it is not.
    Create,
    /// XATTR_REPLACE: only if it is.
    Replace,
}

impl FileSystem {
    /// The extended attributes of a file, by name.
    ///
    /// # Errors
    /// `Unsupported` without `--posix`.
    pub async fn xattrs(&self, ino: Ino) -> FsResult<std::sync::Arc<Xattrs>> {
        if !self.options.defaults.posix {
            return Err(FsError::Unsupported);
        }
        self.getattr(ino).await?;
        Ok(self.namespace.xattrs(ino)?)
    }

    /// One extended attribute.
    ///
    /// # Errors
    /// `NoAttribute` if it is not there; `Unsupported` without `--posix`, and for every name that does not begin with `user.`.
    pub async fn xattr(&self, ino: Ino, name: &OsStr) -> FsResult<Vec<u8>> {
        let name = self.xattr_name(name)?;
        self.xattrs(ino).await?.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    /// Whether extended attributes of this name can be kept; if not, the kernel need not wait for an answer.
    pub fn xattr_name<'a>(&self, name: &'a OsStr) -> FsResult<&'a str> {
        let name = name.to_str().filter(|name| self.options.defaults.posix && name.starts_with("user."));
        name.ok_or(FsError::Unsupported)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `Exists` or `NoAttribute` as `how` asks for; `NoSpace` if an object's metadata (2 KiB) does not hold it.
    pub async fn set_xattr(&self, ino: Ino, name: &OsStr, value: Vec<u8>, how: SetXattr) -> FsResult<()> {
        self.refuse_if_read_only()?;
        let name = self.xattr_name(name)?.to_owned();
        self.change_stored(ino, Change::Xattr(name, Some((value, how)))).await
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute` if it is not there.
    pub async fn remove_xattr(&self, ino: Ino, name: &OsStr) -> FsResult<()> {
        self.refuse_if_read_only()?;
        let name = self.xattr_name(name)?.to_owned();
        self.change_stored(ino, Change::Xattr(name, None)).await
    }

    /// Changes what is kept with an object.
    ///
    /// # Errors
    /// What S3 said; then nothing has changed, here neither.
    pub(super) async fn change_stored(&self, ino: Ino, change: Change) -> FsResult<()> {
        let inode = self.open.acquire(ino);
        for _ in 0..TRIES_MAX {
            // What the object says of itself must be known before it is said anew.
            let kind = self.getattr(ino).await?.kind;
            let _tree = self.tree.read().await;
            let _order = inode.order.lock().await;
            match self.change_in_order(&inode, kind, &change).await {
                Err(FsError::Stale) if inode.view.lock().handles == 0 => self.namespace.doubt(ino),
                outcome => return outcome,
            }
        }
        Err(FsError::Stale)
    }

    async fn change_in_order(&self, inode: &OpenInode, kind: NodeKind, change: &Change) -> FsResult<()> {
        let ino = inode.ino;
        let before = self.namespace.overlay(ino)?;
        let object = self.namespace.peek(ino).and_then(|node| node.info);
        match change {
            Change::Attributes(changes) => {
                self.namespace.set_attributes(ino, *changes)?;
            }
            Change::Xattr(name, value) => {
                let mut xattrs = Xattrs::clone(&*self.namespace.xattrs(ino)?);
                change_one(&mut xattrs, name, value.as_ref())?;
                self.namespace.set_xattrs(ino, xattrs)?;
            }
        }
        let outcome = if self.namespace.is_too_much(ino) {
            Err(FsError::NoSpace("an object's metadata holds 2 KiB".into()))
        } else if kind == NodeKind::File && self.goes_with_the_next_publication(inode) {
            Ok(None)
        } else {
            self.namespace.store_overlay(ino).await.map_err(FsError::from)
        };
        match outcome {
            Ok(Some(info)) if kind == NodeKind::File => {
                object.iter().for_each(|object| self.read.copied(object, &info));
                self.inode_is_copied(inode, &info);
            }
            Ok(_) => {}
            Err(error) => {
                self.namespace.restore(ino, before);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the file is to be published, or has no name: then its writer takes along what was set.
    fn goes_with_the_next_publication(&self, inode: &OpenInode) -> bool {
        let attributes = self.namespace.object_attributes(inode.ino);
        let unpublished = self.namespace.peek(inode.ino).is_some_and(|node| node.unpublished);
        let view = inode.view.lock();
        let is_awaited = unpublished || view.unlinked || view.is_dirty();
        if is_awaited && let Some(writer) = &view.writer {
            writer.set_attributes(attributes);
        }
        is_awaited
    }

    /// The object was copied onto itself: the same content, perhaps under another tag.
    fn inode_is_copied(&self, inode: &OpenInode, info: &ObjectInfo) {
        let attributes = self.namespace.object_attributes(inode.ino);
        let mut view = inode.view.lock();
        view.forget_clean_writer();
        if view.handles == 0 && view.writer.is_none() {
            // An open that has just asked must not take the copy for another writer's.
            view.generation += 1;
            return;
        }
        if let Some(writer) = &view.writer {
            writer.copied(info, attributes);
        }
        if let Some(shown) = &mut view.shown {
            shown.version = info.version.clone();
        }
        view.move_to(Some(info.clone()));
    }
}

fn change_one(xattrs: &mut Xattrs, name: &str, value: Option<&(Vec<u8>, SetXattr)>) -> FsResult<()> {
    let is_there = xattrs.contains_key(name);
    match value {
        Some((_, SetXattr::Create)) if is_there => Err(FsError::Exists),
        Some((_, SetXattr::Replace)) | None if !is_there => Err(FsError::NoAttribute),
        Some((value, _)) => {
            xattrs.insert(name.to_owned(), value.clone());
            Ok(())
        }
        None => {
            xattrs.remove(name);
            Ok(())
        }
    }
}
