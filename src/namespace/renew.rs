//! Listings that nobody waits for: the first page that a lookup brought, and directories that are listed in the background.
//!
//! A directory whose names are asked for one by one is listed when listing it is hardly dearer, and listed anew before its
//! names are too old while they are still asked for. Invariant: a directory is listed in the background at most once for
//! [`SINGLE_NAMES_MAX`] names that were asked for, for each page of it, and only if a few pages hold it: going on as before
//! would cost as many HEADs and the same LISTs.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::children::Directory;
use super::listing::Listing;
use super::{Namespace, NamespaceResult};
use crate::store::{KEYS_PER_REQUEST_MAX, ListPage};
use crate::types::Ino;

/// Names of one directory that are asked for one by one, for each page of it, before it is listed.
const SINGLE_NAMES_MAX: u32 = 3;
/// LIST pages that listing in the background may cost: 5,000 names.
pub(super) const BACKGROUND_PAGES_MAX: usize = 5;
/// Directories of more than a page that were looked up last and whose first page waits for who lists them: some 100 KiB each.
pub(super) const BEGUN_MAX: usize = 8;
/// Names of directories that lookups brought whole and that are kept, some 100 bytes each.
const BROUGHT_NAMES_MAX: usize = if cfg!(test) { 5_000 } else { 200_000 };
/// What a directory counts beside its names.
const ENTRY_WEIGHT: usize = 8;
/// The last part of the time for which names are good, as a divisor: a quarter of a second leaves room for two LISTs.
const LATE_DIVISOR: u32 = 4;

impl Directory {
    /// Pages that hold its names, if it was listed and they are few.
    fn few_pages(&self) -> Option<usize> {
        let listed = self.current.as_ref()?.len();
        Some(listed.div_ceil(KEYS_PER_REQUEST_MAX).max(1)).filter(|&pages| pages <= BACKGROUND_PAGES_MAX)
    }

    /// A name was asked of S3 that was known before, or was not. Whether the directory is to be listed now.
    pub(super) fn asked_for_name(&mut self, was_known: bool) -> bool {
        let Some(pages) = (if was_known { self.few_pages() } else { Some(1) }) else { return false };
        self.asked = self.asked.saturating_add(1);
        self.is_to_be_listed(pages)
    }

    fn is_to_be_listed(&mut self, pages: usize) -> bool {
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        let enough = self.asked >= SINGLE_NAMES_MAX.saturating_mul(pages) && !self.is_relisted;
        self.is_relisted |= enough;
        enough
    }
}

impl Namespace {
    /// The time before the end of their freshness in which names that are asked for count as asked for late. The kernel keeps
    /// names until then, so that it asks while they can still be listed anew.
    pub fn late(ttl: Duration) -> Duration {
        ttl / LATE_DIVISOR
    }

    /// Whether the names of a directory, all known and on a few pages, will soon be too old.
    pub fn is_late(&self, directory: Ino) -> bool {
        let ttl = self.0.limits.metadata_ttl;
        let table = self.0.table.lock();
        let Some(directory) = table.directories.get(&directory) else { return false };
        let Some(listed) = directory.listed else { return false };
        let age = self.0.clock.now().saturating_duration_since(listed);
        age < ttl && age >= ttl - Self::late(ttl) && !directory.is_relisted && directory.few_pages().is_some()
    }

    /// A name of such a directory was asked for, and answered: the next ones shall find it listed anew. Call it in a tokio runtime.
    pub fn asked_late(&self, ino: Ino) {
        let mut table = self.0.table.lock();
        let Some(directory) = table.directories.get_mut(&ino) else { return };
        if directory.asked_for_name(true) {
            drop(table);
            self.list_in_background(ino);
        }
    }

    /// Lists a directory, also if it is still known.
    pub(super) fn list_in_background(&self, directory: Ino) {
        let namespace = self.clone();
        tokio::spawn(async move {
            if let Ok(listing) = namespace.listing_anew(directory)
                && let Err(error) = listing.advance(&namespace, BACKGROUND_PAGES_MAX).await
            {
                tracing::debug!(%error, "listing in the background failed; names are asked for one by one");
                if let Some(directory) = namespace.0.table.lock().directories.get_mut(&directory) {
                    (directory.asked, directory.is_relisted) = (0, false);
                }
            }
        });
    }

    /// The listing under way, or a new one.
    fn listing_anew(&self, ino: Ino) -> NamespaceResult<Arc<Listing>> {
        let now = self.0.clock.now();
        let mut table = self.0.table.lock();
        Self::check_directory(&table, ino)?;
        let prefix = self.directory_prefix(&table, ino)?;
        let asked = table.changes;
        let directory = table.directories.entry(ino).or_default();
        if let Some(listing) = directory.listing.upgrade().filter(|listing| self.is_under_way(listing, &prefix, now)) {
            return Ok(listing);
        }
        let listing = Arc::new(Listing::new(self, ino, prefix, asked, now));
        directory.begin(&listing);
        Ok(listing)
    }

    /// A lookup brought the first page of a directory, asked for at a count and a time: its listing begins with it.
    pub(super) fn begin_with_page(&self, ino: Ino, prefix: String, page: ListPage, (asked, at): (u64, Instant)) {
        let listing = {
            let mut table = self.0.table.lock();
            let is_in_place = self.directory_prefix(&table, ino).is_ok_and(|now| now == prefix);
            if !is_in_place || table.is_disordered(ino, asked) {
                return;
            }
            let Some(directory) = table.directories.get_mut(&ino) else { return };
            let is_under_way = directory.listing.upgrade().is_some_and(|it| self.is_under_way(&it, &prefix, at));
            if is_under_way || directory.listed.is_some_and(|listed| listed >= at) {
                return;
            }
            let listing = Arc::new(Listing::new(self, ino, prefix, asked, at));
            directory.begin(&listing);
            listing
        };
        listing.take_whole(self, page, asked);
        if listing.is_complete() {
            self.bound_brought(ino, &listing);
        } else {
            let mut begun = self.0.begun.lock();
            begun.truncate(BEGUN_MAX - 1);
            begun.push_front(listing);
        }
    }

    /// Forgets the directories again that lookups brought longest ago, where they are too many.
    fn bound_brought(&self, ino: Ino, listing: &Arc<Listing>) {
        let gone = {
            let mut brought = self.0.brought.lock();
            let weight = listing.len() + ENTRY_WEIGHT;
            brought.weight += weight;
            brought.directories.push_back((ino, Arc::downgrade(listing), weight));
            let mut gone = Vec::new();
            while brought.weight > BROUGHT_NAMES_MAX
                && let Some((ino, listing, weight)) = brought.directories.pop_front()
            {
                brought.weight -= weight;
                gone.push((ino, listing));
            }
            gone
        };
        let mut table = self.0.table.lock();
        for (ino, listing) in gone {
            let Some(directory) = table.directories.get_mut(&ino) else { continue };
            if directory.current.as_ref().is_some_and(|current| std::ptr::eq(Arc::as_ptr(current), listing.as_ptr())) {
                (directory.current, directory.listed) = (None, None);
            }
        }
    }
}

/// Directories that lookups brought whole, in that order.
#[derive(Debug, Default)]
pub(super) struct Brought {
    directories: VecDeque<(Ino, Weak<Listing>, usize)>,
    weight: usize,
}

#[cfg(test)]
mod tests;
