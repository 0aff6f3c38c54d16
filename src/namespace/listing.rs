//! One listing of one directory: which pages are asked for, and what they bring to the table and to the streams.
//!
//! Pages come side by side (`plan.rs`) and names are handed out in the order of their keys, the first ones before the last
//! were asked for. A name leaves the listing once nothing that is yet to come can change what it is: `a` waits until LIST has
//! passed `a/`, because a directory shadows a file of its name and `a-b` comes between them. Names have positions that never
//! shift; a name that goes later is passed over.
//!
//! Pages are fetched by one task, for as long as somebody holds the listing and reads near its end.

mod take;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::children::Directory;
use super::plan::{Ask, Plan, RangeId};
use super::questions::Asked;
use super::roll::{Roll, Slot};
use super::scan::Window;
use super::table::Found;
use super::{Namespace, NamespaceError, NamespaceResult, NodeKind};
use crate::store::{ListPage, ListRequest, StoreResult};
use crate::types::{Ino, ObjectInfo};

/// Requests of one listing in flight: 16 at 50 ms list 320,000 names a second, about what one core takes in.
const REQUESTS_MAX: usize = 16;
/// Names that are fetched ahead of the farthest reader; more waits until somebody reads on.
const AHEAD_NAMES_MAX: usize = 200_000;
/// Places that are looked through for a name: some microseconds under the lock.
const SOUGHT_MAX: usize = 20_000;
/// Entries of an old listing that are kept while a new one is made, so that inode numbers stay.
const OLD_ENTRIES_MAX: usize = 100_000;

/// A listing that is complete or under way.
#[derive(Debug)]
pub(super) struct Listing {
    directory: Ino,
    prefix: String,
    /// Local changes that were counted when it began.
    asked: u64,
    pub(super) began: Instant,
    /// Time of day at that moment: the times of directories that it finds.
    pub(super) made: SystemTime,
    /// The listing that its names come from, where it is a view of one: held, never looked at.
    _base: Option<Arc<Listing>>,
    /// The scan that will fill it, and the name of its directory there.
    scan: Option<(Arc<Window>, Arc<str>)>,
    /// Locked after the table, never before.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    roll: Roll,
    /// Names in the order in which they were settled.
    order: Vec<Place>,
    /// Names that are not on the roll.
    extra: Vec<Arc<str>>,
    complete: bool,
    plan: Plan<Kept>,
    /// A task fetches pages.
    fetching: bool,
    failed: Option<NamespaceError>,
    /// Pages that may be fetched in all.
    pages_max: usize,
    pages: usize,
    /// Farthest position that was asked for.
    wanted: usize,
    /// Readers that wait for names.
    readers: usize,
    /// What the keys begin with since the directory was renamed.
    moved_to: Option<String>,
}

/// A position's name: an entry of the roll, or with the upper bit set one of the extra names.
type Place = u32;
const EXTRA: Place = 1 << 31;

/// What a range holds until those before it are done.
#[derive(Debug, Default)]
struct Kept {
    settled: Vec<Slot>,
    /// With the count of changes at which S3 was asked for them.
    waiting: Vec<(String, Found, u64)>,
}

/// What an entry says of a name that nobody has asked for yet.
pub(super) struct ListedEntry {
    pub(super) ino: Ino,
    pub(super) kind: NodeKind,
    pub(super) object: Option<ObjectInfo>,
}

/// The name at a position.
pub(super) enum Listed {
    /// As the listing brought it.
    Entry { name: Arc<str>, ino: Ino, kind: NodeKind, size_bytes: u64, modified: SystemTime },
    /// The directory's children say what it is, if it is.
    Name(Arc<str>),
}

