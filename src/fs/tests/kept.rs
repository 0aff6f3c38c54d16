//! Facts about bytes that S3 did not take.

use super::*;
use crate::fs::{Drains, FsError, SetAttributes};
use crate::metrics::RequestKind;
use crate::store::StoreError;
use crate::store::faulty::{Fault, Faults, FaultyStore, Gate, Rule};

/// A journal that may be in the way of what is kept.
struct Shelf {
    journal: Journal,
    dir: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        Self { journal, dir }
    }

    /// Nothing can be put where a file is in the way.
    fn block(&self) {
        std::fs::remove_dir(self.dir.path().join("kept")).expect("it is empty");
        std::fs::write(self.dir.path().join("kept"), "").expect("a file");
    }

    fn free(&self) {
        std::fs::remove_file(self.dir.path().join("kept")).expect("it was there");
        std::fs::create_dir(self.dir.path().join("kept")).expect("a directory");
    }

    /// What is kept, by key.
    fn kept(&self) -> Vec<(String, Vec<u8>)> {
        let bytes =
            |kept: crate::write::Kept| (kept.intent.expect("whole").key, std::fs::read(kept.data).expect("a file"));
        let mut kept: Vec<_> = self.journal.kept().into_iter().map(bytes).collect();
        kept.sort();
        kept
    }
}

/// A mount whose last close could neither upload an edit of `a` nor keep it, with its journal.
async fn mount_with_an_edit_that_nobody_took() -> (Mount, Shelf) {
    let shelf = Shelf::new();
    let mount = Mount::composed(Arc::new(MemoryStore::new()), Duration::ZERO, shelf.journal.clone());
    shelf.block();
    mount.bucket.put_directly("a", "base");
    let writer = mount.open("a", libc::O_RDWR).await.expect("present");
    mount.write(writer.handle, 0, b"EDIT").await.expect("room");
    mount.bucket.put_directly("a", "theirs");
    mount.close(writer.handle).await.expect_err("another writer was first");
    (mount, shelf)
}

/// A mount whose PUTs meet faults.
fn mount_with_faults(shelf: &Shelf) -> (Mount, Faults) {
    let (bucket, faults) = (Arc::new(MemoryStore::new()), Faults::seeded(0));
    let store = Arc::new(FaultyStore::new(bucket.clone(), faults.clone()));
    (Mount::over((bucket, store), Duration::ZERO, shelf.journal.clone(), WriteLimits::default()), faults)
}

fn refuse_puts(faults: &Faults) {
    faults.add(Rule::new(Fault::Before(StoreError::Fatal("no".into()))).on(RequestKind::Put));
}

/// PUTs wait until the gate is opened.
fn hold_puts(faults: &Faults) -> Gate {
    let gate = Gate::closed();
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::Put));
    gate
}

async fn truncate(mount: &Mount, name: &str, size_bytes: u64) -> FsResult<Node> {
    let node = mount.lookup(name).await.expect("present");
    mount.fs.setattr(node.ino, None, SetAttributes { size_bytes: Some(size_bytes), ..SetAttributes::default() }).await
}

#[tokio::test]
async fn what_neither_s3_nor_the_journal_took_stays_as_long_as_the_mount_and_is_kept_by_a_later_drain() {
    let (mount, shelf) = mount_with_an_edit_that_nobody_took().await;
    assert_eq!(mount.get("a").await.expect("present"), b"EDIT");
    mount.wait();
    assert_eq!(mount.get("a").await.expect("present"), b"EDIT");
    shelf.free();
    assert_eq!(mount.fs.drain().await.kept, 1);
    assert_eq!(shelf.kept(), [("a".into(), b"EDIT".to_vec())]);
    assert_eq!(mount.fs.drain().await.kept, 0);
    mount.wait();
    assert_eq!(mount.get("a").await.expect("present"), b"theirs");
    assert!(mount.fs.open.writers().is_empty());
}

