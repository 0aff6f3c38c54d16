//! What an answer of S3 proves beyond the name that it is about, and names that are confirmed by questions of others.
//!
//! A key below a directory proves that every directory on its way is there: whoever opens files again and again need not ask
//! for their directories as well. An open's GET says of its file all that a HEAD would. Invariant: nothing is taken for
//! newer than the moment at which S3 was asked.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join;

use super::questions::Asked;
use super::table::{Found, Row, Table};
use super::{Namespace, NamespaceResult, Node, NodeKind, keys};
use crate::store::{StoreError, StoreResult};
use crate::types::{Ino, ObjectInfo, ObjectKey};

/// The moment at which S3 is asked, in time and in local changes.
#[derive(Debug)]
pub struct Moment {
    asked: Asked,
    at: Instant,
}

impl Table {
    /// S3 was asked at count `asked` and showed a key in a directory.
    pub(super) fn confirm_way(&mut self, directory: Ino, asked: u64, at: Instant) {
        if self.is_disordered(directory, asked) {
            return;
        }
        let mut ino = directory;
        while ino != Ino::ROOT {
            let Some(row) = self.rows.get_mut(&ino).filter(|row| row.linked) else { return };
            row.seen = row.seen.max(at);
            ino = row.parent;
        }
    }
}

impl Namespace {
    /// S3 is about to be asked.
    pub fn moment(&self) -> Moment {
        let (at, table) = (self.0.clock.now(), self.0.table.lock());
        Moment { asked: table.ask(), at }
    }

    /// How many local changes there have been.
    pub fn changes(&self) -> u64 {
        self.0.table.lock().changes
    }

    /// Whether this mount has changed an inode, or gives it up, since there were so many changes.
    pub fn has_changed_since(&self, ino: Ino, changes: u64) -> bool {
        self.0.table.lock().rows.get(&ino).is_none_or(|row| row.changed > changes || row.unpublished)
    }

    /// An open asked S3: this was the object then. Of what was changed here since, or is being moved, it says nothing.
    pub fn learned(&self, ino: Ino, info: &ObjectInfo, moment: &Moment) {
        let mut table = self.0.table.lock();
        let asked = moment.asked.at;
        let is_as_asked = |row: &&Row| row.linked && !row.unpublished && row.changed <= asked;
        let Some(row) = table.rows.get(&ino).filter(is_as_asked) else { return };
        let has_key = self.key_of(&table, row).is_ok_and(|key| key == *info.key());
        if !has_key || table.is_moving(ino) {
            return;
        }
        let parent = row.parent;
        table.confirm(ino, &Found::File(info.clone()), moment.at, self.0.clock.wall());
        table.confirm_way(parent, asked, moment.at);
    }

    /// An open found that the object is gone.
    pub fn vanished(&self, ino: Ino, moment: &Moment) {
        let mut table = self.0.table.lock();
        let Some(row) = table.rows.get(&ino).filter(|row| row.linked) else { return };
        let (parent, name) = (row.parent, Arc::clone(&row.name));
        if table.learn_absent(parent, &name, moment.asked.at, moment.at) {
            drop(table);
            self.tell(parent, &name);
        }
    }

    /// Looks a name up that is known as a file, or of which nothing is known, by a question about its object whose answer is of use to the
    /// caller, too: `ask` is told the key, and the inode and object if there are any. `None` if that did not settle what the
    /// name leads to. A found inode has one reference more.
    pub async fn lookup_by<Answer>(
        &self,
        parent: Ino,
        name: &str,
        ask: impl AsyncFnOnce(&ObjectKey, Option<(Ino, &ObjectInfo)>) -> StoreResult<(ObjectInfo, Answer)>,
    ) -> NamespaceResult<Option<(Node, Option<Answer>)>> {
        self.until_moved(parent).await;
        let at = self.0.clock.now();
        let (asked, key, known, list_all) = {
            let mut table = self.0.table.lock();
            Self::check_directory(&table, parent)?;
            let key = keys::file_key(&self.directory_prefix(&table, parent)?, name)?;
            let child = table.child(parent, name);
            let known = match child.and_then(|ino| table.rows.get(&ino).map(|row| (ino, row))) {
                None => None,
                Some((ino, row)) => {
                    let published = row.kind == NodeKind::File && !row.unpublished && row.written.is_none();
                    let Some(known) = row.object.clone().filter(|_| published) else { return Ok(None) };
                    Some((ino, known))
                }
            };
            let list_all =
                known.is_none() && table.directories.get_mut(&parent).is_some_and(|it| it.asked_for_name(false));
            (table.ask(), ObjectKey::from(key), known, list_all)
        };
        if list_all {
            self.list_in_background(parent);
        }
        let mut page = None;
        let asking = ask(&key, known.as_ref().map(|(ino, known)| (*ino, known)));
        let (file, directory) = match known {
            Some(_) => (asking.await, None),
            None => {
                let (file, directory) = join(asking, self.ask_directory(key.as_str(), true, &mut page)).await;
                (file, directory?)
            }
        };
        let (found, answer) = match (directory, file) {
            // A directory shadows a file of its name.
            (Some(directory), _) => (Some((directory, page)), None),
            (None, Ok((info, answer))) => (Some((Found::File(info), None)), Some(answer)),
            (None, Err(StoreError::NotFound | StoreError::BadKey(_))) if known.is_none() => (None, None),
            // What the name leads to instead, and what else can be said of it, is found out as ever.
            (
                None,
                Err(
                    StoreError::NotFound
                    | StoreError::BadKey(_)
                    | StoreError::AccessDenied { .. }
                    | StoreError::Archived,
                ),
            ) => return Ok(None),
            (None, Err(error)) => return Err(error.into()),
        };
        match self.settle((parent, name), key.as_str(), found, (asked.at, at)) {
            Some(outcome) => Ok(Some((self.take(outcome?)?, answer))),
            None => Ok(None),
        }
    }
}
