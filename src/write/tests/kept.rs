//! Facts about what the journal has of a file: never more than S3 lacks, and never twice.

use std::path::Path;
use std::sync::mpsc;

use tokio::task::JoinHandle;

use super::bed::Bed;
use super::*;
use crate::store::StoreError;

/// Files up to 8 MiB are sent whole, others in parts of 1 MiB.
fn new_bed() -> Bed {
    Bed::with(WriteLimits { staging_bytes: 32 * MIB, part_bytes: MIB, single_put_bytes_max: 8 * MIB, uploads_max: 2 })
}

impl Bed {
    fn refuse_puts(&self) {
        self.faults.add(Rule::new(Fault::Before(StoreError::Fatal("no".into()))).on(RequestKind::Put));
    }

    /// What is kept, of which there is exactly one.
    fn kept(&self) -> Kept {
        let mut kept = self.journal.kept();
        assert_eq!(kept.len(), 1, "{kept:?}");
        kept.pop().expect("one")
    }

    /// What `s3mount recover push` makes of it, without force.
    async fn pushed(&self, kept: &Kept) -> Vec<u8> {
        let store: Arc<dyn ObjectStore> = Arc::new(self.bucket.clone());
        let engine = engine(Arc::clone(&store), WriteLimits::default());
        recover::push(&store, &engine, kept, false).await.expect("pushed");
        self.bucket.content("k").expect("it is there").to_vec()
    }

    /// Begins a copy that stays unfinished until the second answer is sent to; the first tells when it has come so far.
    fn hold_keeping(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((come, has_come), (go, may_go)) = (mpsc::channel(), mpsc::channel());
        self.journal.when_written(move || {
            come.send(()).expect("the test waits");
            may_go.recv().expect("the test answers");
        });
        (has_come, go)
    }
}

fn keeping(writer: &Writer) -> JoinHandle<io::Result<Keep>> {
    let writer = writer.clone();
    tokio::task::spawn_blocking(move || writer.keep("test"))
}

fn publishing(writer: &Writer) -> JoinHandle<Result<Published, WriteError>> {
    let writer = writer.clone();
    tokio::spawn(async move { writer.publish().await })
}

async fn come(has_come: mpsc::Receiver<()>) {
    tokio::task::spawn_blocking(move || has_come.recv()).await.expect("no panic").expect("it is being kept");
}

async fn written(writer: &Writer, at: u64, bytes: &'static [u8]) {
    writer.write(at, Bytes::from_static(bytes)).await.expect("written");
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("kept")).expect("a directory").count()
}

#[tokio::test]
async fn what_was_kept_already_is_not_copied_again() {
    let bed = new_bed();
    bed.refuse_puts();
    let writer = bed.writer(Base::Absent { exclusive: false });
    written(&writer, 0, b"bytes").await;
    writer.publish().await.expect_err("refused");
    let first = bed.kept().id;
    writer.publish().await.expect_err("refused");
    assert!(matches!(writer.keep("the last close"), Ok(Keep::Kept(Some(_)))));
    assert_eq!(bed.kept().id, first);
    written(&writer, 5, b" and more").await;
    assert!(matches!(writer.keep("the last close"), Ok(Keep::Kept(Some(_)))));
    assert_ne!(bed.kept().id, first);
    assert_eq!(std::fs::read(bed.kept().data).expect("a file"), b"bytes and more");
}

#[tokio::test]
async fn what_somebody_took_out_of_the_journal_is_kept_anew() {
    let bed = new_bed();
    bed.refuse_puts();
    let writer = bed.writer(Base::Absent { exclusive: false });
    written(&writer, 0, b"bytes").await;
    writer.publish().await.expect_err("refused");
    bed.journal.discard(&bed.kept().id).expect("it is there");
    assert!(matches!(writer.keep("the last close"), Ok(Keep::Kept(Some(_)))));
    assert_eq!(bed.pushed(&bed.kept()).await, b"bytes");
}

