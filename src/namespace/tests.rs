//! Names that are asked for while a rename moves their keys, and what others do in the directories that this mount changes.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::metrics::RequestKind;
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};
use crate::store::memory::MemoryStore;
use crate::types::ObjectInfo;

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
        async move { namespace.rename_file(file, (directory, "a"), (directory, "c"), RenameFlags::default()).await }
    });
    gate.arrived(1).await;
    clock.advance(Duration::from_secs(60));
    let _ = names(&namespace, directory).await;
    gate.open();
    renaming.await.expect("no panic").expect("moved");
    assert_eq!(namespace.key(file).expect("it has a name").as_str(), "d/c");
    assert_eq!(names(&namespace, directory).await, ["b", "c", "sub"]);
}

#[tokio::test]
async fn a_directory_rename_leaves_what_another_client_writes_meanwhile() {
    let (bucket, faults, gate) = (bucket(), Faults::seeded(0), Gate::closed());
    let namespace = namespace(&bucket, &faults, clock());
    namespace.lookup(Ino::ROOT, "d").await.expect("it is there");
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::Copy).key("d/sub/x"));
    let renaming = tokio::spawn({
        let namespace = namespace.clone();
        async move { namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "e"), RenameFlags::default()).await }
    });
    tokio::time::timeout(Duration::from_secs(5), async {
        while bucket.info("e/a").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the others are copied");
    bucket.put_directly("d/a", "newer");
    bucket.put_directly("d/later", "new");
    gate.open();
    renaming.await.expect("no panic").expect("moved");
    assert_eq!(bucket.content("d/a").as_deref(), Some(&b"newer"[..]));
    assert_eq!(bucket.keys(), ["d/a", "d/later", "e/", "e/a", "e/b", "e/sub/x"]);
}

#[tokio::test]
async fn a_directory_is_not_mixed_into_one_that_came_unseen() {
    let (bucket, faults) = (bucket(), Faults::seeded(0));
    let namespace = namespace(&bucket, &faults, clock());
    let _all = names(&namespace, Ino::ROOT).await;
    bucket.put_directly("e/a", "another's");
    let flags = RenameFlags::default();
    let renamed = namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "e"), flags).await;
    assert!(matches!(renamed, Err(NamespaceError::NotEmpty)), "{renamed:?}");
    assert_eq!(bucket.content("e/a").as_deref(), Some(&b"another's"[..]));
    bucket.put_directly("f", "a file");
    let renamed = namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "f"), flags).await;
    assert!(matches!(renamed, Err(NamespaceError::NotADirectory)), "{renamed:?}");
    let renamed =
        namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "f"), RenameFlags { no_replace: true }).await;
    assert!(matches!(renamed, Err(NamespaceError::Exists)), "{renamed:?}");
    assert!(bucket.info("d/a").is_some());
}

#[tokio::test]
async fn a_stream_of_a_directory_goes_on_when_that_is_renamed() {
    let (bucket, faults) = (MemoryStore::new(), Faults::seeded(0));
    for n in 0..300 {
        bucket.put_directly(&format!("d/{n:03}"), "x");
    }
    let namespace = namespace(&bucket, &faults, clock());
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
    let stream = namespace.open_directory(directory).expect("a directory");
    let first = stream.read(2, 100).await.expect("names");
    namespace.rename_directory((Ino::ROOT, "d"), (Ino::ROOT, "e"), RenameFlags::default()).await.expect("moved");
    let rest = stream.read(first[99].next_offset, 300).await.expect("names");
    let known: Vec<_> = rest.iter().filter_map(|entry| namespace.remember(directory, entry)).collect();
    assert_eq!(known.len(), 200);
    let keys: Vec<_> = known.iter().map(|node| namespace.key(node.ino).expect("it has a name").to_string()).collect();
    assert_eq!((keys[0].as_str(), keys[199].as_str()), ("e/100", "e/299"));
    assert!(known.iter().all(|node| node.info.as_ref().is_some_and(|info| info.key().as_str().starts_with("e/"))));
}

