//! Which questions to S3 are under way, and what must not be believed of their answers.
//!
//! A name that was removed here is remembered for as long as an answer may come that was asked for earlier, and no longer. While
//! keys are moved by a rename, S3 has neither the old names nor the new ones whole: what it says then of names that move is
//! not taken, and who asks below a directory that moves asks again when it has moved.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Namespace;
use super::children::Directory;
use super::table::Table;
use crate::types::Ino;

/// Removed names of one directory that are remembered without a look at who may still need them.
const REMOVED_NAMES_MIN: usize = 1024;

/// Questions under way, as counts of local changes at which they were asked, each with their number.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<BTreeMap<u64, usize>>);

impl Questions {
    /// The count of the oldest question; `u64::MAX` if there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.0.lock().first_key_value().map_or(u64::MAX, |(&at, _)| at)
    }
}

/// A question under way, until it is dropped: after its answer was taken.
#[derive(Debug)]
pub(super) struct Asked {
    /// Local changes that were counted when it was asked.
    pub(super) at: u64,
    questions: Arc<Questions>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut questions = self.questions.0.lock();
        if let Some(number) = questions.get_mut(&self.at) {
            *number -= 1;
            if *number == 0 {
                questions.remove(&self.at);
            }
        }
    }
}

/// Names under which S3 is in disorder, until it is dropped: after the table says where they are now, and not under its lock.
#[derive(Debug)]
pub(super) struct Moving {
    namespace: Namespace,
    ino: Ino,
}

impl Drop for Moving {
    fn drop(&mut self) {
        {
            let mut table = self.namespace.0.table.lock();
            if let Some(number) = table.moving.get_mut(&self.ino) {
                *number -= 1;
                if *number == 0 {
                    table.moving.remove(&self.ino);
                }
            }
        }
        self.namespace.0.moved.notify_waiters();
    }
}

/// What the table knows of questions and moves.
pub(super) type MovingInodes = HashMap<Ino, usize>;

impl Table {
    /// A question that is asked now.
    pub(super) fn ask(&self) -> Asked {
        let questions = Arc::clone(&self.questions);
        *questions.0.lock().entry(self.changes).or_default() += 1;
        Asked { at: self.changes, questions }
    }

    /// Whether the keys of an inode or of a directory above it are being moved.
    pub(super) fn is_moving(&self, ino: Ino) -> bool {
        let mut at = ino;
        while !self.moving.is_empty() && at != Ino::ROOT {
            if self.moving.contains_key(&at) {
                return true;
            }
            let Some(row) = self.rows.get(&at) else { return false };
            at = row.parent;
        }
        false
    }

    /// Whether an answer about the names in a directory, asked for at a count, may be of a time when keys were being moved.
    pub(super) fn is_disordered(&self, directory: Ino, asked: u64) -> bool {
        let mut at = directory;
        while at != Ino::ROOT {
            if self.directories.get(&at).is_some_and(|directory| directory.moved > asked) {
                return true;
            }
            let Some(row) = self.rows.get(&at) else { break };
            at = row.parent;
        }
        self.is_moving(directory)
    }
}

impl Namespace {
    /// From now on S3's word on an inode's name, and on all below it, is not taken.
    pub(super) fn moving(&self, table: &mut Table, ino: Ino) -> Moving {
        *table.moving.entry(ino).or_default() += 1;
        Moving { namespace: self.clone(), ino }
    }

    /// Waits until the keys in a directory are not being moved.
    pub(super) async fn until_moved(&self, directory: Ino) {
        loop {
            let moved = self.0.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if !self.0.table.lock().is_moving(directory) {
                return;
            }
            moved.await;
        }
    }
}

impl Directory {
    /// A name was removed here by change `change`. What answers to questions after `oldest` show is not older than that.
    pub(super) fn note_removed(&mut self, name: Arc<str>, change: u64, oldest: u64) {
        self.listings().for_each(|listing| listing.forget_waiting(&name));
        self.removed.insert(name, change);
        // The powers of two: each name is looked at a few times at most, however many must be kept.
        if self.removed.len() >= REMOVED_NAMES_MIN && self.removed.len().is_power_of_two() {
            self.forget_removed(oldest);
        }
    }

    /// Forgets the removed names that no answer can bring back.
    pub(super) fn forget_removed(&mut self, oldest: u64) {
        self.removed.retain(|_, removed| *removed > oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::super::NodeKind;
    use super::super::table::Found;
    use super::*;
    use crate::store::memory::MemoryStore;

    fn table() -> (Table, Instant, SystemTime) {
        let (now, made) = (Instant::now(), SystemTime::UNIX_EPOCH);
        (Table::new(now, made, false), now, made)
    }

    fn make_and_remove(table: &mut Table, name: &str, now: Instant, made: SystemTime) {
        let ino = table.link(Ino::ROOT, name, NodeKind::File, now, made);
        table.remove(ino, now);
    }

    #[test]
    fn removed_names_of_a_directory_that_nobody_lists_do_not_fill_the_memory() {
        let (mut table, now, made) = table();
        for number in 0..20 * REMOVED_NAMES_MIN {
            make_and_remove(&mut table, &number.to_string(), now, made);
        }
        assert!(table.directories[&Ino::ROOT].removed.len() <= REMOVED_NAMES_MIN);
    }

    #[test]
    fn a_name_stays_removed_for_as_long_as_an_older_question_is_under_way() {
        let (mut table, now, made) = table();
        let asked = table.ask();
        make_and_remove(&mut table, "early", now, made);
        for number in 0..20 * REMOVED_NAMES_MIN {
            make_and_remove(&mut table, &number.to_string(), now, made);
        }
        let found = Found::File(MemoryStore::new().put_directly("early", "old"));
        assert!(table.learn(Ino::ROOT, "early", &found, asked.at, now, made).is_none());
        drop(asked);
        let later = table.ask();
        assert!(table.learn(Ino::ROOT, "early", &found, later.at, now, made).is_some());
    }
}
