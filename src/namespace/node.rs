//! An inode as operations see it: kind and attributes, as far as S3, metadata and local changes tell.

use std::time::{Duration, SystemTime};

use super::attributes::Stored;
use super::table::{Row, Table};
use super::{Namespace, NamespaceError, NamespaceResult};
use crate::types::{Ino, ObjectInfo};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file: one object.
    File,
    /// A directory: a marker object, or keys below it.
    Directory,
    /// A symbolic link: an object whose metadata says so.
    Symlink,
}

impl NodeKind {
    /// The kind of an object that is no directory; a listing brings no metadata, so that it shows links as files.
    pub(super) fn of(info: &ObjectInfo) -> Self {
        match &info.metadata {
            Some(metadata) if Stored::read(metadata).is_symlink() => Self::Symlink,
            _ => Self::File,
        }
    }
}

/// Attributes as stat(2) has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Length in bytes; of a link, that of its target.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links: 1 for files; for directories 1 as well, which tells find(1) and others not to count on it.
    pub nlink: u32,
    /// Access time.
    pub atime: SystemTime,
    /// Modification time.
    pub mtime: SystemTime,
    /// Change time.
    pub ctime: SystemTime,
    /// Device number; always 0.
    pub rdev: u32,
}

/// One inode at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: NodeKind,
    /// Its attributes.
    pub attributes: Attributes,
    /// The object behind it; `None` for a directory, and for a file that was never published.
    pub info: Option<ObjectInfo>,
    /// Made here and not in S3 yet.
    pub unpublished: bool,
    /// How long name and attributes may be taken for true without asking again; zero if they are too old already.
    pub fresh_for: Duration,
}

impl Namespace {
    /// A row that is known to exist, as operations see it.
    pub(super) fn node_of(&self, table: &Table, ino: Ino) -> Node {
        let row = &table.rows[&ino];
        let defaults = &self.0.defaults;
        let mode = match row.kind {
            NodeKind::File => defaults.file_mode,
            NodeKind::Directory => defaults.dir_mode,
            NodeKind::Symlink => 0o777,
        };
        let shown = row
            .shown_mtime
            .as_ref()
            .filter(|(version, _)| row.object.as_ref().is_some_and(|info| info.version == *version));
        let in_s3 = match (&row.object, row.kind) {
            (Some(info), NodeKind::File | NodeKind::Symlink) => shown.map_or(info.last_modified, |(_, mtime)| *mtime),
            _ => row.made,
        };
        let mtime = row.written.map(|(_, mtime)| mtime).or(row.set.mtime).unwrap_or(in_s3);
        let size_bytes = match (row.written, &row.object, &row.target) {
            (_, _, Some(target)) => target.len() as u64,
            (Some((size_bytes, _)), _, None) => size_bytes,
            (None, Some(info), None) if row.kind != NodeKind::Directory => info.size_bytes,
            _ => 0,
        };
        let attributes = Attributes {
            size_bytes,
            mode: row.set.mode.unwrap_or(mode),
            uid: row.set.uid.unwrap_or(defaults.uid),
            gid: row.set.gid.unwrap_or(defaults.gid),
            nlink: 1,
            atime: row.set.atime.unwrap_or(mtime),
            mtime,
            ctime: mtime,
            rdev: 0,
        };
        let fresh_for = self.row_fresh_for(table, ino, row);
        Node { ino, kind: row.kind, attributes, info: row.object.clone(), unpublished: row.unpublished, fresh_for }
    }

    /// The attributes of what a listing showed and nobody asked for yet.
    pub(super) fn listed_attributes(&self, kind: NodeKind, size_bytes: u64, mtime: SystemTime) -> Attributes {
        let defaults = &self.0.defaults;
        let mode = if kind == NodeKind::Directory { defaults.dir_mode } else { defaults.file_mode };
        Attributes {
            size_bytes,
            mode,
            uid: defaults.uid,
            gid: defaults.gid,
            nlink: 1,
            atime: mtime,
            mtime,
            ctime: mtime,
            rdev: 0,
        }
    }

    /// The inode as last known, whatever its age; `None` if it is not known.
    pub fn peek(&self, ino: Ino) -> Option<Node> {
        let table = self.0.table.lock();
        table.rows.contains_key(&ino).then(|| self.node_of(&table, ino))
    }

    /// The inode, if it was confirmed within the time that knowledge may be old.
    pub fn try_node(&self, ino: Ino) -> Option<Node> {
        let table = self.0.table.lock();
        let row = table.rows.get(&ino)?;
        self.is_row_fresh(&table, ino, row).then(|| self.node_of(&table, ino))
    }

    /// Whether what is known of an inode need not be asked again.
    pub(super) fn is_row_fresh(&self, table: &Table, ino: Ino, row: &Row) -> bool {
        !self.row_fresh_for(table, ino, row).is_zero()
    }

    /// How long what is known of an inode need not be asked again.
    fn row_fresh_for(&self, table: &Table, ino: Ino, row: &Row) -> Duration {
        let ttl = self.0.limits.metadata_ttl;
        // Nobody else can say more of it. (A TTL of zero does not make it unknown.)
        if ino == Ino::ROOT || !row.linked || row.unpublished || row.written.is_some() {
            return ttl.max(Duration::from_nanos(1));
        }
        let listed = table.directories.get(&row.parent).and_then(|directory| directory.listed);
        self.fresh_for(listed.map_or(row.seen, |listed| listed.max(row.seen)))
    }

    /// How long a name that is not there need not be asked again.
    pub fn absent_for(&self, parent: Ino, name: &str) -> Duration {
        let table = self.0.table.lock();
        let since = table.directories.get(&parent).and_then(|directory| directory.absent_since(name));
        since.map_or(Duration::ZERO, |since| self.fresh_for(since))
    }

    /// The inode, asked for anew if it was not confirmed lately. `Stale` if its name leads elsewhere now.
    pub async fn node(&self, ino: Ino) -> NamespaceResult<Node> {
        if let Some(node) = self.try_node(ino) {
            return Ok(node);
        }
        let (parent, name) = {
            let table = self.0.table.lock();
            let row = table.rows.get(&ino).ok_or(NamespaceError::Stale)?;
            (row.parent, std::sync::Arc::clone(&row.name))
        };
        self.ask(parent, &name, false).await.map_err(|error| match error {
            NamespaceError::NotFound => NamespaceError::Stale,
            other => other,
        })?;
        let table = self.0.table.lock();
        match table.rows.get(&ino) {
            Some(row) if row.linked => Ok(self.node_of(&table, ino)),
            _ => Err(NamespaceError::Stale),
        }
    }
}
