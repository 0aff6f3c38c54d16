//! What a rename moves where others open and overwrite the same file: one version only, and never somebody else's.

use super::*;
use crate::fs::{FsError, SetAttributes};
use crate::metrics::RequestKind;
use crate::store::StoreError;
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};

/// Three pages, so that the tail is not read with the head.
fn pages_of(byte: u8) -> Vec<u8> {
    vec![byte; 3 << 20]
}

/// A mount whose requests may fail or wait.
fn with_faults() -> (Arc<Mount>, Faults) {
    let (bucket, faults) = (Arc::new(MemoryStore::new()), Faults::seeded(0));
    let store = Arc::new(FaultyStore::new(bucket.clone(), faults.clone()));
    let limits = WriteLimits::default();
    (Arc::new(Mount::over((bucket, store), Duration::ZERO, Journal::disabled(), limits)), faults)
}

impl Mount {
    async fn rename(&self, from: &str, to: &str) -> FsResult<()> {
        self.fs.rename((Ino::ROOT, OsStr::new(from)), (Ino::ROOT, OsStr::new(to)), false).await
    }

    /// A path below one directory.
    async fn below(&self, directory: &str, name: &str) -> Node {
        let directory = self.lookup(directory).await.expect("present").ino;
        self.fs.lookup(directory, OsStr::new(name)).await.expect("present")
    }

    async fn read_at(&self, handle: FileHandle, offset: u64) -> FsResult<u8> {
        let bytes = self.fs.read(handle, ByteRange::of_len(offset, 4096)).await?;
        assert!(bytes.len() == 4096 && bytes.iter().all(|byte| *byte == bytes[0]));
        Ok(bytes[0])
    }

