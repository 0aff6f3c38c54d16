//! Which files follow one another in a directory that was listed: what a program that goes through it will open next.

use super::table::Row;
use super::{Namespace, NodeKind};
use crate::types::{Ino, ObjectInfo};

/// Positions that are looked at for each file that is asked for: directories lie between files.
const POSITIONS_A_FILE: usize = 4;

/// A file that follows another one.
#[derive(Clone, Debug)]
pub struct FollowingFile {
    /// Its place in the order of the listing.
    pub position: usize,
    /// Its object as it was last known; `None` if there is more to know of it here than in S3.
    pub object: Option<ObjectInfo>,
}

impl Namespace {
    /// The directory of a file and its place in the order in which a listing shows that directory, for which `near` may have
    /// guesses. `None` unless the directory was listed to its end, and where the place is no guess and far behind its start.
    pub fn place(&self, ino: Ino, near: impl FnOnce(Ino) -> Vec<usize>) -> Option<(Ino, usize)> {
        let table = self.0.table.lock();
        let row = table.rows.get(&ino).filter(|row| row.linked)?;
        let listing = table.directories.get(&row.parent)?.current.as_ref()?;
        Some((row.parent, listing.position(&row.name, &near(row.parent))?))
    }

    /// At most `count` files of a directory from a position on, in the order of its latest whole listing.
    pub fn files_from(&self, directory: Ino, position: usize, count: usize) -> Vec<FollowingFile> {
        let table = self.0.table.lock();
        let Some(known) = table.directories.get(&directory) else { return Vec::new() };
        let Some(listing) = &known.current else { return Vec::new() };
        let mut files = Vec::with_capacity(count);
        for position in position..position.saturating_add(count.saturating_mul(POSITIONS_A_FILE)) {
            if files.len() == count {
                break;
            }
            let Some((name, entry)) = listing.at(position) else { break };
            match entry {
                Some(entry) if entry.kind == NodeKind::File => {
                    files.push(FollowingFile { position, object: entry.object });
                }
                Some(_) => {}
                None => {
                    let row = known.children.get(&*name).and_then(|ino| table.rows.get(ino));
                    if let Some(row) = row.filter(|row| row.kind == NodeKind::File) {
                        files.push(FollowingFile { position, object: object(row) });
                    }
                }
            }
        }
        files
    }
}

fn object(row: &Row) -> Option<ObjectInfo> {
    row.object.clone().filter(|_| !row.unpublished && row.written.is_none())
}
