//! With `--posix`: what objects say of themselves in their metadata, and what is set here on its way there.
//!
//! A listing brings no metadata, so that each listed name is asked for once (HEAD); the answer holds as long as the listing shows
//! the same object. Invariant: what nobody asked for yet is not told to the kernel as if it were known.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::attributes::Stored;
use super::change::attributes_of;
use super::children::Own;
use super::table::{Found, Row, Table};
use super::{AttributeChanges, Namespace, NamespaceError, NamespaceResult, NodeKind, Xattrs, keys, xattrs};
use crate::store::{ObjectAttributes, StoreError, WriteCondition};
use crate::types::{Ino, ObjectInfo, ObjectKey, ObjectMetadata, ObjectVersion};

/// HEADs of one directory in flight: at 25 ms 5,000 names a second, about what S3 answers for one prefix.
const HEADS_IN_FLIGHT_MAX: usize = 128;
/// Most bytes of metadata, names and values together (S3 user guide, "User-defined object metadata").
const METADATA_BYTES_MAX: usize = 2048;

/// What was set on an inode and is not in its object's metadata.
#[derive(Clone, Debug)]
pub struct Overlay {
    set: AttributeChanges,
    xattrs: Option<Arc<Xattrs>>,
}

impl Table {
    /// What the object behind a row says.
    pub(super) fn stored(&self, ino: Ino, row: &Row) -> Stored {
        self.metadata_of(ino, row).map_or_else(Stored::default, Stored::read)
    }

    fn metadata_of<'a>(&'a self, ino: Ino, row: &'a Row) -> Option<&'a ObjectMetadata> {
        let object = if row.kind == NodeKind::Directory { self.marker_of(ino) } else { row.object.as_ref() };
        object?.metadata.as_deref()
    }

    /// The marker object of a directory, as last asked for.
    pub(super) fn marker_of(&self, ino: Ino) -> Option<&ObjectInfo> {
        self.directories.get(&ino)?.own.as_ref()?.object.as_ref()
    }

    /// Whether the object of a file, link or special file has to be asked for its metadata. Without `--posix` that of a file says
    /// nothing, and that of others what they are.
    pub(super) fn lacks_attributes(&self, row: &Row) -> bool {
        let known = || row.metadata_is_old || row.object.as_ref().is_none_or(|info| info.metadata.is_none());
        let says_more = if self.posix { row.kind != NodeKind::Directory } else { row.kind.is_special() };
        says_more && !row.unpublished && known()
    }

    fn xattrs_of(&self, ino: Ino, row: &Row) -> Arc<Xattrs> {
        let stored = || Arc::new(self.metadata_of(ino, row).map_or_else(Xattrs::new, xattrs::read));
        row.xattrs.clone().unwrap_or_else(stored)
    }
}

impl Namespace {
    /// Asks for what names of a directory say of themselves, as far as that is not known.
    pub(super) async fn complete(&self, parent: Ino, names: Vec<Arc<str>>) -> NamespaceResult<()> {
        let lacking: Vec<(Arc<str>, NodeKind)> = {
            let mut table = self.0.table.lock();
            names
                .into_iter()
                .filter_map(|name| {
                    let ino = table.child(parent, &name)?;
                    let kind = table.rows.get(&ino)?.kind;
                    self.is_lacking(&table, ino).then_some((name, kind))
                })
                .collect()
        };
        // Everything is owned: a future that borrows from its iterator is not known to be Send.
        let namespace = self.clone();
        let asking = lacking.into_iter().map(move |(name, kind)| {
            let namespace = namespace.clone();
            async move { namespace.complete_one(parent, &name, kind).await }.boxed()
        });
        stream::iter(asking).buffer_unordered(HEADS_IN_FLIGHT_MAX).try_collect().await
    }

    /// Whether what an inode says of itself has to be asked for.
    pub(super) fn is_lacking(&self, table: &Table, ino: Ino) -> bool {
        let Some(row) = table.rows.get(&ino) else { return false };
        table.lacks_attributes(row) || self.own_fresh_for(table, ino, row).is_zero()
    }