impl Listing {
    pub(super) fn new(namespace: &Namespace, directory: Ino, prefix: String, asked: u64, began: Instant) -> Self {
        let state = State {
            roll: Roll::default(),
            order: Vec::new(),
            extra: Vec::new(),
            complete: false,
            plan: Plan::new(&prefix, namespace.lists_serially()),
            fetching: false,
            failed: None,
            pages_max: 0,
            pages: 0,
            wanted: 0,
            readers: 0,
            moved_to: None,
        };
        let made = namespace.0.clock.wall();
        Self {
            directory,
            prefix,
            asked,
            began,
            made,
            _base: None,
            scan: None,
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// The names from a position on, at most `count`, fewer only if the listing has not come further; and whether nothing
    /// will ever follow them.
    pub(super) fn slice(&self, position: usize, count: usize) -> (Vec<Listed>, bool) {
        let state = self.state.lock();
        let end = position.saturating_add(count).min(state.order.len());
        let places = state.order.get(position..end).unwrap_or_default();
        let listed = |&place: &Place| {
            if place & EXTRA != 0 {
                return Listed::Name(Arc::clone(&state.extra[(place & !EXTRA) as usize]));
            }
            let name: Arc<str> = state.roll.name(place).into();
            if state.roll.is_taken(place) {
                return Listed::Name(name);
            }
            let (size_bytes, modified) = state.roll.size_and_time(place);
            Listed::Entry { name, ino: state.roll.ino(place), kind: state.roll.kind(place), size_bytes, modified }
        };
        (places.iter().map(listed).collect(), state.complete && end == state.order.len())
    }

    /// How many names stand from a position on.
    pub(super) fn reached(&self, position: usize) -> usize {
        self.state.lock().order.len().saturating_sub(position)
    }

    /// Whether it is as old as a scan, so that the scan may fill it.
    pub(super) fn is_of(&self, window: &Window) -> bool {
        self.asked <= window.asked && self.began <= window.began
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.state.lock().roll.len()
    }

    /// Directories that nobody has asked for.
    pub(super) fn untaken_directories(&self) -> Vec<Arc<str>> {
        let state = self.state.lock();
        let directories = (0..state.roll.len() as Slot)
            .filter(|&slot| !state.roll.is_taken(slot) && state.roll.kind(slot) == NodeKind::Directory);
        directories.map(|slot| state.roll.name(slot).into()).collect()
    }

    /// Takes a page of keys from the first one on, if nothing has been asked for yet.
    pub(super) fn take_whole(self: &Arc<Self>, namespace: &Namespace, page: ListPage, asked: u64) {
        let ask = {
            let mut state = self.state.lock();
            if state.plan.is_untouched() { state.plan.next(0, 1) } else { None }
        };
        if let Some(ask) = ask {
            self.take_page(namespace, ask.range, page, (asked, self.began));
            self.changed.notify_waiters();
        }
    }

    /// A directory on the way was renamed, and keys with it.
    pub(super) fn moved(&self, from: &str, to: &str) {
        let mut state = self.state.lock();
        let prefix = state.moved_to.as_deref().unwrap_or(&self.prefix);
        if let Some(rest) = prefix.strip_prefix(from) {
            state.moved_to = Some(format!("{to}{rest}"));
        }
    }

    /// Whether all names are there.
    pub(super) fn is_complete(&self) -> bool {
        self.state.lock().complete
    }

    /// The entry of a name that nobody has asked for yet.
    pub(super) fn entry(&self, name: &str) -> Option<ListedEntry> {
        let state = self.state.lock();
        let slot = state.roll.find(name).filter(|&slot| !state.roll.is_taken(slot))?;
        let kind = state.roll.kind(slot);
        let prefix = state.moved_to.as_deref().unwrap_or(&self.prefix);
        let object = (kind == NodeKind::File).then(|| state.roll.object(slot, prefix));
        Some(ListedEntry { ino: state.roll.ino(slot), kind, object })
    }

    /// A name was removed; it shall not come from an answer that waits to be settled.
    pub(super) fn forget_waiting(&self, name: &str) {
        for range in &mut self.state.lock().plan.ranges {
            range.kept.waiting.retain(|(waiting, ..)| waiting != name);
        }
    }

    /// Where a name stands, if it is at one of the places `near` or can be found with little effort.
    pub(super) fn position(&self, name: &str, near: &[usize]) -> Option<usize> {
        let state = self.state.lock();
        let place = state.roll.find(name)?;
        let guessed = near.iter().copied().find(|&near| state.order.get(near) == Some(&place));
        guessed.or_else(|| state.order.iter().take(SOUGHT_MAX).position(|&at| at == place))
    }

    /// The name at a position, with its entry if nobody has asked for it yet.
    pub(super) fn at(&self, position: usize) -> Option<(String, Option<ListedEntry>)> {
        let name = {
            let state = self.state.lock();
            match *state.order.get(position)? {
                place if place & EXTRA != 0 => state.extra[(place & !EXTRA) as usize].to_string(),
                slot => state.roll.name(slot).to_owned(),
            }
        };
        let entry = self.entry(&name);
        Some((name, entry))
    }

    /// From now on the directory's children say what is to be known of a name.
    pub(super) fn take_entry(&self, name: &str) {
        self.state.lock().roll.take(name);
    }

    /// How many names nobody has asked for.
    pub(super) fn untaken(&self) -> usize {
        self.state.lock().roll.untaken()
    }

    /// Waits until a name stands at `position`, or all are there.
    pub(super) async fn reach(self: &Arc<Self>, namespace: &Namespace, position: usize) -> NamespaceResult<()> {
        self.until(namespace, |state| {
            state.pages_max = usize::MAX;
            state.wanted = state.wanted.max(position);
            state.complete || position < state.order.len()
        })
        .await
    }

    /// Fetches until all names are there or `pages` have been fetched.
    pub(super) async fn advance(self: &Arc<Self>, namespace: &Namespace, pages: usize) -> NamespaceResult<()> {
        self.until(namespace, |state| {
            state.pages_max = state.pages_max.max(pages);
            state.complete || state.pages >= pages
        })
        .await
    }

    async fn until(
        self: &Arc<Self>,
        namespace: &Namespace,
        mut enough: impl FnMut(&mut State) -> bool,
    ) -> NamespaceResult<()> {
        let mut first = true;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // A change between the look and the wait must not be missed.
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if enough(&mut state) {
                    return Ok(());
                }
                if !state.fetching {
                    if let Some(error) = state.failed.take().filter(|_| !first) {
                        return Err(error);
                    }
                    state.fetching = true;
                    tokio::spawn(fetch(Arc::downgrade(self), namespace.clone()));
                }
                first = false;
                state.readers += 1;
            }
            let waiting = Waiting(self);
            changed.await;
            drop(waiting);
        }
    }

