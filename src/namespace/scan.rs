//! A walk turned into a flat scan: when sibling directories are opened one after the other, those that follow are listed
//! without a delimiter, whole subtrees at 1000 keys a request, several requests side by side.
//!
//! Scans go in windows of sibling directories. A window is begun at the second sibling, and the next one once the walker has
//! come halfway, twice as big each time; a walker that stops has cost two requests (docs/decisions/0020). Before one who is slow
//! a window is scanned anew when half of its time is over, so that he waits for none. What a window
//! found carries the time and the count of local changes at which it began, and a directory whose keys it has seen all is
//! complete as of then. A subtree that is much bigger than its siblings ends the scan of their parent; it is listed as
//! usual.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::children::Directory;
use super::listing::Listing;
use super::questions::Asked;
use super::table::Table;
use super::{Namespace, NodeKind, keys};
use crate::store::{KEYS_PER_REQUEST_MAX, ListPage, ListRequest, StoreResult};
use crate::types::{Ino, ObjectInfo};

/// Requests of the first window: what a walker that turns back costs.
const FIRST_REQUESTS: usize = 2;
/// Requests of one window at most, which also bounds what is known and not used: 16,000 keys.
const REQUESTS_MAX: usize = 16;
/// Directories that are scanned at least: one alone is listed as cheaply, and an unexpected depth is spared.
const SIBLINGS_MIN: usize = 2;
/// Windows that are remembered: the one that is walked, and the one that is fetched.
const WINDOWS_MAX: usize = 3;

/// What is known of the way in which the directories in a directory are opened.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The one that was opened last, and when.
    last: Option<(Arc<str>, Instant)>,
    windows: Vec<Arc<Window>>,
    /// A scan proved unhelpful here.
    off: bool,
}

/// Sibling directories that are scanned together.
#[derive(Debug)]
pub(super) struct Window {
    parent: Ino,
    /// What the keys of the parent begin with.
    prefix: String,
    /// In the order of their keys.
    names: Vec<Arc<str>>,
    requests: usize,
    pub(super) began: Instant,
    /// Local changes that were counted when it began.
    pub(super) asked: u64,
    progress: Mutex<Progress>,
    changed: Notify,
}

#[derive(Debug)]
struct Progress {
    /// Ranges of names that are still scanned, as positions.
    running: Vec<std::ops::Range<usize>>,
    keys: usize,
}

impl Walk {
    /// The directory was listed anew: what was unhelpful may help now.
    pub(super) fn listed_anew(&mut self) {
        self.off = false;
    }
}

impl Window {
    fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| **other == *name)
    }

    /// Whether a directory will yet be brought.
    fn is_coming(&self, name: &str) -> bool {
        let progress = self.progress.lock();
        self.position(name).is_some_and(|at| progress.running.iter().any(|range| range.contains(&at)))
    }

    /// Waits until a listing is complete, or the scan has passed its directory.
    pub(super) async fn bring(&self, listing: &Listing, name: &str) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if listing.is_complete() || !self.is_coming(name) {
                return;
            }
            changed.await;
        }
    }
}

/// Names that are known in a directory.
fn known_names(table: &Table, ino: Ino) -> usize {
    table.directories.get(&ino).map_or(1, |directory| {
        directory.children.len().max(directory.current.as_ref().map_or(0, |listing| listing.len()))
    })
}

/// Names of the directories in a directory, in the order of their keys.
fn directories_in(table: &Table, directory: &Directory) -> Vec<Arc<str>> {
    let is_directory = |ino: &Ino| table.rows.get(ino).is_some_and(|row| row.kind == NodeKind::Directory);
    let mut names: Vec<Arc<str>> =
        directory.children.iter().filter(|(_, ino)| is_directory(ino)).map(|(name, _)| Arc::clone(name)).collect();
    if let Some(current) = &directory.current {
        names.extend(current.untaken_directories());
    }
    names.sort_by_cached_key(|name| format!("{name}/"));
    names
}

