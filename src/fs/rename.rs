//! rename of files and of directories.
//!
//! A file that was never published moves in memory. A published one is copied by the server and its old key deleted;
//! unpublished bytes over it are published first. A directory rename holds the tree alone, since it changes the keys of
//! everything below.

use std::collections::HashMap;
use std::ffi::OsStr;

use super::FileSystem;
use super::data::VIEW_MOVES_MAX;
use super::error::{FsError, FsResult};
use super::opened::{InodeUse, OpenInode};
use crate::namespace::{Copied, NodeKind, RenameFlags, Renamed};
use crate::types::{Ino, ObjectInfo};

/// For as long as this lives, nothing new is uploaded under the key that a file is about to lose.
struct Still<'a>(&'a OpenInode);

impl<'a> Still<'a> {
    fn new(inode: &'a OpenInode) -> Self {
        Self::set(inode, true);
        Self(inode)
    }

    fn set(inode: &OpenInode, is_moving: bool) {
        let mut view = inode.view.lock();
        view.moving = is_moving;
        if let Some(writer) = &view.writer {
            writer.freeze(is_moving);
        }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        Self::set(self.0, false);
    }
}

impl FileSystem {
    /// Renames `from` to `to`, each a directory and a name. With `no_replace` an existing target is refused
    /// (RENAME_NOREPLACE); an exchange is not supported.
    pub async fn rename(&self, from: (Ino, &OsStr), to: (Ino, &OsStr), no_replace: bool) -> FsResult<()> {
        self.refuse_if_read_only()?;
        let from = (from.0, Self::name(from.1).map_err(|_| FsError::NotFound)?);
        let to = (to.0, Self::name(to.1)?);
        if from == to {
            return if no_replace { Err(FsError::Exists) } else { Ok(()) };
        }
        let flags = RenameFlags { no_replace };
        for _ in 0..VIEW_MOVES_MAX {
            let node = self.namespace.lookup(from.0, from.1).await?;
            let outcome = match node.kind {
                NodeKind::Directory => self.rename_directory(node.ino, from, to, flags).await,
                _ => self.rename_file(node.ino, from, to, flags).await,
            };
            self.namespace.forget(node.ino, 1);
            match outcome {
                // The name was led elsewhere meanwhile: what it leads to now is what is to be moved.
                Err(FsError::Stale) if !self.namespace.leads_to(from, node.ino) => {}
                outcome => return outcome,
            }
        }
        Err(FsError::Stale)
    }

    async fn rename_file(&self, ino: Ino, from: (Ino, &str), to: (Ino, &str), flags: RenameFlags) -> FsResult<()> {
        let target = self.existing(to).await?;
        if target == Some(ino) {
            return Ok(());
        }
        let source_use = self.open.acquire(ino);
        let target_use = target.map(|target| self.open.acquire(target));
        let _tree = self.tree.read().await;
        // Two renames in opposite directions take the two inodes in the same order.
        let (_first, _second) = match &target_use {
            Some(target) if target.ino < ino => (target.order.lock().await, Some(source_use.order.lock().await)),
            Some(target) => (source_use.order.lock().await, Some(target.order.lock().await)),
            None => (source_use.order.lock().await, None),
        };
        let key = self.namespace.key_in(to.0, to.1)?;
        let writer = source_use.view.lock().writer.clone();
        // Onto a published file it does not move in memory alone: the name would hide an object that is still there.
        let is_unpublished = |ino| self.namespace.peek(ino).is_some_and(|node| node.unpublished);
        let in_memory = is_unpublished(ino) && target.is_none_or(is_unpublished);
        let retargeted = writer.filter(|_| in_memory).and_then(|writer| Some((writer.retarget(key)?, writer)));
        let _still = Still::new(&source_use);
        if retargeted.is_none() {
            self.publish_in_order(&source_use).await?;
        }
        let before = self.namespace.peek(ino).and_then(|node| node.info);
        let renamed = match self.namespace.rename_file(ino, from, to, flags).await {
            Ok(renamed) => renamed,
            Err(error) => {
                if let Some((before, writer)) = retargeted {
                    writer.target_again(before);
                }
                return Err(error.into());
            }
        };
        self.same_as(before.as_ref(), renamed.moved.as_ref());
        self.follow(&source_use, renamed.moved.as_ref());
        self.replaced(&renamed, target_use.as_ref()).await;
        Ok(())
    }

    /// The inode that `to` names now, if any. Its lookup count is as before.
    async fn existing(&self, to: (Ino, &str)) -> FsResult<Option<Ino>> {
        match self.namespace.lookup(to.0, to.1).await {
            Ok(node) => {
                self.namespace.forget(node.ino, 1);
                Ok(Some(node.ino))
            }
            Err(crate::namespace::NamespaceError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A copy is written by whom the original was.
    fn same_as(&self, before: Option<&ObjectInfo>, copied: Option<&Copied>) {
        if let (Some(before), Some(copied)) = (before, copied)
            && before.version == copied.source
        {
            self.read.copied(before, &copied.info);
        }
    }

    /// The view of a renamed inode rests on the copy from now on, unless that is one of another version: then the inode keeps what
    /// it shows, and loses its name.
    fn follow(&self, inode: &OpenInode, copied: Option<&Copied>) {
        let mut view = inode.view.lock();
        // An open that asks for the old key now must ask again.
        view.generation += 1;
        let Some(copied) = copied else { return };
        let is_seen = view.handles > 0 || view.writer.is_some();
        if is_seen && view.info.as_ref().is_some_and(|seen| seen.version != copied.source) {
            drop(view);
            self.namespace.superseded_by_copy(inode.ino, copied);
            return;
        }
        if let Some(writer) = &view.writer {
            writer.rebase(&copied.info);
        }
        // What the kernel reads itself is the same content, so that further opens may join.
        if let Some(shown) = view.shown.as_mut().filter(|shown| shown.version == copied.source) {
            shown.version = copied.info.version.clone();
        }
        if view.settled {
            view.move_to(Some(copied.info.clone()));
        }
    }

    /// What the rename replaced has lost its name; its object is already overwritten.
    async fn replaced(&self, renamed: &Renamed, target: Option<&InodeUse>) {
        if let (Some(replaced), Some(target)) = (renamed.replaced, target)
            && target.ino == replaced
        {
            self.orphan(target, false).await;
        }
    }

    async fn rename_directory(&self, ino: Ino, from: (Ino, &str), to: (Ino, &str), flags: RenameFlags) -> FsResult<()> {
        let _tree = self.tree.write().await;
        if !self.namespace.leads_to(from, ino) {
            return Err(FsError::Stale);
        }
        let open: Vec<InodeUse> =
            self.namespace.files_under(ino).into_iter().filter_map(|file| self.open.join(file)).collect();
        let _still: Vec<Still<'_>> = open.iter().map(|inode| Still::new(inode)).collect();
        for inode in &open {
            let _order = inode.order.lock().await;
            // Bytes that were never published need no object yet, but an upload that was begun is bound to its key.
            self.publish_in_order(inode).await?;
        }
        let info = |file| self.namespace.peek(file).and_then(|node| node.info).map(|info| (file, info));
        let files = if self.read.has_disk() { self.namespace.files_under(ino) } else { Vec::new() };
        let before: HashMap<Ino, ObjectInfo> = files.into_iter().filter_map(info).collect();
        let renamed = self.namespace.rename_directory(from, to, flags).await?;
        for (file, copied) in renamed.moved {
            self.same_as(before.get(&file), copied.as_ref());
            let Some(inode) = self.open.join(file) else { continue };
            self.follow(&inode, copied.as_ref());
        }
        Ok(())
    }
}
