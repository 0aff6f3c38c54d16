//! Facts: records with an unfinished upload become the file that was written.

use std::sync::Arc;

use super::*;
use crate::clock::Clock;
use crate::config::WriteLimits;
use crate::memory::{PagePool, Spill};
use crate::metrics::RequestKind;
use crate::store::faulty::{Fault, FaultyStore, Rule};
use crate::write::tests::bed::Bed;
use crate::write::{Journal, Writer};

const MIB: u64 = 1 << 20;

/// Parts of 1 MiB, which leave memory once the server has them and more than two are staged.
const LIMITS: WriteLimits =
    WriteLimits { staging_bytes: 4 * MIB, part_bytes: MIB, single_put_bytes_max: 0, uploads_max: 4 };

fn engine(store: Arc<dyn ObjectStore>, journal: Journal) -> WriteEngine {
    WriteEngine::new(store, PagePool::new(0), LIMITS, Arc::default(), Clock::system(), journal)
}

impl Bed {
    /// Publishes in vain, gives the file up as its last close does, and answers what is kept.
    async fn fail(&self, writer: Writer) -> Kept {
        let refused = Fault::Before(StoreError::Fatal("refused".into()));
        self.faults.add(Rule::new(refused).on(RequestKind::CompleteUpload));
        writer.publish().await.expect_err("no upload is completed");
        writer.keep("test").expect("there is room");
        drop(writer);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.faults.clear();
        let kept = self.journal.kept().pop().expect("it is kept");
        assert!(kept.intent.as_ref().is_some_and(|intent| intent.upload.is_some()), "{kept:?}");
        assert_eq!(self.bucket.uploads_pending(), 1, "the upload is needed");
        kept
    }

    async fn push(&self, kept: &Kept) -> Result<ObjectInfo, RecoverError> {
        let store: Arc<dyn ObjectStore> = Arc::new(self.bucket.clone());
        push(&store, &engine(Arc::clone(&store), self.journal.clone()), kept, false).await
    }

    async fn push_gives(&self, kept: &Kept, expected: &[u8]) {
        self.push(kept).await.expect("pushed");
        let content = self.bucket.content("k").expect("it is there");
        assert!(content == expected, "the object is not what was written");
        assert_eq!(self.bucket.uploads_pending(), 0);
    }
}

async fn write(writer: &Writer, expected: &mut Vec<u8>, offset: u64, data: Vec<u8>) {
    let (start, end) = (offset as usize, offset as usize + data.len());
    expected.resize(expected.len().max(end), 0);
    expected[start..end].copy_from_slice(&data);
    writer.write(offset, data.into()).await.expect("written");
    writer.0.wait_for_parts().await;
}

#[tokio::test]
async fn bytes_here_and_there_are_pushed_however_many_pages_they_touch() {
    let bed = Bed::with(LIMITS);
    let (info, mut expected) = base(&bed);
    bed.faults.add(Rule::new(Fault::Before(StoreError::Fatal("refused".into()))).on(RequestKind::CreateUpload));
    let store = Arc::new(FaultyStore::new(Arc::new(bed.bucket.clone()), bed.faults.clone()));
    let spill = Spill::in_dir(&std::env::temp_dir()).expect("a file");
    let engine = engine(store, bed.journal.clone()).spilling_to(spill);
    let target = WriteTarget { key: "k".into(), base: Base::Object(info), attributes: ObjectAttributes::default() };
    let writer = engine.writer(target);
    // More than budget and overdraft of the push have room for.
    for page in 0..50 {
        write(&writer, &mut expected, page * MIB + 17, vec![page as u8; 10]).await;
    }
    writer.publish().await.expect_err("refused");
    drop(writer);
    let kept = bed.journal.kept().pop().expect("it is kept");
    bed.push_gives(&kept, &expected).await;
}

fn part(fill: u8) -> Vec<u8> {
    vec![fill; MIB as usize]
}

async fn three_parts(bed: &Bed) -> (Writer, Vec<u8>) {
    let (writer, mut expected) = (bed.writer(Base::Absent { exclusive: false }), Vec::new());
    for number in 0..3 {
        write(&writer, &mut expected, number * MIB, part(1 + number as u8)).await;
    }
    (writer, expected)
}

#[tokio::test]
async fn a_header_rewritten_over_an_uploaded_part_is_pushed() {
    let bed = Bed::with(LIMITS);
    let (writer, mut expected) = three_parts(&bed).await;
    write(&writer, &mut expected, 0, vec![9; 100]).await;
    let kept = bed.fail(writer).await;
    bed.push_gives(&kept, &expected).await;
}