#[tokio::test]
async fn what_is_kept_of_a_file_that_was_emptied_names_the_object_that_it_replaces() {
    let shelf = Shelf::new();
    let (mount, faults) = mount_with_faults(&shelf);
    let old = mount.bucket.put_directly("a", "old").etag().as_str().to_owned();
    refuse_puts(&faults);
    let writer = mount.open("a", libc::O_WRONLY | libc::O_TRUNC).await.expect("present");
    mount.write(writer.handle, 0, b"new").await.expect("room");
    mount.close(writer.handle).await.expect_err("refused");
    let kept = shelf.journal.kept().pop().expect("it is kept").intent.expect("whole");
    assert_eq!((kept.base, kept.truncated.as_ref()), (None, Some(&old)));
    truncate(&mount, "a", 0).await.expect_err("refused");
    let mut kept: Vec<_> = shelf.journal.kept().into_iter().map(|kept| kept.intent.expect("whole")).collect();
    kept.sort_by_key(|kept| kept.size_bytes);
    let kept: Vec<_> = kept.into_iter().map(|kept| (kept.size_bytes, kept.truncated)).collect();
    assert_eq!(kept, [(0, Some(old.clone())), (3, Some(old))]);
}

#[tokio::test]
async fn what_neither_s3_nor_the_journal_took_goes_with_its_name() {
    let (mount, _shelf) = mount_with_an_edit_that_nobody_took().await;
    assert_eq!((mount.fs.open.writers().len(), mount.fs.unkept_files()), (1, 1));
    mount.fs.unlink(Ino::ROOT, OsStr::new("a")).await.expect("present");
    assert_eq!((mount.fs.open.writers().len(), mount.fs.unkept_files()), (0, 0));
    assert_eq!(mount.fs.drain().await.kept, 0);
}

#[tokio::test]
async fn what_neither_s3_nor_the_journal_took_is_kept_as_soon_as_the_journal_has_room() {
    let (mount, shelf) = mount_with_an_edit_that_nobody_took().await;
    assert_eq!(mount.fs.keep_unkept().await, 1);
    assert_eq!(mount.get("a").await.expect("present"), b"EDIT");
    shelf.free();
    assert_eq!(mount.fs.keep_unkept().await, 0);
    assert_eq!(shelf.kept(), [("a".into(), b"EDIT".to_vec())]);
    mount.wait();
    assert_eq!(mount.get("a").await.expect("present"), b"theirs");
}

#[tokio::test]
async fn a_drain_tells_by_name_and_cause_what_neither_s3_nor_the_journal_took() {
    let (mount, shelf) = mount_with_an_edit_that_nobody_took().await;
    mount.put("b", b"published").await;
    let writer = mount.create("c").await;
    mount.write(writer.handle, 0, b"open").await.expect("room");
    let drains = Drains::default();
    mount.fs.drain_into(&drains).await;
    let drained = drains.drained();
    assert_eq!((drained.published, drained.kept), (1, 0), "c was published");
    let [unkept] = &drained.unkept[..] else { panic!("{drained:?}") };
    assert_eq!(unkept, &mount.fs.unkept()[0]);
    assert_eq!(unkept.key.as_str(), "a");
    assert!(unkept.upload.contains("another writer") && unkept.journal.contains("directory"), "{unkept}");
    shelf.free();
    mount.fs.keep_unkept().await;
    mount.fs.drain_into(&drains).await;
    assert_eq!(drains.drained().unkept, [], "it was kept since");
}

#[tokio::test]
async fn a_truncation_by_path_leaves_what_it_does_not_cut_of_bytes_that_nobody_took() {
    let (mount, shelf) = mount_with_an_edit_that_nobody_took().await;
    truncate(&mount, "a", 2).await.expect_err("it cannot be published");
    assert_eq!(mount.get("a").await.expect("present"), b"ED");
    truncate(&mount, "a", 4).await.expect_err("it cannot be published");
    assert_eq!(mount.get("a").await.expect("present"), b"ED\0\0");
    assert_eq!(mount.fs.unkept_files(), 1);
    shelf.free();
    truncate(&mount, "a", 3).await.expect_err("it is kept, which is not what was asked for");
    assert_eq!(shelf.kept(), [("a".into(), b"ED".to_vec())]);
    assert_eq!(shelf.journal.kept()[0].intent.as_ref().expect("whole").size_bytes, 3);
    assert_eq!((mount.fs.open.writers().len(), mount.fs.unkept_files()), (0, 0));
    mount.wait();
    assert_eq!(mount.get("a").await.expect("present"), b"theirs");
}