#[tokio::test]
async fn what_was_renamed_since_is_kept_under_its_new_key() {
    let bed = new_bed();
    bed.refuse_puts();
    let writer = bed.writer(Base::Absent { exclusive: false });
    written(&writer, 0, b"bytes").await;
    writer.publish().await.expect_err("refused");
    assert!(writer.retarget("new".into()).is_some());
    assert!(matches!(writer.keep("the last close"), Ok(Keep::Kept(Some(_)))));
    assert_eq!(bed.kept().intent.expect("whole").key, "new");
}

#[tokio::test]
async fn a_copy_for_which_there_is_no_room_is_not_begun() {
    let bed = new_bed();
    bed.refuse_puts();
    let writer = bed.writer(Base::Absent { exclusive: false });
    let content = vec![7; 3 * MIB as usize];
    writer.write(0, content.clone().into()).await.expect("written");
    bed.journal.leave_room(3 * MIB);
    bed.journal.when_written(|| panic!("it was begun"));
    writer.publish().await.expect_err("refused");
    let refused = writer.keep("the last close").expect_err("no room");
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(refused.to_string().contains("3 MiB do not fit"), "{refused}");
    assert_eq!((entries(bed.dir.path()), writer.is_dirty()), (0, true));
    bed.journal.when_written(|| {});
    bed.journal.leave_room(4 * MIB);
    assert!(matches!(writer.keep("the last close"), Ok(Keep::Kept(Some(_)))));
    assert!(bed.pushed(&bed.kept()).await == content);
}

#[tokio::test]
async fn what_is_published_while_it_is_copied_does_not_stay_in_the_journal() {
    let bed = new_bed();
    bed.faults.fail_nth(RequestKind::Put, 1, StoreError::Fatal("no".into()));
    let writer = bed.writer(Base::Absent { exclusive: false });
    written(&writer, 0, b"bytes").await;
    let (has_come, go) = bed.hold_keeping();
    let first = publishing(&writer);
    come(has_come).await;
    // Whoever asked for it is gone, and the copy goes on.
    first.abort();
    first.await.expect_err("aborted");
    let second = publishing(&writer);
    while bed.bucket.content("k").is_none() {
        tokio::task::yield_now().await;
    }
    go.send(()).expect("it waits");
    second.await.expect("no panic").expect("published");
    assert_eq!(entries(bed.dir.path()), 0);
    assert_eq!(writer.keep("the last close").expect("nothing to do"), Keep::Published);
}

/// A file whose first bytes are on their way and whose last ones are not.
async fn half_on_its_way(bed: &Bed) -> (Writer, JoinHandle<Result<Published, WriteError>>, Gate) {
    let gate = Gate::closed();
    bed.faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::Put).times(1));
    let writer = bed.writer(Base::Object(bed.bucket.put_directly("k", &b"the base"[..])));
    written(&writer, 0, b"THE").await;
    let publication = publishing(&writer);
    gate.arrived(1).await;
    written(&writer, 8, b" and more").await;
    (writer, publication, gate)
}

#[tokio::test]
async fn what_was_written_behind_a_publication_stays_in_the_journal_over_what_that_published() {
    let bed = new_bed();
    let (writer, publication, gate) = half_on_its_way(&bed).await;
    assert!(matches!(keeping(&writer).await, Ok(Ok(Keep::Kept(Some(_))))));
    gate.open();
    publication.await.expect("no panic").expect("published");
    assert_eq!(bed.bucket.content("k").as_deref(), Some(&b"THE base"[..]));
    assert!(writer.is_dirty());
    assert_eq!(bed.pushed(&bed.kept()).await, b"THE base and more");
}

#[tokio::test]
async fn a_copy_that_is_made_during_a_publication_lies_over_what_that_published() {
    let bed = new_bed();
    let (writer, publication, gate) = half_on_its_way(&bed).await;
    let (has_come, go) = bed.hold_keeping();
    let kept = keeping(&writer);
    come(has_come).await;
    gate.open();
    while bed.bucket.content("k").as_deref() != Some(&b"THE base"[..]) {
        tokio::task::yield_now().await;
    }
    go.send(()).expect("it waits");
    publication.await.expect("no panic").expect("published");
    assert!(matches!(kept.await, Ok(Ok(Keep::Kept(Some(_))))));
    assert_eq!(bed.pushed(&bed.kept()).await, b"THE base and more");
}

