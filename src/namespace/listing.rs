//! One listing of one directory, page by page: it fills the table and the streams that read from it.
//!
//! The first page is handed out before the last was asked for. A name leaves the listing once nothing that is yet to come
//! can change what it is: `a` waits until LIST has passed `a/`, because a directory shadows a file of its name and
//! `a-b` comes between them. Names have positions that never shift; a name that goes later is passed over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::keys::{self, Meaning};
use super::table::Found;
use super::{Namespace, NamespaceResult};
use crate::store::{ListPage, ListRequest};
use crate::types::Ino;

/// A listing that is complete or under way.
#[derive(Debug)]
pub(super) struct Listing {
    directory: Ino,
    prefix: String,
    /// Local changes that were counted when it began.
    asked: u64,
    pub(super) began: Instant,
    /// Names in the order in which they were settled.
    names: Mutex<Names>,
    /// Where the next page begins. Held while a page is fetched, so that a page is fetched once.
    cursor: tokio::sync::Mutex<Cursor>,
}

#[derive(Debug, Default)]
struct Names {
    settled: Vec<(Arc<str>, Ino)>,
    complete: bool,
}

#[derive(Debug, Default)]
struct Cursor {
    continuation: Option<String>,
    waiting: BTreeMap<String, Found>,
    seen: std::collections::HashSet<Ino>,
    complete: bool,
}

impl Listing {
    /// The names from a position on, at most `count`; fewer only if the listing has not come further.
    pub(super) fn slice(&self, position: usize, count: usize) -> (Vec<(Arc<str>, Ino)>, bool) {
        let names = self.names.lock();
        let end = (position + count).min(names.settled.len());
        let slice = names.settled.get(position..end).unwrap_or_default().to_vec();
        (slice, names.complete && end == names.settled.len())
    }

    /// How many names are settled, and whether all are.
    pub(super) fn progress(&self) -> (usize, bool) {
        let names = self.names.lock();
        (names.settled.len(), names.complete)
    }

    /// Fetches at most `pages` more pages.
    pub(super) async fn advance(&self, namespace: &Namespace, pages: usize) -> NamespaceResult<()> {
        for _ in 0..pages {
            let mut cursor = self.cursor.lock().await;
            if cursor.complete {
                return Ok(());
            }
            self.fetch(namespace, &mut cursor).await?;
        }
        Ok(())
    }

    /// Fetches until a name stands at `position`, or all are there.
    pub(super) async fn reach(&self, namespace: &Namespace, position: usize) -> NamespaceResult<()> {
        loop {
            let (settled, complete) = self.progress();
            if complete || position < settled {
                return Ok(());
            }
            let mut cursor = self.cursor.lock().await;
            let (now_settled, _) = self.progress();
            if now_settled == settled && !cursor.complete {
                self.fetch(namespace, &mut cursor).await?;
            }
        }
    }

    async fn fetch(&self, namespace: &Namespace, cursor: &mut Cursor) -> NamespaceResult<()> {
        let request = ListRequest {
            prefix: self.prefix.clone(),
            delimited: true,
            continuation: cursor.continuation.clone(),
            ..ListRequest::default()
        };
        let page = namespace.0.store.list(request).await?;
        self.take(namespace, cursor, page);
        Ok(())
    }

    fn take(&self, namespace: &Namespace, cursor: &mut Cursor, page: ListPage) {
        let last_object = page.objects.last().map(|info| info.key().as_str().to_owned());
        let last_prefix = page.common_prefixes.last().cloned();
        let mut marker = false;
        for info in page.objects {
            match keys::meaning(&self.prefix, info.key().as_str()) {
                Some(Meaning::File(name)) => {
                    let name = name.to_owned();
                    cursor.waiting.entry(name).or_insert(Found::File(info));
                }
                Some(Meaning::Marker) => marker = true,
                // Without a delimiter's answer there are no keys below; a server that sends some is understood.
                Some(Meaning::Directory(name)) => {
                    let name = name.to_owned();
                    cursor.waiting.insert(name, Found::Directory { marker: false });
                }
                Some(Meaning::Hidden) | None => {}
            }
        }
        for prefix in page.common_prefixes {
            if let Some(Meaning::Directory(name)) = keys::meaning(&self.prefix, &prefix) {
                cursor.waiting.insert(name.to_owned(), Found::Directory { marker: false });
            }
        }
        cursor.complete = page.continuation.is_none();
        cursor.continuation = page.continuation;
        let passed = last_object.max(last_prefix).unwrap_or_default();
        self.settle(namespace, cursor, &passed, marker);
    }

