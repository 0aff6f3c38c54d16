//! Names that have grown older than they may be, and the requests that confirm them.

use super::*;
use crate::fs::FsError;
use crate::metrics::RequestKind::{Get, Head, List};

/// Threads of programs.
const ONE: u32 = 1;
const OTHER: u32 = 2;

impl Mount {
    async fn lookup_to_open(&self, name: &str, thread: u32) -> (Ino, Duration) {
        let found = self.fs.lookup_to_open(Ino::ROOT, OsStr::new(name), thread, libc::O_RDONLY).await.expect("present");
        (found.node.ino, found.name_for)
    }

    async fn open_by(&self, ino: Ino, thread: u32) -> FsResult<Vec<u8>> {
        let opened = self.fs.open_by(ino, libc::O_RDONLY, thread).await?;
        let bytes = self.read(opened.handle).await;
        self.close(opened.handle).await?;
        bytes
    }

    fn requests(&self) -> [u64; 3] {
        [Get, Head, List].map(|kind| self.bucket.requests(kind))
    }
}

/// A mount that knows of a small file whose name has grown old.
async fn with_old_name() -> Mount {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "first");
    mount.lookup("a").await.expect("present");
    mount.wait();
    mount
}

#[tokio::test]
async fn the_get_of_a_lookup_is_that_of_the_open_it_was_made_for() {
    let mount = with_old_name().await;
    let [gets, heads, lists] = mount.requests();
    let (ino, name_for) = mount.lookup_to_open("a", ONE).await;
    assert!(name_for.is_zero(), "each open begins with a lookup of its own");
    assert_eq!(mount.open_by(ino, ONE).await.expect("present"), b"first");
    assert_eq!(mount.requests(), [gets + 1, heads, lists]);
    assert_eq!(mount.open_by(ino, ONE).await.expect("present"), b"first");
    assert_eq!(mount.requests(), [gets + 2, heads, lists], "used once");
}

#[tokio::test]
async fn what_this_mount_published_since_the_lookup_is_what_opens() {
    let mount = with_old_name().await;
    let (ino, _) = mount.lookup_to_open("a", ONE).await;
    let other = mount.fs.open(ino, libc::O_WRONLY | libc::O_TRUNC).await.expect("opens");
    mount.fs.write(other.handle, 0, Bytes::from_static(b"ours")).await.expect("writes");
    mount.close(other.handle).await.expect("published");
    assert_eq!(mount.open_by(ino, ONE).await.expect("no other writer was there"), b"ours");
}

#[tokio::test]
async fn another_thread_and_another_call_ask_for_themselves() {
    let mount = with_old_name().await;
    let (ino, _) = mount.lookup_to_open("a", ONE).await;
    // The kernel may keep the name after this one, so that an open may come without a lookup.
    assert!(!mount.lookup("a").await.expect("present").fresh_for.is_zero());
    mount.bucket.put_directly("a", "second");
    assert!(matches!(mount.open_by(ino, ONE).await, Err(FsError::Stale)), "it asked, and found another version");
    mount.wait();
    let (ino, _) = mount.lookup_to_open("a", ONE).await;
    mount.bucket.put_directly("a", "third");
    assert!(matches!(mount.open_by(ino, OTHER).await, Err(FsError::Stale)));
    mount.wait();
    let (ino, _) = mount.lookup_to_open("a", ONE).await;
    mount.bucket.put_directly("a", "fourth");
    mount.wait();
    assert!(matches!(mount.open_by(ino, ONE).await, Err(FsError::Stale)), "too late for the same call");
}

