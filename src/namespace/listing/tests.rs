//! Listings of a bucket that changes meanwhile, of one that misbehaves, and what they cost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::super::tests::whole;
use super::super::{Namespace, NodeKind};
use crate::clock::Clock;
use crate::metrics::RequestKind;
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};
use crate::store::memory::{MemoryOptions, MemoryStore};
use crate::types::Ino;

fn store(page_keys_max: usize, starts_after: bool) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::with_options(MemoryOptions { page_keys_max, starts_after, ..MemoryOptions::default() }))
}

fn namespace(store: &Arc<MemoryStore>) -> Namespace {
    whole(Arc::clone(store) as _, Clock::manual(UNIX_EPOCH + Duration::from_secs(1_700_000_000)))
}

/// All names of a directory, in the order of the stream, read `count` at a time.
async fn names(namespace: &Namespace, directory: Ino, count: usize) -> Vec<(String, NodeKind, Ino)> {
    let stream = namespace.open_directory(directory).expect("a directory");
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let entries = stream.read(offset, count).await.expect("the store does not fail");
        let Some(last) = entries.last() else { return names };
        offset = last.next_offset;
        let shown = entries.into_iter().filter(|entry| !matches!(&*entry.name, "." | ".."));
        names.extend(shown.map(|entry| (entry.name.to_string(), entry.kind, entry.ino)));
    }
}

fn in_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(work)
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{1,3}",
        4 => "[ab]{1,2}[-.][0-9]{1,3}",
        3 => "[a-c]{1,2}/[a-b]{0,2}",
        2 => "[0-9a-f]{3}",
        1 => "[a가é]{1,3}",
    ]
}