#[tokio::test]
async fn a_directory_stays_as_long_as_something_unpublished_is_in_it() {
    let (bucket, faults, clock) = (MemoryStore::new(), Faults::seeded(0), clock());
    bucket.put_directly("d/old", "x");
    let namespace = namespace(&bucket, &faults, clock.clone());
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
    let new = NewNode { mode: 0o644, uid: 0, gid: 0 };
    namespace.lookup(directory, "old").await.expect("it is there");
    namespace.create(directory, "new", NodeKind::File, new).expect("the name is free");
    namespace.unlink(directory, "old", Unlink::Now).await.expect("removed");
    assert_eq!(bucket.keys(), ["d/"], "a marker keeps it in S3, too");
    bucket.delete_directly("d/");
    clock.advance(Duration::from_secs(60));
    assert_eq!(namespace.lookup(Ino::ROOT, "d").await.expect("something is in it").ino, directory);
    clock.advance(Duration::from_secs(60));
    assert_eq!(names(&namespace, Ino::ROOT).await, ["d"]);
    assert_eq!(names(&namespace, directory).await, ["new"]);
}

#[tokio::test]
async fn a_directory_that_is_made_is_known_to_be_empty_no_longer_than_its_name_was_known_to_be_absent() {
    let (bucket, faults, clock) = (MemoryStore::new(), Faults::seeded(0), clock());
    let namespace = namespace(&bucket, &faults, clock.clone());
    assert!(namespace.lookup(Ino::ROOT, "n").await.is_err());
    bucket.put_directly("n/x", "another's");
    clock.advance(Duration::from_millis(900));
    let new = NewNode { mode: 0o755, uid: 0, gid: 0 };
    let made = namespace.mkdir(Ino::ROOT, "n", new).await.expect("as far as is known").ino;
    assert!(namespace.lookup(made, "x").await.is_err());
    clock.advance(Duration::from_millis(200));
    namespace.lookup(made, "x").await.expect("what is known is a second old");
}

/// A mount that knows `a` in the directory `d`, with the numbers of both.
async fn with_file(bucket: &MemoryStore, faults: &Faults) -> (Namespace, Ino, Ino) {
    let namespace = namespace(bucket, faults, clock());
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
    let file = namespace.lookup(directory, "a").await.expect("it is there").ino;
    (namespace, directory, file)
}

fn info(namespace: &Namespace, ino: Ino) -> ObjectInfo {
    namespace.peek(ino).and_then(|node| node.info).expect("a published file")
}