    /// What to fetch next; `None` if that is enough for now.
    fn next(&self, asked: usize) -> Option<Ask> {
        let mut state = self.state.lock();
        let ahead = state.roll.len().saturating_sub(state.wanted);
        let enough = state.complete
            || state.failed.is_some()
            || state.pages + asked >= state.pages_max
            || (state.readers == 0 && ahead > AHEAD_NAMES_MAX);
        let ask = if enough { None } else { state.plan.next(asked, REQUESTS_MAX) };
        if ask.is_none() && asked == 0 {
            state.fetching = false;
            state.plan.all_failed();
        }
        ask
    }

    fn fail(&self, range: RangeId, error: NamespaceError) {
        let mut state = self.state.lock();
        state.plan.failed(range);
        state.failed = Some(error);
    }
}

/// A reader that waits; also one that is cancelled stops being counted.
struct Waiting<'a>(&'a Listing);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().readers -= 1;
    }
}

/// The task that fetches pages of a listing. If it ends before it has said so, readers do not wait for it: one who comes
/// begins another.
struct Fetching {
    listing: Weak<Listing>,
    has_ended: bool,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(listing) = self.listing.upgrade().filter(|_| !self.has_ended) {
            {
                let mut state = listing.state.lock();
                state.fetching = false;
                state.plan.all_failed();
                state.failed = Some(NamespaceError::Panicked);
            }
            listing.changed.notify_waiters();
        }
    }
}

