//! Which version a handle shows, and what becomes of an object that loses its name.

use super::*;
use crate::fs::{FsError, SetAttributes};
use crate::metrics::RequestKind;

#[tokio::test]
async fn what_one_mount_published_another_sees_at_its_next_open() {
    let one = Mount::new();
    let other = Mount::on(one.bucket.clone());
    one.put("a", b"first").await;
    assert_eq!(other.get("a").await.expect("published"), b"first");
    let opened = one.open("a", libc::O_WRONLY | libc::O_TRUNC).await.expect("present");
    one.write(opened.handle, 0, b"second, longer").await.expect("room");
    one.close(opened.handle).await.expect("no conflict");
    // No time passes: the contents are checked at each open, whatever the age of the name.
    assert_eq!(other.get("a").await.expect("published"), b"second, longer");
}

#[tokio::test]
async fn an_open_handle_never_shows_bytes_of_a_later_version() {
    let mount = Mount::new();
    let old = vec![1_u8; 3 << 20];
    mount.bucket.put_directly("big", old);
    let before = mount.open("big", libc::O_RDONLY).await.expect("present");
    mount.bucket.put_directly("big", vec![2_u8; 3 << 20]);
    let after = mount.open("big", libc::O_RDONLY).await.expect("present");
    for offset in [0, 2 << 20] {
        let range = ByteRange::of_len(offset, 4096);
        let bytes = mount.fs.read(after.handle, range).await.expect("the present version");
        assert!(bytes.iter().all(|&byte| byte == 2));
        match mount.fs.read(before.handle, range).await {
            Ok(bytes) => assert!(bytes.iter().all(|&byte| byte == 1)),
            Err(error) => assert!(matches!(error, FsError::Stale), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_replaced_file_opens_as_a_new_inode_with_the_new_size() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "short");
    let told = mount.lookup("a").await.expect("present");
    mount.bucket.put_directly("a", "much longer than before");
    assert!(matches!(mount.fs.open(told.ino, libc::O_RDONLY).await, Err(FsError::Stale)));
    let now = mount.lookup("a").await.expect("present");
    assert_ne!(now.ino, told.ino);
    assert_eq!(now.attributes.size_bytes, 23);
    assert!(mount.fs.open(now.ino, libc::O_RDONLY).await.is_ok());
}

#[tokio::test]
async fn all_handles_of_a_file_see_what_one_of_them_wrote() {
    let mount = Mount::new();
    mount.put("a", b"0123456789").await;
    let reader = mount.open("a", libc::O_RDONLY).await.expect("present");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    mount.write(writer.handle, 2, b"xx").await.expect("room");
    assert_eq!(mount.read(reader.handle).await.expect("readable"), b"01xx456789");
    mount.close(writer.handle).await.expect("no conflict");
    assert_eq!(mount.read(reader.handle).await.expect("readable"), b"01xx456789");
    assert_eq!(mount.bucket.content("a").expect("published"), &b"01xx456789"[..]);
}

#[tokio::test]
async fn of_two_conflicting_writers_the_second_hears_of_it() {
    let one = Mount::new();
    one.put("a", b"base").await;
    let other = Mount::on(one.bucket.clone());
    let first = one.open("a", libc::O_RDWR).await.expect("present");
    let second = other.open("a", libc::O_RDWR).await.expect("present");
    one.write(first.handle, 0, b"ONE").await.expect("room");
    other.write(second.handle, 0, b"OTHER").await.expect("room");
    one.close(first.handle).await.expect("the first wins");
    let lost = other.close(second.handle).await;
    assert!(matches!(lost, Err(FsError::Stale)), "{lost:?}");
    assert_eq!(one.bucket.content("a").expect("published"), &b"ONEe"[..]);
    assert_eq!(other.get("a").await.expect("the winner's"), b"ONEe");
}

#[tokio::test]
async fn an_unlinked_open_file_is_readable_until_its_last_close() {
    let mount = Mount::new();
    mount.put("a", b"still here").await;
    let opened = mount.open("a", libc::O_RDONLY).await.expect("present");
    mount.fs.unlink(Ino::ROOT, OsStr::new("a")).await.expect("present");
    assert!(matches!(mount.lookup("a").await, Err(FsError::NotFound)));
    assert_eq!(mount.read(opened.handle).await.expect("open"), b"still here");
    mount.close(opened.handle).await.expect("nothing to publish");
    assert_eq!(mount.bucket.content("a"), None);
}

#[tokio::test]
async fn the_last_close_of_an_unlinked_file_spares_a_new_file_with_the_same_bytes() {
    let mount = Mount::new();
    mount.put("a", b"same").await;
    let opened = mount.open("a", libc::O_RDONLY).await.expect("present");
    mount.fs.unlink(Ino::ROOT, OsStr::new("a")).await.expect("present");
    mount.put("a", b"same").await;
    mount.close(opened.handle).await.expect("nothing to publish");
    assert_eq!(mount.bucket.content("a").expect("the new file"), &b"same"[..]);
    mount.wait();
    assert_eq!(mount.get("a").await.expect("the new file"), b"same");
}

#[tokio::test]
async fn a_file_written_while_unlinked_is_never_published() {
    let mount = Mount::new();
    let opened = mount.create("temporary").await;
    mount.write(opened.handle, 0, b"before").await.expect("room");
    mount.fs.unlink(Ino::ROOT, OsStr::new("temporary")).await.expect("present");
    mount.write(opened.handle, 6, b" after").await.expect("room");
    assert_eq!(mount.read(opened.handle).await.expect("open"), b"before after");
    mount.close(opened.handle).await.expect("nothing to publish");
    assert!(mount.bucket.keys().is_empty());
}

#[tokio::test]
async fn a_file_renamed_while_written_is_published_under_its_new_name_alone() {
    let mount = Mount::new();
    let opened = mount.create("part").await;
    mount.write(opened.handle, 0, b"one ").await.expect("room");
    mount.fs.rename((Ino::ROOT, OsStr::new("part")), (Ino::ROOT, OsStr::new("whole")), false).await.expect("free");
    mount.write(opened.handle, 4, b"two").await.expect("room");
    mount.close(opened.handle).await.expect("no conflict");
    assert_eq!(mount.bucket.keys(), ["whole"]);
    assert_eq!(mount.bucket.content("whole").expect("published"), &b"one two"[..]);
}

#[tokio::test]
async fn a_directory_renamed_with_a_writer_open_takes_its_bytes_along() {
    let mount = Mount::new();
    let directory = NewFile { mode: 0o40_755, uid: 0, gid: 0 };
    let node = mount.fs.mkdir(Ino::ROOT, OsStr::new("d"), directory).await.expect("free");
    let new = NewFile { mode: 0o100_644, uid: 0, gid: 0 };
    let (_, opened) = mount.fs.create(node.ino, OsStr::new("f"), new, CREATE).await.expect("free");
    mount.write(opened.handle, 0, b"one ").await.expect("room");
    mount.fs.rename((Ino::ROOT, OsStr::new("d")), (Ino::ROOT, OsStr::new("e")), false).await.expect("free");
    mount.write(opened.handle, 4, b"two").await.expect("room");
    mount.close(opened.handle).await.expect("no conflict");
    assert_eq!(mount.bucket.content("e/f").expect("published"), &b"one two"[..]);
    assert_eq!(mount.bucket.content("d/f"), None);
}

#[tokio::test]
async fn appending_after_another_writer_grew_the_file_appends_at_its_new_end() {
    let mount = Mount::new();
    mount.bucket.put_directly("log", "one\n");
    let told = mount.lookup("log").await.expect("present");
    assert_eq!(told.attributes.size_bytes, 4);
    mount.bucket.put_directly("log", "one\ntwo\n");
    let opened = mount.open("log", libc::O_WRONLY | libc::O_APPEND).await.expect("present");
    let size = mount.lookup("log").await.expect("present").attributes.size_bytes;
    mount.write(opened.handle, size, b"three\n").await.expect("room");
    mount.close(opened.handle).await.expect("no conflict");
    assert_eq!(mount.bucket.content("log").expect("published"), &b"one\ntwo\nthree\n"[..]);
}

#[tokio::test]
async fn a_file_can_be_renamed_again_at_once() {
    let mount = Mount::new();
    let new = NewFile { mode: 0o40_755, uid: 0, gid: 0 };
    let outer = mount.fs.mkdir(Ino::ROOT, OsStr::new("d"), new).await.expect("free").ino;
    mount.bucket.put_directly("a", "x");
    mount.wait();
    let inner = mount.fs.mkdir(outer, OsStr::new("e"), new).await.expect("free").ino;
    mount.fs.rename((Ino::ROOT, OsStr::new("a")), (inner, OsStr::new("a")), false).await.expect("present");
    assert_eq!(mount.bucket.keys(), ["d/", "d/e/", "d/e/a"]);
    mount.fs.rename((inner, OsStr::new("a")), (outer, OsStr::new("a")), false).await.expect("present");
    assert_eq!(mount.bucket.keys(), ["d/", "d/a", "d/e/"]);
}

#[tokio::test]
async fn o_creat_without_o_trunc_does_not_replace_what_another_writer_made_meanwhile() {
    let mount = Mount::new();
    let opened = mount.create("log").await;
    mount.write(opened.handle, 0, b"ours").await.expect("staging has room");
    mount.bucket.put_directly("log", "theirs");
    assert!(mount.close(opened.handle).await.is_err());
    assert_eq!(mount.bucket.content("log").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn attributes_that_were_set_after_the_first_part_was_uploaded_are_stored() {
    let mount = Mount::new();
    let opened = mount.create("large").await;
    let mib = vec![7; PAGE_BYTES];
    for nth in 0..20 {
        mount.write(opened.handle, nth * PAGE_BYTES as u64, &mib).await.expect("staging has room");
    }
    while mount.bucket.requests(RequestKind::UploadPart) == 0 {
        tokio::task::yield_now().await;
    }
    let node = mount.lookup("large").await.expect("it is being written");
    let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    mount.fs.setattr(node.ino, Some(opened.handle), set).await.expect("it is open");
    mount.close(opened.handle).await.expect("the store does not fail");
    let stored = mount.bucket.info("large").expect("it was published");
    let mode = stored.metadata.as_ref().and_then(|metadata| metadata.get("mode").cloned());
    assert_eq!(mode.as_deref(), Some((0o100_600).to_string().as_str()));
    assert_eq!(stored.size_bytes, 20 << 20);
}

#[tokio::test]
async fn a_reader_sees_no_byte_of_a_writer_that_was_given_up() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "base");
    let reader = mount.open("a", libc::O_RDONLY).await.expect("present");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    mount.write(writer.handle, 0, b"EDIT and more").await.expect("room");
    mount.bucket.put_directly("a", "theirs");
    mount.close(writer.handle).await.expect_err("another writer was first");
    match mount.read(reader.handle).await {
        Ok(bytes) => assert_eq!(bytes, b"base"),
        Err(error) => assert!(matches!(error, FsError::Stale), "{error:?}"),
    }
    assert_eq!(mount.get("a").await.expect("present"), b"theirs");
}

#[tokio::test]
async fn a_writer_whose_bytes_a_drain_gave_up_goes_on_with_them_and_hears_of_it() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "base");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    mount.write(writer.handle, 0, b"EDIT").await.expect("room");
    mount.bucket.put_directly("a", "theirs");
    assert_eq!(mount.fs.drain().await.kept, 1);
    mount.write(writer.handle, 4, b" and more").await.expect("room");
    assert_eq!(mount.read(writer.handle).await.expect("its own bytes"), b"EDIT and more");
    mount.close(writer.handle).await.expect_err("another writer was first");
    assert_eq!(mount.bucket.content("a").expect("present"), &b"theirs"[..]);
}