    async fn complete_one(&self, parent: Ino, name: &str, kind: NodeKind) -> NamespaceResult<()> {
        self.until_moved(parent).await;
        let now = self.0.clock.now();
        let (asked, key, known) = {
            let mut table = self.0.table.lock();
            let prefix = self.directory_prefix(&table, parent)?;
            let known = table.child(parent, name).and_then(|ino| table.rows.get(&ino)?.object.clone());
            (table.ask(), keys::file_key(&prefix, name)?, known)
        };
        let found = if kind == NodeKind::Directory {
            Some(self.ask_marker(&key).await?)
        } else {
            match (self.0.store.head(&ObjectKey::from(key.as_str())).await, known) {
                (Ok(info), _) => Some(Found::File(info)),
                (Err(StoreError::NotFound | StoreError::BadKey(_)), _) => None,
                // A name that may be listed and not looked at is shown as a file that says nothing.
                (Err(StoreError::AccessDenied { .. }), Some(listed)) => {
                    Some(Found::File(ObjectInfo { metadata: Some(Arc::default()), ..listed }))
                }
                (Err(error), _) => return Err(error.into()),
            }
        };
        self.settle((parent, name), &key, found.map(|found| (found, None)), (asked.at, now));
        Ok(())
    }

    /// What the marker of a directory says of it, which is there whether it has one or not.
    pub(super) async fn ask_marker(&self, key: &str) -> NamespaceResult<Found> {
        let own = self.ask_own(&format!("{key}/")).await?;
        Ok(Found::Directory { marker: own.is_some(), own: Some(own) })
    }

