//! An inode as operations see it: kind and attributes, as far as S3, metadata and local changes tell.

use std::time::{Duration, SystemTime};

use super::attributes::Stored;
use super::table::{Row, Table};
use super::{Namespace, NamespaceError, NamespaceResult, NodeKind};
use crate::types::{Ino, ObjectInfo};

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
    /// Links: 1, also of directories, which tells find(1) and others not to count on it; 0 without a name.
    pub nlink: u32,
    /// Access time.
    pub atime: SystemTime,
    /// Modification time.
    pub mtime: SystemTime,
    /// Change time.
    pub ctime: SystemTime,
    /// Device number of a device; 0 of everything else.
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
            NodeKind::Directory => defaults.dir_mode,
            NodeKind::Symlink => 0o777,
            _ => defaults.file_mode,
        };
        let stored = if table.posix { table.stored(ino, row) } else { Stored::default() };
        let mtime = mtime_of(table, ino, row, &stored);
        let size_bytes = match (row.written, &row.object, &row.target) {
            (_, _, Some(target)) => target.len() as u64,
            (Some((size_bytes, _)), _, None) => size_bytes,
            (None, Some(info), None) if row.kind != NodeKind::Directory => info.size_bytes,
            _ => 0,
        };
        let ctime = match (table.posix, row.touched, &row.object) {
            (false, ..) => mtime,
            (true, Some(touched), _) => row.written.map_or(touched, |(_, written)| touched.max(written)),
            (true, None, Some(info)) => info.last_modified,
            (true, None, None) => table.marker_of(ino).map_or(mtime, |info| info.last_modified),
        };
        let attributes = Attributes {
            size_bytes,
            mode: row.set.mode.or(stored.permissions()).unwrap_or(mode),
            uid: row.set.uid.or(stored.uid).unwrap_or(defaults.uid),
            gid: row.set.gid.or(stored.gid).unwrap_or(defaults.gid),
            nlink: u32::from(row.linked),
            atime: row.set.atime.or(stored.atime).unwrap_or(mtime),
            mtime,
            ctime,
            rdev: stored.rdev.unwrap_or(0),
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
        if ino == Ino::ROOT && table.posix && !self.0.prefix.is_empty() {
            return self.own_fresh_for(table, ino, row);
        }
        // Nobody else can say more of it. (A TTL of zero does not make it unknown.)
        if ino == Ino::ROOT || !row.linked || row.unpublished || row.written.is_some() {
            return ttl.max(Duration::from_nanos(1));
        }
        if table.lacks_attributes(row) {
            return Duration::ZERO;
        }
        self.confirmed_for(table, row).min(self.own_fresh_for(table, ino, row))
    }

    /// How long the name need not be confirmed again.
    fn confirmed_for(&self, table: &Table, row: &Row) -> Duration {
        let listed = table.directories.get(&row.parent).and_then(|directory| directory.listed);
        self.fresh_for(listed.map_or(row.seen, |listed| listed.max(row.seen)))
    }

    /// Whether the name, not all of what is known of it, need not be asked for again.
    pub(super) fn is_confirmed(&self, table: &Table, row: &Row) -> bool {
        !self.confirmed_for(table, row).is_zero()
    }

    /// How long what a directory says of itself need not be asked again; nothing else has a time of its own for that.
    pub(super) fn own_fresh_for(&self, table: &Table, ino: Ino, row: &Row) -> Duration {
        if !table.posix || row.kind != NodeKind::Directory {
            return Duration::MAX;
        }
        let own = table.directories.get(&ino).and_then(|directory| directory.own.as_deref());
        own.map_or(Duration::ZERO, |own| self.fresh_for(own.seen))
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
        if ino == Ino::ROOT {
            self.learn_root().await?;
            return self.peek(ino).ok_or(NamespaceError::Stale);
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

/// When the content changed last, as far as is known: what was written or set here, what the object says of itself, what S3 says.
fn mtime_of(table: &Table, ino: Ino, row: &Row, stored: &Stored) -> SystemTime {
    if row.kind == NodeKind::Directory {
        let marker = || table.marker_of(ino).map(|info| info.last_modified);
        let touched = table.directories.get(&ino).and_then(|directory| directory.touched);
        return row.set.mtime.or(touched).or(stored.mtime).or_else(marker).unwrap_or(row.made);
    }
    let shown = || {
        let shown = row
            .shown_mtime
            .as_ref()
            .filter(|(version, _)| row.object.as_ref().is_some_and(|info| info.version == *version));
        let object = row.object.as_ref().map(|info| info.last_modified);
        shown.map(|(_, mtime)| *mtime).or(object).unwrap_or(row.made)
    };
    row.written.map(|(_, mtime)| mtime).or(row.set.mtime).or(stored.mtime).unwrap_or_else(shown)
}
