//! What this mount knows better than S3: files made and written here, attributes set here.
//!
//! All of it is stamped as a local change, so that no answer that was asked for earlier undoes it.

use std::sync::Arc;
use std::time::SystemTime;

use super::attributes::{DIRECTORY_CONTENT_TYPE, Stored};
use super::children::Own;
use super::table::Table;
use super::{Namespace, NamespaceError, NamespaceResult, Node, NodeKind, Xattrs, keys, xattrs};
use crate::store::{ObjectAttributes, Payload, PutRequest, WriteCondition};
use crate::types::{Ino, ObjectInfo, ObjectMetadata, ObjectVersion};

/// What a new name starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Attributes to be set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub atime: Option<SystemTime>,
    /// Modification time.
    pub mtime: Option<SystemTime>,
}

impl AttributeChanges {
    fn merge(&mut self, later: Self) {
        self.mode = later.mode.or(self.mode);
        self.uid = later.uid.or(self.uid);
        self.gid = later.gid.or(self.gid);
        self.atime = later.atime.or(self.atime);
        self.mtime = later.mtime.or(self.mtime);
    }
}

impl Namespace {
    /// What a name that was made here is shown with: what its maker asked for, where that is not the mount's default.
    pub(super) fn made_with(&self, kind: NodeKind, new: NewNode) -> AttributeChanges {
        let defaults = &self.0.defaults;
        if defaults.posix {
            let NewNode { mode, uid, gid } = new;
            return AttributeChanges {
                mode: Some(mode),
                uid: Some(uid),
                gid: Some(gid),
                ..AttributeChanges::default()
            };
        }
        let default_mode = if kind == NodeKind::Directory { defaults.dir_mode } else { defaults.file_mode };
        AttributeChanges {
            mode: (new.mode != default_mode).then_some(new.mode),
            uid: (new.uid != defaults.uid).then_some(new.uid),
            gid: (new.gid != defaults.gid).then_some(new.gid),
            ..AttributeChanges::default()
        }
    }

    /// A directory with its set-group-ID bit hands its group on, and the bit to directories (inode(7)).
    fn inherited(&self, table: &Table, parent: Ino, kind: NodeKind, new: NewNode) -> NewNode {
        let Some(gid) = self.inherited_group(table, parent) else { return new };
        let bit = if kind == NodeKind::Directory { libc::S_ISGID } else { 0 };
        NewNode { gid, mode: new.mode | bit, ..new }
    }

    /// The group that what is made in a directory gets from it, if it hands its own on.
    pub(super) fn inherited_group(&self, table: &Table, parent: Ino) -> Option<u32> {
        let above = self.node_of(table, parent).attributes;
        (above.mode & libc::S_ISGID != 0).then_some(above.gid)
    }

    /// Makes a file that exists here at once and in S3 once it is published. One reference is taken.
    pub fn create(&self, parent: Ino, name: &str, kind: NodeKind, new: NewNode) -> NamespaceResult<Node> {
        let mut table = self.0.table.lock();
        Self::check_directory(&table, parent)?;
        let prefix = self.directory_prefix(&table, parent)?;
        keys::file_key(&prefix, name)?;
        if table.child(parent, name).is_some() {
            return Err(NamespaceError::Exists);
        }
        let set = self.made_with(kind, self.inherited(&table, parent, kind, new));
        let (now, wall) = (self.0.clock.now(), self.0.clock.wall());
        let change = table.change();
        let ino = table.link(parent, name, kind, now, wall);
        let row = table.row_mut(ino);
        row.changed = change;
        row.unpublished = true;
        row.lookups = 1;
        row.written = Some((0, wall));
        row.set = set;
        table.touch(parent, wall);
        Ok(self.node_of(&table, ino))
    }

    /// A write reached S3: this is the object now.
    pub fn publish(&self, ino: Ino, info: &ObjectInfo) {
        let mut table = self.0.table.lock();
        let change = table.change();
        let (now, posix) = (self.0.clock.now(), table.posix);
        let Some(row) = table.rows.get_mut(&ino) else { return };
        let mtime = row.set.mtime.or(row.written.map(|(_, mtime)| mtime)).unwrap_or(info.last_modified);
        row.changed = change;
        row.seen = now;
        row.unpublished = false;
        // It changed when it was written, and not when it came to S3.
        row.touched = row.touched.max(row.written.map(|(_, at)| at));
        row.written = None;
        row.shown_mtime = Some((info.version.clone(), mtime));
        row.object = Some(info.clone());
        if posix && let Some(metadata) = &info.metadata {
            row.metadata_is_old = false;
            row.settle(metadata);
        }
        if row.linked {
            let parent = row.parent;
            table.confirm_way(parent, change, now);
        }
    }

