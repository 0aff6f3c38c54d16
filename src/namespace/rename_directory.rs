//! rename of a directory: every key below it copied by the server, and only then the old ones deleted.
//!
//! The intent is in the journal before the first copy and goes after the last delete. A crash while copying leaves the
//! source whole; one while deleting leaves the target whole, and `rename_resume.rs` finishes it. A copy that fails takes
//! back the copies that were made, and the source stays as it was. Once every copy is there the rename has happened: a
//! delete that then fails leaves keys under the old name, which is logged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{FutureExt, StreamExt, stream};

use super::attributes::Stored;
use super::change::{attributes_of, plain_marker};
use super::questions::Moving;
use super::rename::{Copied, Place, RenameFlags, moved};
use super::rename_journal::{Entry, Intent};
use super::{AttributeChanges, Namespace, NamespaceError, NamespaceResult, NodeKind, keys};
use crate::store::{KEYS_PER_REQUEST_MAX, ListRequest, ObjectAttributes, StoreError, WriteCondition};
use crate::types::{Ino, ObjectInfo, ObjectKey, ObjectVersion};

/// What a rename of a directory came to.
#[derive(Clone, Debug)]
pub struct RenamedTree {
    /// Every file that is known below it, with its object under the new key; `None` if it was never published. Unlinked files
    /// that are still open are among them, for their objects moved, too; files of which another version was there than was known
    /// are not: they lost their names to it.
    pub moved: Vec<(Ino, Option<Copied>)>,
    /// The empty directory that lost its name to it.
    pub replaced: Option<Ino>,
}

/// The copies of a rename by their keys.
type Copies = HashMap<String, Copied>;

impl Namespace {
    /// Renames a directory with everything below it. The caller keeps everybody else from writing below it.
    pub async fn rename_directory(
        &self,
        from: Place<'_>,
        to: Place<'_>,
        flags: RenameFlags,
    ) -> NamespaceResult<RenamedTree> {
        let (ino, from_prefix, to_prefix) = {
            let mut table = self.0.table.lock();
            Self::check_directory(&table, to.0)?;
            let ino = table.child(from.0, from.1).ok_or(NamespaceError::NotFound)?;
            if table.kind(ino) != Some(NodeKind::Directory) {
                return Err(NamespaceError::NotADirectory);
            }
            if table.is_within(to.0, ino) {
                return Err(NamespaceError::IntoItself);
            }
            let to_prefix = keys::directory_key(&self.directory_prefix(&table, to.0)?, to.1)?;
            (ino, self.directory_prefix(&table, ino)?, to_prefix)
        };
        let replaced = self.target(to, flags).await?;
        if let Some(target) = replaced {
            let kind = self.peek(target).map(|node| node.kind);
            if kind != Some(NodeKind::Directory) {
                return Err(NamespaceError::NotADirectory);
            }
            self.check_empty(target).await?;
        } else {
            self.check_free(&to_prefix).await.map_err(|error| match error {
                NamespaceError::NotEmpty | NamespaceError::NotADirectory if flags.no_replace => NamespaceError::Exists,
                other => other,
            })?;
        }
        self.keep_directory(from.0, ino).await?;
        // What waits below the new name to be deleted could, later, be taken for a copy of the same tag.
        self.settle_deferred_below(&to_prefix).await?;
        let entry = Entry::new(self.0.journal_dir.as_deref());
        let (copies, _moving) = self.move_tree(ino, &from_prefix, &to_prefix, &entry).await?;
        self.move_rows(ino, (from.0, to), (&from_prefix, &to_prefix), replaced, &copies)
    }

    /// Makes sure, from S3 itself, that nothing is under a name that is not known: what is there would be mixed with what comes.
    async fn check_free(&self, to_prefix: &str) -> NamespaceResult<()> {
        let file = ObjectKey::from(to_prefix.trim_end_matches('/'));
        let request = ListRequest { prefix: to_prefix.to_owned(), keys_max: Some(1), ..ListRequest::default() };
        match futures_util::future::join(self.0.store.list(request), self.0.store.head(&file)).await {
            (Ok(page), _) if !page.objects.is_empty() => Err(NamespaceError::NotEmpty),
            (Ok(_), Ok(_)) => Err(NamespaceError::NotADirectory),
            (Ok(_), Err(StoreError::NotFound | StoreError::BadKey(_) | StoreError::AccessDenied { .. })) => Ok(()),
            (Err(error), _) | (_, Err(error)) => Err(error.into()),
        }
    }

