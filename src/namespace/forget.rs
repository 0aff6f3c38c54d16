//! What leaves the table: rows that nobody refers to any more.
//!
//! Invariant: a row stays while the kernel, a handle or a stream counts on it, or while it has what S3 has not.

use super::table::Table;
use crate::types::Ino;

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

    /// The kernel has forgotten a directory: what it lists and nobody refers to is forgotten too, to be asked again.
    pub(super) fn shed(&mut self, ino: Ino) {
        let Some(directory) = self.directories.get(&ino) else { return };
        // A listing under way counts on the rows of names that it has passed.
        if directory.listing.upgrade().is_some_and(|listing| !listing.is_complete()) {
            return;
        }
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