/// Fetches pages until all are there, one failed, or nobody holds the listing any more.
async fn fetch(listing: Weak<Listing>, namespace: Namespace) {
    let mut fetching = Fetching { listing: Weak::clone(&listing), has_ended: false };
    if let Some(waited) = listing.upgrade()
        && let Some((window, name)) = &waited.scan
    {
        window.bring(&waited, name).await;
    }
    let mut running: JoinSet<(RangeId, StoreResult<ListPage>, Asked, Instant)> = JoinSet::new();
    loop {
        {
            let Some(directory) = listing.upgrade().map(|listing| listing.directory) else { return };
            namespace.until_moved(directory).await;
            let Some(listing) = listing.upgrade() else { return };
            while let Some(ask) = listing.next(running.len()) {
                let request = ListRequest {
                    prefix: listing.prefix.clone(),
                    delimited: true,
                    start_after: ask.start_after,
                    continuation: ask.continuation,
                    ..ListRequest::default()
                };
                let store = Arc::clone(&namespace.0.store);
                let (asked, at) = (namespace.0.table.lock().ask(), namespace.0.clock.now());
                running.spawn(async move { (ask.range, store.list(request).await, asked, at) });
            }
            if running.is_empty() {
                fetching.has_ended = true;
                listing.changed.notify_waiters();
                return;
            }
        }
        let Some(Ok((range, outcome, asked, at))) = running.join_next().await else { continue };
        let Some(listing) = listing.upgrade() else { return };
        match outcome {
            Ok(page) => listing.take_page(&namespace, range, page, (asked.at, at)),
            Err(error) => listing.fail(range, error.into()),
        }
        listing.changed.notify_waiters();
    }
}

impl Namespace {
    /// Whether this server's listings are only right page after page.
    pub(super) fn lists_serially(&self) -> bool {
        self.0.serial_listings.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A listing that is no older than knowledge may be: the one under way, or a new one.
    pub(super) fn listing(&self, ino: Ino) -> NamespaceResult<Arc<Listing>> {
        let now = self.0.clock.now();
        let mut table = self.0.table.lock();
        Self::check_directory(&table, ino)?;
        let prefix = self.directory_prefix(&table, ino)?;
        let is_known = table.directories.get(&ino).and_then(|directory| directory.listed);
        let is_known = is_known.is_some_and(|listed| self.is_fresh(listed, now));
        let scan = self.walked(&mut table, ino, is_known);
        let asked = table.changes;
        let directory = table.directories.entry(ino).or_default();
        if let Some(listing) = directory.listing.upgrade().filter(|listing| self.is_under_way(listing, &prefix, now)) {
            return Ok(listing);
        }
        if is_known {
            return Ok(self.known_listing(directory, ino, prefix, asked, now));
        }
        if let Some(old) = directory.current.take_if(|old| old.state.lock().roll.len() > OLD_ENTRIES_MAX) {
            directory.retire(&Arc::downgrade(&old));
        }
        // What a scan brings is as old as the scan.
        let (asked, began) = scan.as_ref().map_or((asked, now), |(window, _)| (window.asked, window.began));
        let listing = Arc::new(Listing { scan, ..Listing::new(self, ino, prefix, asked, began) });
        directory.begin(&listing);
        Ok(listing)
    }

    /// Whether a listing has yet to end and is no older than knowledge may be.
    pub(super) fn is_under_way(&self, listing: &Listing, prefix: &str, now: Instant) -> bool {
        self.is_fresh(listing.began, now) && !listing.is_complete() && listing.prefix == prefix
    }

    /// What is known of a directory whose names are all known.
    fn known_listing(&self, directory: &Directory, ino: Ino, prefix: String, asked: u64, now: Instant) -> Arc<Listing> {
        if let Some(current) = &directory.current {
            let state = current.state.lock();
            // Names on the roll that have gone since are passed over.
            if directory.children.keys().all(|name| state.roll.find(name).is_some()) && state.extra.is_empty() {
                drop(state);
                return Arc::clone(current);
            }
        }
        let mut names: Vec<Arc<str>> = directory.children.keys().cloned().collect();
        if let Some(current) = &directory.current {
            let state = current.state.lock();
            let untaken = (0..state.roll.len() as Slot).filter(|&slot| !state.roll.is_taken(slot));
            names.extend(untaken.map(|slot| Arc::<str>::from(state.roll.name(slot))));
            names.sort();
        }
        let view = Listing { _base: directory.current.clone(), ..Listing::new(self, ino, prefix, asked, now) };
        {
            let mut state = view.state.lock();
            state.order = (0..names.len() as Place).map(|place| place | EXTRA).collect();
            state.extra = names;
            state.complete = true;
        }
        Arc::new(view)
    }
}