    fn move_rows(
        &self,
        ino: Ino,
        (from, to): (Ino, Place<'_>),
        (from_prefix, to_prefix): (&str, &str),
        replaced: Option<Ino>,
        copies: &Copies,
    ) -> NamespaceResult<RenamedTree> {
        let mut table = self.0.table.lock();
        let now = self.0.clock.now();
        // What stands at the target now is what was replaced, also if the copies were found there meanwhile.
        let replaced = table.child(to.0, to.1).filter(|&replaced| replaced != ino).or(replaced);
        if let Some(replaced) = replaced {
            table.remove(replaced, now);
        }
        if !table.relink(ino, to.0, to.1, now) {
            // The directory that it was to be in is gone: what was moved has no name here.
            table.remove(ino, now);
            return Ok(RenamedTree { moved: Vec::new(), replaced });
        }
        self.touch_both(&mut table, from, to.0);
        table.doubt_listings_under(ino, from_prefix, to_prefix);
        let mut all = Vec::new();
        for file in table.files_under(ino) {
            let Some(row) = table.rows.get(&file) else { continue };
            let prefix = self.directory_prefix(&table, row.parent)?;
            let new = copies.get(&format!("{prefix}{}", row.name)).filter(|_| !row.unpublished);
            let is_known = |copied: &Copied| row.object.as_ref().is_some_and(|info| info.version == copied.source);
            match new {
                Some(copied) if !is_known(copied) => {
                    let (parent, name) = (row.parent, Arc::clone(&row.name));
                    self.gives_way(&mut table, file, (parent, &name), copied);
                    continue;
                }
                Some(copied) => moved(&mut table, file, copied),
                None => {}
            }
            all.push((file, new.cloned()));
        }
        let sources: HashMap<&ObjectVersion, &Copied> =
            copies.values().map(|copied| (&copied.source, copied)).collect();
        for (&file, deferred) in &mut table.deferred {
            if let Some(&new) = sources.get(&deferred.info.version) {
                deferred.info = new.info.clone();
                all.push((file, Some(new.clone())));
            }
        }
        Ok(RenamedTree { moved: all, replaced })
    }

    /// Copies every key of a directory, then deletes the old ones. The answer holds the copies by their keys; until the rows
    /// have moved, too, S3's word on the directory is not taken.
    async fn move_tree(&self, ino: Ino, from: &str, to: &str, entry: &Entry) -> NamespaceResult<(Copies, Moving)> {
        let sources = self.list_all(from).await?;
        // A key that cannot be moved must stop the rename before it begins.
        if let Some(long) =
            sources.iter().find(|info| info.key().as_str().len() - from.len() + to.len() > ObjectKey::LEN_BYTES_MAX)
        {
            tracing::warn!(key = %long.key(), "a rename would make this key longer than 1024 bytes");
            return Err(NamespaceError::NameTooLong);
        }
        entry.write(&Intent::copying(from, to))?;
        let copies = match self.copy_all(&sources, from, to).await {
            Ok(copies) => copies,
            Err((error, made)) => {
                self.take_back(made).await;
                entry.remove();
                return Err(error);
            }
        };
        let intent = Intent::deleting(from, to, &sources);
        if let Err(error) = entry.write(&intent) {
            self.take_back(copies.into_keys().map(ObjectKey::from).collect()).await;
            entry.remove();
            return Err(error);
        }
        let moving = {
            let mut table = self.0.table.lock();
            let is_there = table.is_linked(ino);
            is_there.then(|| self.moving(&mut table, ino))
        };
        let Some(moving) = moving else {
            // Another client removed it meanwhile, or made something else of it.
            self.take_back(copies.into_keys().map(ObjectKey::from).collect()).await;
            entry.remove();
            return Err(NamespaceError::Stale);
        };
        // Copying took its time: what others have put under the old name meanwhile was not copied, and stays.
        let deleted = match self.still_there(from, &intent.sources, |_| true).await {
            Ok((done, kept)) => {
                if kept > 0 {
                    tracing::warn!(from, kept, "objects that came or changed during a rename stay under the old name");
                }
                self.delete_all(done).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            // To delete them later could meet what somebody has written there since.
            tracing::error!(from, to, %error, "a directory was renamed, but objects stay under its old name as well");
        }
        entry.remove();
        Ok((copies, moving))
    }

    pub(super) async fn list_all(&self, prefix: &str) -> NamespaceResult<Vec<ObjectInfo>> {
        let mut all = Vec::new();
        let mut continuation = None;
        loop {
            let request = ListRequest { prefix: prefix.to_owned(), continuation, ..ListRequest::default() };
            let page = self.0.store.list(request).await?;
            all.extend(page.objects);
            continuation = page.continuation;
            if continuation.is_none() {
                return Ok(all);
            }
        }
    }

    /// Copies side by side; on the first failure it stops and gives back what was made.
    async fn copy_all(
        &self,
        sources: &[ObjectInfo],
        from: &str,
        to: &str,
    ) -> Result<Copies, (NamespaceError, Vec<ObjectKey>)> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (namespace, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        let go_on = Arc::clone(&stopped);
        // Everything is owned: a future that borrows from its iterator is not known to be Send.
        let owned: Vec<ObjectInfo> = sources.to_vec();
        let wanted = owned.into_iter().take_while(move |_| !go_on.load(Ordering::Relaxed)).map(move |source| {
            let namespace = namespace.clone();
            let key = ObjectKey::from(format!("{to}{}", &source.key().as_str()[from.len()..]));
            async move {
                let copied = namespace.copy_below(&source, &key).await;
                let (source, modified) = (source.version, source.last_modified);
                (key, copied.map(|info| Copied { source, modified, info }))
            }
            .boxed()
        });
        let mut running = stream::iter(wanted).buffer_unordered(self.0.limits.rename_copies_max);
        let mut copies = HashMap::with_capacity(sources.len());
        let mut failed = None;
        while let Some((key, copied)) = running.next().await {
            match copied {
                Ok(copied) => {
                    copies.insert(key.as_str().to_owned(), copied);
                }
                Err(error) => {
                    failed = Some(error);
                    stopped.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        // Copies that were under way when one failed are awaited, so that what they made is known, too.
        if let Some(error) = failed {
            let mut made: Vec<ObjectKey> = copies.into_keys().map(ObjectKey::from).collect();
            while let Some((key, copied)) = running.next().await {
                if copied.is_ok() {
                    made.push(key);
                }
            }
            return Err((error, made));
        }
        Ok(copies)
    }

    /// Copies one object of a tree. The marker of a directory holds nothing and is made anew: some servers make a folder of
    /// it that cannot be copied.
    async fn copy_below(&self, source: &ObjectInfo, key: &ObjectKey) -> NamespaceResult<ObjectInfo> {
        let carried = if self.0.defaults.posix { Some(self.carried(source).await?) } else { None };
        if source.size_bytes == 0 && key.as_str().ends_with('/') {
            self.put_marker(key.as_str(), carried.unwrap_or_else(plain_marker)).await?;
            return Ok(source.clone());
        }
        self.copy_object(source, key, carried, WriteCondition::None).await
    }

    /// What an object carries, with the time of its content, which is not that of its copy.
    async fn carried(&self, source: &ObjectInfo) -> NamespaceResult<ObjectAttributes> {
        let info = self.0.store.head(source.key()).await?;
        let stored = info.metadata.as_deref().map(Stored::read).unwrap_or_default();
        let is_marker = info.key().as_str().ends_with('/');
        let kind = if is_marker { NodeKind::Directory } else { NodeKind::of(&info) };
        let mtime = Some(stored.mtime.unwrap_or(info.last_modified));
        let set = AttributeChanges { mtime, atime: stored.atime, ..AttributeChanges::default() };
        Ok(attributes_of(Some(&info), kind, &set, None))
    }

    async fn take_back(&self, made: Vec<ObjectKey>) {
        if let Err(error) = self.delete_all(made).await {
            tracing::warn!(%error, "a directory rename failed, and copies that it made are left behind");
        }
    }

    /// Deletes keys, as many as can be; the error is the first one.
    pub(super) async fn delete_all(&self, keys: Vec<ObjectKey>) -> NamespaceResult<()> {
        let mut outcome = Ok(());
        for batch in keys.chunks(KEYS_PER_REQUEST_MAX) {
            let failed = self.0.store.delete_many(batch.to_vec()).await?;
            let more = failed.len().saturating_sub(1);
            if let Some((key, error)) = failed.into_iter().next() {
                tracing::warn!(%key, %error, more, "a key could not be deleted");
                outcome = outcome.and(Err(error.into()));
            }
        }
        outcome
    }
}
