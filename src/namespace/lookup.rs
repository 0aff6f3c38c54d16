//! From a name to an inode: memory first, then one HEAD and one LIST of a single key, side by side.
//!
//! Callers who ask for the same name at once share the requests. A directory that is asked for a third name that nothing
//! is known of, or of which what is known has grown old, is listed in the background, so that the next ones are answered from
//! memory.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture, join};

use super::table::Found;
use super::{Namespace, NamespaceError, NamespaceResult, Node, NodeKind, keys};
use crate::store::{ListRequest, StoreError};
use crate::types::{Ino, ObjectKey};

/// A question that several may wait for.
type Question = SharedFuture<BoxFuture<'static, NamespaceResult<Ino>>>;

/// Questions under way, by directory and name.
#[derive(Default)]
pub(super) struct Asking {
    questions: HashMap<(Ino, Arc<str>), Question>,
}

/// Names of one directory that are asked for one by one, for each page of it, before it is listed.
const SINGLE_NAMES_MAX: u32 = 3;
/// Names that one LIST brings.
const PAGE_NAMES: usize = 1000;
/// LIST pages that listing in the background may cost: 5,000 names.
pub(super) const BACKGROUND_PAGES_MAX: usize = 5;

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
        let now = self.0.clock.now();
        if let Some(ino) = table.child(parent, name) {
            let row = table.rows.get(&ino)?;
            return self.is_row_fresh(&table, ino, row).then_some(Ok(ino));
        }
        let directory = table.directories.get(&parent)?;
        let listed = directory.listed.is_some_and(|listed| self.is_fresh(listed, now));
        let absent = directory.absent.get(name).is_some_and(|&seen| self.is_fresh(seen, now));
        (listed || absent).then_some(Err(NamespaceError::NotFound))
    }

    fn take(&self, ino: Ino) -> NamespaceResult<Node> {
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
        if let Some(outcome) = self.try_lookup(parent, name) {
            return outcome;
        }
        let ino = self.ask(parent, name).await?;
        self.take(ino)
    }

    /// Asks S3 for a name, together with whoever asks for it now.
    pub(super) async fn ask(&self, parent: Ino, name: &str) -> NamespaceResult<Ino> {
        let id: (Ino, Arc<str>) = (parent, name.into());
        let question = {
            let mut asking = self.0.asking.lock();
            let namespace = self.clone();
            let own = id.clone();
            let question = asking.questions.entry(id.clone()).or_insert_with(|| {
                async move {
                    let outcome = namespace.ask_alone(own.0, &own.1).await;
                    namespace.0.asking.lock().questions.remove(&own);
                    outcome
                }
                .boxed()
                .shared()
            });
            question.clone()
        };
        // If every asker is cancelled the question stays in the table, unfinished; the next asker goes on with it.
        question.await
    }

    async fn ask_alone(&self, parent: Ino, name: &str) -> NamespaceResult<Ino> {
        loop {
            self.until_moved(parent).await;
            if let Some(outcome) = self.ask_once(parent, name).await? {
                return outcome;
            }
        }
    }

    /// Asks once; `None` if the directory was moved meanwhile, and the answer is about keys that it has no more.
    async fn ask_once(&self, parent: Ino, name: &str) -> NamespaceResult<Option<NamespaceResult<Ino>>> {
        // What is answered may be no newer than this.
        let now = self.0.clock.now();
        let (asked, prefix, known, list_all) = {
            let mut table = self.0.table.lock();
            Self::check_directory(&table, parent)?;
            let prefix = self.directory_prefix(&table, parent)?;
            let known = table.child(parent, name).map(|ino| table.rows[&ino].kind);
            let asked = table.ask();
            let directory = table.directories.entry(parent).or_default();
            // Names that have grown old are learned anew by the same pages, if a few of them hold the directory.
            let pages = match (known, &directory.current) {
                (None, _) => Some(1),
                (Some(_), Some(listed)) => {
                    Some(listed.len().div_ceil(PAGE_NAMES)).filter(|&n| n <= BACKGROUND_PAGES_MAX)
                }
                (Some(_), None) => None,
            };
            directory.asked = directory.asked.saturating_add(u32::from(pages.is_some()));
            let single_max = pages.map(|pages| SINGLE_NAMES_MAX * u32::try_from(pages.max(1)).unwrap_or(1));
            let list_all = single_max.is_some_and(|single_max| directory.asked >= single_max && !directory.is_relisted);
            directory.is_relisted |= list_all;
            (asked, prefix, known, list_all)
        };
        if list_all {
            self.list_in_background(parent);
        }
        let key = keys::file_key(&prefix, name)?;
        let found = match known {
            // A file that was there is most likely still one: its HEAD alone confirms it.
            Some(NodeKind::File | NodeKind::Symlink) => match self.ask_file(&key).await? {
                Some(found) => Some(found),
                None => self.ask_directory(&key).await?,
            },
            Some(NodeKind::Directory) => match self.ask_directory(&key).await? {
                Some(found) => Some(found),
                None => self.ask_file(&key).await?,
            },
            None => {
                let (file, directory) = join(self.ask_file(&key), self.ask_directory(&key)).await;
                // A directory shadows a file of its name.
                match directory? {
                    Some(found) => Some(found),
                    None => file?,
                }
            }
        };
        let made = self.0.clock.wall();
        let mut table = self.0.table.lock();
        if table.is_disordered(parent, asked.at) {
            return Ok(None);
        }
        if found.is_some() {
            table.confirm_way(parent, asked.at, now);
        }
        let (outcome, changed) = match found {
            Some(found) => match table.learn(parent, name, &found, asked.at, now, made) {
                Some((ino, replaced)) => (Ok(ino), replaced),
                None => (Err(NamespaceError::NotFound), false),
            },
            None => {
                let dropped = table.learn_absent(parent, name, asked.at, now);
                // A name that was made here meanwhile is there all the same.
                (table.child(parent, name).ok_or(NamespaceError::NotFound), dropped)
            }
        };
        drop(table);
        if changed {
            self.tell(parent, name);
        }
        Ok(Some(outcome))
    }

    async fn ask_file(&self, key: &str) -> NamespaceResult<Option<Found>> {
        match self.0.store.head(&ObjectKey::from(key)).await {
            Ok(info) => Ok(Some(Found::File(info))),
            Err(StoreError::NotFound | StoreError::BadKey(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask_directory(&self, key: &str) -> NamespaceResult<Option<Found>> {
        let prefix = format!("{key}/");
        let request = ListRequest { prefix: prefix.clone(), keys_max: Some(1), ..ListRequest::default() };
        match self.0.store.list(request).await {
            Ok(page) => {
                Ok(page.objects.first().map(|first| Found::Directory { marker: first.key().as_str() == prefix }))
            }
            Err(StoreError::NotFound | StoreError::BadKey(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn list_in_background(&self, directory: Ino) {
        let namespace = self.clone();
        tokio::spawn(async move {
            let outcome = namespace.listing(directory);
            if let Ok(listing) = outcome
                && let Err(error) = listing.advance(&namespace, BACKGROUND_PAGES_MAX).await
            {
                tracing::debug!(%error, "listing in the background failed; names are asked for one by one");
                if let Some(directory) = namespace.0.table.lock().directories.get_mut(&directory) {
                    (directory.asked, directory.is_relisted) = (0, false);
                }
            }
        });
    }
}