impl Namespace {
    /// A directory is opened. Begins a window if siblings are being walked; answers the window that will bring its names.
    pub(super) fn walked(&self, table: &mut Table, ino: Ino, is_known: bool) -> Option<(Arc<Window>, Arc<str>)> {
        let row = table.rows.get(&ino).filter(|_| ino != Ino::ROOT)?;
        let (parent, name, now) = (row.parent, Arc::clone(&row.name), self.0.clock.now());
        let walk = &mut table.directories.get_mut(&parent)?.walk;
        let last = walk.last.replace((Arc::clone(&name), now));
        let last = last.filter(|(_, at)| self.is_fresh(*at, now)).map(|(last, _)| last);
        walk.windows.retain(|window| self.is_fresh(window.began, now));
        if walk.off || last.as_ref() == Some(&name) {
            return None;
        }
        let found = walk.windows.iter().rev().find_map(|window| Some((Arc::clone(window), window.position(&name)?)));
        match found {
            Some((window, at)) => {
                let is_latest = walk.windows.last().is_some_and(|latest| Arc::ptr_eq(latest, &window));
                let timely = now.saturating_duration_since(window.began) < self.0.limits.metadata_ttl / 2;
                let mean = window.keys_of_each();
                if is_latest && !timely {
                    // A slow walker: what lies before it is scanned anew while it is good, as far as it will come until then.
                    let requests = (2 * (at + 1) * mean).div_ceil(KEYS_PER_REQUEST_MAX);
                    let from = Bound::Included(Arc::clone(&name));
                    self.begin_window(table, parent, from, 1, requests.min(window.requests), mean);
                } else if is_latest && at * 2 >= window.names.len() {
                    let behind = window.names.last().cloned().map_or(Bound::Unbounded, Bound::Excluded);
                    self.begin_window(table, parent, behind, SIBLINGS_MIN, window.requests * 2, mean);
                }
                window.is_coming(&name).then_some((window, name))
            }
            None if is_known => {
                // Listed by itself, as at a lookup of its name; those behind it are scanned all the same.
                if last.is_some() && self.is_next_unknown(table, parent, &name, now) {
                    let mean = known_names(table, ino);
                    self.begin_window(table, parent, Bound::Excluded(name), SIBLINGS_MIN, FIRST_REQUESTS, mean);
                }
                None
            }
            None => {
                let last = last?;
                let mean = table.child(parent, &last).map_or(1, |last| known_names(table, last));
                let window = self.begin_window(
                    table,
                    parent,
                    Bound::Included(Arc::clone(&name)),
                    SIBLINGS_MIN,
                    FIRST_REQUESTS,
                    mean,
                )?;
                window.is_coming(&name).then_some((window, name))
            }
        }
    }

    /// Whether the directory that follows one in its parent will have to be listed if it is opened.
    fn is_next_unknown(&self, table: &Table, parent: Ino, name: &str, now: Instant) -> bool {
        let Some(parent) = table.directories.get(&parent) else { return false };
        let mut behind = parent.children.range::<str, _>((Bound::Excluded(name), Bound::Unbounded));
        let next = behind.find_map(|(_, ino)| table.directories.get(ino));
        next.is_some_and(|next| next.listed.is_none_or(|listed| !self.is_fresh(listed, now)))
    }

    /// Begins to scan the directories in `parent` from `from` on, or behind it, unless they are fewer than `names_min`.
    fn begin_window(
        &self,
        table: &mut Table,
        parent: Ino,
        from: Bound<Arc<str>>,
        names_min: usize,
        requests: usize,
        keys_of_each: usize,
    ) -> Option<Arc<Window>> {
        let prefix = self.directory_prefix(table, parent).ok()?;
        let directory = table.directories.get(&parent)?;
        directory.listed?;
        let requests = requests.clamp(1, REQUESTS_MAX);
        let behind: (Bound<String>, Bound<String>) = (from.map(|name| format!("{name}/")), Bound::Unbounded);
        let all = directories_in(table, directory);
        let ahead = all.into_iter().filter(|name| behind.contains(&format!("{name}/")));
        let most = (requests * KEYS_PER_REQUEST_MAX / keys_of_each.max(1)).max(1);
        let names: Vec<Arc<str>> = ahead.take(most).collect();
        if names.len() < names_min {
            return None;
        }
        let ranges = requests.min((names.len() * keys_of_each.max(1)).div_ceil(KEYS_PER_REQUEST_MAX)).max(1);
        let each = names.len().div_ceil(ranges);
        let running: Vec<_> = (0..names.len()).step_by(each).map(|at| at..(at + each).min(names.len())).collect();
        let asked = Arc::new(table.ask());
        let window = Arc::new(Window {
            parent,
            prefix,
            names,
            requests,
            began: self.0.clock.now(),
            asked: asked.at,
            progress: Mutex::new(Progress { running: running.clone(), keys: 0 }),
            changed: Notify::new(),
        });
        let walk = &mut table.directories.get_mut(&parent)?.walk;
        walk.windows.push(Arc::clone(&window));
        if walk.windows.len() > WINDOWS_MAX {
            walk.windows.remove(0);
        }
        for range in running {
            // What was expected, twice over, and a page for what lies between the directories.
            let pages_max = 2 * (range.len() * keys_of_each).div_ceil(KEYS_PER_REQUEST_MAX) + 1;
            tokio::spawn(scan_range(self.clone(), Arc::clone(&window), range, pages_max, Arc::clone(&asked)));
        }
        Some(window)
    }
}

