//! What is seen of a file while this mount itself moves it to another version.

use super::*;
use crate::fs::SetAttributes;
use crate::fs::open::{Access, Checked};
use crate::metrics::RequestKind;
use crate::store::StoreError;
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};

const MIB: u64 = 1 << 20;

/// A mount that uploads parts of 1 MiB from 1 MiB on, and whose requests meet faults.
fn mount_of_parts(journal: Journal) -> (Mount, Faults) {
    let (bucket, faults) = (Arc::new(MemoryStore::with_part_bytes_min(1)), Faults::seeded(0));
    let store = Arc::new(FaultyStore::new(bucket.clone(), faults.clone()));
    let limits = WriteLimits { part_bytes: MIB, single_put_bytes_max: MIB, ..WriteLimits::default() };
    (Mount::over((bucket, store), Duration::ZERO, journal, limits), faults)
}

fn hold(faults: &Faults, kind: RequestKind) -> Gate {
    let gate = Gate::closed();
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(kind));
    gate
}

/// Writes 3 MiB, of which a part is uploaded, and cuts them to `bytes`: the upload is not needed then, and aborted after the commit.
async fn write_long_and_cut(mount: &Mount, handle: FileHandle, bytes: &[u8]) {
    for at in 0..3 {
        mount.write(handle, at * MIB, &vec![7; MIB as usize]).await.expect("room");
    }
    while mount.bucket.requests(RequestKind::UploadPart) == 0 {
        tokio::task::yield_now().await;
    }
    let ino = mount.fs.handles.file(handle).expect("open").inode.ino;
    let set = SetAttributes { size_bytes: Some(bytes.len() as u64), ..SetAttributes::default() };
    mount.fs.setattr(ino, Some(handle), set).await.expect("it is open");
    mount.write(handle, 0, bytes).await.expect("room");
}

fn spawn_fsync(mount: &Mount, handle: FileHandle) -> tokio::task::JoinHandle<FsResult<()>> {
    let fs = mount.fs.clone();
    tokio::spawn(async move { fs.fsync(handle).await })
}

#[tokio::test]
async fn what_is_committed_is_what_everybody_sees_while_the_publication_still_tidies_up() {
    let (mount, faults) = mount_of_parts(Journal::disabled());
    mount.bucket.put_directly("a", "the old version");
    let reader = mount.open("a", libc::O_RDONLY).await.expect("present");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    write_long_and_cut(&mount, writer.handle, b"new").await;
    let aborts = hold(&faults, RequestKind::AbortUpload);
    let fsync = spawn_fsync(&mount, writer.handle);
    aborts.arrived(1).await;
    assert_eq!(mount.bucket.content("a").as_deref(), Some(&b"new"[..]), "it is committed");
    assert_eq!(mount.read(reader.handle).await.expect("present"), b"new");
    let ino = mount.lookup("a").await.expect("present");
    assert_eq!(ino.attributes.size_bytes, 3);
    // The kernel's open: the inode that it was told of is the one that opens.
    let second = mount.fs.open(ino.ino, libc::O_RDWR).await.expect("nobody else wrote it");
    assert_eq!(mount.read(second.handle).await.expect("present"), b"new");
    mount.write(second.handle, 0, b"NEW").await.expect("room");
    mount.write(writer.handle, 3, b"er").await.expect("room");
    aborts.open();
    fsync.await.expect("no panic").expect("published");
    mount.close(writer.handle).await.expect("no conflict");
    mount.close(second.handle).await.expect("no conflict");
    assert_eq!(mount.read(reader.handle).await.expect("present"), b"NEWer");
    assert_eq!(mount.bucket.content("a").as_deref(), Some(&b"NEWer"[..]));
}

#[tokio::test]
async fn a_write_to_a_new_file_is_not_lost_by_an_open_while_its_first_publication_tidies_up() {
    let (mount, faults) = mount_of_parts(Journal::disabled());
    let writer = mount.create("a").await;
    write_long_and_cut(&mount, writer.handle, b"new").await;
    let aborts = hold(&faults, RequestKind::AbortUpload);
    let fsync = spawn_fsync(&mount, writer.handle);
    aborts.arrived(1).await;
    // A write has taken the writer, and waits for memory.
    let taken = mount.fs.open.writers().pop().expect("it is being written");
    let second = mount.open("a", libc::O_RDONLY).await.expect("present");
    taken.write(3, Bytes::from_static(b"er")).await.expect("room");
    assert_eq!(mount.read(second.handle).await.expect("present"), b"newer");
    aborts.open();
    fsync.await.expect("no panic").expect("published");
    mount.close(writer.handle).await.expect("no conflict");
    assert_eq!(mount.bucket.content("a").as_deref(), Some(&b"newer"[..]));
}

#[tokio::test]
async fn a_publication_that_nobody_waits_for_any_more_is_seen_all_the_same() {
    let (mount, faults) = mount_of_parts(Journal::disabled());
    mount.bucket.put_directly("a", "the old version");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    write_long_and_cut(&mount, writer.handle, b"new").await;
    let aborts = hold(&faults, RequestKind::AbortUpload);
    let fsync = spawn_fsync(&mount, writer.handle);
    aborts.arrived(1).await;
    fsync.abort();
    fsync.await.expect_err("aborted");
    faults.clear();
    let ino = mount.lookup("a").await.expect("present").ino;
    let reader = mount.fs.open(ino, libc::O_RDONLY).await.expect("nobody else wrote it");
    assert_eq!(mount.read(reader.handle).await.expect("present"), b"new");
    mount.write(writer.handle, 3, b"er").await.expect("room");
    mount.close(writer.handle).await.expect("no conflict");
    assert_eq!(mount.read(reader.handle).await.expect("present"), b"newer");
}