#[tokio::test]
async fn a_lookup_to_open_finds_what_replaced_the_file() {
    let mount = with_old_name().await;
    mount.bucket.put_directly("a", "second, longer");
    let found = mount.fs.lookup_to_open(Ino::ROOT, OsStr::new("a"), ONE, libc::O_RDONLY).await.expect("present");
    assert_eq!(found.node.attributes.size_bytes, 14);
    let gets = mount.bucket.requests(Get);
    assert_eq!(mount.open_by(found.node.ino, ONE).await.expect("present"), b"second, longer");
    assert_eq!(mount.bucket.requests(Get), gets, "the file has grown, and came whole");
    mount.wait();
    mount.bucket.delete_directly("a");
    let gone = mount.fs.lookup_to_open(Ino::ROOT, OsStr::new("a"), ONE, libc::O_RDONLY).await;
    assert!(matches!(gone, Err(FsError::NotFound)), "{gone:?}");
    mount.bucket.put_directly("a/below", "x");
    mount.wait();
    let (ino, _) = mount.lookup_to_open("a", ONE).await;
    assert!(mount.fs.lookup(ino, OsStr::new("below")).await.is_ok());
}

#[tokio::test]
async fn a_file_that_nothing_is_known_of_is_opened_by_one_get_and_one_list() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "first");
    mount.bucket.put_directly("d/below", "x");
    let (ino, name_for) = mount.lookup_to_open("a", ONE).await;
    assert!(name_for.is_zero());
    assert_eq!(mount.open_by(ino, ONE).await.expect("present"), b"first");
    assert_eq!(mount.requests(), [1, 0, 1]);
    let (d, name_for) = mount.lookup_to_open("d", ONE).await;
    assert!(!name_for.is_zero(), "no open takes an answer here");
    assert!(mount.fs.try_lookup(d, OsStr::new("below")).is_some(), "the page of its lookup has it");
    assert_eq!(mount.requests(), [2, 0, 2]);
    let absent = mount.fs.lookup_to_open(Ino::ROOT, OsStr::new("absent"), ONE, libc::O_RDONLY).await;
    assert!(matches!(absent, Err(FsError::NotFound)));
    assert!(!mount.fs.absent_for(Ino::ROOT, OsStr::new("absent")).is_zero());
}

#[tokio::test]
async fn a_directory_shadows_a_file_that_is_looked_up_to_be_opened() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "hidden");
    mount.bucket.put_directly("a/below", "x");
    let (ino, _) = mount.lookup_to_open("a", ONE).await;
    assert!(mount.fs.lookup(ino, OsStr::new("below")).await.is_ok());
}

#[tokio::test]
async fn what_is_opened_keeps_the_directories_on_its_way_known() {
    let mount = Mount::new();
    mount.bucket.put_directly("d/e/f", "x");
    let d = mount.lookup("d").await.expect("present").ino;
    let e = mount.fs.lookup(d, OsStr::new("e")).await.expect("present").ino;
    let f = mount.fs.lookup(e, OsStr::new("f")).await.expect("present").ino;
    let [_, heads, lists] = mount.requests();
    for _ in 0..5 {
        mount.open_by(f, ONE).await.expect("present");
        mount.clock.advance(TTL * 2 / 3);
        for (parent, name) in [(Ino::ROOT, "d"), (d, "e"), (e, "f")] {
            let node = mount.fs.lookup(parent, OsStr::new(name)).await.expect("present");
            assert_eq!(node.fresh_for, TTL - TTL * 2 / 3, "{name}: as old as the request that showed it");
        }
    }
    assert_eq!(mount.requests()[1..], [heads, lists]);
    mount.wait();
    mount.lookup("d").await.expect("present");
    assert!(mount.requests()[2] > lists, "nothing showed it since");
}

#[tokio::test]
async fn the_kernel_is_told_the_age_of_names_and_of_their_absence() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "x");
    assert_eq!(mount.lookup("a").await.expect("present").fresh_for, TTL);
    assert!(matches!(mount.lookup("b").await, Err(FsError::NotFound)));
    mount.clock.advance(TTL * 3 / 4);
    assert_eq!(mount.lookup("a").await.expect("present").fresh_for, TTL / 4);
    assert_eq!(mount.fs.absent_for(Ino::ROOT, OsStr::new("b")), TTL / 4);
    mount.clock.advance(TTL / 4);
    assert!(mount.fs.absent_for(Ino::ROOT, OsStr::new("b")).is_zero());
}
