//! unlink and rmdir. S3 has deleted before they answer, so that a missing permission is said at once.
//!
//! A directory without a marker would vanish with its last file. POSIX programs expect it to stay until rmdir, so that the
//! marker is put before the last known name goes (docs/decisions/0003).

use super::change::plain_marker;
use super::children::Directory;
use super::table::{Row, Table};
use super::{Namespace, NamespaceError, NamespaceResult, NodeKind};
use crate::store::{ListRequest, StoreError};
use crate::types::{Ino, ObjectKey};

/// How a name of a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlink {
    /// The object is deleted, then the name goes.
    Now,
    /// There is no object yet.
    Local,
    /// The name goes; the object stays for the handles that read it, until [`Namespace::delete_deferred`].
    Deferred,
}

impl Namespace {
    /// Removes a name of a file; answers how it went. An object that another client put in place of the one that handles read goes
    /// at once.
    pub async fn unlink(&self, parent: Ino, name: &str, how: Unlink) -> NamespaceResult<Unlink> {
        let (ino, key, known) = {
            let mut table = self.0.table.lock();
            let ino = table.child(parent, name).ok_or(NamespaceError::NotFound)?;
            if table.kind(ino) == Some(NodeKind::Directory) {
                return Err(NamespaceError::IsADirectory);
            }
            let prefix = self.directory_prefix(&table, parent)?;
            let known = table.rows.get(&ino).and_then(|row| row.object.clone());
            (ino, ObjectKey::from(format!("{prefix}{name}")), known)
        };
        let is_replaced = match known {
            Some(known) if how == Unlink::Deferred => {
                self.0.store.head(&key).await.is_ok_and(|present| present.version != known.version)
            }
            _ => false,
        };
        let how = if is_replaced { Unlink::Now } else { how };
        if how != Unlink::Local {
            self.keep_directory(parent, ino).await?;
        }
        if how == Unlink::Now {
            self.0.store.delete(&key, None).await?;
        }
        let mut table = self.0.table.lock();
        let now = self.0.clock.now();
        if how == Unlink::Deferred {
            table.defer(ino);
        }
        table.remove(ino, now);
        table.touch(parent, self.0.clock.wall());
        Ok(how)
    }

    /// Puts the marker of a directory that would vanish with `last`, its last known name.
    pub(super) async fn keep_directory(&self, directory: Ino, last: Ino) -> NamespaceResult<()> {
        let key = {
            let table = self.0.table.lock();
            let Some(known) = table.directories.get(&directory) else { return Ok(()) };
            if directory == Ino::ROOT || known.marker || has_published_names_beside(&table, known, last) {
                return Ok(());
            }
            self.directory_prefix(&table, directory)?
        };
        self.put_marker(&key, plain_marker()).await?;
        if let Some(known) = self.0.table.lock().directories.get_mut(&directory) {
            known.marker = true;
        }
        Ok(())
    }

    /// Deletes the object of an unlinked file whose last handle is gone, unless another has taken its key since. One that S3
    /// will not delete comes back under its name.
    pub async fn delete_deferred(&self, ino: Ino) -> NamespaceResult<()> {
        let outcome = self.delete_waiting(ino).await;
        if outcome.is_err() {
            self.0.table.lock().deferred.remove(&ino);
        }
        outcome
    }

