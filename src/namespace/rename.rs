//! rename of files: a copy by the server and a delete of the old key.
//!
//! Between the two, both names exist in S3; a crash there leaves two files, never none.

use std::time::SystemTime;

use super::change::attributes_of;
use super::table::Table;
use super::{AttributeChanges, Namespace, NamespaceError, NamespaceResult, NodeKind, keys};
use crate::store::{StoreError, WriteCondition};
use crate::types::{Ino, ObjectInfo, ObjectKey, ObjectVersion};

/// Flags of renameat2(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// RENAME_NOREPLACE: an existing target is refused.
    pub no_replace: bool,
}

/// An object that was moved.
#[derive(Clone, Debug)]
pub struct Copied {
    /// What it is a copy of.
    pub source: ObjectVersion,
    /// Since when the source had its content.
    pub modified: SystemTime,
    /// The copy.
    pub info: ObjectInfo,
}

/// What a rename of a file came to.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// What the inode has under its new name; `None` if nothing of it is published, and if it has lost its name, because another
    /// version was there than was known: that has the new name, and an inode of its own.
    pub moved: Option<Copied>,
    /// The inode that lost its name to it.
    pub replaced: Option<Ino>,
}

/// A directory and a name in it.
pub(super) type Place<'a> = (Ino, &'a str);

impl Namespace {
    /// Renames what is no directory.
    ///
    /// # Errors
    /// `Stale`, with nothing changed, if the name does not lead to `ino` any more.
    pub async fn rename_file(
        &self,
        ino: Ino,
        from: Place<'_>,
        to: Place<'_>,
        flags: RenameFlags,
    ) -> NamespaceResult<Renamed> {
        // From the first look on the name cannot be taken from the inode by what S3 says.
        let (unpublished, key, _moving) = {
            let mut table = self.0.table.lock();
            Self::check_directory(&table, to.0)?;
            let found = table.child(from.0, from.1).ok_or(NamespaceError::NotFound)?;
            let row = table.rows.get(&found).filter(|_| found == ino).ok_or(NamespaceError::Stale)?;
            if row.kind == NodeKind::Directory {
                return Err(NamespaceError::IsADirectory);
            }
            let unpublished = row.unpublished;
            let prefix = self.directory_prefix(&table, to.0)?;
            let key = ObjectKey::from(keys::file_key(&prefix, to.1)?);
            (unpublished, key, self.moving(&mut table, ino))
        };
        let target = self.target(to, flags).await?;
        if let Some(target) = target
            && self.0.table.lock().kind(target) == Some(NodeKind::Directory)
        {
            return Err(NamespaceError::IsADirectory);
        }
        self.settle_deferred(&key).await?;
        let copied = if unpublished {
            None
        } else {
            self.keep_directory(from.0, ino).await?;
            Some(self.move_object(ino, &key, flags).await?)
        };
        let mut table = self.0.table.lock();
        let now = self.0.clock.now();
        let has_place = table.is_linked(ino) && table.has_place(to.0);
        if copied.is_none() && !has_place {
            return Err(NamespaceError::Stale);
        }
        // What stands at the target now is what was replaced, also if it was found only meanwhile.
        let replaced = table.child(to.0, to.1).filter(|&replaced| replaced != ino);
        if let Some(replaced) = replaced {
            table.remove(replaced, now);
        }
        let is_known = |copied: &Copied| {
            table.rows.get(&ino).and_then(|row| row.object.as_ref()).is_some_and(|info| info.version == copied.source)
        };
        let goes_along = has_place && copied.as_ref().is_none_or(is_known);
        let goes_along = goes_along && table.relink(ino, to.0, to.1, now);
        match &copied {
            Some(copied) if goes_along => moved(&mut table, ino, copied),
            Some(copied) => self.gives_way(&mut table, ino, to, copied),
            None => {}
        }
        self.touch_both(&mut table, from.0, to.0);
        Ok(Renamed { moved: copied.filter(|_| goes_along), replaced: replaced.or(target) })
    }

    /// What was moved is not what an inode showed: the inode loses its name, and `to` leads to a new one.
    pub(super) fn gives_way(&self, table: &mut Table, ino: Ino, to: Place<'_>, copied: &Copied) {
        let (now, wall) = (self.0.clock.now(), self.0.clock.wall());
        let Some(row) = table.rows.get(&ino) else { return };
        let beside = (row.kind, table.set_beside_content(row));
        if row.linked {
            table.remove(ino, now);
        }
        if !table.has_place(to.0) || table.child(to.0, to.1).is_some() {
            return;
        }
        let new = table.link_object(to.0, to.1, beside, &copied.info, (now, wall));
        let change = table.change();
        let row = table.row_mut(new);
        row.changed = change;
        row.shown_mtime = Some((copied.info.version.clone(), copied.modified));
        // The kernel took the old inode to the new name.
        self.tell(to.0, to.1);
    }

