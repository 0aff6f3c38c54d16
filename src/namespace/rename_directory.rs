//! rename of a directory: every key below it copied by the server, and only then the old ones deleted.
//!
//! The intent is in the journal before the first copy and goes after the last delete. A crash while copying leaves the
//! source whole; one while deleting leaves the target whole; [`Namespace::resume_renames`] finishes both. A copy that
//! fails takes back the copies that were made, and the source stays as it was.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{FutureExt, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::rename::{Place, RenameFlags, moved};
use super::{Namespace, NamespaceError, NamespaceResult, NodeKind, keys};
use crate::store::{KEYS_PER_REQUEST_MAX, ListRequest, StoreError, WriteCondition};
use crate::types::{Ino, ObjectInfo, ObjectKey, ObjectVersion};

/// What a rename of a directory came to.
#[derive(Clone, Debug)]
pub struct RenamedTree {
    /// Every file that is known below it, with its object under the new key; `None` if it was never published. Unlinked files
    /// that are still open are among them, for their objects moved, too.
    pub moved: Vec<(Ino, Option<ObjectInfo>)>,
    /// The empty directory that lost its name to it.
    pub replaced: Option<Ino>,
}

/// What the journal holds of a rename under way.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    from: String,
    to: String,
    /// All copies are there; only deletes are left.
    copied: bool,
}

/// A copy that was made, and what it is a copy of.
#[derive(Debug)]
struct Copied {
    source: ObjectVersion,
    info: ObjectInfo,
}

/// The copies of a rename by their keys.
type Copies = HashMap<String, Copied>;

/// An intent on disk.
#[derive(Debug)]
struct Entry {
    path: Option<PathBuf>,
}

impl Entry {
    fn write(&self, intent: &Intent) -> NamespaceResult<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let write = || -> std::io::Result<()> {
            let new = path.with_extension("new");
            let file = std::fs::File::create(&new)?;
            serde_json::to_writer(&file, intent)?;
            file.sync_all()?;
            std::fs::rename(&new, path)?;
            // The name itself must survive a power cut, too.
            std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|error| NamespaceError::Journal(Arc::new(error)))
    }

    fn remove(&self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a finished rename stays in the journal; it will be resumed");
        }
    }
}

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
            if table.rows[&ino].kind != NodeKind::Directory {
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
        }
        self.keep_directory(from.0, ino).await?;
        // What waits below the new name to be deleted could, later, be taken for a copy of the same tag.
        self.settle_deferred_below(&to_prefix).await?;
        let path = self.0.journal_dir.as_ref().map(|dir| dir.join(format!("rename-{:016x}.json", fastrand::u64(..))));
        let entry = Entry { path };
        let copies = self.move_tree(&from_prefix, &to_prefix, &entry).await?;
        self.move_rows(ino, to, replaced, &copies)
    }

    fn move_rows(
        &self,
        ino: Ino,
        to: Place<'_>,
        replaced: Option<Ino>,
        copies: &Copies,
    ) -> NamespaceResult<RenamedTree> {
        let mut table = self.0.table.lock();
        let now = self.0.clock.now();
        if let Some(replaced) = replaced {
            table.remove(replaced, now);
        }
        table.relink(ino, to.0, to.1, now);
        table.forget_listings_under(ino);
        let mut all = Vec::new();
        for file in table.files_under(ino) {
            let Some(row) = table.rows.get(&file) else { continue };
            let prefix = self.directory_prefix(&table, row.parent)?;
            let new = copies.get(&format!("{prefix}{}", row.name)).map(|copied| copied.info.clone());
            if let Some(info) = &new {
                moved(&mut table, file, info);
            }
            all.push((file, new));
        }
        let sources: HashMap<&ObjectVersion, &ObjectInfo> =
            copies.values().map(|copied| (&copied.source, &copied.info)).collect();
        for (&file, deferred) in &mut table.deferred {
            if let Some(&new) = sources.get(&deferred.info.version) {
                deferred.info = new.clone();
                all.push((file, Some(new.clone())));
            }
        }
        Ok(RenamedTree { moved: all, replaced })
    }

    /// Copies every key, then deletes the old ones. The answer holds the copies by their keys.
    async fn move_tree(&self, from: &str, to: &str, entry: &Entry) -> NamespaceResult<Copies> {
        let sources = self.list_all(from).await?;
        // A key that cannot be moved must stop the rename before it begins.
        if let Some(long) =
            sources.iter().find(|info| info.key().as_str().len() - from.len() + to.len() > ObjectKey::LEN_BYTES_MAX)
        {
            tracing::warn!(key = %long.key(), "a rename would make this key longer than 1024 bytes");
            return Err(NamespaceError::NameTooLong);
        }
        let mut intent = Intent { from: from.to_owned(), to: to.to_owned(), copied: false };
        entry.write(&intent)?;
        let copies = match self.copy_all(&sources, from, to).await {
            Ok(copies) => copies,
            Err((error, made)) => {
                self.take_back(made).await;
                entry.remove();
                return Err(error);
            }
        };
        intent.copied = true;
        entry.write(&intent)?;
        self.delete_all(sources.iter().map(|info| info.key().clone()).collect()).await?;
        entry.remove();
        Ok(copies)
    }

    async fn list_all(&self, prefix: &str) -> NamespaceResult<Vec<ObjectInfo>> {
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
                (key, copied.map(|info| Copied { source: source.version, info }))
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
        if source.size_bytes == 0 && key.as_str().ends_with('/') {
            self.put_marker(key.as_str()).await?;
            return Ok(source.clone());
        }
        self.copy_object(source, key, None, WriteCondition::None).await
    }

    async fn take_back(&self, made: Vec<ObjectKey>) {
        if let Err(error) = self.delete_all(made).await {
            tracing::warn!(%error, "a directory rename failed, and copies that it made are left behind");
        }
    }

    async fn delete_all(&self, keys: Vec<ObjectKey>) -> NamespaceResult<()> {
        for batch in keys.chunks(KEYS_PER_REQUEST_MAX) {
            let mut failed = self.0.store.delete_many(batch.to_vec()).await?;
            if let Some((key, error)) = failed.pop() {
                tracing::warn!(%key, %error, more = failed.len(), "a key could not be deleted");
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Finishes the renames in a journal whose process has ended; answers how many. Called before the mount answers.
    pub async fn resume_renames(&self, dir: &Path) -> NamespaceResult<usize> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(0) };
        let mut resumed = 0;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(text) = std::fs::read(&path) else { continue };
            let Ok(intent) = serde_json::from_slice::<Intent>(&text) else {
                tracing::warn!(path = %path.display(), "this entry of the journal of renames cannot be read; it is left");
                continue;
            };
            self.resume(&intent).await?;
            Entry { path: Some(path) }.remove();
            resumed += 1;
        }
        Ok(resumed)
    }

    async fn resume(&self, intent: &Intent) -> NamespaceResult<()> {
        tracing::info!(from = intent.from, to = intent.to, "resuming a directory rename");
        let sources = self.list_all(&intent.from).await?;
        for source in &sources {
            let key = ObjectKey::from(format!("{}{}", intent.to, &source.key().as_str()[intent.from.len()..]));
            // Once all copies were there, what stands at the target may have been changed since and stays.
            if intent.copied && self.has_object(&key).await? {
                continue;
            }
            self.copy_below(source, &key).await?;
        }
        self.delete_all(sources.iter().map(|info| info.key().clone()).collect()).await
    }

    async fn has_object(&self, key: &ObjectKey) -> NamespaceResult<bool> {
        match self.0.store.head(key).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
