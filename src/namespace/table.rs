//! What is known of inodes and directories, all of it under one lock that is never held across an await.
//!
//! Invariants: a row with a name is the child of its parent's directory under that name, and only one row is; an inode
//! number is never used twice; a row goes when the kernel has forgotten it, no handle pins it and no listing holds it.
//!
//! Every local change of a name is stamped with a count. An answer of S3 carries the count at which it was asked for, and
//! changes nothing that was stamped later: that is how an old answer never undoes a new change.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use super::children::Directory;
use super::questions::{MovingInodes, Questions};
use super::scan::Walk;
use super::xattrs::Xattrs;
use super::{AttributeChanges, NodeKind};
use crate::store::KEYS_PER_REQUEST_MAX;
use crate::types::{Ino, ObjectInfo, ObjectVersion};

/// One inode.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) parent: Ino,
    pub(super) name: Arc<str>,
    pub(super) kind: NodeKind,
    /// References of the kernel.
    pub(super) lookups: u64,
    /// References of open handles.
    pub(super) pins: u32,
    /// Whether the name still leads here.
    pub(super) linked: bool,
    /// The object behind it, as last known.
    pub(super) object: Option<ObjectInfo>,
    /// Made here and not in S3 yet.
    pub(super) unpublished: bool,
    /// When S3 last confirmed it.
    pub(super) seen: Instant,
    /// The last local change, as counted by [`Table::changes`].
    pub(super) changed: u64,
    /// Size and mtime of unpublished bytes.
    pub(super) written: Option<(u64, SystemTime)>,
    /// What chmod, chown and utimens set.
    pub(super) set: AttributeChanges,
    /// Modification time that was shown first for this version: the answer to a PUT has no Last-Modified, and a time
    /// that changes without the content would wake every make and rsync.
    pub(super) shown_mtime: Option<(ObjectVersion, SystemTime)>,
    /// Target of a symbolic link, once known.
    pub(super) target: Option<Arc<str>>,
    /// The version whose pages the kernel may hold.
    pub(super) opened: Option<ObjectVersion>,
    /// When the row was made: the times of a directory, of which S3 knows none.
    pub(super) made: SystemTime,
    /// The last change of attributes, or of a directory's names, that was made here.
    pub(super) touched: Option<SystemTime>,
    /// Extended attributes that were set here and are not in the object's metadata yet: all of them.
    pub(super) xattrs: Option<Arc<Xattrs>>,
    /// The metadata in `object` may be older than the object is.
    pub(super) metadata_is_old: bool,
}

/// The object of an unlinked file that is still open.
#[derive(Clone, Debug)]
pub(super) struct Deferred {
    pub(super) info: ObjectInfo,
    /// The name that it had.
    parent: Ino,
    name: Arc<str>,
    /// Held while S3 is asked to delete it: a key may be used anew only when no such request is under way.
    pub(super) deleting: Arc<tokio::sync::Mutex<()>>,
}

/// Everything that is known.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) rows: HashMap<Ino, Row>,
    pub(super) directories: HashMap<Ino, Directory>,
    /// Objects of unlinked open files, to be deleted at their last close.
    pub(super) deferred: HashMap<Ino, Deferred>,
    next: u64,
    /// Counts local changes.
    pub(super) changes: u64,
    /// Inodes whose keys are being moved, with the number of renames that move them.
    pub(super) moving: MovingInodes,
    pub(super) questions: Arc<Questions>,
    /// Attributes are what objects say of themselves.
    pub(super) posix: bool,
}

/// What S3 says of a name.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// A file with its object.
    File(ObjectInfo),
    /// A directory, with its marker object or without.
    Directory {
        /// Whether its marker was seen.
        marker: bool,
        /// The marker object, or that there is none, where that was asked for.
        own: Option<Option<ObjectInfo>>,
    },
}

impl Found {
    pub(super) fn kind(&self) -> NodeKind {
        match self {
            Self::File(info) => NodeKind::of(info),
            Self::Directory { .. } => NodeKind::Directory,
        }
    }

