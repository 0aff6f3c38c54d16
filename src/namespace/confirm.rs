//! What an answer of S3 proves beyond the name that it is about, and names that are confirmed by questions of others.
//!
//! A key below a directory proves that every directory on its way is there: whoever opens files again and again need not ask
//! for their directories as well. An open's GET says of its file all that a HEAD would. Invariant: nothing is taken for
//! newer than the moment at which S3 was asked.

use std::time::Instant;

use super::questions::Asked;
use super::table::{Found, Table};
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

    /// An open asked S3: this was the object then.
    pub fn learned(&self, ino: Ino, info: &ObjectInfo, moment: &Moment) {
        let mut table = self.0.table.lock();
        let Some(row) = table.rows.get(&ino).filter(|row| !row.unpublished) else { return };
        let (parent, linked) = (row.parent, row.linked);
        table.confirm(ino, &Found::File(info.clone()), moment.at);
        if linked {
            table.confirm_way(parent, moment.asked.at, moment.at);
        }
    }

    /// Looks up a name that is known as a file, by a question about its object whose answer is of use to the caller, too. `None`
    /// if that did not settle what the name leads to. A found inode has one reference more.
    pub async fn lookup_by<Answer>(
        &self,
        parent: Ino,
        name: &str,
        ask: impl AsyncFnOnce(Ino, &ObjectKey, &ObjectInfo) -> StoreResult<(ObjectInfo, Answer)>,
    ) -> NamespaceResult<Option<(Node, Answer)>> {
        self.until_moved(parent).await;
        let at = self.0.clock.now();
        let (asked, ino, key, known) = {
            let mut table = self.0.table.lock();
            Self::check_directory(&table, parent)?;
            let Some(ino) = table.child(parent, name) else { return Ok(None) };
            let row = &table.rows[&ino];
            let published = row.kind == NodeKind::File && !row.unpublished && row.written.is_none();
            let Some(known) = row.object.clone().filter(|_| published) else { return Ok(None) };
            let key = keys::file_key(&self.directory_prefix(&table, parent)?, name)?;
            (table.ask(), ino, ObjectKey::from(key), known)
        };
        let (info, answer) = match ask(ino, &key, &known).await {
            Ok(found) => found,
            // What the name leads to instead, and what else can be said of it, is found out as ever.
            Err(
                StoreError::NotFound | StoreError::BadKey(_) | StoreError::AccessDenied { .. } | StoreError::Archived,
            ) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let made = self.0.clock.wall();
        let mut table = self.0.table.lock();
        if table.is_disordered(parent, asked.at) {
            return Ok(None);
        }
        let Some((ino, replaced)) = table.learn(parent, name, &Found::File(info), asked.at, at, made) else {
            return Ok(None);
        };
        table.confirm_way(parent, asked.at, at);
        table.row_mut(ino).lookups += 1;
        let node = self.node_of(&table, ino);
        drop(table);
        if replaced {
            self.tell(parent, name);
        }
        Ok(Some((node, answer)))
    }
}
