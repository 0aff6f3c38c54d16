//! What S3 says of a name, taken into the table.
//!
//! Invariant: an answer carries the count of local changes at which it was asked for, and undoes nothing that was changed since.

use std::time::{Duration, Instant, SystemTime};

use super::children::Own;
use super::remove::has_local_names;
use super::table::{Found, Table};
use super::{AttributeChanges, NodeKind};
use crate::types::{Ino, ObjectInfo};

/// From when on an object's time tells its versions apart: clocks of machines on EC2 are closer than this.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

impl Table {
    /// What S3 said of a name at count `asked`: makes or mends the child. `None` if a later local change wins and left no
    /// name; the boolean says whether a name that was told differently was changed.
    pub(super) fn learn(
        &mut self,
        parent: Ino,
        name: &str,
        found: &Found,
        asked: u64,
        now: Instant,
        made: SystemTime,
    ) -> Option<(Ino, bool)> {
        let directory = self.directories.get(&parent)?;
        if directory.removed.get(name).is_some_and(|&removed| removed > asked) {
            return directory.children.get(name).map(|&ino| (ino, false));
        }
        // An unlinked file whose object waits for its last close is still in S3, and has no name here.
        if let Found::File(info) = found
            && self.deferred.values().any(|gone| gone.info.version == info.version)
        {
            return directory.children.get(name).map(|&ino| (ino, false));
        }
        let mut replaced = false;
        if let Some(ino) = self.linked_child(parent, name) {
            let is_moving = self.moving.contains_key(&ino);
            let row = self.row_mut(ino);
            if row.changed > asked || row.unpublished || is_moving {
                return Some((ino, false));
            }
            // The kernel may be told of another kind as long as it was told of none.
            let is_free = row.lookups == 0 && row.pins == 0 && row.kind != NodeKind::Directory;
            if is_free && let Found::File(_) = found {
                row.kind = if found.tells_kind() { found.kind() } else { row.kind };
            }
            // A listing does not tell links and special files from files.
            let agrees = !found.tells_kind() && row.kind != NodeKind::Directory;
            if row.kind == found.kind() || agrees {
                self.confirm(ino, found, now, made);
                return Some((ino, false));
            }
            // A directory in which something is that S3 does not have yet is there all the same.
            if has_local_names(self, ino) {
                return Some((ino, false));
            }
            self.unlink(ino);
            replaced = true;
        }
        let ino = self.link(parent, name, found.kind(), now, made);
        self.confirm(ino, found, now, made);
        Some((ino, replaced))
    }

    /// S3 confirmed an inode, asked at `now`, which was `at` by the time of day.
    pub(super) fn confirm(&mut self, ino: Ino, found: &Found, now: Instant, at: SystemTime) {
        let posix = self.posix;
        let row = self.row_mut(ino);
        row.seen = row.seen.max(now);
        match found {
            Found::File(info) => {
                let mut info = info.clone();
                row.metadata_is_old = false;
                match row.object.take().filter(|known| known.version == info.version) {
                    Some(known) => {
                        // A listing has no metadata; what an earlier answer brought for the same version still holds, unless
                        // the object was copied onto itself with other metadata.
                        if info.metadata.is_none() {
                            row.metadata_is_old = posix && may_have_changed(&known, &info, at);
                            info.metadata = known.metadata;
                            info.headers = known.headers;
                        }
                        info.content_type = info.content_type.or(known.content_type);
                    }
                    None if posix => {
                        (row.set, row.xattrs, row.target) = (AttributeChanges::default(), None, None);
                    }
                    None => {
                        row.set = AttributeChanges { mtime: None, atime: None, ..row.set };
                        row.target = None;
                    }
                }
                row.object = Some(info);
            }
            Found::Directory { marker, own } => {
                let directory = self.directories.entry(ino).or_default();
                directory.marker |= marker;
                if let Some(object) = own {
                    directory.own = Some(Box::new(Own { seen: now, object: object.clone() }));
                }
            }
        }
    }

    /// S3 said at count `asked` that a name does not exist. Says whether a name that was told was dropped.
    pub(super) fn learn_absent(&mut self, parent: Ino, name: &str, asked: u64, now: Instant) -> bool {
        let Some(directory) = self.directories.get_mut(&parent) else { return false };
        if let Some(&ino) = directory.children.get(name) {
            let is_moving = self.moving.contains_key(&ino);
            let row = self.row_mut(ino);
            if row.changed > asked || row.unpublished || row.written.is_some() || is_moving {
                return false;
            }
            if has_local_names(self, ino) {
                return false;
            }
            self.unlink(ino);
            self.note_absent(parent, name, now);
            return true;
        }
        self.note_absent(parent, name, now);
        false
    }

    fn note_absent(&mut self, parent: Ino, name: &str, now: Instant) {
        if let Some(directory) = self.directories.get_mut(&parent) {
            directory.take(name);
            directory.note_absent(name.into(), now);
        }
    }
}

/// Whether an object that a listing shows, seen at `at`, may carry other metadata than the same content did. S3 tells times in whole
/// seconds, so that of two changes within one the second cannot be told from the first.
fn may_have_changed(known: &ObjectInfo, listed: &ObjectInfo, at: SystemTime) -> bool {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let is_settled = at.duration_since(listed.last_modified).is_ok_and(|age| age >= SETTLED_AFTER);
    !is_settled || seconds(known.last_modified) != seconds(listed.last_modified)
}
