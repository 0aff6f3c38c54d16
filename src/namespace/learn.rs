//! What S3 says of a name, taken into the table.
//!
//! Invariant: an answer carries the count of local changes at which it was asked for, and undoes nothing that was changed since.

use std::time::{Duration, Instant, SystemTime};

use super::attributes::target_of;
use super::children::Own;
use super::remove::has_local_names;
use super::table::{Found, Row, Table};
use super::{AttributeChanges, NodeKind};
use crate::types::{Ino, ObjectInfo};

/// From when on an object's time tells its versions apart: clocks of machines on EC2 are closer than this.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

impl Table {
    /// What S3 said of a name at count `asked`: makes or mends the child. `None` if a later local change wins and left no
    /// name; the boolean says whether a name that was told differently was changed.
    pub(super) fn learn(
        &mut self,
        parent: Ino,
        name: &str,
        found: &Found,
        asked: u64,
        now: Instant,
        made: SystemTime,
    ) -> Option<(Ino, bool)> {
        let directory = self.directories.get(&parent)?;
        if directory.removed.get(name).is_some_and(|&removed| removed > asked) {
            return directory.children.get(name).map(|&ino| (ino, false));
        }
        // An unlinked file whose object waits for its last close is still in S3, and has no name here.
        if let Found::File(info) = found
            && self.deferred.values().any(|gone| gone.info.version == info.version)
        {
            return directory.children.get(name).map(|&ino| (ino, false));
        }
        let (mut replaced, mut kind) = (false, found.kind());
        if let Some(ino) = self.linked_child(parent, name) {
            let is_moving = self.moving.contains_key(&ino);
            let row = self.row_mut(ino);
            let is_late = row.seen > now && !row.is_of(found);
            if row.changed > asked || row.unpublished || is_moving || is_late {
                return Some((ino, false));
            }
            // The kernel may be told of another kind as long as it was told of none.
            let is_free = row.lookups == 0 && row.pins == 0 && row.kind != NodeKind::Directory;
            if is_free && found.tells_kind() && kind != NodeKind::Directory {
                row.kind = kind;
            }
            // A listing does not tell links and special files from files.
            let agrees = !found.tells_kind() && row.kind != NodeKind::Directory;
            if (row.kind == kind || agrees) && (is_free || !row.is_another(found)) {
                self.confirm(ino, found, now, made);
                return Some((ino, false));
            }
            if agrees {
                kind = row.kind;
            }
            // A directory in which something is that S3 does not have yet is there all the same.
            if has_local_names(self, ino) {
                return Some((ino, false));
            }
            self.unlink(ino);
            replaced = true;
        }
        let ino = self.link(parent, name, kind, now, made);
        self.confirm(ino, found, now, made);
        Some((ino, replaced))
    }

    /// S3 confirmed an inode, asked at `now`, which was `at` by the time of day.
    pub(super) fn confirm(&mut self, ino: Ino, found: &Found, now: Instant, at: SystemTime) {
        let posix = self.posix;
        let row = self.row_mut(ino);
        let is_late = row.seen > now;
        if is_late && row.object.is_some() && !row.is_of(found) {
            return;
        }
        row.seen = row.seen.max(now);
        match found {
            Found::File(info) => {
                let mut info = info.clone();
                row.metadata_is_old = false;
                match row.object.take().filter(|known| known.version == info.version) {
                    Some(known) => {
                        // A listing has no metadata; what an earlier answer brought for the same version still holds, unless
                        // the object was copied onto itself with other metadata.
                        if info.metadata.is_none() || (is_late && known.metadata.is_some()) {
                            // The target of a link may be all in its metadata.
                            let says_more = posix || row.kind == NodeKind::Symlink && info.size_bytes == 0;
                            row.metadata_is_old = says_more && may_have_changed(&known, &info, at);
                            info.metadata = known.metadata;
                            info.headers = known.headers;
                        }
                        info.content_type = info.content_type.or(known.content_type);
                    }
                    None if posix => {
                        (row.set, row.xattrs, row.target) = (AttributeChanges::default(), None, None);
                    }
                    None => {
                        row.set = AttributeChanges { mtime: None, atime: None, ..row.set };
                        row.target = None;
                    }
                }
                row.object = Some(info);
            }
            Found::Directory { marker, own } => {
                let directory = self.directories.entry(ino).or_default();
                directory.marker |= marker;
                if let Some(object) = own {
                    directory.own = Some(Box::new(Own { seen: now, object: object.clone() }));
                }
            }
        }
    }