    /// Detaches the name from an inode whose object another writer replaced; the name leads to a new inode with `info`
    /// from now on, and the old one lives for its handles. False, and nothing is changed, while the object is being moved by a
    /// rename, and where the inode has lost its name already.
    pub fn supersede(&self, ino: Ino, info: &ObjectInfo) -> bool {
        let mut table = self.0.table.lock();
        let Some(row) = table.rows.get(&ino).filter(|row| row.linked && !row.unpublished) else { return false };
        if table.is_moving(ino) {
            return false;
        }
        let (parent, name) = (row.parent, Arc::clone(&row.name));
        let (kind, set) = (row.kind, table.set_beside_content(row));
        table.unlink(ino);
        table.link_object(parent, &name, (kind, set), info, (self.0.clock.now(), self.0.clock.wall()));
        true
    }

    /// Whether the version is the one whose pages the kernel may hold; from now on it is.
    pub fn opened_version(&self, ino: Ino, version: &ObjectVersion) -> bool {
        let mut table = self.0.table.lock();
        let Some(row) = table.rows.get_mut(&ino) else { return false };
        let same = row.opened.as_ref() == Some(version);
        row.opened = Some(version.clone());
        same
    }

    /// Unpublished bytes: their length and time are shown until they are published or given up. Whether a time that had been set is
    /// that of the content no more.
    pub fn set_written(&self, ino: Ino, size_bytes: u64, mtime: SystemTime) -> bool {
        let mut table = self.0.table.lock();
        let change = table.change();
        let Some(row) = table.rows.get_mut(&ino) else { return false };
        row.changed = change;
        row.written = Some((size_bytes, mtime));
        row.set.mtime.take().is_some()
    }

    /// Unpublished bytes were given up: what S3 says is shown again, and a file that was never published goes.
    pub fn revert(&self, ino: Ino) {
        let mut table = self.0.table.lock();
        let now = self.0.clock.now();
        let Some(row) = table.rows.get_mut(&ino) else { return };
        row.written = None;
        row.opened = None;
        // Not confirmed any more: the next look asks.
        if row.unpublished {
            row.unpublished = false;
            let (parent, name) = (row.parent, Arc::clone(&row.name));
            table.remove(ino, now);
            if let Some(directory) = table.directories.get_mut(&parent) {
                directory.absent.remove(&name);
                directory.listed = None;
            }
        }
    }

    /// chmod, chown, utimens: shown at once, and kept with the next publication of the file.
    pub fn set_attributes(&self, ino: Ino, changes: AttributeChanges) -> NamespaceResult<Node> {
        let mut table = self.0.table.lock();
        let change = table.change();
        let wall = self.0.clock.wall();
        let row = table.rows.get_mut(&ino).ok_or(NamespaceError::Stale)?;
        row.changed = change;
        row.touched = Some(wall);
        row.set.merge(changes);
        if let (Some(mtime), Some((_, written))) = (changes.mtime, row.written.as_mut()) {
            *written = mtime;
        }
        if changes.mtime.is_some()
            && let Some(directory) = table.directories.get_mut(&ino)
        {
            directory.touched = None;
        }
        Ok(self.node_of(&table, ino))
    }

    /// What the object carries when it is written next: what it carried, with what was set here.
    pub fn object_attributes(&self, ino: Ino) -> ObjectAttributes {
        let table = self.0.table.lock();
        table
            .rows
            .get(&ino)
            .map(|row| attributes_of(row.object.as_ref(), row.kind, &row.set, row.xattrs.as_deref()))
            .unwrap_or_default()
    }