#[tokio::test]
async fn a_truncation_by_path_that_fails_leaves_a_published_file_as_it_was() {
    let shelf = Shelf::new();
    let (mount, faults) = mount_with_faults(&shelf);
    shelf.block();
    mount.put("a", b"published").await;
    refuse_puts(&faults);
    for size in [0, 3] {
        truncate(&mount, "a", size).await.expect_err("refused");
        assert_eq!(mount.get("a").await.expect("present"), b"published");
    }
    assert_eq!((mount.fs.open.writers().len(), mount.fs.unkept_files()), (0, 0));
}

#[tokio::test]
async fn a_truncation_by_path_that_fails_leaves_a_new_file_to_its_writer() {
    let shelf = Shelf::new();
    let (mount, faults) = mount_with_faults(&shelf);
    let writer = mount.create("a").await;
    mount.write(writer.handle, 0, b"bytes").await.expect("room");
    refuse_puts(&faults);
    truncate(&mount, "a", 3).await.expect_err("refused");
    faults.clear();
    mount.write(writer.handle, 3, b"es again").await.expect("room");
    mount.close(writer.handle).await.expect("published");
    assert_eq!(mount.get("a").await.expect("present"), b"bytes again");
    assert!(shelf.kept().is_empty(), "it is in S3");
}

#[tokio::test]
async fn an_end_that_does_not_wait_for_a_drain_tells_of_what_that_kept() {
    let shelf = Shelf::new();
    let (mount, faults) = mount_with_faults(&shelf);
    for name in ["refused", "slow"] {
        let writer = mount.create(name).await;
        mount.write(writer.handle, 0, name.as_bytes()).await.expect("room");
    }
    let gate = Gate::closed();
    faults.add(Rule::new(Fault::Before(StoreError::Fatal("no".into()))).on(RequestKind::Put).key("refused"));
    faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::Put).key("slow"));
    let drains = Arc::new(Drains::default());
    let draining = tokio::spawn({
        let (fs, drains) = (mount.fs.clone(), drains.clone());
        async move { fs.drain_into(&drains).await }
    });
    gate.arrived(1).await;
    while drains.drained().kept == 0 {
        tokio::task::yield_now().await;
    }
    draining.abort();
    draining.await.expect_err("aborted");
    mount.fs.keep_all(&drains).await;
    assert_eq!((drains.drained().kept, drains.drained().unkept.len()), (2, 0));
    assert_eq!(shelf.kept(), [("refused".into(), b"refused".to_vec()), ("slow".into(), b"slow".to_vec())]);
}

#[tokio::test]
async fn what_a_program_publishes_while_everything_is_kept_does_not_stay_in_the_journal() {
    let shelf = Shelf::new();
    let (mount, faults) = mount_with_faults(&shelf);
    let writer = mount.create("a").await;
    mount.write(writer.handle, 0, b"bytes").await.expect("room");
    let gate = hold_puts(&faults);
    let closing = tokio::spawn({
        let fs = mount.fs.clone();
        async move { fs.flush(writer.handle).await }
    });
    gate.arrived(1).await;
    let drains = Drains::default();
    mount.fs.keep_all(&drains).await;
    assert_eq!(shelf.kept(), [("a".into(), b"bytes".to_vec())]);
    assert_eq!(mount.fs.drained(&drains).kept, 1);
    gate.open();
    closing.await.expect("no panic").expect("published");
    assert_eq!(mount.bucket.content("a").as_deref(), Some(&b"bytes"[..]));
    assert!(shelf.kept().is_empty());
    let drained = mount.fs.drained(&drains);
    assert_eq!((drained.published, drained.kept), (1, 0));
}