    /// The marker of a directory, if there is one that may be looked at.
    pub(super) async fn ask_own(&self, key: &str) -> NamespaceResult<Option<ObjectInfo>> {
        match self.0.store.head(&ObjectKey::from(key)).await {
            Ok(info) => Ok(Some(info)),
            Err(StoreError::NotFound | StoreError::BadKey(_) | StoreError::AccessDenied { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the mount's own directory says of itself; nothing, where that is the bucket.
    pub(super) async fn learn_root(&self) -> NamespaceResult<()> {
        let (seen, asked) = (self.0.clock.now(), self.0.table.lock().changes);
        let object = if self.0.prefix.is_empty() { None } else { self.ask_own(&self.0.prefix).await? };
        let mut table = self.0.table.lock();
        if table.rows.get(&Ino::ROOT).is_some_and(|row| row.changed <= asked)
            && let Some(directory) = table.directories.get_mut(&Ino::ROOT)
        {
            directory.own = Some(Box::new(Own { seen, object }));
        }
        Ok(())
    }

    /// What was set on an inode and is not stored.
    pub fn overlay(&self, ino: Ino) -> NamespaceResult<Overlay> {
        let table = self.0.table.lock();
        let row = table.rows.get(&ino).ok_or(NamespaceError::Stale)?;
        Ok(Overlay { set: row.set, xattrs: row.xattrs.clone() })
    }

    /// Takes back what was set since and could not be stored.
    pub fn restore(&self, ino: Ino, before: Overlay) {
        let mut table = self.0.table.lock();
        let change = table.change();
        if let Some(row) = table.rows.get_mut(&ino) {
            (row.changed, row.set, row.xattrs) = (change, before.set, before.xattrs);
        }
    }

    /// What is known of an inode's object is in doubt: the next look asks.
    pub fn doubt(&self, ino: Ino) {
        if let Some(row) = self.0.table.lock().rows.get_mut(&ino) {
            row.metadata_is_old = true;
        }
    }

    /// The extended attributes of an inode.
    pub fn xattrs(&self, ino: Ino) -> NamespaceResult<Arc<Xattrs>> {
        let table = self.0.table.lock();
        let row = table.rows.get(&ino).ok_or(NamespaceError::Stale)?;
        Ok(table.xattrs_of(ino, row))
    }

    /// All extended attributes of an inode from now on: shown at once, and stored with what else was set.
    pub fn set_xattrs(&self, ino: Ino, xattrs: Xattrs) -> NamespaceResult<()> {
        let mut table = self.0.table.lock();
        let (change, wall) = (table.change(), self.0.clock.wall());
        let row = table.rows.get_mut(&ino).ok_or(NamespaceError::Stale)?;
        (row.changed, row.touched, row.xattrs) = (change, Some(wall), Some(Arc::new(xattrs)));
        Ok(())
    }

    /// What is to be set on a content that stays as it is: its times do not become those of the copy that is made for it.
    pub(super) fn pinned(&self, table: &Table, ino: Ino, set: AttributeChanges) -> AttributeChanges {
        let stored = table.rows.get(&ino).map(|row| table.stored(ino, row)).unwrap_or_default();
        AttributeChanges {
            mtime: set.mtime.or_else(|| Some(self.node_of(table, ino).attributes.mtime)),
            atime: set.atime.or(stored.atime),
            ..set
        }
    }

    /// Whether what was set on an inode is more than metadata holds.
    pub fn is_too_much(&self, ino: Ino) -> bool {
        let metadata = self.object_attributes(ino).metadata;
        metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > METADATA_BYTES_MAX
    }

    /// Puts what was set on an inode into the metadata of its object, which is copied onto itself. The answer is the object then;
    /// `None` where there is none: a directory's marker is made if need be, the bucket has none, and an inode without a name keeps
    /// it to itself.
    ///
    /// # Errors
    /// `Stale` where another writer replaced the object.
    pub async fn store_overlay(&self, ino: Ino) -> NamespaceResult<Option<ObjectInfo>> {
        let (key, kind, object, attributes) = {
            let table = self.0.table.lock();
            let row = table.rows.get(&ino).ok_or(NamespaceError::Stale)?;
            if !row.linked && ino != Ino::ROOT {
                return Ok(None);
            }
            let (key, object) = if row.kind == NodeKind::Directory {
                (self.directory_prefix(&table, ino)?, table.marker_of(ino).cloned())
            } else {
                (keys::file_key(&self.directory_prefix(&table, row.parent)?, &row.name)?, row.object.clone())
            };
            let set = self.pinned(&table, ino, row.set);
            let attributes = attributes_of(object.as_ref(), row.kind, &set, row.xattrs.as_deref());
            (key, row.kind, object, attributes)
        };
        if key.is_empty() {
            return Ok(None);
        }
        let info = match &object {
            Some(info) if kind != NodeKind::Directory || info.size_bytes > 0 => {
                let condition = WriteCondition::Matches(info.etag().clone());
                let copied = self.copy_object(info, &ObjectKey::from(key), Some(attributes.clone()), condition).await;
                copied.map_err(|error| match error {
                    NamespaceError::Store(error) if error.is_changed() => NamespaceError::Stale,
                    other => other,
                })?
            }
            _ if kind == NodeKind::Directory => self.put_marker(&key, attributes.clone()).await?,
            _ => return Err(NamespaceError::Stale),
        };
        let info = ObjectInfo { metadata: Some(Arc::clone(&attributes.metadata)), ..info };
        self.is_stored(ino, kind, &info, &attributes);
        Ok((kind != NodeKind::Directory).then_some(info))
    }

    /// The object of an inode carries `attributes` now.
    fn is_stored(&self, ino: Ino, kind: NodeKind, info: &ObjectInfo, attributes: &ObjectAttributes) {
        let mut table = self.0.table.lock();
        let (change, now) = (table.change(), self.0.clock.now());
        if kind == NodeKind::Directory {
            let directory = table.directories.entry(ino).or_default();
            directory.marker = true;
            directory.own = Some(Box::new(Own { seen: now, object: Some(info.clone()) }));
        }
        let Some(row) = table.rows.get_mut(&ino) else { return };
        (row.changed, row.seen) = (change, now);
        row.settle(&attributes.metadata);
        if kind != NodeKind::Directory {
            let mut info = info.clone();
            info.content_type = info.content_type.or_else(|| attributes.content_type.clone());
            info.headers = attributes.headers.clone();
            row.pages_go_with(&info.version);
            row.metadata_is_old = false;
            row.object = Some(info);
        }
    }
}

impl Row {
    /// The object is copied: pages of it that the kernel holds are those of the copy, byte for byte.
    pub(super) fn pages_go_with(&mut self, copy: &ObjectVersion) {
        if self.opened.is_some() && self.opened.as_ref() == self.object.as_ref().map(|object| &object.version) {
            self.opened = Some(copy.clone());
        }
    }

    /// The object carries this metadata now: what was set and is in it need not be remembered.
    pub(super) fn settle(&mut self, metadata: &ObjectMetadata) {
        let stored = Stored::read(metadata);
        let set = &mut self.set;
        set.mode = set.mode.filter(|_| set.mode != stored.permissions());
        set.uid = set.uid.filter(|_| set.uid != stored.uid);
        set.gid = set.gid.filter(|_| set.gid != stored.gid);
        set.mtime = set.mtime.filter(|_| set.mtime != stored.mtime);
        set.atime = set.atime.filter(|_| set.atime != stored.atime);
        self.xattrs = self.xattrs.take().filter(|set| **set != xattrs::read(metadata));
    }
}