    async fn delete_waiting(&self, ino: Ino) -> NamespaceResult<()> {
        let waiting = || self.0.table.lock().deferred.get(&ino).cloned();
        let Some(deleting) = waiting().map(|waiting| waiting.deleting) else { return Ok(()) };
        let _alone = deleting.lock().await;
        let Some(info) = waiting().map(|waiting| waiting.info) else { return Ok(()) };
        match self.0.store.delete(info.key(), Some(info.etag())).await {
            Ok(()) | Err(StoreError::PreconditionFailed | StoreError::NotFound | StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        self.0.table.lock().deferred_is_gone(ino);
        Ok(())
    }

    /// Deletes at once what waits to be deleted under a key that a new file takes: deleting it later could meet the new
    /// one, which may even have the same tag.
    pub async fn settle_deferred(&self, key: &ObjectKey) -> NamespaceResult<()> {
        self.settle_those(|waiting| waiting == key).await
    }

    /// The same for every key that begins with `prefix`.
    pub(super) async fn settle_deferred_below(&self, prefix: &str) -> NamespaceResult<()> {
        self.settle_those(|waiting| waiting.as_str().starts_with(prefix)).await
    }

    async fn settle_those(&self, meant: impl Fn(&ObjectKey) -> bool) -> NamespaceResult<()> {
        let waiting: Vec<Ino> = {
            let table = self.0.table.lock();
            table.deferred.iter().filter(|(_, waiting)| meant(waiting.info.key())).map(|(&ino, _)| ino).collect()
        };
        for ino in waiting {
            self.delete_waiting(ino).await?;
        }
        Ok(())
    }

    /// Removes an empty directory; answers its inode.
    pub async fn rmdir(&self, parent: Ino, name: &str) -> NamespaceResult<Ino> {
        let node = self.lookup(parent, name).await?;
        let outcome = self.rmdir_known(parent, node.ino, node.kind).await;
        self.forget(node.ino, 1);
        outcome.map(|()| node.ino)
    }

    async fn rmdir_known(&self, parent: Ino, ino: Ino, kind: NodeKind) -> NamespaceResult<()> {
        if kind != NodeKind::Directory {
            return Err(NamespaceError::NotADirectory);
        }
        let asked = self.0.table.lock().changes;
        let prefix = self.check_empty(ino).await?;
        self.keep_directory(parent, ino).await?;
        self.0.store.delete(&ObjectKey::from(prefix), None).await?;
        let mut table = self.0.table.lock();
        let now = self.0.clock.now();
        if has_names_since(&table, ino, asked) {
            // Somebody made a file in it meanwhile; the directory lives on without its marker.
            if let Some(directory) = table.directories.get_mut(&ino) {
                directory.marker = false;
            }
            return Err(NamespaceError::NotEmpty);
        }
        table.remove(ino, now);
        table.touch(parent, self.0.clock.wall());
        Ok(())
    }

    /// Makes sure, from S3 itself, that a directory holds nothing but its marker; answers what its keys begin with.
    pub(super) async fn check_empty(&self, ino: Ino) -> NamespaceResult<String> {
        let prefix = {
            let table = self.0.table.lock();
            // What is known and was not confirmed lately may be gone; only what is certain counts.
            if has_local_names(&table, ino) {
                return Err(NamespaceError::NotEmpty);
            }
            self.directory_prefix(&table, ino)?
        };
        loop {
            let request = ListRequest { prefix: prefix.clone(), keys_max: Some(3), ..ListRequest::default() };
            let page = self.0.store.list(request).await?;
            let others: Vec<ObjectKey> =
                page.objects.iter().map(|info| info.key().clone()).filter(|key| key.as_str() != prefix).collect();
            if others.is_empty() {
                return Ok(prefix);
            }
            // What only waits for the last close of an unlinked file does not count: it goes now.
            for key in &others {
                if !self.is_deferred(key) {
                    return Err(NamespaceError::NotEmpty);
                }
                self.settle_deferred(key).await?;
            }
        }
    }

    fn is_deferred(&self, key: &ObjectKey) -> bool {
        self.0.table.lock().deferred.values().any(|waiting| waiting.info.key() == key)
    }
}

/// Whether S3 has a name beside that of `last`, as far as is known. What is not published holds no directory up.
fn has_published_names_beside(table: &Table, directory: &Directory, last: Ino) -> bool {
    let is_published = |ino: &Ino| table.rows.get(ino).is_some_and(|row| !row.unpublished);
    let mut children = directory.children.values().filter(|&&ino| ino != last);
    children.any(is_published) || directory.listings().any(|listing| listing.untaken() > 0)
}

/// Whether anything below a directory was made here and is not in S3, or was changed here since count `asked`. Names that S3
/// told earlier do not count: another client may have deleted them.
fn has_names_since(table: &Table, ino: Ino, asked: u64) -> bool {
    let counts = |row: &Row| row.unpublished || row.written.is_some() || row.changed > asked;
    let mut waiting = vec![ino];
    while let Some(directory) = waiting.pop().map(|at| table.directories.get(&at)) {
        for child in directory.into_iter().flat_map(|directory| directory.children.values()) {
            match table.rows.get(child) {
                Some(row) if counts(row) => return true,
                Some(row) if row.kind == NodeKind::Directory => waiting.push(*child),
                _ => {}
            }
        }
    }
    false
}

pub(super) fn has_local_names(table: &Table, ino: Ino) -> bool {
    has_names_since(table, ino, u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::NewNode;
    use super::super::tests::whole;
    use super::*;
    use crate::clock::Clock;
    use crate::store::memory::MemoryStore;

    fn namespace(bucket: &MemoryStore) -> Namespace {
        whole(Arc::new(bucket.clone()), Clock::system())
    }

    #[tokio::test]
    async fn a_directory_that_another_client_emptied_is_removed() {
        let bucket = MemoryStore::new();
        bucket.put_directly("d/", "");
        bucket.put_directly("d/a", "one");
        let namespace = namespace(&bucket);
        let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
        namespace.lookup(directory, "a").await.expect("it is there");
        bucket.delete_directly("d/a");
        namespace.rmdir(Ino::ROOT, "d").await.expect("it is empty");
        assert!(bucket.keys().is_empty());
    }

    #[tokio::test]
    async fn an_unpublished_file_keeps_every_directory_above_it() {
        let bucket = MemoryStore::new();
        bucket.put_directly("d/", "");
        bucket.put_directly("d/below/", "");
        let namespace = namespace(&bucket);
        let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
        let below = namespace.lookup(directory, "below").await.expect("it is there").ino;
        let new = NewNode { mode: 0o644, uid: 0, gid: 0 };
        namespace.create(below, "new", NodeKind::File, new).expect("the name is free");
        bucket.delete_directly("d/below/");
        assert!(matches!(namespace.rmdir(Ino::ROOT, "d").await, Err(NamespaceError::NotEmpty)));
        assert_eq!(bucket.keys(), ["d/"]);
    }
}