#[tokio::test]
async fn a_push_that_failed_over_its_completed_upload_can_be_repeated() {
    let bed = Bed::with(LIMITS);
    let (writer, mut expected) = three_parts(&bed).await;
    write(&writer, &mut expected, 0, vec![9; 100]).await;
    let kept = bed.fail(writer).await;
    // The overlay's own upload is refused.
    bed.faults.add(Rule::new(Fault::Before(StoreError::Fatal("refused".into()))).on(RequestKind::CreateUpload));
    let store: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(Arc::new(bed.bucket.clone()), bed.faults.clone()));
    let failed = push(&store, &engine(Arc::clone(&store), Journal::disabled()), &kept, false).await;
    assert!(failed.is_err());
    let kept = bed.journal.kept().into_iter().find(|again| again.id == kept.id).expect("it is still kept");
    bed.push_gives(&kept, &expected).await;
}

#[tokio::test]
async fn a_part_that_was_not_uploaded_keeps_its_place_when_pushed() {
    let bed = Bed::with(LIMITS);
    let refused = Fault::Before(StoreError::Fatal("refused".into()));
    bed.faults.add(Rule::new(refused).on(RequestKind::UploadPart).after(1).times(1));
    let (writer, expected) = three_parts(&bed).await;
    let kept = bed.fail(writer).await;
    bed.push_gives(&kept, &expected).await;
}

fn base(bed: &Bed) -> (ObjectInfo, Vec<u8>) {
    let content: Vec<u8> = (0..4 * MIB + MIB / 2).map(|at| (at / 1000) as u8).collect();
    (bed.bucket.put_directly("k", content.clone()), content)
}

/// A few bytes here and there, one of them behind the end, and a whole part, which is uploaded.
async fn edited(bed: &Bed, info: ObjectInfo, expected: &mut Vec<u8>) -> Writer {
    let writer = bed.writer(Base::Object(info));
    write(&writer, expected, 3 * MIB + 17, vec![8; 10]).await;
    write(&writer, expected, 5 * MIB + MIB / 2, vec![9; 10]).await;
    write(&writer, expected, MIB, part(7)).await;
    writer
}

#[tokio::test]
async fn an_edited_object_keeps_its_other_bytes_when_pushed() {
    let bed = Bed::with(LIMITS);
    let (info, mut expected) = base(&bed);
    let writer = edited(&bed, info, &mut expected).await;
    let kept = bed.fail(writer).await;
    bed.push_gives(&kept, &expected).await;
}

#[tokio::test]
async fn an_edit_of_an_object_that_is_gone_is_not_pushed_and_stays_kept() {
    let bed = Bed::with(LIMITS);
    let (info, mut expected) = base(&bed);
    let writer = edited(&bed, info, &mut expected).await;
    let kept = bed.fail(writer).await;
    bed.bucket.put_directly("k", "another's");
    let refused = bed.push(&kept).await.expect_err("its bytes are gone");
    assert!(matches!(refused, RecoverError::BaseGone), "{refused}");
    assert_eq!(bed.bucket.content("k").as_deref(), Some(&b"another's"[..]));
    assert_eq!(bed.journal.kept().len(), 1);
}

#[tokio::test]
async fn a_discarded_record_leaves_no_upload_behind() {
    let bed = Bed::with(LIMITS);
    let (writer, _) = three_parts(&bed).await;
    let kept = bed.fail(writer).await;
    assert!(abort(&bed.bucket, &kept).await.expect("S3 answers"));
    assert_eq!(bed.bucket.uploads_pending(), 0);
    let refused = bed.push(&kept).await.expect_err("its parts are gone");
    assert!(matches!(refused, RecoverError::UploadGone), "{refused}");
}

#[tokio::test]
async fn what_is_pushed_has_the_storage_class_that_it_was_to_have() {
    let bed = Bed::with(LIMITS);
    bed.faults.add(Rule::new(Fault::Before(StoreError::Fatal("refused".into()))).on(RequestKind::CreateUpload));
    let store = Arc::new(FaultyStore::new(Arc::new(bed.bucket.clone()), bed.faults.clone()));
    let engine = engine(store, bed.journal.clone());
    let attributes = ObjectAttributes { storage_class: Some("STANDARD_IA".into()), ..ObjectAttributes::default() };
    let base = Base::Absent { exclusive: false };
    let writer = engine.writer(WriteTarget { key: "k".into(), base, attributes });
    let mut expected = Vec::new();
    write(&writer, &mut expected, 0, vec![7; 10]).await;
    writer.publish().await.expect_err("refused");
    drop(writer);
    let kept = bed.journal.kept().pop().expect("it is kept");
    bed.push_gives(&kept, &expected).await;
    let class = bed.bucket.info("k").expect("it is there").storage_class;
    assert_eq!(class.as_deref(), Some("STANDARD_IA"));
}
