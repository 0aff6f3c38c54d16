//! From a name to an inode: memory first, then one HEAD and one LIST, side by side.
//!
//! The LIST is the first page of the directory that the name may be: who looks a directory up goes on to list it or to look
//! for names in it, and the page answers that.
//!
//! Callers who ask for the same name at once share the requests. A directory that is asked for a third name that nothing
//! is known of, or of which what is known has grown old, is listed in the background, so that the next ones are answered from
//! memory.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture, join};

use super::table::Found;
use super::{Namespace, NamespaceError, NamespaceResult, Node, NodeKind, keys};
use crate::store::{ListPage, ListRequest, StoreError};
use crate::types::{Ino, ObjectKey};

/// A question that several may wait for.
type Question = SharedFuture<BoxFuture<'static, NamespaceResult<Ino>>>;

/// Questions under way, by directory and name.
#[derive(Default)]
pub(super) struct Asking {
    questions: HashMap<(Ino, Arc<str>), Question>,
}

impl Namespace {
    /// What memory knows of a name: its inode, that it does not exist, or nothing (`None`).
    fn known(&self, parent: Ino, name: &str) -> Option<NamespaceResult<Ino>> {
        if let Err(error) = keys::check_name(name) {
            return Some(Err(error.into()));
        }
        let mut table = self.0.table.lock();
        if let Err(error) = Self::check_directory(&table, parent) {
            return Some(Err(error));
        }
        if let Some(ino) = table.child(parent, name) {
            let row = table.rows.get(&ino)?;
            return self.is_row_fresh(&table, ino, row).then_some(Ok(ino));
        }
        let since = table.directories.get(&parent)?.absent_since(name)?;
        self.is_fresh(since, self.0.clock.now()).then_some(Err(NamespaceError::NotFound))
    }

    pub(super) fn take(&self, ino: Ino) -> NamespaceResult<Node> {
        let mut table = self.0.table.lock();
        let row = table.rows.get_mut(&ino).ok_or(NamespaceError::NotFound)?;
        row.lookups += 1;
        Ok(self.node_of(&table, ino))
    }

    /// Looks a name up in memory; `None` where S3 must be asked. A found inode has one reference more.
    pub fn try_lookup(&self, parent: Ino, name: &str) -> Option<NamespaceResult<Node>> {
        Some(self.known(parent, name)?.and_then(|ino| self.take(ino)))
    }

    /// Looks a name up. A found inode has one reference more.
    pub async fn lookup(&self, parent: Ino, name: &str) -> NamespaceResult<Node> {
        self.look_up(parent, name, false).await
    }

    /// The same for a name that is of use to the caller only if a directory has it: that is asked first, and mostly alone.
    pub async fn lookup_directory(&self, parent: Ino, name: &str) -> NamespaceResult<Node> {
        self.look_up(parent, name, true).await
    }

    async fn look_up(&self, parent: Ino, name: &str, directory_first: bool) -> NamespaceResult<Node> {
        if let Some(outcome) = self.try_lookup(parent, name) {
            return outcome;
        }
        let ino = self.ask(parent, name, directory_first).await?;
        self.take(ino)
    }

    /// Asks S3 for a name, together with whoever asks for it now.
    pub(super) async fn ask(&self, parent: Ino, name: &str, directory_first: bool) -> NamespaceResult<Ino> {
        let id: (Ino, Arc<str>) = (parent, name.into());
        let question = {
            let mut asking = self.0.asking.lock();
            let namespace = self.clone();
            let own = id.clone();
            let question = asking.questions.entry(id.clone()).or_insert_with(|| {
                async move {
                    // All who wait get an answer, and who comes later asks anew, also where this is a defect of ours.
                    let asking = AssertUnwindSafe(namespace.ask_alone(own.0, &own.1, directory_first)).catch_unwind();
                    let outcome = asking.await;
                    namespace.0.asking.lock().questions.remove(&own);
                    outcome.unwrap_or(Err(NamespaceError::Panicked))
                }
                .boxed()
                .shared()
            });
            question.clone()
        };
        // If every asker is cancelled the question stays in the table, unfinished; the next asker goes on with it.
        question.await
    }

    async fn ask_alone(&self, parent: Ino, name: &str, directory_first: bool) -> NamespaceResult<Ino> {
        loop {
            self.until_moved(parent).await;
            if let Some(outcome) = self.ask_once(parent, name, directory_first).await? {
                return outcome;
            }
        }
    }

