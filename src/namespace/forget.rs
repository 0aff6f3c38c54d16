//! What leaves the table: rows that nobody refers to any more.
//!
//! Invariant: a row stays while the kernel, a handle or a stream counts on it, or while it has what S3 has not.

use std::sync::Arc;

use super::NodeKind;
use super::listing::Listing;
use super::table::Table;
use crate::types::Ino;

/// Children of a directory whose rows stay although the kernel has forgotten them: some ten megabytes.
const IDLE_CHILDREN_MAX: usize = 16_384;

impl Table {
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
}