    /// Makes a directory: its marker is in S3 when this answers. One reference is taken.
    pub async fn mkdir(&self, parent: Ino, name: &str, new: NewNode) -> NamespaceResult<Node> {
        let (key, set) = {
            let table = self.0.table.lock();
            Self::check_directory(&table, parent)?;
            let prefix = self.directory_prefix(&table, parent)?;
            let new = self.inherited(&table, parent, NodeKind::Directory, new);
            (keys::directory_key(&prefix, name)?, self.made_with(NodeKind::Directory, new))
        };
        if self.exists(parent, name).await? {
            return Err(NamespaceError::Exists);
        }
        // Nothing is in it, as of when its name was last known to be absent.
        let absent = self.0.table.lock().directories.get(&parent).and_then(|above| above.absent_since(name));
        let marker = self.put_marker(&key, self.marker_attributes(&set)).await?;
        let mut table = self.0.table.lock();
        let (now, wall) = (self.0.clock.now(), self.0.clock.wall());
        let change = table.change();
        let ino = match table.child(parent, name) {
            // A listing found the marker before we could say so.
            Some(ino) if table.kind(ino) == Some(NodeKind::Directory) => ino,
            Some(_) => return Err(NamespaceError::Exists),
            None => table.link(parent, name, NodeKind::Directory, now, wall),
        };
        table.touch(parent, wall);
        let row = table.row_mut(ino);
        row.changed = change;
        row.seen = now;
        row.lookups += 1;
        row.set = set;
        if let Some(metadata) = marker.metadata.as_ref().filter(|_| self.0.defaults.posix) {
            row.settle(metadata);
        }
        if let Some(directory) = table.directories.get_mut(&ino) {
            directory.marker = true;
            directory.own = Some(Box::new(Own { seen: now, object: Some(marker) }));
            directory.touched = Some(wall);
            directory.listed = absent;
        }
        Ok(self.node_of(&table, ino))
    }

    /// Whether a name exists, without taking a reference.
    pub(super) async fn exists(&self, parent: Ino, name: &str) -> NamespaceResult<bool> {
        match self.lookup(parent, name).await {
            Ok(node) => {
                self.forget(node.ino, 1);
                Ok(true)
            }
            Err(NamespaceError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a new directory's marker carries.
    fn marker_attributes(&self, set: &AttributeChanges) -> ObjectAttributes {
        if self.0.defaults.posix { attributes_of(None, NodeKind::Directory, set, None) } else { plain_marker() }
    }

    /// Puts a directory's marker; the answer has its metadata.
    pub(super) async fn put_marker(&self, key: &str, attributes: ObjectAttributes) -> NamespaceResult<ObjectInfo> {
        let metadata = Some(Arc::clone(&attributes.metadata));
        let put =
            PutRequest { key: key.into(), payload: Payload::default(), attributes, condition: WriteCondition::None };
        Ok(ObjectInfo { metadata, ..self.0.store.put(put).await? })
    }
}

/// What a marker carries that says nothing of its directory.
pub(super) fn plain_marker() -> ObjectAttributes {
    ObjectAttributes { content_type: Some(DIRECTORY_CONTENT_TYPE.into()), ..ObjectAttributes::default() }
}

/// What an object carries when it is written anew: what it carried, with what was set here.
pub(super) fn attributes_of(
    info: Option<&ObjectInfo>,
    kind: NodeKind,
    set: &AttributeChanges,
    xattrs: Option<&Xattrs>,
) -> ObjectAttributes {
    let mut metadata = ObjectMetadata::clone(&info.and_then(|info| info.metadata.clone()).unwrap_or_default());
    let stored = Stored {
        mode: set.mode.map(|mode| mode | kind.mode_bits()),
        uid: set.uid,
        gid: set.gid,
        mtime: set.mtime,
        atime: set.atime,
        ..Stored::default()
    };
    // A new content has a new time; only one that was set here goes with it.
    metadata.remove("mtime");
    metadata.remove("atime");
    stored.write(&mut metadata);
    if let Some(xattrs) = xattrs {
        xattrs::write(xattrs, &mut metadata);
    }
    let content_type = info.and_then(|info| info.content_type.clone());
    let marker_type = || (kind == NodeKind::Directory).then(|| DIRECTORY_CONTENT_TYPE.into());
    ObjectAttributes {
        content_type: content_type.or_else(marker_type),
        metadata: Arc::new(metadata),
        storage_class: info.and_then(|info| info.storage_class.clone()),
        headers: info.and_then(|info| info.headers.clone()),
    }
}
