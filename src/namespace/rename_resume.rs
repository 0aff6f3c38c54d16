//! What a crash left of a directory rename, at the next mount.
//!
//! Time has passed since, and others may have written on both sides. So nothing is ever written here, and nothing deleted
//! but what the rename copied, is still what it copied, and has its copy under the new name.

use std::path::Path;

use std::collections::{HashMap, HashSet};

use super::rename_journal::{Entry, Intent, MovedKey};
use super::{Namespace, NamespaceResult};
use crate::types::{ObjectInfo, ObjectKey};

impl Namespace {
    /// Finishes the renames in a journal whose process has ended; answers how many. Called before the mount answers.
    pub async fn resume_renames(&self, dir: &Path) -> NamespaceResult<usize> {
        let mut resumed = 0;
        for (entry, intent) in Entry::read_all(dir) {
            self.resume(&intent).await?;
            entry.remove();
            resumed += 1;
        }
        Ok(resumed)
    }

    async fn resume(&self, intent: &Intent) -> NamespaceResult<()> {
        let Intent { from, to, copied, sources } = intent;
        if !copied {
            tracing::warn!(
                from,
                to,
                "a directory rename was interrupted while it copied: the old directory is whole, and copies of some of \
                 its files may lie under the new name"
            );
            return Ok(());
        }
        let targets: HashSet<ObjectKey> = self.list_all(to).await?.into_iter().map(|info| info.key().clone()).collect();
        let is_copied = |moved: &MovedKey| targets.contains(&ObjectKey::from(format!("{to}{}", moved.name())));
        let (done, kept) = self.still_there(from, sources, is_copied).await?;
        tracing::info!(from, to, deleted = done.len(), kept, "finishing a directory rename that was interrupted");
        if kept > 0 {
            tracing::warn!(from, kept, "objects that came or changed since the rename stay under the old name");
        }
        self.delete_all(done).await
    }

    /// What is under the old name and is what was copied, and how much else is there.
    pub(super) async fn still_there(
        &self,
        from: &str,
        sources: &[MovedKey],
        is_copied: impl Fn(&MovedKey) -> bool,
    ) -> NamespaceResult<(Vec<ObjectKey>, usize)> {
        let by_name: HashMap<&str, &MovedKey> = sources.iter().map(|moved| (moved.name(), moved)).collect();
        let present = self.list_all(from).await?;
        let all = present.len();
        let is_done = |info: &ObjectInfo| {
            let moved = by_name.get(&info.key().as_str()[from.len()..]);
            moved.is_some_and(|moved| moved.is_source(info) && is_copied(moved))
        };
        let done: Vec<ObjectKey> = present.iter().filter(|info| is_done(info)).map(|info| info.key().clone()).collect();
        let kept = all - done.len();
        Ok((done, kept))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{AttributeDefaults, NamespaceLimits};
    use crate::metrics::RequestKind;
    use crate::namespace::RenameFlags;
    use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};
    use crate::store::memory::MemoryStore;
    use crate::store::{ObjectStore, StoreError};
    use crate::types::Ino;