/// What a key is to the root: its first name, and whether that is a directory.
fn shown(key: &str) -> (String, bool) {
    match key.split_once('/') {
        Some((name, _)) => (name.to_owned(), true),
        None => (key.to_owned(), false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_that_were_there_throughout_come_once_and_none_that_never_was(
        stable in prop::collection::btree_set(key(), 0..150),
        churned in prop::collection::vec((key(), any::<bool>()), 0..120),
        page in 1..12_usize, batch in 1..40_usize, starts_after in prop::bool::weighted(0.9),
    ) {
        let store = store(page, starts_after);
        for key in &stable {
            store.put_directly(key, "x");
        }
        // A name is stable if keys of its stay, and it is a directory throughout or a file throughout.
        let mut kinds: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
        let changed = churned.iter().map(|(key, _)| key).filter(|key| !stable.contains(*key));
        for (name, is_directory) in stable.iter().chain(changed).map(|key| shown(key)) {
            kinds.entry(name).or_default().insert(is_directory);
        }
        let listed = in_time(async {
            let namespace = namespace(&store);
            let (changing, keep) = (Arc::clone(&store), stable.clone());
            let changes = tokio::spawn(async move {
                for (key, put) in churned {
                    if put {
                        changing.put_directly(&key, "y");
                    } else if !keep.contains(&key) {
                        changing.delete_directly(&key);
                    }
                    tokio::task::yield_now().await;
                }
            });
            let listed = names(&namespace, Ino::ROOT, batch).await;
            changes.await.expect("no panic");
            // A second listing, of what is at rest, is exact.
            namespace.0.clock.advance(Duration::from_secs(10));
            let again: BTreeSet<String> =
                names(&namespace, Ino::ROOT, batch).await.into_iter().map(|(name, ..)| name).collect();
            let exact: BTreeSet<String> = store.keys().iter().map(|key| shown(key).0).collect();
            assert_eq!(again, exact);
            listed
        });
        let seen: BTreeSet<&str> = listed.iter().map(|(name, ..)| &**name).collect();
        prop_assert_eq!(seen.len(), listed.len(), "a name came twice: {:?}", listed);
        for (name, kind, _) in &listed {
            let possible = kinds.get(name);
            prop_assert!(possible.is_some_and(|kinds| kinds.contains(&(*kind == NodeKind::Directory))), "{}", name);
        }
        for key in &stable {
            let (name, is_directory) = shown(key);
            prop_assert!(seen.contains(&*name), "{} is missing", name);
            if is_directory {
                prop_assert!(listed.iter().any(|(other, kind, _)| *other == name && *kind == NodeKind::Directory));
            }
        }
    }
}

#[tokio::test]
async fn names_are_handed_out_in_order_however_they_come() {
    let store = store(10, true);
    let mut expected = Vec::new();
    for n in 0..2000 {
        let name = format!("f{n:05}");
        store.put_directly(&format!("d/{name}"), "x");
        expected.push(name);
    }
    let namespace = namespace(&store);
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("keys lie below it").ino;
    let found: Vec<String> = names(&namespace, directory, 24).await.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_numbers_of_names_stay_over_listings_and_lookups() {
    let store = store(10, true);
    for n in 0..100 {
        store.put_directly(&format!("f{n:02}"), "x");
    }
    let namespace = namespace(&store);
    let first = names(&namespace, Ino::ROOT, 24).await;
    let looked_up = namespace.lookup(Ino::ROOT, "f50").await.expect("present");
    assert_eq!(looked_up.ino, first[50].2);
    namespace.0.clock.advance(Duration::from_secs(10));
    assert_eq!(names(&namespace, Ino::ROOT, 24).await, first);
}

#[tokio::test]
async fn a_listed_name_is_looked_up_for_nothing_and_has_its_object() {
    let store = store(1000, true);
    let put = store.put_directly("f", "hello");
    let namespace = namespace(&store);
    names(&namespace, Ino::ROOT, 24).await;
    store.reset_requests();
    let node = namespace.lookup(Ino::ROOT, "f").await.expect("present");
    assert_eq!(node.info.map(|info| (info.version, info.size_bytes)), Some((put.version, 5)));
    assert!(namespace.lookup(Ino::ROOT, "g").await.is_err());
    assert_eq!(store.all_requests(), 0);
}

#[tokio::test]
async fn what_a_head_brought_survives_a_listing_of_the_same_version() {
    let store = store(1000, true);
    store.put_directly("f", "hello");
    let namespace = namespace(&store);
    let node = namespace.lookup(Ino::ROOT, "f").await.expect("present");
    assert!(node.info.is_some_and(|info| info.metadata.is_some()));
    namespace.0.clock.advance(Duration::from_secs(10));
    names(&namespace, Ino::ROOT, 24).await;
    assert!(namespace.peek(node.ino).and_then(|node| node.info).is_some_and(|info| info.metadata.is_some()));
}

#[tokio::test]
async fn a_removed_name_does_not_come_back_from_the_roll() {
    let store = store(1000, true);
    store.put_directly("f", "hello");
    store.put_directly("g", "hello");
    let namespace = namespace(&store);
    names(&namespace, Ino::ROOT, 24).await;
    namespace.unlink(Ino::ROOT, "f", super::super::Unlink::Now).await.expect("it is there");
    assert!(namespace.lookup(Ino::ROOT, "f").await.is_err());
    assert_eq!(names(&namespace, Ino::ROOT, 24).await.len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_dropped_stops_asking() {
    let store = store(10, true);
    for n in 0..5000 {
        store.put_directly(&format!("f{n:05}"), "x");
    }
    let namespace = namespace(&store);
    let stream = namespace.open_directory(Ino::ROOT).expect("the root");
    stream.read(0, 10).await.expect("the store does not fail");
    drop(stream);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(store.requests(RequestKind::List) < 100, "{} requests", store.requests(RequestKind::List));
}

#[tokio::test]
async fn two_streams_of_one_directory_of_which_each_is_too_old_for_the_other_are_whole() {
    let store = store(10, true);
    for n in 0..1000 {
        store.put_directly(&format!("f{n:05}"), "x");
    }
    let namespace = namespace(&store);
    let streams = [
        namespace.open_directory(Ino::ROOT).expect("the root"),
        namespace.open_directory(Ino::ROOT).expect("the root"),
    ];
    let (mut offsets, mut seen, mut removed) = ([0, 0], [0, 0], 0);
    for round in 0.. {
        let mut ended = 0;
        for (at, stream) in streams.iter().enumerate() {
            namespace.0.clock.advance(Duration::from_secs(10));
            let entries = stream.read(offsets[at], 7).await.expect("the store does not fail");
            let Some(last) = entries.last() else {
                ended += 1;
                continue;
            };
            offsets[at] = last.next_offset;
            for entry in entries.iter().filter(|entry| !matches!(&*entry.name, "." | "..")) {
                let node = namespace.remember(Ino::ROOT, entry).expect("nothing is removed before it was seen");
                assert_eq!(node.info.map(|info| info.key().to_string()), Some(entry.name.to_string()));
                namespace.forget(node.ino, 1);
                seen[at] += 1;
            }
        }
        // A name that goes is gone in both.
        if round == 20 {
            namespace.unlink(Ino::ROOT, "f00500", super::super::Unlink::Now).await.expect("it is there");
            removed = 1;
        }
        if ended == 2 {
            break;
        }
    }
    assert_eq!(seen, [1000 - removed; 2]);
}

/// Opens all directories below one, in the order of their listing, and gives every path.
async fn walk(namespace: &Namespace, directory: Ino, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![(directory, path.to_owned())];
    while let Some((directory, path)) = waiting.pop() {
        let mut below = Vec::new();
        for (name, kind, _) in names(namespace, directory, 24).await {
            if kind == NodeKind::Directory {
                let ino = namespace.lookup(directory, &name).await.expect("it was listed").ino;
                below.push((ino, format!("{path}{name}/")));
            } else {
                found.push(format!("{path}{name}"));
            }
        }
        waiting.extend(below.into_iter().rev());
    }
    found
}

#[tokio::test]
async fn a_walked_tree_is_scanned_a_thousand_keys_a_request() {
    let store = store(1000, true);
    for directory in 0..300 {
        for file in 0..30 {
            store.put_directly(&format!("d{directory:03}/f{file:02}"), "x");
        }
    }
    let namespace = namespace(&store);
    let found = walk(&namespace, Ino::ROOT, "").await;
    assert_eq!(found, store.keys());
    let lists = store.requests(RequestKind::List);
    assert!(lists <= 30, "{lists} requests for 9,000 keys in 301 directories");
    assert_eq!(store.all_requests(), lists);
}

#[tokio::test]
async fn deep_trees_are_sealed_by_the_scan() {
    let store = store(1000, true);
    for n in 0..2000 {
        store.put_directly(&format!("a{}/b{}/c{}/f{}", n % 20, n % 7, n % 3, n), "x");
    }
    let namespace = namespace(&store);
    let mut found = walk(&namespace, Ino::ROOT, "").await;
    found.sort();
    assert_eq!(found, store.keys());
    let lists = store.requests(RequestKind::List);
    assert!(lists <= 80, "{lists} requests for 581 directories");
    let node = namespace.lookup(Ino::ROOT, "a19").await.expect("present");
    store.reset_requests();
    assert!(namespace.lookup(node.ino, "nothing").await.is_err());
    assert_eq!(store.all_requests(), 0);
}

#[tokio::test]
async fn one_small_directory_is_one_list() {
    let store = store(1000, true);
    for n in 0..50 {
        store.put_directly(&format!("d{n}/f"), "x");
    }
    let namespace = namespace(&store);
    let directory = namespace.lookup(Ino::ROOT, "d7").await.expect("present").ino;
    assert_eq!(names(&namespace, directory, 24).await.len(), 1);
    // The lookup's own page, beside its HEAD.
    assert_eq!((store.requests(crate::metrics::RequestKind::List), store.all_requests()), (1, 2));
}

#[tokio::test]
async fn a_huge_subtree_ends_the_scan_of_its_siblings() {
    let store = store(10, true);
    for n in 0..20 {
        store.put_directly(&format!("d{n:02}/f"), "x");
    }
    for n in 0..2000 {
        store.put_directly(&format!("d05/x/{n:04}"), "x");
    }
    let namespace = namespace(&store);
    names(&namespace, Ino::ROOT, 24).await;
    store.reset_requests();
    for n in 0..20 {
        let directory = namespace.lookup(Ino::ROOT, &format!("d{n:02}")).await.expect("present").ino;
        assert_eq!(names(&namespace, directory, 24).await.len(), if n == 5 { 2 } else { 1 });
    }
    assert!(store.requests(RequestKind::List) <= 40, "{} requests", store.requests(RequestKind::List));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_shows_what_is_there_whatever_changes_elsewhere(
        stable in prop::collection::btree_set("d[0-9]/([ab]/)?[c-e]{1,2}", 1..120),
        churned in prop::collection::vec(("d[0-9]/([ab]/)?[x-z]", any::<bool>()), 0..80),
        page in 3..40_usize,
    ) {
        let store = store(page, true);
        for key in &stable {
            store.put_directly(key, "x");
        }
        let possible: BTreeSet<&String> = stable.iter().chain(churned.iter().map(|(key, _)| key)).collect();
        let found = in_time(async {
            let namespace = namespace(&store);
            let (changing, churned) = (Arc::clone(&store), churned.clone());
            let changes = tokio::spawn(async move {
                for (key, put) in churned {
                    if put { changing.put_directly(&key, "y"); } else { changing.delete_directly(&key); }
                    tokio::task::yield_now().await;
                }
            });
            let found = walk_leniently(&namespace).await;
            changes.await.expect("no panic");
            namespace.0.clock.advance(Duration::from_secs(10));
            let again: BTreeSet<String> = walk(&namespace, Ino::ROOT, "").await.into_iter().collect();
            assert_eq!(again, store.keys().into_iter().collect::<BTreeSet<_>>());
            found
        });
        let seen: BTreeSet<&String> = found.iter().collect();
        prop_assert_eq!(seen.len(), found.len(), "a path came twice: {:?}", &found);
        prop_assert!(stable.iter().all(|key| seen.contains(key)));
        prop_assert!(seen.iter().all(|path| possible.contains(*path)));
    }
}

/// A walk of directories that may go while it is under way.
async fn walk_leniently(namespace: &Namespace) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![(Ino::ROOT, String::new())];
    while let Some((directory, path)) = waiting.pop() {
        for (name, kind, _) in names(namespace, directory, 24).await {
            if kind != NodeKind::Directory {
                found.push(format!("{path}{name}"));
            } else if let Ok(node) = namespace.lookup(directory, &name).await {
                waiting.push((node.ino, format!("{path}{name}/")));
            }
        }
    }
    found
}

#[test]
fn a_name_that_waits_for_the_next_page_does_not_undo_what_was_published_since() {
    in_time(async {
        let bucket = store(2, true);
        for key in ["0", "a", "a-b", "z"] {
            bucket.put_directly(key, "old");
        }
        let (faults, gate) = (Faults::seeded(0), Gate::closed());
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let namespace = whole(Arc::new(FaultyStore::new(Arc::clone(&bucket) as _, faults.clone())), clock);
        let ino = namespace.lookup(Ino::ROOT, "a").await.expect("there").ino;
        // The first page, which ends with `a`, has left S3 when `a` is published.
        faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::List).times(1));
        let listing = tokio::spawn({
            let namespace = namespace.clone();
            async move { names(&namespace, Ino::ROOT, 10).await }
        });
        gate.arrived(1).await;
        let new = bucket.put_directly("a", "newer");
        namespace.publish(ino, &new);
        gate.open();
        assert_eq!(listing.await.expect("no panic").len(), 4);
        assert_eq!(namespace.peek(ino).and_then(|node| node.info).map(|info| info.version), Some(new.version));
    });
}
