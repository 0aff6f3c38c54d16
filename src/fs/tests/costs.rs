//! What operations cost in requests: the bill is part of the contract.

use super::*;
use crate::metrics::RequestKind::{Get, Head, List, Put};

#[tokio::test]
async fn a_small_file_is_written_with_one_put_and_nothing_else_once_its_directory_is_known() {
    let mount = Mount::new();
    let _ = mount.lookup("other").await;
    let asked = mount.bucket.all_requests();
    mount.put("small", b"hello").await;
    assert_eq!(mount.bucket.requests(Put), 1);
    assert_eq!(mount.bucket.all_requests() - asked, 1);
}

#[tokio::test]
async fn opening_and_reading_a_small_file_costs_one_get() {
    let mount = Mount::new();
    mount.bucket.put_directly("small", "hello");
    let node = mount.lookup("small").await.expect("present");
    let (heads, lists) = (mount.bucket.requests(Head), mount.bucket.requests(List));
    let opened = mount.fs.open(node.ino, libc::O_RDONLY).await.expect("present");
    assert_eq!(mount.read(opened.handle).await.expect("readable"), b"hello");
    mount.close(opened.handle).await.expect("nothing to publish");
    assert_eq!(mount.bucket.requests(Get), 1);
    assert_eq!((mount.bucket.requests(Head), mount.bucket.requests(List)), (heads, lists));
}

#[tokio::test]
async fn repeated_flushes_of_a_clean_file_cost_nothing() {
    let mount = Mount::new();
    let opened = mount.create("a").await;
    mount.write(opened.handle, 0, b"x").await.expect("room");
    for _ in 0..3 {
        mount.fs.flush(opened.handle).await.expect("no conflict");
    }
    mount.fs.fsync(opened.handle).await.expect("no conflict");
    mount.close(opened.handle).await.expect("no conflict");
    assert_eq!(mount.bucket.requests(Put), 1);
}

#[tokio::test]
async fn opening_with_truncation_asks_nothing() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "old");
    let node = mount.lookup("a").await.expect("present");
    let asked = mount.bucket.all_requests();
    let opened = mount.fs.open(node.ino, libc::O_WRONLY | libc::O_TRUNC).await.expect("present");
    mount.write(opened.handle, 0, b"new").await.expect("room");
    mount.close(opened.handle).await.expect("no conflict");
    assert_eq!(mount.bucket.all_requests() - asked, 1);
    assert_eq!(mount.bucket.content("a").expect("published"), &b"new"[..]);
}

#[tokio::test]
async fn reading_on_after_an_open_of_an_unchanged_file_keeps_the_kernels_pages() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "same");
    let node = mount.lookup("a").await.expect("present");
    let first = mount.fs.open(node.ino, libc::O_RDONLY).await.expect("present");
    mount.close(first.handle).await.expect("nothing to publish");
    let second = mount.fs.open(node.ino, libc::O_RDONLY).await.expect("present");
    assert!(!first.keep_cache);
    assert!(second.keep_cache);
}

#[tokio::test]
async fn names_of_a_small_directory_that_grew_old_are_listed_anew_at_the_third() {
    let mount = Mount::new();
    for number in 0..40 {
        mount.bucket.put_directly(&format!("{number:02}"), "x");
    }
    for _ in 0..3 {
        mount.wait();
        let (heads, lists) = (mount.bucket.requests(Head), mount.bucket.requests(List));
        for number in 0..40 {
            mount.lookup(&format!("{number:02}")).await.expect("present");
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        assert!(mount.bucket.requests(Head) - heads <= 4, "{}", mount.bucket.requests(Head) - heads);
        assert!(mount.bucket.requests(List) - lists <= 5);
    }
}