    /// A handle that read the head of the first version reads on: the same version, or nothing.
    async fn reads_one_version(&self, handle: FileHandle) {
        for offset in [0, 2 << 20] {
            match self.read_at(handle, offset).await {
                Ok(byte) => assert_eq!(byte, 1, "at {offset}"),
                Err(error) => assert!(matches!(error, FsError::Stale), "{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_reader_of_a_file_that_another_client_replaced_reads_no_byte_of_what_a_rename_moved() {
    for is_known in [false, true] {
        let mount = Mount::new();
        mount.bucket.put_directly("f", pages_of(1));
        let opened = mount.open("f", libc::O_RDONLY).await.expect("present");
        assert_eq!(mount.read_at(opened.handle, 0).await.expect("present"), 1);
        mount.bucket.put_directly("f", pages_of(2));
        if is_known {
            mount.wait();
        }
        mount.rename("f", "g").await.expect("what is there moves");
        assert_eq!(mount.bucket.keys(), ["g"]);
        mount.reads_one_version(opened.handle).await;
        let now = mount.open("g", libc::O_RDONLY).await.expect("present");
        assert_eq!(mount.read_at(now.handle, 2 << 20).await.expect("present"), 2);
    }
}

#[tokio::test]
async fn pages_of_a_version_that_was_replaced_are_not_those_of_its_renamed_successor() {
    let mount = Mount::new();
    mount.bucket.put_directly("p", "one");
    assert_eq!(mount.get("p").await.expect("present"), b"one");
    let told = mount.lookup("p").await.expect("present").ino;
    mount.bucket.put_directly("p", "two");
    mount.rename("p", "q").await.expect("what is there moves");
    let node = mount.lookup("q").await.expect("present");
    assert_ne!(node.ino, told, "the kernel holds pages of the other version");
    let opened = mount.open("q", libc::O_RDONLY).await.expect("present");
    assert!(!opened.keep_cache);
    assert_eq!(mount.read(opened.handle).await.expect("present"), b"two");
}

#[tokio::test]
async fn below_a_renamed_directory_a_reader_reads_one_version() {
    for is_known in [false, true] {
        let mount = Mount::new();
        mount.bucket.put_directly("d/f", pages_of(1));
        mount.bucket.put_directly("d/closed", "one");
        let f = mount.below("d", "f").await;
        let closed = mount.below("d", "closed").await.ino;
        let opened = mount.fs.open(f.ino, libc::O_RDONLY).await.expect("present");
        let other = mount.fs.open(closed, libc::O_RDONLY).await.expect("present");
        mount.close(other.handle).await.expect("nothing was written");
        assert_eq!(mount.read_at(opened.handle, 0).await.expect("present"), 1);
        mount.bucket.put_directly("d/f", pages_of(2));
        mount.bucket.put_directly("d/closed", "two");
        if is_known {
            mount.wait();
            mount.below("d", "f").await;
        }
        mount.rename("d", "e").await.expect("moved");
        mount.reads_one_version(opened.handle).await;
        let now = mount.below("e", "f").await;
        assert_ne!(now.ino, f.ino);
        let now = mount.fs.open(now.ino, libc::O_RDONLY).await.expect("present");
        assert_eq!(mount.read_at(now.handle, 2 << 20).await.expect("present"), 2);
        let now = mount.below("e", "closed").await;
        let opened = mount.fs.open(now.ino, libc::O_RDONLY).await.expect("present");
        assert!(now.ino != closed || !opened.keep_cache);
        assert_eq!(mount.read(opened.handle).await.expect("present"), b"two");
    }
}

#[tokio::test]
async fn an_edit_of_a_version_that_was_replaced_does_not_go_onto_its_renamed_successor() {
    for is_written_first in [false, true] {
        let mount = Mount::new();
        mount.bucket.put_directly("e", "one one");
        let opened = mount.open("e", libc::O_RDWR).await.expect("present");
        assert_eq!(mount.read(opened.handle).await.expect("present"), b"one one");
        if is_written_first {
            // A writer that holds nothing new any more.
            mount.write(opened.handle, 0, b"one").await.expect("room");
            mount.fs.fsync(opened.handle).await.expect("no conflict");
        }
        mount.bucket.put_directly("e", "two two two");
        mount.rename("e", "g").await.expect("what is there moves");
        mount.write(opened.handle, 5, b"X").await.expect("room");
        let outcome = mount.fs.fsync(opened.handle).await;
        assert!(matches!(outcome, Err(FsError::Stale)), "{outcome:?}");
        assert_eq!(mount.bucket.keys(), ["g"]);
        assert_eq!(mount.bucket.content("g").as_deref(), Some(&b"two two two"[..]));
    }
}

#[tokio::test]
async fn an_open_that_is_answered_after_a_rename_opens_what_was_renamed() {
    let (mount, faults) = with_faults();
    let gate = Gate::closed();
    mount.bucket.put_directly("f", "ours");
    let ino = mount.lookup("f").await.expect("present").ino;
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Get).key("f"));
    let opening = tokio::spawn({
        let mount = Arc::clone(&mount);
        async move { mount.fs.open(ino, libc::O_RDONLY).await }
    });
    gate.arrived(1).await;
    mount.rename("f", "g").await.expect("present");
    mount.bucket.put_directly("f", "theirs");
    gate.open();
    let opened = opening.await.expect("no panic").expect("it is there under its new name");
    assert_eq!(mount.read(opened.handle).await.expect("present"), b"ours");
    mount.rename("g", "h").await.expect("present");
    assert_eq!(mount.bucket.content("h").as_deref(), Some(&b"ours"[..]));
    assert_eq!(mount.bucket.content("f").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn an_open_that_meets_another_version_while_a_rename_is_under_way_waits_for_it() {
    let (mount, faults) = with_faults();
    let gate = Gate::closed();
    mount.bucket.put_directly("f", "ours");
    let ino = mount.lookup("f").await.expect("present").ino;
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Copy));
    let renaming = tokio::spawn({
        let mount = Arc::clone(&mount);
        async move { mount.rename("f", "g").await }
    });
    gate.arrived(1).await;
    mount.bucket.put_directly("f", "theirs");
    let gets = mount.bucket.requests(RequestKind::Get);
    let opening = tokio::spawn({
        let mount = Arc::clone(&mount);
        async move { mount.fs.open(ino, libc::O_RDONLY).await }
    });
    while mount.bucket.requests(RequestKind::Get) == gets {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    renaming.await.expect("no panic").expect("moved");
    let opened = opening.await.expect("no panic").expect("it has moved along");
    assert_eq!(mount.read(opened.handle).await.expect("present"), b"ours");
    assert_eq!(mount.lookup("g").await.expect("present").ino, ino);
    assert_eq!(mount.get("g").await.expect("present"), b"ours");
    mount.wait();
    assert_eq!(mount.get("f").await.expect("what another client put is there"), b"theirs");
    mount.rename("g", "h").await.expect("present");
    assert_eq!(mount.bucket.keys(), ["f", "h"]);
}

#[tokio::test]
async fn a_rename_whose_delete_is_refused_has_happened() {
    let (mount, faults) = with_faults();
    mount.bucket.put_directly("a", "ours");
    mount.bucket.put_directly("b", "theirs");
    mount.lookup("a").await.expect("present");
    let denied = StoreError::AccessDenied { action: "s3:DeleteObject", detail: String::new() };
    faults.add(Rule::new(Fault::Before(denied)).on(RequestKind::Delete));
    mount.rename("a", "b").await.expect("the copy is there");
    assert_eq!(mount.bucket.content("b").as_deref(), Some(&b"ours"[..]));
    assert_eq!(mount.get("b").await.expect("present"), b"ours");
    assert_eq!(mount.bucket.content("a").as_deref(), Some(&b"ours"[..]), "nothing is lost");
}

#[tokio::test]
async fn an_open_file_that_another_client_replaced_is_gone_when_it_is_unlinked() {
    let mount = Mount::new();
    mount.bucket.put_directly("u", "one");
    let opened = mount.open("u", libc::O_RDONLY).await.expect("present");
    mount.bucket.put_directly("u", "two");
    mount.fs.unlink(Ino::ROOT, OsStr::new("u")).await.expect("present");
    mount.close(opened.handle).await.expect("nothing was written");
    assert_eq!(mount.bucket.content("u"), None);
}

#[tokio::test]
async fn a_rename_in_memory_that_fails_leaves_what_a_create_asked_for() {
    let mount = Mount::new();
    let one = mount.create("a").await;
    let other = mount.create("b").await;
    mount.write(one.handle, 0, b"ours").await.expect("room");
    let outcome = mount.fs.rename((Ino::ROOT, OsStr::new("a")), (Ino::ROOT, OsStr::new("b")), true).await;
    assert!(matches!(outcome, Err(FsError::Exists)), "{outcome:?}");
    mount.bucket.put_directly("a", "theirs");
    assert!(mount.close(one.handle).await.is_err());
    assert_eq!(mount.bucket.content("a").as_deref(), Some(&b"theirs"[..]));
    mount.close(other.handle).await.expect("no conflict");
}

#[tokio::test]
async fn a_name_that_is_renamed_keeps_its_mode() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "one");
    let ino = mount.lookup("a").await.expect("present").ino;
    let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    mount.fs.setattr(ino, None, set).await.expect("present");
    mount.bucket.put_directly("a", "two");
    mount.rename("a", "b").await.expect("what is there moves");
    assert_eq!(mount.lookup("b").await.expect("present").attributes.mode, 0o600);
}