    /// Whether it says which kind it is; a listing only tells directories from all others.
    pub(super) fn tells_kind(&self) -> bool {
        match self {
            Self::File(info) => info.metadata.is_some(),
            Self::Directory { .. } => true,
        }
    }
}

impl Table {
    pub(super) fn new(now: Instant, made: SystemTime, posix: bool) -> Self {
        let mut table = Self {
            rows: HashMap::new(),
            directories: HashMap::new(),
            deferred: HashMap::new(),
            next: Ino::ROOT.0,
            changes: 0,
            moving: MovingInodes::new(),
            questions: Arc::default(),
            posix,
        };
        let root = table.next_ino();
        table.insert_row(root, Ino::ROOT, "".into(), NodeKind::Directory, now, made);
        table.directories.insert(root, Directory { marker: true, ..Directory::default() });
        // The kernel never looks the root up and never forgets it.
        table.row_mut(root).lookups = 1;
        table
    }

    /// Whether a directory may well have so few names that one page of a listing holds them.
    pub(super) fn is_of_one_page(&self, ino: Ino) -> bool {
        let listed = self.directories.get(&ino).and_then(|directory| directory.current.as_ref());
        listed.is_none_or(|listed| listed.len() <= KEYS_PER_REQUEST_MAX)
    }

    /// A number that no inode ever had.
    pub(super) fn next_ino(&mut self) -> Ino {
        let ino = Ino(self.next);
        self.next += 1;
        ino
    }

    fn insert_row(
        &mut self,
        ino: Ino,
        parent: Ino,
        name: Arc<str>,
        kind: NodeKind,
        seen: Instant,
        made: SystemTime,
    ) -> Ino {
        let row = Row {
            parent,
            name,
            kind,
            lookups: 0,
            pins: 0,
            linked: true,
            object: None,
            unpublished: false,
            seen,
            changed: 0,
            written: None,
            set: AttributeChanges::default(),
            shown_mtime: None,
            target: None,
            opened: None,
            made,
            touched: None,
            xattrs: None,
            metadata_is_old: false,
        };
        self.rows.insert(ino, row);
        ino
    }

    /// A row that is known to exist.
    pub(super) fn row_mut(&mut self, ino: Ino) -> &mut Row {
        self.rows.get_mut(&ino).expect("the caller found the row under this lock")
    }

    /// The inode of a name.
    pub(super) fn child(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        if let Some(ino) = self.linked_child(parent, name) {
            return Some(ino);
        }
        let directory = self.directories.get(&parent)?;
        // What an older listing has and the last complete one has not is gone; that it is still read by a stream, or kept to be
        // gone on with, does not bring it back.
        let listed = directory.listed;
        let good = directory.listings().filter(|listing| listed.is_none_or(|listed| listing.began >= listed));
        let mut found = good.filter_map(|listing| listing.entry(name).map(|entry| (listing, entry)));
        let (listing, entry) = found.next()?;
        drop(found);
        self.link_as(entry.ino, parent, name, entry.kind, listing.began, listing.made);
        self.row_mut(entry.ino).object = entry.object;
        Some(entry.ino)
    }

    /// The same of a name that somebody has asked for. One that leads to no row leads nowhere.
    pub(super) fn linked_child(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        let directory = self.directories.get_mut(&parent)?;
        let ino = *directory.children.get(name)?;
        if self.rows.contains_key(&ino) {
            return Some(ino);
        }
        directory.children.remove(name);
        // Not all names are known any more: this one is asked for again.
        directory.listed = None;
        None
    }

    /// What an inode is, if it is known.
    pub(super) fn kind(&self, ino: Ino) -> Option<NodeKind> {
        self.rows.get(&ino).map(|row| row.kind)
    }

    /// Whether an inode is what its name leads to.
    pub(super) fn is_linked(&self, ino: Ino) -> bool {
        let Some(row) = self.rows.get(&ino).filter(|row| row.linked) else { return false };
        let directory = self.directories.get(&row.parent);
        directory.is_some_and(|directory| directory.children.get(&row.name) == Some(&ino))
    }

