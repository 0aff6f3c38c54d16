//! What is listed before anybody waits for it, and what that costs.

use std::time::UNIX_EPOCH;

use super::super::NodeKind;
use super::super::tests::whole;
use super::*;
use crate::clock::Clock;
use crate::config::NamespaceLimits;
use crate::metrics::RequestKind::{Head, List};
use crate::store::memory::MemoryStore;

struct Bench {
    bucket: Arc<MemoryStore>,
    namespace: Namespace,
    clock: Clock,
}

impl Bench {
    fn new(keys: impl IntoIterator<Item = String>) -> Self {
        let bucket = Arc::new(MemoryStore::new());
        for key in keys {
            bucket.put_directly(&key, "x");
        }
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let namespace = whole(bucket.clone(), clock.clone());
        Self { bucket, namespace, clock }
    }

    fn ttl() -> Duration {
        NamespaceLimits::default().metadata_ttl
    }

    /// HEADs and LISTs so far.
    fn requests(&self) -> [u64; 2] {
        [Head, List].map(|kind| self.bucket.requests(kind))
    }

    async fn lookup(&self, parent: Ino, name: &str) -> Ino {
        self.namespace.lookup(parent, name).await.expect("present").ino
    }

    /// Lists a directory; how many names it has, and whether memory had them all.
    async fn list(&self, ino: Ino) -> (usize, bool) {
        let stream = self.namespace.open_directory(ino).expect("a directory");
        let (mut offset, mut found, mut at_once) = (2, 0, true);
        loop {
            let entries = match stream.try_read(offset, 1000) {
                Some(entries) => entries,
                None => {
                    at_once = false;
                    stream.read(offset, 1000).await
                }
            };
            let entries = entries.expect("the store does not fail");
            let Some(last) = entries.last() else { return (found, at_once) };
            (offset, found) = (last.next_offset, found + entries.len());
        }
    }
}

/// Lets what goes on in the background come to its end.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

fn keys(directory: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{directory}/{number:05}")).collect()
}

#[tokio::test]
async fn a_lookup_brings_the_first_page_of_the_directory() {
    let bench = Bench::new(keys("d", 40));
    let d = bench.lookup(Ino::ROOT, "d").await;
    assert_eq!(bench.requests(), [1, 1]);
    assert_eq!(bench.list(d).await, (40, true));
    bench.lookup(d, "00039").await;
    assert!(bench.namespace.lookup(d, "absent").await.is_err());
    assert_eq!(bench.requests(), [1, 1]);
}

#[tokio::test]
async fn what_must_be_a_directory_is_asked_for_as_one_alone() {
    let bench = Bench::new(keys("d", 40));
    bench.bucket.put_directly("file", "x");
    bench.namespace.lookup_directory(Ino::ROOT, "d").await.expect("present");
    assert_eq!(bench.requests(), [0, 1]);
    // That there is a file instead is told all the same.
    let file = bench.namespace.lookup_directory(Ino::ROOT, "file").await.expect("present");
    assert_eq!((file.kind, bench.requests()), (NodeKind::File, [1, 2]));
    assert!(bench.namespace.lookup_directory(Ino::ROOT, "absent").await.is_err());
}

#[tokio::test]
async fn a_listing_goes_on_behind_the_page_that_a_lookup_brought() {
    let bench = Bench::new(keys("d", 2500));
    let d = bench.lookup(Ino::ROOT, "d").await;
    assert_eq!(bench.list(d).await, (2500, false));
    assert_eq!(bench.requests(), [1, 3]);
}

#[tokio::test]
async fn a_page_that_a_lookup_brought_and_nobody_wanted_is_not_taken_for_new() {
    let bench = Bench::new(keys("d", 2500));
    let d = bench.lookup(Ino::ROOT, "d").await;
    bench.clock.advance(Bench::ttl() * 2);
    bench.bucket.put_directly("d/00000-new", "x");
    assert_eq!(bench.list(d).await, (2501, false));
    assert_eq!(bench.requests(), [1, 4]);
}

#[tokio::test]
async fn first_pages_of_a_few_directories_are_kept() {
    let bench = Bench::new((0..20).flat_map(|number| keys(&format!("{number}"), 1001)));
    for number in 0..20 {
        bench.lookup(Ino::ROOT, &format!("{number}")).await;
        // Not all directories are found by a listing of their parent.
        bench.clock.advance(Bench::ttl() * 2);
    }
    assert_eq!(bench.namespace.0.begun.lock().len(), BEGUN_MAX);
}

#[tokio::test]
async fn an_old_directory_that_is_looked_up_is_listed_by_the_same_request() {
    let bench = Bench::new(keys("d", 40));
    let d = bench.lookup(Ino::ROOT, "d").await;
    bench.clock.advance(Bench::ttl() * 2);
    assert_eq!(bench.lookup(Ino::ROOT, "d").await, d);
    assert_eq!(bench.list(d).await, (40, true));
    assert_eq!(bench.requests(), [1, 2]);
}