#[tokio::test]
async fn what_neither_s3_nor_the_journal_took_is_bounded_and_writes_beyond_are_refused() {
    const MIB: u64 = 1 << 20;
    let shelf = Shelf::new();
    let (bucket, faults) = (Arc::new(MemoryStore::new()), Faults::seeded(0));
    let store = Arc::new(FaultyStore::new(bucket.clone(), faults.clone()));
    let limits = WriteLimits { staging_bytes: 16 * MIB, ..WriteLimits::default() };
    let mount = Mount::over((bucket, store), Duration::ZERO, shelf.journal.clone(), limits);
    shelf.block();
    refuse_puts(&faults);
    let mut taken = 0;
    let refused = loop {
        let file = mount.create(&format!("f{taken:02}")).await;
        let written = mount.write(file.handle, 0, format!("bytes of {taken}").as_bytes()).await;
        let closed = mount.close(file.handle).await;
        match written {
            Ok(()) => closed.expect_err("refused"),
            Err(error) => break error,
        };
        taken += 1;
        assert!(taken < 100, "there is no bound");
    };
    assert!(matches!(refused, FsError::NoSpace(_)), "{refused:?}");
    assert_eq!((taken, mount.fs.memory().staged_bytes), (24, 24 * MIB), "8 MiB within the budget, 16 MiB beyond");
    for file in 0..taken {
        assert_eq!(mount.get(&format!("f{file:02}")).await.expect("present"), format!("bytes of {file}").as_bytes());
    }
    shelf.free();
    assert_eq!(mount.fs.keep_unkept().await, 0);
    let expected = (0..taken).map(|file| (format!("f{file:02}"), format!("bytes of {file}").into_bytes()));
    let kept = shelf.kept();
    assert_eq!(kept[..24], expected.collect::<Vec<_>>()[..]);
    assert_eq!(mount.fs.memory().staged_bytes, 0);
    faults.clear();
    mount.put("again", b"there is room").await;
}

#[tokio::test]
async fn memory_of_parts_that_s3_has_goes_to_an_unlinked_file_before_that_is_refused() {
    const MIB: usize = 1 << 20;
    let bucket = Arc::new(MemoryStore::with_part_bytes_min(1));
    let limits =
        WriteLimits { staging_bytes: 8 << 20, part_bytes: 1 << 20, single_put_bytes_max: 1 << 20, uploads_max: 1 };
    let mount = Mount::over((bucket.clone(), bucket), Duration::ZERO, Journal::disabled(), limits);
    let stream = mount.create("stream").await;
    let page = vec![7; MIB];
    for at in 0..3 {
        mount.write(stream.handle, at * MIB as u64, &page).await.expect("room");
    }
    while mount.bucket.requests(RequestKind::UploadPart) < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let unlinked = mount.create("unlinked").await;
    mount.fs.unlink(Ino::ROOT, OsStr::new("unlinked")).await.expect("present");
    let room = 6 - mount.fs.memory().staged_bytes / MIB as u64;
    for at in 0..room + 1 {
        mount.write(unlinked.handle, at * MIB as u64, &page).await.expect("room");
    }
    mount.close(stream.handle).await.expect("published");
    assert_eq!(mount.bucket.content("stream").expect("present"), vec![7; 3 * MIB]);
}

#[tokio::test]
async fn a_write_that_waits_while_an_earlier_close_publishes_is_not_lost() {
    let shelf = Shelf::new();
    let (mount, faults) = mount_with_faults(&shelf);
    let first = mount.create("a").await;
    mount.write(first.handle, 0, b"first").await.expect("room");
    let gate = hold_puts(&faults);
    // As for a map that outlived its descriptor: the last close without a flush.
    let closing = tokio::spawn({
        let fs = mount.fs.clone();
        async move { fs.release(first.handle).await }
    });
    gate.arrived(1).await;
    let second = mount.open("a", libc::O_RDWR).await.expect("present");
    // A write has taken the writer, and waits for memory.
    let taken = mount.fs.open.writers().pop().expect("dirty");
    gate.open();
    closing.await.expect("no panic");
    taken.write(0, Bytes::from_static(b"SECOND")).await.expect("room");
    assert!(mount.fs.needs_flush(second.handle, 0, |_| false));
    mount.close(second.handle).await.expect("published");
    assert_eq!(mount.bucket.content("a").as_deref(), Some(&b"SECOND"[..]));
    assert!(mount.fs.open.writers().is_empty());
}
