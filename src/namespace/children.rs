//! What is known of one directory's names: rows that somebody asked for, listings that say more, names that are not there.
//!
//! A name is with the children or, until somebody asks for it, with a listing; an entry that is taken says nothing any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use super::listing::Listing;
use super::scan::Walk;
use crate::types::{Ino, ObjectInfo};

/// One directory's names.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) children: BTreeMap<Arc<str>, Ino>,
    /// When all names were last known; `None` if not all are.
    pub(super) listed: Option<Instant>,
    /// Names that S3 did not have, and when it said so.
    pub(super) absent: HashMap<Arc<str>, Instant>,
    /// Names that were removed here, with the count of that change: a listing asked for earlier may still show them.
    pub(super) removed: HashMap<Arc<str>, u64>,
    /// The last change that gave it another name or place.
    pub(super) moved: u64,
    /// Whether its marker is known to exist.
    pub(super) marker: bool,
    /// Unknown and old names that were asked for one by one since the last listing.
    pub(super) asked: u32,
    /// It is listed in the background for them.
    pub(super) is_relisted: bool,
    /// The listing under way.
    pub(super) listing: Weak<Listing>,
    /// The latest complete listing: names that it holds and that nobody asked for are no children yet.
    pub(super) current: Option<Arc<Listing>>,
    /// Listings that newer ones have replaced, and that streams still read.
    pub(super) older: Vec<Weak<Listing>>,
    /// The listing that takes a page just now: it is locked, and marks its entries itself.
    pub(super) taking: Option<Arc<Listing>>,
    /// How the directories in it are opened.
    pub(super) walk: Walk,
    /// When a name in it was made or went last, here.
    pub(super) touched: Option<SystemTime>,
    /// What its marker says of it, as last asked for.
    pub(super) own: Option<Box<Own>>,
}

/// A directory's marker object.
#[derive(Debug)]
pub(super) struct Own {
    /// When it was asked for.
    pub(super) seen: Instant,
    /// `None` if there is none.
    pub(super) object: Option<ObjectInfo>,
}

impl Directory {
    /// Listings whose entries stand for names, the newest first.
    pub(super) fn listings(&self) -> impl Iterator<Item = Arc<Listing>> {
        let older = self.older.iter().rev().filter_map(Weak::upgrade);
        let all = self.listing.upgrade().into_iter().chain(self.current.clone()).chain(older);
        all.filter(|listing| self.taking.as_ref().is_none_or(|taking| !Arc::ptr_eq(listing, taking)))
    }

    /// A new listing is under way.
    pub(super) fn begin(&mut self, listing: &Arc<Listing>) {
        let before = std::mem::replace(&mut self.listing, Arc::downgrade(listing));
        self.retire(&before);
    }

    /// A listing is replaced; streams may go on with it.
    pub(super) fn retire(&mut self, listing: &Weak<Listing>) {
        self.older.retain(|older| older.strong_count() > 0 && !older.ptr_eq(listing));
        if listing.strong_count() > 0 {
            self.older.push(Weak::clone(listing));
        }
    }

    /// From now on the children say what is to be known of a name.
    pub(super) fn take(&self, name: &str) {
        self.listings().for_each(|listing| listing.take_entry(name));
    }

    /// When a name that the directory does not have was last known to be absent.
    pub(super) fn absent_since(&self, name: &str) -> Option<Instant> {
        self.absent.get(name).copied().max(self.listed)
    }

    /// A name is not there. Thousands of them, asked for or removed, shall not fill the memory.
    pub(super) fn note_absent(&mut self, name: Arc<str>, now: Instant) {
        if self.absent.len() >= ABSENT_NAMES_MAX {
            self.absent.clear();
        }
        self.absent.insert(name, now);
    }
}

/// Absent names remembered for one directory: a search path of a few directories asks for some thousand names.
const ABSENT_NAMES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_names_that_are_removed_do_not_fill_the_memory() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        for number in 0..3 * ABSENT_NAMES_MAX {
            directory.note_absent(number.to_string().into(), now);
        }
        assert!(directory.absent.len() <= ABSENT_NAMES_MAX);
    }
}