#[tokio::test]
async fn a_record_shows_of_what_was_published_since_what_it_showed_before_the_file_was_cut() {
    let bed = new_bed();
    let (writer, publication, gate) = half_on_its_way(&bed).await;
    assert!(matches!(keeping(&writer).await, Ok(Ok(Keep::Kept(Some(_))))));
    writer.try_truncate(3).expect("no part was dropped").expect("small");
    gate.open();
    publication.await.expect("no panic").expect("published");
    assert_eq!(bed.pushed(&bed.kept()).await, b"THE base and more");
}

#[tokio::test]
async fn a_record_does_not_go_over_a_part_of_the_file_that_was_published_later() {
    let bed = new_bed();
    let writer = bed.writer(Base::Absent { exclusive: false });
    let mut expected = vec![7; 10 * MIB as usize];
    for part in expected.chunks(MIB as usize).enumerate() {
        writer.write(part.0 as u64 * MIB, Bytes::copy_from_slice(part.1)).await.expect("written");
    }
    writer.0.wait_for_parts().await;
    assert!(writer.free_uploaded());
    written(&writer, 9 * MIB, b"older").await;
    assert!(matches!(keeping(&writer).await, Ok(Ok(Keep::Kept(Some(_))))));
    written(&writer, 9 * MIB, b"newer").await;
    written(&writer, 10 * MIB, b"the end").await;
    // What lies over parts that left memory is published in a second round, which fails; and there is no room for another copy.
    bed.faults.fail_nth(RequestKind::CreateUpload, 1, StoreError::Fatal("no".into()));
    bed.journal.leave_room(0);
    writer.publish().await.map(|published| published.info).expect_err("the second round is refused");
    expected.extend(b"the end");
    assert!(bed.bucket.content("k").expect("it is there") == expected);
    let store: Arc<dyn ObjectStore> = Arc::new(bed.bucket.clone());
    let engine = engine(Arc::clone(&store), WriteLimits::default());
    let pushed = recover::push(&store, &engine, &bed.kept(), false).await;
    assert!(pushed.is_err(), "{pushed:?}");
    assert!(bed.bucket.content("k").expect("it is there") == expected);
    writer.publish().await.expect("published");
    expected[9 * MIB as usize..][..5].copy_from_slice(b"newer");
    assert!(bed.bucket.content("k").expect("it is there") == expected);
    assert!(bed.journal.kept().is_empty());
}

#[tokio::test]
async fn a_push_that_fails_leaves_one_record() {
    let bed = new_bed();
    let writer = bed.writer(Base::Object(bed.bucket.put_directly("k", &b"the base"[..])));
    written(&writer, 0, b"THE").await;
    bed.bucket.put_directly("k", &b"theirs"[..]);
    writer.publish().await.expect_err("another writer was first");
    let kept = bed.kept();
    let store: Arc<dyn ObjectStore> = Arc::new(bed.bucket.clone());
    recover::push(&store, &bed.engine, &kept, false).await.expect_err("another object stands there");
    assert_eq!(bed.kept().id, kept.id);
}

/// The record of a file that was emptied when it was opened, kept so many seconds before now.
async fn kept_without_a_base(bed: &Bed, seconds_ago: i64, emptied: Option<ETag>) -> Kept {
    let now = std::time::SystemTime::now();
    let ago = std::time::Duration::from_secs(seconds_ago.unsigned_abs());
    let clock = Clock::manual(if seconds_ago < 0 { now + ago } else { now - ago });
    let store: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(Arc::new(bed.bucket.clone()), bed.faults.clone()));
    let limits = WriteLimits::default();
    let engine = WriteEngine::new(store, PagePool::new(0), limits, Arc::default(), clock, bed.journal.clone());
    bed.refuse_puts();
    let attributes = ObjectAttributes::default();
    let writer = engine.writer(WriteTarget { key: "k".into(), base: Base::Truncated(emptied), attributes });
    written(&writer, 0, b"bytes").await;
    writer.publish().await.expect_err("refused");
    bed.kept()
}