    /// Asks once; `None` if the directory was moved meanwhile, and the answer is about keys that it has no more.
    async fn ask_once(
        &self,
        parent: Ino,
        name: &str,
        directory_first: bool,
    ) -> NamespaceResult<Option<NamespaceResult<Ino>>> {
        // What is answered may be no newer than this.
        let now = self.0.clock.now();
        let (asked, prefix, known, list_all, whole_page) = {
            let mut table = self.0.table.lock();
            Self::check_directory(&table, parent)?;
            let prefix = self.directory_prefix(&table, parent)?;
            let known = table.child(parent, name);
            let whole_page = known.is_none_or(|ino| table.is_of_one_page(ino));
            // With `--posix` a name may be known, and not what it says of itself.
            let known = known.and_then(|ino| table.rows.get(&ino));
            let is_confirmed = known.is_some_and(|row| self.is_confirmed(&table, row));
            let known = known.map(|row| row.kind);
            let asked = table.ask();
            let directory = table.directories.entry(parent).or_default();
            // Names that have grown old are learned anew by the same pages, if a few of them hold the directory.
            let list_all = !is_confirmed && directory.asked_for_name(known.is_some());
            (asked, prefix, known.map(|kind| (kind, is_confirmed)), list_all, whole_page)
        };
        if list_all {
            self.list_in_background(parent);
        }
        let key = keys::file_key(&prefix, name)?;
        let mut page = None;
        let found = match known {
            // A file that was there is most likely still one: its HEAD alone confirms it.
            Some((kind, _)) if kind != NodeKind::Directory => match self.ask_file(&key).await? {
                Some(found) => Some(found),
                None => self.ask_directory(&key, true, &mut page).await?,
            },
            Some((_, true)) if self.0.defaults.posix => Some(self.ask_marker(&key).await?),
            known if known.is_some() || directory_first => match self.ask_directory(&key, whole_page, &mut page).await?
            {
                Some(found) => Some(found),
                None => self.ask_file(&key).await?,
            },
            _ => {
                let (file, directory) = join(self.ask_file(&key), self.ask_directory(&key, true, &mut page)).await;
                // A directory shadows a file of its name.
                match directory? {
                    Some(found) => Some(found),
                    None => file?,
                }
            }
        };
        let found = found.map(|found| (found, page));
        Ok(self.settle((parent, name), &key, found, (asked.at, now)))
    }

    /// Takes what S3 said of a name, and the first page of the directory that it is, asked for at a count and a time; `None` if
    /// the answer is about keys that the directory has no more.
    pub(super) fn settle(
        &self,
        (parent, name): (Ino, &str),
        key: &str,
        found: Option<(Found, Option<ListPage>)>,
        (asked, now): (u64, Instant),
    ) -> Option<NamespaceResult<Ino>> {
        let made = self.0.clock.wall();
        let mut table = self.0.table.lock();
        if table.is_disordered(parent, asked) {
            return None;
        }
        if found.is_some() {
            table.confirm_way(parent, asked, now);
        }
        let (outcome, changed) = match &found {
            Some((found, _)) => match table.learn(parent, name, found, asked, now, made) {
                Some((ino, replaced)) => (Ok(ino), replaced),
                None => (Err(NamespaceError::NotFound), false),
            },
            None => {
                let dropped = table.learn_absent(parent, name, asked, now);
                // A name that was made here meanwhile is there all the same.
                (table.child(parent, name).ok_or(NamespaceError::NotFound), dropped)
            }
        };
        drop(table);
        if changed {
            self.tell(parent, name);
        }
        if let (Ok(ino), Some((_, Some(page)))) = (&outcome, found) {
            self.begin_with_page(*ino, format!("{key}/"), page, (asked, now));
        }
        Some(outcome)
    }

    async fn ask_file(&self, key: &str) -> NamespaceResult<Option<Found>> {
        match self.0.store.head(&ObjectKey::from(key)).await {
            Ok(info) => Ok(Some(Found::File(info))),
            Err(StoreError::NotFound | StoreError::BadKey(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for the first page of a directory, or for one key where that is known to be a small part of it.
    pub(super) async fn ask_directory(
        &self,
        key: &str,
        whole_page: bool,
        first: &mut Option<ListPage>,
    ) -> NamespaceResult<Option<Found>> {
        let prefix = format!("{key}/");
        let request = if whole_page {
            ListRequest { prefix: prefix.clone(), delimited: true, ..ListRequest::default() }
        } else {
            ListRequest { prefix: prefix.clone(), keys_max: Some(1), ..ListRequest::default() }
        };
        match self.0.store.list(request).await {
            Ok(page) if page.objects.is_empty() && page.common_prefixes.is_empty() => Ok(None),
            Ok(page) => {
                let marker = page.objects.first().is_some_and(|first| first.key().as_str() == prefix);
                *first = whole_page.then_some(page);
                let own = match (self.0.defaults.posix, marker) {
                    (true, true) => Some(self.ask_own(&prefix).await?),
                    (true, false) => Some(None),
                    (false, _) => None,
                };
                Ok(Some(Found::Directory { marker, own }))
            }
            Err(StoreError::NotFound | StoreError::BadKey(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