    /// Moves what can no longer change from `waiting` into the table and the names.
    fn settle(&self, namespace: &Namespace, cursor: &mut Cursor, passed: &str, marker: bool) {
        let (now, made) = (namespace.0.clock.now(), namespace.0.clock.wall());
        let waiting = std::mem::take(&mut cursor.waiting);
        let mut told = Vec::new();
        let mut table = namespace.0.table.lock();
        let mut names = self.names.lock();
        if marker && let Some(directory) = table.directories.get_mut(&self.directory) {
            directory.marker = true;
        }
        for (name, found) in waiting {
            let settled = cursor.complete
                || matches!(found, Found::Directory { .. })
                || passed > format!("{}{name}/", self.prefix).as_str();
            if !settled {
                cursor.waiting.insert(name, found);
                continue;
            }
            let Some((ino, replaced)) = table.learn(self.directory, &name, &found, self.asked, now, made) else {
                continue;
            };
            if replaced {
                told.push(name.clone());
            }
            if cursor.seen.insert(ino) {
                names.settled.push((name.into(), ino));
            }
        }
        if cursor.complete {
            self.complete(namespace, &mut table, &mut names, &cursor.seen, &mut told);
        }
        drop(names);
        drop(table);
        for name in told {
            namespace.tell(self.directory, &name);
        }
    }

    /// All pages are in: what was not listed is gone, unless it was made here meanwhile.
    fn complete(
        &self,
        namespace: &Namespace,
        table: &mut super::table::Table,
        names: &mut Names,
        seen: &std::collections::HashSet<Ino>,
        told: &mut Vec<String>,
    ) {
        names.complete = true;
        let Some(directory) = table.directories.get_mut(&self.directory) else { return };
        let asked = self.asked;
        directory.removed.retain(|_, removed| *removed > asked);
        let children: Vec<(Arc<str>, Ino)> =
            directory.children.iter().map(|(name, &ino)| (Arc::clone(name), ino)).collect();
        directory.absent.clear();
        directory.listed = Some(self.began);
        directory.asked = 0;
        for (name, ino) in children {
            if seen.contains(&ino) {
                continue;
            }
            let Some(row) = table.rows.get(&ino) else { continue };
            let local = row.unpublished || row.written.is_some() || row.changed > asked;
            let later = row.seen >= self.began;
            if local || later {
                names.settled.push((name, ino));
            } else {
                table.unlink(ino);
                told.push(name.to_string());
            }
        }
        let _ = namespace;
    }
}

impl Namespace {
    /// A listing that is no older than knowledge may be: the one under way, or a new one.
    pub(super) fn listing(&self, ino: Ino) -> NamespaceResult<Arc<Listing>> {
        let now = self.0.clock.now();
        let mut table = self.0.table.lock();
        Self::check_directory(&table, ino)?;
        let prefix = self.directory_prefix(&table, ino)?;
        let asked = table.changes;
        let directory = table.directories.entry(ino).or_default();
        if let Some(listing) = directory.listing.upgrade()
            && self.is_fresh(listing.began, now)
            && !listing.progress().1
            && listing.prefix == prefix
        {
            return Ok(listing);
        }
        if directory.listed.is_some_and(|listed| self.is_fresh(listed, now)) {
            let children = &directory.children;
            let settled = children.iter().map(|(name, &ino)| (Arc::clone(name), ino)).collect();
            return Ok(Arc::new(Listing {
                directory: ino,
                prefix,
                asked,
                began: now,
                names: Mutex::new(Names { settled, complete: true }),
                cursor: tokio::sync::Mutex::new(Cursor { complete: true, ..Cursor::default() }),
            }));
        }
        let listing = Arc::new(Listing {
            directory: ino,
            prefix,
            asked,
            began: now,
            names: Mutex::default(),
            cursor: tokio::sync::Mutex::default(),
        });
        directory.listing = Arc::downgrade(&listing);
        Ok(listing)
    }
}