#[tokio::test]
async fn a_push_replaces_what_was_there_before_and_not_what_came_since() {
    let bed = new_bed();
    let kept = kept_without_a_base(&bed, 0, None).await;
    assert_eq!(bed.pushed(&kept).await, b"bytes", "nothing was there");

    let bed = new_bed();
    bed.bucket.put_directly("k", &b"older and longer"[..]);
    let kept = kept_without_a_base(&bed, -3600, None).await;
    assert_eq!(bed.pushed(&kept).await, b"bytes");

    let bed = new_bed();
    let kept = kept_without_a_base(&bed, 3600, None).await;
    bed.bucket.put_directly("k", &b"newer"[..]);
    let store: Arc<dyn ObjectStore> = Arc::new(bed.bucket.clone());
    let engine = engine(Arc::clone(&store), WriteLimits::default());
    let pushed = recover::push(&store, &engine, &kept, false).await;
    assert!(matches!(pushed, Err(recover::RecoverError::Conflict)), "{pushed:?}");
    assert_eq!(bed.bucket.content("k").as_deref(), Some(&b"newer"[..]));
    recover::push(&store, &engine, &kept, true).await.expect("forced");
    assert_eq!(bed.bucket.content("k").as_deref(), Some(&b"bytes"[..]));
}

/// Whether a push without force is refused, and leaves what is there.
async fn is_refused(bed: &Bed, kept: &Kept) -> bool {
    let (store, before): (Arc<dyn ObjectStore>, _) = (Arc::new(bed.bucket.clone()), bed.bucket.content("k"));
    let pushed = recover::push(&store, &engine(Arc::clone(&store), WriteLimits::default()), kept, false).await;
    let refused = matches!(pushed, Err(recover::RecoverError::Conflict));
    assert_eq!(refused, bed.bucket.content("k") == before);
    refused
}

#[tokio::test]
async fn a_push_replaces_the_object_that_was_emptied_and_no_other_whatever_the_time_is() {
    let bed = new_bed();
    let emptied = bed.bucket.put_directly("k", &b"emptied"[..]).etag().clone();
    let kept = kept_without_a_base(&bed, 3600, Some(emptied.clone())).await;
    assert_eq!(bed.pushed(&kept).await, b"bytes");

    let bed = new_bed();
    bed.bucket.put_directly("k", &b"another's"[..]);
    let kept = kept_without_a_base(&bed, -3600, Some(emptied)).await;
    assert!(is_refused(&bed, &kept).await);
}

#[tokio::test]
async fn a_push_does_not_replace_what_may_be_newer_than_its_time_says() {
    // Another clock than S3's may be wrong by so much.
    let bed = new_bed();
    bed.bucket.put_directly("k", &b"another's"[..]);
    for seconds in [0, -600] {
        let kept = kept_without_a_base(&bed, seconds, None).await;
        assert!(is_refused(&bed, &kept).await);
        bed.journal.discard(&kept.id).expect("it is there");
    }
    // An upload that was begun before the record may have been completed after it.
    let bed = new_bed();
    let writer = bed.writer(Base::Absent { exclusive: true });
    writer.write(0, vec![7; 9 * MIB as usize].into()).await.expect("written");
    writer.publish().await.expect("published");
    let kept = kept_without_a_base(&bed, -3600, None).await;
    assert!(is_refused(&bed, &kept).await);
}

#[test]
fn what_was_discarded_is_gone_at_once_and_its_room_by_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("a journal");
    // A process that ended in the midst of it.
    let left = dir.path().join("discarded-1-2");
    std::fs::create_dir(&left).and_then(|()| std::fs::write(left.join("data"), "bytes")).expect("room");
    assert!(journal.kept().is_empty());
    Journal::open(dir.path()).expect("a journal");
    assert!(!left.exists());
}