impl Window {
    /// Mean keys of a directory that it has found.
    fn keys_of_each(&self) -> usize {
        let progress = self.progress.lock();
        let running: usize = progress.running.iter().map(std::ops::Range::len).sum();
        progress.keys.div_ceil((self.names.len() - running).max(1)).max(1)
    }
}

/// Scans some of a window's directories, and says so when it ends.
async fn scan_range(
    namespace: Namespace,
    window: Arc<Window>,
    range: std::ops::Range<usize>,
    pages_max: usize,
    _asked: Arc<Asked>,
) {
    let outcome = namespace.scan(&window, range.clone(), pages_max).await;
    let gave_up = !matches!(outcome, Ok(true));
    if let Err(error) = outcome {
        tracing::debug!(%error, prefix = window.prefix, "a scan failed; directories are listed one by one");
    }
    window.progress.lock().running.retain(|other| *other != range);
    if gave_up && let Some(directory) = namespace.0.table.lock().directories.get_mut(&window.parent) {
        directory.walk.off = true;
    }
    window.changed.notify_waiters();
}

impl Namespace {
    /// Lists keys without a delimiter; false if there are far more than expected, or not in order.
    async fn scan(&self, window: &Window, range: std::ops::Range<usize>, pages_max: usize) -> StoreResult<bool> {
        let (first, last) = (&window.names[range.start], &window.names[range.end - 1]);
        let start = format!("{}{first}", window.prefix);
        // The character behind `/` ends what lies below the last directory.
        let end = format!("{}{last}0", window.prefix);
        let mut continuation = None;
        let mut passed = start.clone();
        let mut held: (String, Vec<ObjectInfo>) = Default::default();
        for _ in 0..pages_max {
            let request = ListRequest {
                prefix: window.prefix.clone(),
                start_after: continuation.is_none().then(|| start.clone()),
                continuation,
                ..ListRequest::default()
            };
            let page = self.0.store.list(request).await?;
            for info in page.objects {
                let key = info.key().as_str();
                if *key <= *passed {
                    return Ok(false);
                }
                key.clone_into(&mut passed);
                if *key >= *end {
                    break;
                }
                let rest = &key[window.prefix.len()..];
                let Some((name, _)) = rest.split_once('/') else { continue };
                if name != held.0 {
                    let done = std::mem::replace(&mut held, (name.to_owned(), Vec::new()));
                    self.bring(window, done);
                }
                held.1.push(info);
            }
            continuation = page.continuation;
            if continuation.is_none() || passed >= end {
                self.bring(window, held);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All keys of a directory in the window are there.
    fn bring(&self, window: &Window, (name, objects): (String, Vec<ObjectInfo>)) {
        if objects.is_empty() || window.position(&name).is_none() {
            return;
        }
        window.progress.lock().keys += objects.len();
        self.bring_tree(window, window.parent, &name, &format!("{}{name}/", window.prefix), objects);
        window.changed.notify_waiters();
    }

    fn bring_tree(&self, window: &Window, parent: Ino, name: &str, prefix: &str, objects: Vec<ObjectInfo>) {
        let mut page = ListPage::default();
        let mut below: BTreeMap<String, Vec<ObjectInfo>> = BTreeMap::new();
        for info in objects {
            match info.key().as_str()[prefix.len()..].split_once('/') {
                Some((name, _)) => below.entry(name.to_owned()).or_default().push(info),
                None => page.objects.push(info),
            }
        }
        page.common_prefixes = below.keys().map(|name| format!("{prefix}{name}/")).collect();
        let Some((ino, listing)) = self.listing_of_scan(window, parent, name, prefix) else { return };
        listing.take_whole(self, page, window.asked);
        for (name, objects) in below {
            if keys::check_name(&name).is_ok() {
                let prefix = format!("{prefix}{name}/");
                self.bring_tree(window, ino, &name, &prefix, objects);
            }
        }
    }

    /// The listing that a scan fills: one that waits for it, or a new one. `None` if the directory is not there any more,
    /// or is known better.
    fn listing_of_scan(&self, window: &Window, parent: Ino, name: &str, prefix: &str) -> Option<(Ino, Arc<Listing>)> {
        let mut table = self.0.table.lock();
        let ino = table.child(parent, name)?;
        if self.directory_prefix(&table, ino).ok()? != prefix || table.is_disordered(ino, window.asked) {
            return None;
        }
        let directory = table.directories.get_mut(&ino)?;
        if let Some(listing) = directory.listing.upgrade().filter(|listing| !listing.is_complete()) {
            return listing.is_of(window).then_some((ino, listing));
        }
        if directory.listed.is_some_and(|listed| listed >= window.began) {
            return None;
        }
        let listing = Arc::new(Listing::new(self, ino, prefix.to_owned(), window.asked, window.began));
        directory.begin(&listing);
        Some((ino, listing))
    }
}
