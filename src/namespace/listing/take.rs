//! What a page brings: entries and rows, in the order of keys, each name once.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use parking_lot::MutexGuard;

use super::super::keys::{self, Meaning};
use super::super::plan::{PageEnds, RangeId};
use super::super::remove::has_local_names;
use super::super::roll::Slot;
use super::super::table::{Found, Table};
use super::super::{Namespace, NamespaceError};
use super::{EXTRA, Listing, Place, State};
use crate::store::ListPage;
use crate::types::Ino;

/// A page, and the table that takes it.
struct Taking<'a> {
    listing: &'a Arc<Listing>,
    table: &'a mut Table,
    state: &'a mut State,
    /// Local changes that were counted when the page was asked for.
    asked: u64,
    now: Instant,
    made: SystemTime,
    /// Names that the kernel was told otherwise.
    told: Vec<String>,
}

/// The table while a listing takes a page into it: however that ends, the listing is locked no more.
struct TakenBy<'a> {
    table: MutexGuard<'a, Table>,
    directory: Ino,
}

impl Deref for TakenBy<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl DerefMut for TakenBy<'_> {
    fn deref_mut(&mut self) -> &mut Table {
        &mut self.table
    }
}

impl Drop for TakenBy<'_> {
    fn drop(&mut self) {
        if let Some(directory) = self.table.directories.get_mut(&self.directory) {
            directory.taking = None;
        }
    }
}

impl Listing {
    /// Takes a page into the table and the names, which was asked for at `now`, when `asked` local changes were counted.
    pub(super) fn take_page(
        self: &Arc<Self>,
        namespace: &Namespace,
        range: RangeId,
        page: ListPage,
        (asked, now): (u64, Instant),
    ) {
        let made = namespace.0.clock.wall();
        let mut table = TakenBy { table: namespace.0.table.lock(), directory: self.directory };
        let is_disordered = table.is_disordered(self.directory, asked);
        let Some(directory) = table.directories.get_mut(&self.directory) else {
            self.fail(range, NamespaceError::Stale);
            return;
        };
        // Rows that are made here mark the entries of listings; this one's are locked, and marked by us.
        directory.taking = Some(Arc::clone(self));
        let mut state = self.state.lock();
        state.pages += 1;
        let mut told = Vec::new();
        let is_in_place = namespace.directory_prefix(&table, self.directory).ok().as_deref() == Some(&*self.prefix);
        if is_in_place && is_disordered {
            // Keys were being moved; what they are now is asked for again.
            state.plan.failed(range);
        } else if is_in_place {
            if !page.objects.is_empty() || !page.common_prefixes.is_empty() {
                table.confirm_way(self.directory, asked, now);
            }
            let mut taking = Taking { listing: self, table: &mut table, state: &mut state, asked, now, made, told };
            if !taking.page(range, page) {
                namespace.0.serial_listings.store(true, Ordering::Relaxed);
            }
            told = taking.told;
        } else {
            // The directory was renamed or removed; what lies under its old keys is not in it.
            state.plan.failed(range);
            state.failed = Some(NamespaceError::Stale);
        }
        drop(state);
        drop(table);
        for name in told {
            namespace.tell(self.directory, &name);
        }
    }
}

fn ends_of(page: &mut ListPage) -> PageEnds {
    let keys = || page.objects.iter().map(|info| info.key().as_str());
    let prefixes = || page.common_prefixes.iter().map(String::as_str);
    PageEnds {
        first: keys().next().into_iter().chain(prefixes().next()).min().map(str::to_owned),
        last: keys().next_back().into_iter().chain(prefixes().next_back()).max().map(str::to_owned),
        in_order: keys().is_sorted() && prefixes().is_sorted(),
        continuation: page.continuation.clone(),
    }
}