#[tokio::test]
async fn the_first_of_two_commits_is_ours_where_the_second_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mount, faults) = mount_of_parts(Journal::open(dir.path()).expect("a journal"));
    mount.bucket.put_directly("a", "the old version");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    for at in 0..3 {
        mount.write(writer.handle, at * MIB, &vec![7; MIB as usize]).await.expect("room");
    }
    while mount.bucket.requests(RequestKind::UploadPart) == 0 {
        tokio::task::yield_now().await;
    }
    let ino = mount.lookup("a").await.expect("present").ino;
    let reader = mount.fs.open(ino, libc::O_RDONLY).await.expect("present");
    // The upload has begun with other attributes: a copy must follow it.
    let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    mount.fs.setattr(ino, Some(writer.handle), set).await.expect("it is open");
    faults.add(Rule::new(Fault::Before(StoreError::Fatal("no".into()))).on(RequestKind::Copy));
    mount.close(writer.handle).await.expect_err("the copy is refused");
    assert_eq!(mount.bucket.info("a").expect("present").size_bytes, 3 * MIB, "the bytes are in S3");
    assert_eq!(mount.read(reader.handle).await.expect("they are ours"), vec![7; MIB as usize]);
    let again = mount.fs.open(ino, libc::O_RDONLY).await.expect("nobody else wrote it");
    assert_eq!(mount.read(again.handle).await.expect("present"), vec![7; MIB as usize]);
}

#[tokio::test]
async fn an_open_waits_for_whoever_changes_the_object_before_it_takes_that_for_another_writers() {
    let (mount, faults) = mount_of_parts(Journal::disabled());
    mount.bucket.put_directly("a", "bytes");
    let ino = mount.lookup("a").await.expect("present").ino;
    let reader = mount.fs.open(ino, libc::O_RDONLY).await.expect("present");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    mount.write(writer.handle, 0, b"BYTES").await.expect("room");
    let gate = Gate::closed();
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Copy));
    let renaming = tokio::spawn({
        let fs = mount.fs.clone();
        async move { fs.rename((Ino::ROOT, OsStr::new("a")), (Ino::ROOT, OsStr::new("b")), false).await }
    });
    gate.arrived(1).await;
    let opening = tokio::spawn({
        let fs = mount.fs.clone();
        async move { fs.open(ino, libc::O_RDONLY).await }
    });
    tokio::task::yield_now().await;
    gate.open();
    renaming.await.expect("no panic").expect("present");
    let opened = opening.await.expect("no panic").expect("nobody else wrote it");
    for handle in [reader.handle, opened.handle] {
        assert_eq!(mount.read(handle).await.expect("present"), b"BYTES");
    }
}

#[tokio::test]
async fn a_read_that_a_publication_overtakes_leaves_no_reader_of_the_old_version_behind() {
    const LEN: u64 = 8 * MIB;
    let (bucket, faults) = (Arc::new(MemoryStore::new()), Faults::seeded(0));
    let store = Arc::new(FaultyStore::new(bucket.clone(), faults.clone()));
    let mount = Mount::over((bucket, store), Duration::ZERO, Journal::disabled(), WriteLimits::default());
    mount.bucket.put_directly("a", vec![b'o'; LEN as usize]);
    let reader = mount.open("a", libc::O_RDONLY).await.expect("present");
    let writer = mount.open("a", libc::O_WRONLY).await.expect("present");
    mount.write(writer.handle, 3 * MIB + MIB / 2, b"new").await.expect("room");
    // The first piece of the base arrives late, though of the old version.
    let gate = Gate::closed();
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Get).times(1));
    let overtaken = tokio::spawn({
        let fs = mount.fs.clone();
        async move { fs.read(reader.handle, ByteRange::of_len(3 * MIB, MIB)).await }
    });
    gate.arrived(1).await;
    mount.write(writer.handle, 6 * MIB, b"new").await.expect("room");
    mount.fs.fsync(writer.handle).await.expect("published");
    gate.open();
    let bytes = overtaken.await.expect("no panic").expect("present");
    assert_eq!((&bytes[..3], &bytes[MIB as usize / 2..][..4]), (&b"ooo"[..], &b"newo"[..]));
    for offset in [6 * MIB, 5 * MIB - 1] {
        let range = ByteRange::of_len(offset, 4);
        let read = mount.fs.read(reader.handle, range).await.expect("the version of the view");
        assert_eq!(&read[..], if offset == 6 * MIB { b"newo" } else { b"oooo" });
    }
}

#[tokio::test]
async fn an_open_whose_view_has_moved_since_it_was_checked_asks_again() {
    let mount = Mount::new();
    mount.bucket.put_directly("a", "old");
    let opened = mount.open("a", libc::O_RDONLY).await.expect("present");
    let file = mount.fs.handles.file(opened.handle).expect("open");
    let (info, generation) = {
        let view = file.inode.view.lock();
        (view.info.clone().expect("published"), view.generation)
    };
    let checked =
        |generation| Checked { reader: mount.fs.read.reader(&info), keep_cache: true, whole: None, generation };
    let access = Access::of(libc::O_RDONLY);
    let outcome = mount.fs.insert_opened(file.inode.clone(), access, Some(checked(generation + 1)));
    assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    let outcome = mount.fs.insert_opened(file.inode.clone(), access, Some(checked(generation)));
    assert!(matches!(outcome, Ok(Some(_))), "{outcome:?}");
}
