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
use super::listing::Listing;
use super::questions::{MovingInodes, Questions};
use super::scan::Walk;
use super::xattrs::Xattrs;
use super::{AttributeChanges, NodeKind};
use crate::store::KEYS_PER_REQUEST_MAX;
use crate::types::{Ino, ObjectInfo, ObjectVersion};

/// Children of a directory whose rows stay although the kernel has forgotten them: some ten megabytes.
const IDLE_CHILDREN_MAX: usize = 16_384;

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
        let directory = self.directories.get(&parent)?;
        if let Some(&ino) = directory.children.get(name) {
            return Some(ino);
        }
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

    /// Moves a child to another name, which must be free.
    pub(super) fn relink(&mut self, ino: Ino, to: Ino, name: &str, now: Instant) {
        let change = self.change();
        let name: Arc<str> = name.into();
        let Some(row) = self.rows.get_mut(&ino) else { return };
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
    }

    /// Lets a row go that nobody refers to.
    pub(super) fn drop_if_unused(&mut self, ino: Ino) {
        let Some(row) = self.rows.get(&ino) else { return };
        if row.lookups > 0 || row.pins > 0 || row.linked {
            return;
        }
        self.rows.remove(&ino);
        if let Some(directory) = self.directories.remove(&ino) {
            for child in directory.children.into_values() {
                if let Some(row) = self.rows.get_mut(&child) {
                    row.linked = false;
                }
                self.drop_if_unused(child);
            }
        }
    }

    /// The kernel has forgotten a file: where its directory has many names, the row goes, and its listing says again what is to be
    /// known of it, or S3 does. Not while somebody reads a stream of the directory, which counts on names to stay.
    pub(super) fn let_idle_go(&mut self, ino: Ino) {
        let Some(row) = self.rows.get(&ino) else { return };
        let is_busy = row.kind == NodeKind::Directory
            || !row.linked
            || row.unpublished
            || row.written.is_some()
            || self.moving.contains_key(&ino)
            || self.deferred.contains_key(&ino);
        let Some(directory) = self.directories.get_mut(&row.parent) else { return };
        if is_busy || directory.streams > 0 || directory.children.len() < IDLE_CHILDREN_MAX {
            return;
        }
        directory.children.remove(&row.name);
        let stands = |listing: Arc<Listing>| listing.stand_again(&row.name, ino, row.object.as_ref());
        if directory.current.clone().is_none_or(|listing| !stands(listing)) {
            directory.listed = None;
        }
        self.rows.remove(&ino);
    }

    /// The kernel has forgotten a directory: what it lists and nobody refers to is forgotten too, to be asked again.
    pub(super) fn shed(&mut self, ino: Ino) {
        let Some(directory) = self.directories.get(&ino) else { return };
        let children: Vec<Ino> = directory.children.values().copied().collect();
        let mut all = true;
        for child in children {
            let unused = self
                .rows
                .get(&child)
                .is_none_or(|row| row.lookups == 0 && row.pins == 0 && !row.unpublished && row.written.is_none());
            let empty = self.directories.get(&child).is_none_or(|directory| directory.children.is_empty());
            if unused && empty {
                self.unlink(child);
            } else {
                all = false;
            }
        }
        if let Some(directory) = self.directories.get_mut(&ino) {
            directory.listed = None;
            directory.current = None;
            if all {
                directory.absent.clear();
            }
        }
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