#[tokio::test]
async fn an_old_large_directory_that_is_looked_up_is_asked_for_one_key() {
    let bench = Bench::new(keys("d", 1500));
    let d = bench.lookup(Ino::ROOT, "d").await;
    bench.list(d).await;
    bench.clock.advance(Bench::ttl() * 2);
    let sent = bench.bucket.log().len();
    bench.lookup(Ino::ROOT, "d").await;
    assert_eq!(bench.bucket.log().len(), sent + 1);
    let listing = bench.namespace.0.table.lock().directories[&d].listing.upgrade();
    assert!(listing.is_none_or(|listing| listing.is_complete()), "no page was asked for");
}

#[tokio::test]
async fn names_that_are_asked_for_all_the_time_cost_a_list_for_three_quarters_of_a_ttl_and_no_head() {
    let bench = Bench::new(keys("d", 40));
    let d = bench.lookup(Ino::ROOT, "d").await;
    let [heads, lists] = bench.requests();
    // Four times the TTL, in twentieths of it.
    for step in 0..80 {
        if bench.namespace.is_late(d) {
            bench.namespace.asked_late(d);
        }
        assert!(bench.namespace.try_lookup(d, &format!("{:05}", step % 40)).is_some(), "step {step}: known");
        settle().await;
        bench.clock.advance(Bench::ttl() / 20);
    }
    let [heads_after, lists_after] = bench.requests();
    assert_eq!(heads_after, heads);
    // Three names must be asked for in the last quarter, two twentieths after its begin.
    assert_eq!(lists_after - lists, 4);
}

#[tokio::test]
async fn a_directory_whose_names_are_seldom_asked_for_is_not_listed() {
    let bench = Bench::new(keys("d", 40));
    let d = bench.lookup(Ino::ROOT, "d").await;
    bench.clock.advance(Bench::ttl() * 4 / 5);
    assert!(bench.namespace.is_late(d));
    for _ in 0..2 {
        bench.namespace.asked_late(d);
    }
    settle().await;
    assert_eq!(bench.requests()[1], 1);
}

#[tokio::test]
async fn a_directory_of_many_pages_is_not_listed_for_its_late_names() {
    let bench = Bench::new(keys("d", 1000 * (BACKGROUND_PAGES_MAX + 1)));
    let d = bench.lookup(Ino::ROOT, "d").await;
    bench.list(d).await;
    bench.clock.advance(Bench::ttl() * 4 / 5);
    assert!(!bench.namespace.is_late(d));
}

#[tokio::test]
async fn a_slow_walk_waits_for_no_listing_once_it_is_under_way() {
    const DIRECTORIES: usize = 30;
    let bench = Bench::new((0..DIRECTORIES).flat_map(|number| keys(&format!("t/{number:02}"), 5)));
    let t = bench.lookup(Ino::ROOT, "t").await;
    assert_eq!(bench.list(t).await, (DIRECTORIES, true));
    let [heads, lists] = bench.requests();
    for number in 0..DIRECTORIES {
        let known = bench.namespace.try_lookup(t, &format!("{number:02}"));
        let directory = known.expect("known").expect("present").ino;
        let (found, at_once) = bench.list(directory).await;
        assert_eq!(found, 5);
        assert!(at_once || number < 2, "directory {number}");
        settle().await;
        for name in 0..5 {
            bench.clock.advance(Bench::ttl() / 10);
            let known = bench.namespace.try_lookup(directory, &format!("{name:05}"));
            assert!(known.is_some(), "file {name} of directory {number}");
        }
    }
    let [heads_after, lists_after] = bench.requests();
    assert_eq!(heads_after, heads);
    // One for half a TTL, which is a directory here.
    assert!(lists_after - lists <= DIRECTORIES as u64 + 2, "{}", lists_after - lists);
}

#[tokio::test]
async fn a_name_that_is_gone_does_not_come_back_from_a_page_that_a_lookup_brought_before() {
    let bench = Bench::new(keys("d", 1001));
    let d = bench.lookup(Ino::ROOT, "d").await;
    bench.clock.advance(Bench::ttl() * 2);
    bench.bucket.delete_directly("d/00000");
    assert_eq!(bench.list(d).await.0, 1000);
    assert!(bench.namespace.lookup(d, "00000").await.is_err());
}

#[tokio::test]
async fn directories_that_lookups_brought_do_not_fill_the_memory() {
    let bench = Bench::new((0..40).flat_map(|number| keys(&format!("{number}"), 300)));
    for number in 0..40 {
        bench.lookup(Ino::ROOT, &format!("{number}")).await;
        bench.clock.advance(Bench::ttl() * 2);
    }
    let table = bench.namespace.0.table.lock();
    let kept: usize = table.directories.values().filter_map(|it| Some(it.current.as_ref()?.len())).sum();
    assert!((3_000..=BROUGHT_NAMES_MAX).contains(&kept), "{kept}");
}