impl Taking<'_> {
    /// Takes a page; false if the server does not list in order.
    fn page(&mut self, id: RangeId, mut page: ListPage) -> bool {
        let ends = ends_of(&mut page);
        let Some(range) = self.state.plan.asked(id) else { return true };
        // With the count of changes at which S3 was asked: names may wait for later pages.
        let asked = self.asked;
        let mut found: BTreeMap<String, (Found, u64)> = BTreeMap::new();
        let mut marker = false;
        for info in page.objects {
            let key = info.key().as_str();
            if !range.holds(key) {
                continue;
            }
            match keys::meaning(&self.listing.prefix, key) {
                Some(Meaning::File(name)) => {
                    let name = name.to_owned();
                    found.entry(name).or_insert((Found::File(info), asked));
                }
                Some(Meaning::Marker) => marker = true,
                // Without a delimiter's answer there are no keys below; a server that sends some is understood.
                Some(Meaning::Directory(name)) => {
                    found.insert(name.to_owned(), (Found::Directory { marker: false, own: None }, asked));
                }
                Some(Meaning::Hidden) | None => {}
            }
        }
        for prefix in page.common_prefixes.iter().filter(|prefix| range.holds(prefix)) {
            if let Some(Meaning::Directory(name)) = keys::meaning(&self.listing.prefix, prefix) {
                found.insert(name.to_owned(), (Found::Directory { marker: false, own: None }, asked));
            }
        }
        let last = ends.continuation.is_none() && ends.last.as_deref().is_none_or(|last| range.holds(last));
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let at = match self.state.plan.arrived(id, &names, ends) {
            Ok(Some(at)) => at,
            Ok(None) => return true,
            Err(_) => {
                self.begin_again();
                return false;
            }
        };
        if marker && let Some(directory) = self.table.directories.get_mut(&self.listing.directory) {
            directory.marker = true;
        }
        for (name, file, asked) in std::mem::take(&mut self.state.plan.ranges[at].kept.waiting) {
            found.entry(name).or_insert((file, asked));
        }
        let mut settled = Vec::with_capacity(found.len());
        for (name, (found, asked)) in found {
            if last || matches!(found, Found::Directory { .. }) || self.is_passed(at, &name) {
                settled.extend(self.learn(&name, &found, asked));
            } else {
                self.state.plan.ranges[at].kept.waiting.push((name, found, asked));
            }
        }
        self.state.plan.ranges[at].kept.settled.extend(settled);
        self.hand_out();
        if self.state.plan.is_complete() {
            self.complete();
        }
        true
    }

    /// Whether a range has passed the place where a directory of this name would come.
    fn is_passed(&self, at: usize, name: &str) -> bool {
        let range = &self.state.plan.ranges[at];
        let rest = range.passed.strip_prefix(&*self.listing.prefix).unwrap_or_default();
        let above = |rest: &str| match rest.strip_prefix(name) {
            Some(behind) => behind > "/",
            None => rest > name,
        };
        above(rest)
    }

    /// The server lists out of order: everything is asked for anew, page after page. What was found stays where it is.
    fn begin_again(&mut self) {
        tracing::warn!("this server does not list in order; directories are listed page after page");
        for kept in self.state.plan.restart_serially() {
            self.state.order.extend(kept.settled);
        }
    }

    /// Moves what the first ranges hold into the order of names, up to the first range that is not done.
    fn hand_out(&mut self) {
        for at in 0..self.state.plan.ranges.len() {
            let range = &mut self.state.plan.ranges[at];
            let settled = std::mem::take(&mut range.kept.settled);
            self.state.order.extend(settled);
            if !self.state.plan.ranges[at].is_done() {
                return;
            }
            let waiting = std::mem::take(&mut self.state.plan.ranges[at].kept.waiting);
            for (name, found, asked) in waiting {
                let next = self.state.plan.ranges.get(at + 1);
                if next.is_some_and(|next| !next.is_done()) && !self.is_passed(at + 1, &name) {
                    self.state.plan.ranges[at + 1].kept.waiting.push((name, found, asked));
                } else {
                    let slot = self.learn(&name, &found, asked);
                    self.state.order.extend(slot);
                }
            }
        }
    }

    /// Takes a name; answers its entry if it is new to this listing.
    fn learn(&mut self, name: &str, found: &Found, asked: u64) -> Option<Slot> {
        let listing = self.listing;
        if let Some(slot) = self.state.roll.find(name) {
            // A directory shadows a file of its name, also one that came earlier.
            if matches!(found, Found::Directory { .. })
                && (self.state.roll.is_taken(slot) || self.state.roll.kind(slot) != found.kind())
            {
                self.state.roll.take(name);
                self.learn_row(name, found, asked);
            }
            return None;
        }
        let directory = self.table.directories.get(&listing.directory)?;
        let is_local = directory.children.contains_key(name)
            || directory.removed.contains_key(name)
            || !self.table.deferred.is_empty();
        if is_local {
            let ino = self.learn_row(name, found, asked)?;
            return Some(self.state.roll.push(name, ino, found, true));
        }
        // A name keeps its number over listings.
        let known = directory.current.as_ref().and_then(|old| old.entry(name)).filter(|old| old.kind == found.kind());
        let ino = known.map_or_else(|| self.table.next_ino(), |old| old.ino);
        Some(self.state.roll.push(name, ino, found, false))
    }

    /// Takes a name whose row may say more.
    fn learn_row(&mut self, name: &str, found: &Found, asked: u64) -> Option<Ino> {
        let listing = self.listing;
        let (ino, replaced) = self.table.learn(listing.directory, name, found, asked, self.now, self.made)?;
        if replaced {
            self.told.push(name.to_owned());
        }
        Some(ino)
    }

    /// All pages are in: what was not listed is gone, unless it was made here meanwhile.
    fn complete(&mut self) {
        let listing = self.listing;
        self.state.complete = true;
        self.state.roll.shrink();
        self.state.order.shrink_to_fit();
        let oldest = self.table.questions.oldest();
        let Some(directory) = self.table.directories.get_mut(&listing.directory) else { return };
        let asked = listing.asked;
        directory.forget_removed(oldest);
        directory.absent.clear();
        directory.listed = Some(listing.began);
        directory.asked = 0;
        directory.is_relisted = false;
        directory.walk.listed_anew();
        if let Some(old) = directory.current.replace(Arc::clone(listing)) {
            directory.retire(&Arc::downgrade(&old));
        }
        let children: Vec<_> = directory.children.iter().map(|(name, &ino)| (Arc::clone(name), ino)).collect();
        for (name, ino) in children {
            if self.state.roll.find(&name).is_some() {
                continue;
            }
            let Some(row) = self.table.rows.get(&ino) else { continue };
            let local =
                row.unpublished || row.written.is_some() || row.changed > asked || self.table.moving.contains_key(&ino);
            if local || row.seen >= listing.began || has_local_names(self.table, ino) {
                let place = self.state.extra.len() as Place | EXTRA;
                self.state.extra.push(name);
                self.state.order.push(place);
            } else {
                self.table.unlink(ino);
                self.told.push(name.to_string());
            }
        }
    }
}