    /// A name in a directory was made or went, here.
    pub(super) fn touch(&mut self, directory: Ino, at: SystemTime) {
        if let Some(row) = self.rows.get_mut(&directory) {
            row.touched = Some(at);
            row.set.mtime = None;
        }
        if let Some(directory) = self.directories.get_mut(&directory) {
            directory.touched = Some(at);
        }
    }

    /// Stamps a local change.
    pub(super) fn change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// A new child; the name must be free.
    pub(super) fn link(&mut self, parent: Ino, name: &str, kind: NodeKind, seen: Instant, made: SystemTime) -> Ino {
        let ino = self.next_ino();
        self.link_as(ino, parent, name, kind, seen, made)
    }

    /// The name of an object that is not the one that was known under it, which must be free by now: a new child, of the kind of
    /// what it replaces where the object does not say, and with what was set on that. Seen at `now`, which was `made` by the
    /// time of day.
    pub(super) fn link_object(
        &mut self,
        parent: Ino,
        name: &str,
        (kind, set): (NodeKind, AttributeChanges),
        info: &ObjectInfo,
        (now, made): (Instant, SystemTime),
    ) -> Ino {
        let found = Found::File(info.clone());
        let kind = if found.tells_kind() { found.kind() } else { kind };
        let ino = self.link(parent, name, kind, now, made);
        self.confirm(ino, &found, now, made);
        self.row_mut(ino).set = set;
        ino
    }

    /// What was set here on an inode and holds for another content of its name, too.
    pub(super) fn set_beside_content(&self, row: &Row) -> AttributeChanges {
        if self.posix {
            return AttributeChanges::default();
        }
        AttributeChanges { mtime: None, atime: None, ..row.set }
    }

    fn link_as(&mut self, ino: Ino, parent: Ino, name: &str, kind: NodeKind, seen: Instant, made: SystemTime) -> Ino {
        let name: Arc<str> = name.into();
        self.insert_row(ino, parent, Arc::clone(&name), kind, seen, made);
        let directory = self.directories.entry(parent).or_default();
        directory.absent.remove(&name);
        directory.removed.remove(&name);
        directory.take(&name);
        directory.children.insert(name, ino);
        if kind == NodeKind::Directory {
            self.directories.insert(ino, Directory::default());
        }
        ino
    }

    /// Takes the name from an inode; the row stays while somebody refers to it.
    pub(super) fn unlink(&mut self, ino: Ino) {
        let Some(row) = self.rows.get_mut(&ino) else { return };
        if !row.linked {
            return;
        }
        row.linked = false;
        let (parent, name) = (row.parent, Arc::clone(&row.name));
        if let Some(directory) = self.directories.get_mut(&parent)
            && directory.children.get(&name) == Some(&ino)
        {
            directory.children.remove(&name);
        }
        self.drop_if_unused(ino);
    }

    /// The same for a name that this mount removed: listings asked for earlier shall not bring it back.
    pub(super) fn remove(&mut self, ino: Ino, now: Instant) {
        let change = self.change();
        if let Some(row) = self.rows.get(&ino)
            && row.linked
        {
            let (parent, name) = (row.parent, Arc::clone(&row.name));
            if let Some(directory) = self.directories.get_mut(&parent) {
                directory.note_removed(Arc::clone(&name), change, self.questions.oldest());
                directory.note_absent(name, now);
            }
        }
        self.unlink(ino);
    }

    /// The object of an inode that loses its name now is to be deleted later.
    pub(super) fn defer(&mut self, ino: Ino) {
        let Some(row) = self.rows.get(&ino) else { return };
        let Some(info) = row.object.clone() else { return };
        let (parent, name) = (row.parent, Arc::clone(&row.name));
        self.deferred.insert(ino, Deferred { info, parent, name, deleting: Arc::default() });
    }

