//! rename of files: a copy by the server and a delete of the old key.
//!
//! Between the two, both names exist in S3; a crash there leaves two files, never none.

use super::change::attributes_of;
use super::table::Table;
use super::{AttributeChanges, Namespace, NamespaceError, NamespaceResult, NodeKind, keys};
use crate::store::{StoreError, WriteCondition};
use crate::types::{Ino, ObjectInfo, ObjectKey};

/// Flags of renameat2(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// RENAME_NOREPLACE: an existing target is refused.
    pub no_replace: bool,
}

/// What a rename of a file came to.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// The inode that moved.
    pub ino: Ino,
    /// Its object under the new key; `None` if it was never published.
    pub new_info: Option<ObjectInfo>,
    /// The inode that lost its name to it.
    pub replaced: Option<Ino>,
}

/// A directory and a name in it.
pub(super) type Place<'a> = (Ino, &'a str);

impl Namespace {
    /// Renames what is no directory.
    pub async fn rename_file(&self, from: Place<'_>, to: Place<'_>, flags: RenameFlags) -> NamespaceResult<Renamed> {
        let (ino, unpublished, key) = {
            let mut table = self.0.table.lock();
            Self::check_directory(&table, to.0)?;
            let ino = table.child(from.0, from.1).ok_or(NamespaceError::NotFound)?;
            let row = &table.rows[&ino];
            if row.kind == NodeKind::Directory {
                return Err(NamespaceError::IsADirectory);
            }
            let prefix = self.directory_prefix(&table, to.0)?;
            (ino, row.unpublished, ObjectKey::from(keys::file_key(&prefix, to.1)?))
        };
        let target = self.target(to, flags).await?;
        if let Some(target) = target
            && self.0.table.lock().rows.get(&target).is_some_and(|row| row.kind == NodeKind::Directory)
        {
            return Err(NamespaceError::IsADirectory);
        }
        self.settle_deferred(&key).await?;
        let _moving = self.moving(ino);
        let new_info = if unpublished {
            None
        } else {
            self.keep_directory(from.0, ino).await?;
            Some(self.move_object(ino, &key, flags).await?)
        };
        let mut table = self.0.table.lock();
        let now = self.0.clock.now();
        // What stands at the target now is what was replaced, also if it was found only meanwhile.
        let replaced = table.child(to.0, to.1).filter(|&replaced| replaced != ino);
        if let Some(replaced) = replaced {
            table.remove(replaced, now);
        }
        table.relink(ino, to.0, to.1, now);
        self.touch_both(&mut table, from.0, to.0);
        if let Some(info) = &new_info {
            moved(&mut table, ino, info);
        }
        Ok(Renamed { ino, new_info, replaced: replaced.or(target) })
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

    async fn move_object(&self, ino: Ino, key: &ObjectKey, flags: RenameFlags) -> NamespaceResult<ObjectInfo> {
        let (mut source, set, pinned, xattrs, kind) = {
            let table = self.0.table.lock();
            let row = table.rows.get(&ino).ok_or(NamespaceError::NotFound)?;
            let source = row.object.clone().ok_or(NamespaceError::Stale)?;
            // The copy has a time of its own, which is not that of the content.
            let pinned = if table.posix { self.pinned(&table, ino, row.set) } else { row.set };
            (source, row.set, pinned, row.xattrs.clone(), row.kind)
        };
        let condition = if flags.no_replace { WriteCondition::Absent } else { WriteCondition::None };
        for again in [true, false] {
            let set = if again { &pinned } else { &set };
            let attributes = if *set == AttributeChanges::default() && xattrs.is_none() {
                None
            } else {
                if source.metadata.is_none() {
                    source = self.0.store.head(source.key()).await?;
                }
                Some(attributes_of(Some(&source), kind, set, xattrs.as_deref()))
            };
            match self.copy_object(&source, key, attributes, condition.clone()).await {
                Ok(info) => {
                    // What another client put under the old name meanwhile is not what was moved, and stays.
                    match self.0.store.delete(source.key(), Some(source.etag())).await {
                        Ok(()) | Err(StoreError::PreconditionFailed | StoreError::NotFound) => return Ok(info),
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(NamespaceError::Store(StoreError::PreconditionFailed | StoreError::Conflict)) => {
                    // Either the target was made meanwhile, or the source is another version than we knew: mv moves
                    // what is there.
                    let present = self.0.store.head(source.key()).await?;
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
pub(super) fn moved(table: &mut Table, ino: Ino, info: &ObjectInfo) {
    let (change, posix) = (table.change(), table.posix);
    let Some(row) = table.rows.get_mut(&ino) else { return };
    let shown = match (&row.shown_mtime, &row.object) {
        (Some((version, mtime)), Some(object)) if *version == object.version => *mtime,
        (_, Some(object)) => object.last_modified,
        (_, None) => info.last_modified,
    };
    let mut info = info.clone();
    info.metadata = info.metadata.or_else(|| row.object.as_ref().and_then(|object| object.metadata.clone()));
    info.headers = info.headers.or_else(|| row.object.as_ref().and_then(|object| object.headers.clone()));
    // The pages that the kernel holds are those of the copy, byte for byte.
    if row.opened.is_some() && row.opened.as_ref() == row.object.as_ref().map(|object| &object.version) {
        row.opened = Some(info.version.clone());
    }
    row.changed = change;
    row.shown_mtime = Some((info.version.clone(), shown));
    if posix && let Some(metadata) = &info.metadata {
        row.settle(metadata);
        row.metadata_is_old = false;
    }
    row.object = Some(info);
}
