//! Names that are asked for while a rename moves their keys.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::metrics::RequestKind;
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};
use crate::store::memory::MemoryStore;

fn clock() -> Clock {
    Clock::manual(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

/// All names of a store, with ordinary owners and limits.
pub(super) fn whole(store: Arc<dyn ObjectStore>, clock: Clock) -> Namespace {
    let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix: false };
    Namespace::new(store, "", defaults, NamespaceLimits::default(), clock, None)
}

fn namespace(bucket: &MemoryStore, faults: &Faults, clock: Clock) -> Namespace {
    whole(Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults.clone())), clock)
}

async fn names(namespace: &Namespace, directory: Ino) -> Vec<String> {
    let stream = namespace.open_directory(directory).expect("a directory");
    let entries = stream.read(2, 100).await.expect("the store does not fail");
    entries.into_iter().map(|entry| entry.name.to_string()).collect()
}

fn bucket() -> MemoryStore {
    let bucket = MemoryStore::new();
    for key in ["d/", "d/a", "d/b", "d/sub/x"] {
        bucket.put_directly(key, "");
    }
    bucket
}

#[tokio::test]
async fn a_name_that_is_asked_for_while_its_directory_moves_is_asked_for_again() {
    let (bucket, faults, gate) = (bucket(), Faults::seeded(0), Gate::closed());
    let clock = clock();
    let namespace = namespace(&bucket, &faults, clock.clone());
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
    // What that brought of its names has grown old.
    clock.advance(Duration::from_secs(60));
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::Head).key("d/b"));
    let asking = tokio::spawn({
        let namespace = namespace.clone();
        async move { namespace.lookup(directory, "b").await }
    });
    gate.arrived(1).await;
    namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "e"), RenameFlags::default()).await.expect("moved");
    gate.open();
    asking.await.expect("no panic").expect("it is there under its new key");
    namespace.lookup(directory, "b").await.expect("and stays");
}

#[tokio::test]
async fn a_listing_while_keys_are_deleted_by_a_rename_hides_no_name() {
    let (bucket, faults, gate) = (bucket(), Faults::seeded(0), Gate::closed());
    let clock = clock();
    let namespace = namespace(&bucket, &faults, clock.clone());
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
    let known = namespace.lookup(directory, "a").await.expect("it is there").ino;
    let below = namespace.lookup(directory, "sub").await.expect("it is there").ino;
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::DeleteMany));
    let renaming = tokio::spawn({
        let namespace = namespace.clone();
        async move { namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "e"), RenameFlags::default()).await }
    });
    gate.arrived(1).await;
    clock.advance(Duration::from_secs(60));
    // Of the parent, which has `e` by now, and no `d`; and of the directory, which has nothing.
    let above = names(&namespace, Ino::ROOT).await;
    assert!(!above.is_empty());
    let listing = tokio::spawn({
        let namespace = namespace.clone();
        async move {
            let stream = namespace.open_directory(directory).expect("a directory");
            stream.read(2, 100).await
        }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    renaming.await.expect("no panic").expect("moved");
    // That stream may say that its directory is another one now, never that it is empty.
    assert!(listing.await.expect("no panic").map_or(true, |entries| entries.len() == 3));
    assert_eq!(names(&namespace, Ino::ROOT).await, ["e"]);
    assert_eq!(names(&namespace, directory).await, ["a", "b", "sub"]);
    for (name, ino) in [("a", known), ("sub", below)] {
        assert_eq!(namespace.lookup(directory, name).await.expect("it has moved along").ino, ino);
    }
    assert_eq!(namespace.key(known).expect("it has a name").as_str(), "e/a");
}

#[tokio::test]
async fn a_listing_while_a_file_moves_does_not_take_its_name() {
    let (bucket, faults, gate) = (bucket(), Faults::seeded(0), Gate::closed());
    let clock = clock();
    let namespace = namespace(&bucket, &faults, clock.clone());
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
    let file = namespace.lookup(directory, "a").await.expect("it is there").ino;
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Delete));
    let renaming = tokio::spawn({
        let namespace = namespace.clone();
        async move { namespace.rename_file((directory, "a"), (directory, "c"), RenameFlags::default()).await }
    });
    gate.arrived(1).await;
    clock.advance(Duration::from_secs(60));
    let _ = names(&namespace, directory).await;
    gate.open();
    renaming.await.expect("no panic").expect("moved");
    assert_eq!(namespace.key(file).expect("it has a name").as_str(), "d/c");
    assert_eq!(names(&namespace, directory).await, ["b", "c", "sub"]);
}