#[tokio::test]
async fn a_late_answer_to_an_open_does_not_undo_a_rename() {
    let (bucket, faults) = (bucket(), Faults::seeded(0));
    let (namespace, directory, file) = with_file(&bucket, &faults).await;
    let (before, moment) = (info(&namespace, file), namespace.moment());
    let flags = RenameFlags::default();
    namespace.rename_file(file, (directory, "a"), (directory, "c"), flags).await.expect("moved");
    namespace.learned(file, &before, &moment);
    assert_eq!(info(&namespace, file).key().as_str(), "d/c");
    namespace.vanished(file, &moment);
    // Another client takes the old key: it is not what moves on.
    bucket.put_directly("d/a", "theirs");
    namespace.rename_file(file, (directory, "c"), (directory, "e"), flags).await.expect("moved");
    assert_eq!(bucket.content("d/e").as_deref(), Some(&b""[..]));
    assert_eq!(bucket.content("d/a").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn a_rename_moves_what_is_under_the_name_and_not_what_was_taken_for_its_object() {
    let bucket = bucket();
    let (namespace, directory, file) = with_file(&bucket, &Faults::seeded(0)).await;
    bucket.put_directly("d/a", "ours");
    let wrong = bucket.put_directly("other", "theirs");
    namespace.0.table.lock().row_mut(file).object = Some(wrong);
    let flags = RenameFlags::default();
    let renamed = namespace.rename_file(file, (directory, "a"), (directory, "c"), flags).await.expect("moved");
    assert!(renamed.moved.is_none(), "another version than was known");
    assert_eq!(bucket.content("d/c").as_deref(), Some(&b"ours"[..]));
    assert_eq!(bucket.content("other").as_deref(), Some(&b"theirs"[..]));
    assert_ne!(namespace.lookup(directory, "c").await.expect("it is there").ino, file);
}

#[tokio::test]
async fn an_inode_that_a_rename_moves_is_not_superseded() {
    let (bucket, faults, gate) = (bucket(), Faults::seeded(0), Gate::closed());
    let (namespace, directory, file) = with_file(&bucket, &faults).await;
    for held in [RequestKind::List, RequestKind::Copy, RequestKind::Delete] {
        faults.clear();
        gate.close();
        let (from, to) = if held == RequestKind::Copy { ("c", "a") } else { ("a", "c") };
        // Names are asked for.
        namespace.0.clock.advance(Duration::from_secs(60));
        namespace.lookup(directory, from).await.expect("it is there");
        faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(held));
        let renaming = tokio::spawn({
            let namespace = namespace.clone();
            let flags = RenameFlags::default();
            async move { namespace.rename_file(file, (directory, from), (directory, to), flags).await }
        });
        for _ in 0..10_000 {
            if namespace.0.table.lock().moving.contains_key(&file) {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(namespace.0.table.lock().moving.contains_key(&file), "{held:?}");
        let theirs = bucket.put_directly("elsewhere", "theirs");
        assert!(!namespace.supersede(file, &theirs), "{held:?}");
        gate.open();
        renaming.await.expect("no panic").expect("moved");
        namespace.forget(file, 1);
        assert_eq!(namespace.lookup(directory, to).await.expect("it has moved").ino, file, "{held:?}");
    }
}

#[tokio::test]
async fn a_rename_of_a_name_that_leads_elsewhere_by_now_changes_nothing() {
    let bucket = bucket();
    let (namespace, directory, file) = with_file(&bucket, &Faults::seeded(0)).await;
    let theirs = bucket.put_directly("d/a", "theirs");
    assert!(namespace.supersede(file, &theirs));
    let renamed = namespace.rename_file(file, (directory, "a"), (directory, "c"), RenameFlags::default()).await;
    assert!(matches!(renamed, Err(NamespaceError::Stale)), "{renamed:?}");
    assert_eq!(bucket.keys(), ["d/", "d/a", "d/b", "d/sub/x"]);
}

#[tokio::test]
async fn a_name_that_was_made_under_the_old_key_meanwhile_stays() {
    let (bucket, faults, gate) = (bucket(), Faults::seeded(0), Gate::closed());
    let (namespace, directory, file) = with_file(&bucket, &faults).await;
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Delete));
    let renaming = tokio::spawn({
        let namespace = namespace.clone();
        let flags = RenameFlags::default();
        async move { namespace.rename_file(file, (directory, "a"), (directory, "c"), flags).await }
    });
    gate.arrived(1).await;
    namespace.0.table.lock().unlink(file);
    let new = NewNode { mode: 0o644, uid: 0, gid: 0 };
    let made = namespace.create(directory, "a", NodeKind::File, new).expect("the name is free").ino;
    gate.open();
    renaming.await.expect("no panic").expect("moved");
    assert_eq!(namespace.lookup(directory, "a").await.expect("it was made").ino, made);
    let moved = namespace.lookup(directory, "c").await.expect("it has moved").ino;
    assert_ne!(moved, file, "that one had lost its name");
    namespace.forget(file, 1);
    assert_eq!(names(&namespace, directory).await, ["a", "b", "c", "sub"]);
}

#[tokio::test]
async fn a_name_that_leads_to_no_inode_is_asked_for_again() {
    let bucket = bucket();
    let (namespace, directory, file) = with_file(&bucket, &Faults::seeded(0)).await;
    namespace.0.table.lock().rows.remove(&file);
    let found = namespace.lookup(directory, "a").await.expect("it is there").ino;
    assert_ne!(found, file);
    namespace.0.table.lock().rows.remove(&found);
    assert_eq!(names(&namespace, directory).await, ["a", "b", "sub"]);
}

#[tokio::test]
async fn a_question_that_panics_is_answered_and_asked_anew() {
    let (bucket, faults) = (bucket(), Faults::seeded(0));
    let namespace = namespace(&bucket, &faults, clock());
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("it is there").ino;
    namespace.0.clock.advance(Duration::from_secs(60));
    faults.add(Rule::new(Fault::Panic).on(RequestKind::Head).times(1));
    let asked = namespace.lookup(directory, "a").await;
    assert!(matches!(asked, Err(NamespaceError::Panicked)), "{asked:?}");
    namespace.lookup(directory, "a").await.expect("it is there");
}

#[test]
fn a_listing_whose_task_ended_early_is_gone_on_with() {
    let (bucket, faults, gate) = (bucket(), Faults::seeded(0), Gate::closed());
    let namespace = namespace(&bucket, &faults, clock());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one thread");
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::List).times(1));
    let stream = namespace.open_directory(Ino::ROOT).expect("a directory");
    let first = runtime();
    first.block_on(async {
        tokio::select! {
            read = stream.read(2, 100) => panic!("the gate is closed: {read:?}"),
            () = gate.arrived(1) => {}
        }
    });
    drop(first);
    let read = runtime().block_on(async { tokio::time::timeout(Duration::from_secs(30), stream.read(2, 100)).await });
    let entries = read.expect("nobody waits for a task that has ended").expect("the store does not fail");
    assert_eq!(entries.len(), 1);
}
