//! What `--open-ahead` does, and what it must not do.

use super::*;
use crate::metrics::RequestKind::Get;

const AHEAD: Duration = Duration::from_millis(250);

fn files(count: usize) -> Arc<MemoryStore> {
    let bucket = Arc::new(MemoryStore::new());
    for number in 0..count {
        bucket.put_directly(&format!("{number:03}"), format!("content of {number}"));
    }
    bucket
}

async fn list(mount: &Mount) {
    let listing = mount.fs.opendir(Ino::ROOT).expect("a directory");
    let mut offset = 0;
    loop {
        let entries = mount.fs.readdir(listing, offset, 100).await.expect("a listing");
        let Some(last) = entries.last() else { break };
        offset = last.next_offset;
    }
    mount.fs.releasedir(listing);
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn files_that_are_opened_in_listing_order_are_asked_for_ahead_and_once() {
    let mount = Mount::opening_ahead(files(40), AHEAD);
    list(&mount).await;
    for number in 0..40 {
        assert_eq!(mount.get(&format!("{number:03}")).await.expect("there"), format!("content of {number}").as_bytes());
        settle().await;
        if (1..38).contains(&number) {
            assert!(mount.bucket.requests(Get) > number as u64 + 1, "the file behind {number} is on its way");
        }
    }
    assert_eq!(mount.bucket.requests(Get), 40);
}

#[tokio::test]
async fn without_open_ahead_every_open_asks_in_its_turn() {
    let mount = Mount::on(files(10));
    list(&mount).await;
    for number in 0..10 {
        mount.get(&format!("{number:03}")).await.expect("there");
        settle().await;
        assert_eq!(mount.bucket.requests(Get), number + 1);
    }
}

#[tokio::test]
async fn what_was_asked_for_too_long_ago_is_asked_for_again() {
    let mount = Mount::opening_ahead(files(10), AHEAD);
    list(&mount).await;
    mount.get("000").await.expect("there");
    mount.get("001").await.expect("there");
    settle().await;
    mount.bucket.put_directly("002", "by another client");
    mount.clock.advance(AHEAD + Duration::from_millis(1));
    assert_eq!(mount.get("002").await.expect("there"), b"by another client");
}

#[tokio::test]
async fn what_this_mount_wrote_since_is_what_is_opened() {
    let mount = Mount::opening_ahead(files(10), AHEAD);
    list(&mount).await;
    mount.get("000").await.expect("there");
    mount.get("001").await.expect("there");
    settle().await;
    let opened = mount.open("002", libc::O_WRONLY | libc::O_TRUNC).await.expect("there");
    mount.write(opened.handle, 0, b"rewritten").await.expect("room");
    mount.close(opened.handle).await.expect("published");
    assert_eq!(mount.get("002").await.expect("there"), b"rewritten");
    mount.fs.unlink(Ino::ROOT, OsStr::new("003")).await.expect("there");
    assert!(mount.get("003").await.is_err());
    mount.put("003", b"made anew").await;
    assert_eq!(mount.get("003").await.expect("there"), b"made anew");
}

#[tokio::test]
async fn a_file_that_went_before_its_turn_is_not_there() {
    let mount = Mount::opening_ahead(files(10), AHEAD);
    list(&mount).await;
    mount.bucket.delete_directly("002");
    mount.get("000").await.expect("there");
    mount.get("001").await.expect("there");
    settle().await;
    assert!(mount.get("002").await.is_err());
    assert_eq!(mount.get("003").await.expect("there"), b"content of 3");
}