    fn mount(store: Arc<dyn ObjectStore>, journal: &Path) -> Namespace {
        let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix: false };
        let limits = NamespaceLimits::default();
        Namespace::new(store, "", defaults, limits, Clock::system(), Some(journal.to_owned()))
    }

    fn bucket() -> MemoryStore {
        let bucket = MemoryStore::new();
        bucket.put_directly("d/a", "one");
        bucket.put_directly("d/b", "two");
        bucket
    }

    async fn rename(namespace: &Namespace) -> NamespaceResult<()> {
        namespace.lookup(Ino::ROOT, "d").await?;
        namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "e"), RenameFlags::default()).await.map(|_| ())
    }

    fn entries(journal: &Path) -> usize {
        std::fs::read_dir(journal).expect("it is there").count()
    }

    /// Renames d to e and dies before the first delete.
    async fn crash_after_copying(bucket: &MemoryStore, journal: &Path) {
        let faults = Faults::seeded(0);
        let gate = Gate::closed();
        faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::DeleteMany));
        let namespace = mount(Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults)), journal);
        tokio::select! {
            done = rename(&namespace) => panic!("the gate is closed: {done:?}"),
            () = gate.arrived(1) => {}
        }
        assert_eq!(entries(journal), 1);
    }

    #[tokio::test]
    async fn a_rename_that_was_interrupted_while_deleting_is_finished() {
        let (bucket, journal) = (bucket(), tempfile::tempdir().expect("a directory"));
        crash_after_copying(&bucket, journal.path()).await;
        let resumed =
            mount(Arc::new(bucket.clone()), journal.path()).resume_renames(journal.path()).await.expect("resumed");
        assert_eq!((resumed, entries(journal.path())), (1, 0));
        assert_eq!(bucket.keys(), ["e/a", "e/b"]);
    }

    #[tokio::test]
    async fn resuming_a_rename_keeps_what_was_written_since() {
        let (bucket, journal) = (bucket(), tempfile::tempdir().expect("a directory"));
        crash_after_copying(&bucket, journal.path()).await;
        bucket.put_directly("d/a", "edited");
        bucket.put_directly("d/c", "new");
        bucket.put_directly("e/b", "edited, too");
        mount(Arc::new(bucket.clone()), journal.path()).resume_renames(journal.path()).await.expect("resumed");
        assert_eq!(bucket.keys(), ["d/a", "d/c", "e/a", "e/b"]);
        assert_eq!(bucket.content("d/a").as_deref(), Some(&b"edited"[..]));
        assert_eq!(bucket.content("e/a").as_deref(), Some(&b"one"[..]));
        assert_eq!(bucket.content("e/b").as_deref(), Some(&b"edited, too"[..]));
    }

    #[tokio::test]
    async fn resuming_a_rename_keeps_what_was_written_since_with_the_same_content() {
        let (bucket, journal) = (bucket(), tempfile::tempdir().expect("a directory"));
        crash_after_copying(&bucket, journal.path()).await;
        // Empty files have one tag, and a job that runs again writes what it wrote.
        std::thread::sleep(std::time::Duration::from_millis(5));
        bucket.put_directly("d/a", "one");
        mount(Arc::new(bucket.clone()), journal.path()).resume_renames(journal.path()).await.expect("resumed");
        assert_eq!(bucket.keys(), ["d/a", "e/a", "e/b"]);
    }

    #[tokio::test]
    async fn resuming_a_rename_keeps_a_source_whose_copy_is_gone() {
        let (bucket, journal) = (bucket(), tempfile::tempdir().expect("a directory"));
        crash_after_copying(&bucket, journal.path()).await;
        bucket.delete_directly("e/a");
        mount(Arc::new(bucket.clone()), journal.path()).resume_renames(journal.path()).await.expect("resumed");
        assert_eq!(bucket.keys(), ["d/a", "e/b"]);
    }

    #[tokio::test]
    async fn resuming_a_rename_that_was_still_copying_touches_neither_side() {
        let (bucket, journal) = (bucket(), tempfile::tempdir().expect("a directory"));
        bucket.put_directly("e/a", "somebody else's");
        Entry::new(Some(journal.path())).write(&Intent::copying("d/", "e/")).expect("written");
        let resumed =
            mount(Arc::new(bucket.clone()), journal.path()).resume_renames(journal.path()).await.expect("resumed");
        assert_eq!((resumed, entries(journal.path())), (1, 0));
        assert_eq!(bucket.keys(), ["d/a", "d/b", "e/a"]);
        assert_eq!(bucket.content("e/a").as_deref(), Some(&b"somebody else's"[..]));
    }

    #[tokio::test]
    async fn a_rename_whose_deletes_are_refused_has_happened_and_leaves_no_entry() {
        let (bucket, journal) = (bucket(), tempfile::tempdir().expect("a directory"));
        let faults = Faults::seeded(0);
        let denied = StoreError::AccessDenied { action: "s3:DeleteObject", detail: String::new() };
        faults.add(Rule::new(Fault::Before(denied)).on(RequestKind::DeleteMany));
        let namespace = mount(Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults)), journal.path());
        rename(&namespace).await.expect("all copies are there");
        assert_eq!((bucket.keys().len(), entries(journal.path())), (4, 0));
        bucket.put_directly("d/a", "edited");
        mount(Arc::new(bucket.clone()), journal.path())
            .resume_renames(journal.path())
            .await
            .expect("nothing to resume");
        assert_eq!(bucket.content("d/a").as_deref(), Some(&b"edited"[..]));
    }
}
