//! Facts about bytes that S3 did not take.

use super::*;

/// A mount whose last close could neither upload an edit of `a` nor keep it, with its journal.
async fn mount_with_an_edit_that_nobody_took() -> (Mount, Journal, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("a journal");
    let mount = Mount::composed(Arc::new(MemoryStore::new()), Duration::ZERO, journal.clone());
    // Nothing can be put where a file is in the way.
    std::fs::remove_dir(dir.path().join("kept")).expect("it is empty");
    std::fs::write(dir.path().join("kept"), "").expect("a file");
    mount.bucket.put_directly("a", "base");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    mount.write(writer.handle, 0, b"EDIT").await.expect("room");
    mount.bucket.put_directly("a", "theirs");
    mount.close(writer.handle).await.expect_err("another writer was first");
    (mount, journal, dir)
}

#[tokio::test]
async fn what_neither_s3_nor_the_journal_took_stays_as_long_as_the_mount_and_is_kept_by_a_later_drain() {
    let (mount, journal, dir) = mount_with_an_edit_that_nobody_took().await;
    assert_eq!(mount.get("a").await.expect("present"), b"EDIT");
    mount.wait();
    assert_eq!(mount.get("a").await.expect("present"), b"EDIT");
    std::fs::remove_file(dir.path().join("kept")).expect("it was there");
    std::fs::create_dir(dir.path().join("kept")).expect("a directory");
    assert_eq!(mount.fs.drain().await.kept, 1);
    let kept = journal.kept().pop().expect("it is kept");
    assert_eq!(std::fs::read(&kept.data).expect("a file"), b"EDIT");
    assert_eq!(mount.fs.drain().await.kept, 0);
    mount.wait();
    assert_eq!(mount.get("a").await.expect("present"), b"theirs");
    assert!(mount.fs.open.writers().is_empty());
}

#[tokio::test]
async fn what_neither_s3_nor_the_journal_took_goes_with_its_name() {
    let (mount, _journal, _dir) = mount_with_an_edit_that_nobody_took().await;
    assert_eq!(mount.fs.open.writers().len(), 1);
    mount.fs.unlink(Ino::ROOT, OsStr::new("a")).await.expect("present");
    assert!(mount.fs.open.writers().is_empty());
    assert_eq!(mount.fs.drain().await.kept, 0);
}