    /// S3 said at count `asked` that a name does not exist. Says whether a name that was told was dropped.
    pub(super) fn learn_absent(&mut self, parent: Ino, name: &str, asked: u64, now: Instant) -> bool {
        let was_told = self.linked_child(parent, name).is_some();
        if let Some(ino) = self.child(parent, name) {
            let is_moving = self.moving.contains_key(&ino);
            let row = self.row_mut(ino);
            let is_local = row.changed > asked || row.unpublished || row.written.is_some();
            if is_local || is_moving || row.seen > now {
                return false;
            }
            if has_local_names(self, ino) {
                return false;
            }
            self.unlink(ino);
        }
        self.note_absent(parent, name, now);
        was_told
    }

    fn note_absent(&mut self, parent: Ino, name: &str, now: Instant) {
        if let Some(directory) = self.directories.get_mut(&parent) {
            directory.take(name);
            directory.note_absent(name.into(), now);
        }
    }
}

impl Row {
    /// Whether what S3 said is what the row is known as.
    fn is_of(&self, found: &Found) -> bool {
        match found {
            Found::File(info) => self.object.as_ref().is_some_and(|known| known.version == info.version),
            Found::Directory { .. } => self.kind == NodeKind::Directory,
        }
    }

    /// Whether a link or a special file was replaced. The kernel keeps the target of a link for as long as the inode, so that
    /// another target is another inode.
    fn is_another(&self, found: &Found) -> bool {
        let (Found::File(info), Some(known)) = (found, &self.object) else { return false };
        if !self.kind.is_special() {
            return false;
        }
        let is_retargeted = match (&known.metadata, &info.metadata) {
            (Some(known), Some(info)) => target_of(known) != target_of(info),
            _ => false,
        };
        known.version != info.version || is_retargeted
    }
}