    /// The object of a renamed inode turned out to be another version than its handles show: the name leads to a new inode.
    pub fn superseded_by_copy(&self, ino: Ino, copied: &Copied) {
        let mut table = self.0.table.lock();
        let Some(row) = table.rows.get(&ino).filter(|row| row.linked && !row.unpublished) else { return };
        let (parent, name) = (row.parent, std::sync::Arc::clone(&row.name));
        self.gives_way(&mut table, ino, (parent, &name), copied);
    }

    /// A name went from one directory to another.
    pub(super) fn touch_both(&self, table: &mut Table, from: Ino, to: Ino) {
        let wall = self.0.clock.wall();
        table.touch(from, wall);
        table.touch(to, wall);
    }

    /// What the target names now.
    pub(super) async fn target(&self, to: Place<'_>, flags: RenameFlags) -> NamespaceResult<Option<Ino>> {
        match self.lookup(to.0, to.1).await {
            Ok(node) => {
                self.forget(node.ino, 1);
                if flags.no_replace { Err(NamespaceError::Exists) } else { Ok(Some(node.ino)) }
            }
            Err(NamespaceError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies the object that is under the name of an inode to `key`, and deletes it there. Once the copy is there the rename has
    /// happened: a delete that then fails leaves the old name as well, which is logged.
    async fn move_object(&self, ino: Ino, key: &ObjectKey, flags: RenameFlags) -> NamespaceResult<Copied> {
        let (from, known, beside, pinned, xattrs, kind) = {
            let table = self.0.table.lock();
            let row = table.rows.get(&ino).filter(|row| row.linked).ok_or(NamespaceError::Stale)?;
            let from = self.key_of(&table, row)?;
            let known = row.object.clone().filter(|info| *info.key() == from);
            // The copy has a time of its own, which is not that of the content.
            let pinned = if table.posix { self.pinned(&table, ino, row.set) } else { row.set };
            (from, known, table.set_beside_content(row), pinned, row.xattrs.clone(), row.kind)
        };
        let condition = if flags.no_replace { WriteCondition::Absent } else { WriteCondition::None };
        let mut source = match &known {
            Some(known) => known.clone(),
            None => self.0.store.head(&from).await?,
        };
        for again in [true, false] {
            // What was set on one content is not set on another.
            let is_known = known.as_ref().is_some_and(|known| known.version == source.version);
            let (set, xattrs) = if is_known { (&pinned, xattrs.as_deref()) } else { (&beside, None) };
            let attributes = if *set == AttributeChanges::default() && xattrs.is_none() {
                None
            } else {
                if source.metadata.is_none() {
                    source = self.0.store.head(&from).await?;
                }
                Some(attributes_of(Some(&source), kind, set, xattrs))
            };
            match self.copy_object(&source, key, attributes, condition.clone()).await {
                Ok(mut info) => {
                    info.metadata = info.metadata.or_else(|| source.metadata.clone());
                    info.headers = info.headers.or_else(|| source.headers.clone());
                    // What another client put under the old name meanwhile is not what was moved, and stays.
                    match self.0.store.delete(&from, Some(source.etag())).await {
                        Ok(()) | Err(StoreError::PreconditionFailed | StoreError::NotFound) => {}
                        Err(error) => {
                            tracing::error!(%from, to = %key, %error, "a file was renamed, but stays under its old name as well");
                        }
                    }
                    return Ok(Copied { source: source.version, modified: source.last_modified, info });
                }
                Err(NamespaceError::Store(StoreError::PreconditionFailed | StoreError::Conflict)) => {
                    // Either the target was made meanwhile, or the source is another version than we knew: mv moves
                    // what is there.
                    let present = self.0.store.head(&from).await?;
                    if present.version == source.version || !again {
                        return Err(if flags.no_replace { NamespaceError::Exists } else { NamespaceError::Stale });
                    }
                    source = present;
                }
                Err(error) => return Err(error),
            }
        }
        Err(NamespaceError::Stale)
    }
}

/// The inode's object is now the copy; what was shown of it stays.
pub(super) fn moved(table: &mut Table, ino: Ino, copied: &Copied) {
    let (change, posix) = (table.change(), table.posix);
    let Some(row) = table.rows.get_mut(&ino) else { return };
    let shown = match (&row.shown_mtime, &row.object) {
        (Some((version, mtime)), Some(object)) if *version == object.version => *mtime,
        (_, Some(object)) => object.last_modified,
        (_, None) => copied.modified,
    };
    let mut info = copied.info.clone();
    info.metadata = info.metadata.or_else(|| row.object.as_ref().and_then(|object| object.metadata.clone()));
    info.headers = info.headers.or_else(|| row.object.as_ref().and_then(|object| object.headers.clone()));
    row.pages_go_with(&info.version);
    row.changed = change;
    row.shown_mtime = Some((info.version.clone(), shown));
    if posix && let Some(metadata) = &info.metadata {
        row.settle(metadata);
        row.metadata_is_old = false;
    }
    row.object = Some(info);
}