    /// The object that waited is deleted. A listing that was asked for while it was still there shall not bring its name
    /// back.
    pub(super) fn deferred_is_gone(&mut self, ino: Ino) {
        let Some(gone) = self.deferred.remove(&ino) else { return };
        let change = self.change();
        if let Some(directory) = self.directories.get_mut(&gone.parent)
            && !directory.children.contains_key(&gone.name)
        {
            directory.note_removed(gone.name, change, self.questions.oldest());
        }
    }

    /// Whether a name can be made in a directory.
    pub(super) fn has_place(&self, directory: Ino) -> bool {
        self.rows.get(&directory).is_some_and(|row| row.linked && row.kind == NodeKind::Directory)
    }

    /// Moves a child to another name, which must be free. False, and nothing is changed, where it has lost its name, or the
    /// directory of the new one is gone.
    #[must_use]
    pub(super) fn relink(&mut self, ino: Ino, to: Ino, name: &str, now: Instant) -> bool {
        if !self.is_linked(ino) || !self.has_place(to) {
            return false;
        }
        let change = self.change();
        let name: Arc<str> = name.into();
        let Some(row) = self.rows.get_mut(&ino) else { return false };
        let (old_parent, old_name) = (row.parent, std::mem::replace(&mut row.name, Arc::clone(&name)));
        row.parent = to;
        row.changed = change;
        row.seen = now;
        if let Some(directory) = self.directories.get_mut(&ino) {
            directory.moved = change;
        }
        if let Some(directory) = self.directories.get_mut(&old_parent) {
            directory.children.remove(&old_name);
            directory.note_removed(Arc::clone(&old_name), change, self.questions.oldest());
            directory.note_absent(old_name, now);
        }
        let directory = self.directories.entry(to).or_default();
        directory.absent.remove(&name);
        directory.removed.remove(&name);
        directory.take(&name);
        directory.children.insert(name, ino);
        true
    }

    /// Keys below a directory have changed with its name: they begin with `to` and no more with `from`. What was listed under the
    /// old ones is to be confirmed.
    pub(super) fn doubt_listings_under(&mut self, ino: Ino, from: &str, to: &str) {
        let mut waiting = vec![ino];
        while let Some(at) = waiting.pop() {
            let Some(directory) = self.directories.get_mut(&at) else { continue };
            directory.listed = None;
            directory.walk = Walk::default();
            directory.own = None;
            // Streams go on with what is complete; a listing under way asks for keys that are no more, and fails.
            directory.listings().for_each(|listing| listing.moved(from, to));
            directory.listing = Weak::new();
            directory.current.take_if(|listing| !listing.is_complete());
            directory.older.clear();
            waiting.extend(directory.children.values());
        }
    }

    /// The inodes from `ino` up to the root, without the root; `None` if a name on the way is gone.
    pub(super) fn chain(&self, ino: Ino) -> Option<Vec<Arc<str>>> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let row = self.rows.get(&at)?;
            if !row.linked {
                return None;
            }
            names.push(Arc::clone(&row.name));
            at = row.parent;
        }
        names.reverse();
        Some(names)
    }

    /// Whether `ancestor` is `ino` or above it.
    pub(super) fn is_within(&self, ino: Ino, ancestor: Ino) -> bool {
        let mut at = ino;
        loop {
            if at == ancestor {
                return true;
            }
            match self.rows.get(&at) {
                Some(row) if at != Ino::ROOT => at = row.parent,
                _ => return false,
            }
        }
    }

    /// All inodes below a directory that are not directories themselves.
    pub(super) fn files_under(&self, ino: Ino) -> Vec<Ino> {
        let mut files = Vec::new();
        let mut waiting = vec![ino];
        while let Some(at) = waiting.pop() {
            let Some(directory) = self.directories.get(&at) else { continue };
            for child in directory.children.values() {
                match self.rows.get(child).map(|row| row.kind) {
                    Some(NodeKind::Directory) => waiting.push(*child),
                    Some(_) => files.push(*child),
                    None => {}
                }
            }
        }
        files
    }
}