/// Whether an object that a listing shows, seen at `at`, may carry other metadata than the same content did. S3 tells times in whole
/// seconds, so that of two changes within one the second cannot be told from the first.
fn may_have_changed(known: &ObjectInfo, listed: &ObjectInfo, at: SystemTime) -> bool {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let is_settled = at.duration_since(listed.last_modified).is_ok_and(|age| age >= SETTLED_AFTER);
    !is_settled || seconds(known.last_modified) != seconds(listed.last_modified)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use super::super::{Namespace, NamespaceError, NewNode};
    use super::*;
    use crate::clock::Clock;
    use crate::config::{AttributeDefaults, NamespaceLimits};
    use crate::metrics::RequestKind;
    use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};
    use crate::store::memory::MemoryStore;
    use crate::store::{ObjectAttributes, ObjectStore, Payload, PutRequest, WriteCondition};
    use crate::types::ObjectMetadata;

    fn mount(store: Arc<dyn ObjectStore>, posix: bool) -> Namespace {
        let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix };
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        Namespace::new(store, "", defaults, NamespaceLimits::default(), clock, None)
    }

    /// Another client puts an object with metadata.
    async fn put(bucket: &MemoryStore, key: &str, content: &'static str, metadata: (&str, &str)) {
        let metadata = ObjectMetadata::from([(metadata.0.to_owned(), metadata.1.to_owned())]);
        let put = PutRequest {
            key: key.into(),
            payload: Payload::from(bytes::Bytes::from_static(content.as_bytes())),
            attributes: ObjectAttributes { metadata: Arc::new(metadata), ..ObjectAttributes::default() },
            condition: WriteCondition::None,
        };
        bucket.put(put).await.expect("the store does not fail");
    }

    async fn names(namespace: &Namespace) -> Vec<String> {
        let stream = namespace.open_directory(Ino::ROOT).expect("a directory");
        let entries = stream.read(2, 100).await.expect("the store does not fail");
        entries.into_iter().map(|entry| entry.name.to_string()).collect()
    }

    /// What the name of a link leads to after another client replaced it, with or without `--posix`, looked up and listed before.
    async fn replaced(
        first: (&'static str, (&str, &str)),
        replace: impl AsyncFn(&MemoryStore),
        holds: impl AsyncFn(&Namespace, super::super::Node),
    ) {
        for (posix, is_listed) in [(false, false), (false, true), (true, false), (true, true)] {
            let bucket = MemoryStore::new();
            let namespace = mount(Arc::new(bucket.clone()), posix);
            put(&bucket, "l", first.0, first.1).await;
            let link = namespace.lookup(Ino::ROOT, "l").await.expect("it is there");
            assert_eq!(link.kind, NodeKind::Symlink);
            assert_eq!(namespace.read_link(link.ino).await.expect("a link"), "one");
            replace(&bucket).await;
            for _ in 0..3 {
                namespace.0.clock.advance(Duration::from_secs(60));
                if is_listed {
                    assert_eq!(names(&namespace).await, ["l"]);
                }
            }
            let now = namespace.lookup(Ino::ROOT, "l").await.expect("it is there");
            assert_ne!(
                now.ino, link.ino,
                "the kernel keeps the target of the old one; posix {posix}, listed {is_listed}"
            );
            holds(&namespace, now).await;
        }
    }

    const LINK: (&str, &str) = ("mode", "41471");

    #[tokio::test]
    async fn a_link_that_another_client_retargeted_leads_to_its_new_target() {
        let retarget = async |bucket: &MemoryStore| put(bucket, "l", "two, longer", LINK).await;
        replaced(("one", LINK), retarget, async |namespace, node| {
            assert_eq!(node.kind, NodeKind::Symlink);
            assert_eq!(namespace.read_link(node.ino).await.expect("a link"), "two, longer");
        })
        .await;
    }

    #[tokio::test]
    async fn a_link_of_geesefs_that_another_client_retargeted_leads_to_its_new_target() {
        let retarget = async |bucket: &MemoryStore| put(bucket, "l", "", ("--symlink-target", "two")).await;
        replaced(("", ("--symlink-target", "one")), retarget, async |namespace, node| {
            assert_eq!(node.kind, NodeKind::Symlink);
            assert_eq!(namespace.read_link(node.ino).await.expect("a link"), "two");
        })
        .await;
    }

    #[tokio::test]
    async fn a_link_that_another_client_made_a_file_is_a_file() {
        let replace = async |bucket: &MemoryStore| drop(bucket.put_directly("l", "hello world"));
        replaced(("one", LINK), replace, async |_, node| {
            assert_eq!((node.kind, node.attributes.size_bytes), (NodeKind::File, 11));
        })
        .await;
    }

    #[tokio::test]
    async fn a_link_that_was_made_here_and_replaced_by_a_file_is_a_file() {
        let bucket = MemoryStore::new();
        let namespace = mount(Arc::new(bucket.clone()), false);
        let new = NewNode { mode: 0o777, uid: 0, gid: 0 };
        namespace.create_symlink(Ino::ROOT, "l", "target", new).await.expect("the name is free");
        bucket.put_directly("l", "hello world");
        namespace.0.clock.advance(Duration::from_secs(60));
        names(&namespace).await;
        assert_eq!(namespace.lookup(Ino::ROOT, "l").await.expect("it is there").kind, NodeKind::File);
    }

    #[test]
    fn an_older_answer_undoes_no_newer_one() {
        let (early, made, bucket) = (Instant::now(), UNIX_EPOCH, MemoryStore::new());
        let late = early + Duration::from_secs(1);
        let mut table = Table::new(early, made, false);
        let [first, second] = ["one", "two"].map(|content| Found::File(bucket.put_directly("a", content)));
        let object = |table: &Table, ino: Ino| table.rows[&ino].object.as_ref().map(|info| info.version.clone());
        let version = |found: &Found| match found {
            Found::File(info) => Some(info.version.clone()),
            Found::Directory { .. } => None,
        };
        let (ino, _) = table.learn(Ino::ROOT, "a", &second, 0, late, made).expect("a new name");
        table.learn(Ino::ROOT, "a", &first, 0, early, made);
        assert_eq!(object(&table, ino), version(&second));
        let directory = Found::Directory { marker: true, own: None };
        assert_eq!(table.learn(Ino::ROOT, "a", &directory, 0, early, made), Some((ino, false)));
        assert!(!table.learn_absent(Ino::ROOT, "a", 0, early));
        assert_eq!(table.child(Ino::ROOT, "a"), Some(ino));
        table.learn(Ino::ROOT, "a", &first, 0, late, made);
        assert_eq!(object(&table, ino), version(&first));
        assert!(table.learn_absent(Ino::ROOT, "a", 0, late));
        assert_eq!(table.child(Ino::ROOT, "a"), None);
    }

    #[tokio::test]
    async fn that_a_name_was_absent_before_a_listing_had_it_hides_it_not() {
        let (bucket, faults, gate) = (MemoryStore::new(), Faults::seeded(0), Gate::closed());
        let namespace = mount(Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults.clone())), false);
        faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Head));
        let asking = tokio::spawn({
            let namespace = namespace.clone();
            async move { namespace.lookup(Ino::ROOT, "a").await }
        });
        gate.arrived(1).await;
        bucket.put_directly("a", "theirs");
        namespace.0.clock.advance(Duration::from_millis(10));
        assert_eq!(names(&namespace).await, ["a"]);
        gate.open();
        let found = asking.await.expect("no panic");
        assert!(!matches!(found, Err(NamespaceError::NotFound)), "{found:?}");
        assert!(namespace.try_lookup(Ino::ROOT, "a").is_some_and(|found| found.is_ok()));
    }
}
