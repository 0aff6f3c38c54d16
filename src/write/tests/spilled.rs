//! Facts about unpublished bytes on local disk.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::*;
use crate::store::StoreError;

const KIB: u64 = 1 << 10;

/// An engine whose budget has room for one page, with its bucket, the faults of that, and its journal.
struct Bed {
    bucket: MemoryStore,
    faults: Faults,
    engine: WriteEngine,
    journal: Journal,
    spill: Spill,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self::with(Spill::in_dir(&std::env::temp_dir()).expect("a file"))
    }

    fn with(spill: Spill) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        let (bucket, faults) = (MemoryStore::with_part_bytes_min(1), Faults::seeded(0));
        let store = Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults.clone()));
        let limits =
            WriteLimits { staging_bytes: 2 * MIB, part_bytes: 8 * MIB, single_put_bytes_max: 8 * MIB, uploads_max: 2 };
        let engine =
            WriteEngine::new(store, PagePool::new(0), limits, Arc::default(), Clock::system(), journal.clone());
        Self { bucket, faults, engine: engine.spilling_to(spill.clone()), journal, spill, _dir: dir }
    }

    fn writer(&self) -> Writer {
        let base = Base::Absent { exclusive: false };
        self.engine.writer(WriteTarget { key: "k".into(), base, attributes: ObjectAttributes::default() })
    }
}

async fn read(writer: &Writer, range: ByteRange) -> Result<Vec<u8>, WriteError> {
    let pieces = load(writer.pieces(range)).await?.into_iter().map(|piece| match piece {
        Piece::Staged(bytes) => bytes.to_vec(),
        Piece::Zeros(len) => vec![0; len as usize],
        other => panic!("{other:?}"),
    });
    Ok(pieces.collect::<Vec<_>>().concat())
}

#[tokio::test]
async fn seventy_thousand_ranges_on_disk_are_read_kept_and_published() {
    const RANGES: u64 = 70_000;
    let bed = Bed::new();
    let writer = bed.writer();
    let mut expected = vec![0; (RANGES * 4 * KIB) as usize];
    for nth in 0..RANGES {
        let (at, bytes) = (nth * 4 * KIB + 100, [nth as u8 | 1; 16]);
        expected[at as usize..][..16].copy_from_slice(&bytes);
        writer.write(at, Bytes::copy_from_slice(&bytes)).await.expect("written");
    }
    expected.truncate(((RANGES - 1) * 4 * KIB + 116) as usize);
    assert!(bed.spill.used_bytes() > 270 * MIB);
    let middle = 5 * MIB + 50..6 * MIB + 50;
    let found = read(&writer, ByteRange::new(middle.start, middle.end)).await.expect("read");
    assert!(found == expected[middle.start as usize..middle.end as usize]);

    bed.faults.add(Rule::new(Fault::Before(StoreError::Fatal("no".into()))).on(RequestKind::CompleteUpload));
    writer.publish().await.expect_err("it is refused");
    let kept = bed.journal.kept().pop().expect("it is kept");
    let intent = kept.intent.as_ref().expect("whole");
    assert_eq!(intent.ranges.len() as u64, RANGES);
    kept.verify().expect("what was written");
    assert!(std::fs::read(&kept.data).expect("a file") == expected);

    bed.faults.clear();
    writer.publish().await.expect("published");
    assert!(bed.bucket.content("k").expect("it is there") == expected);
    assert_eq!((bed.spill.used_bytes(), bed.journal.kept().len()), (0, 0));
}

#[tokio::test]
async fn an_upload_from_disk_sends_what_was_there_when_it_began() {
    let bed = Bed::new();
    let gate = Gate::closed();
    bed.faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::UploadPart));
    let writer = bed.writer();
    // The third part waits for its turn, and has read nothing yet.
    let old = vec![1; 20 * MIB as usize];
    for at in (0..20).rev() {
        writer.write(at * MIB, Bytes::copy_from_slice(&old[..MIB as usize])).await.expect("written");
    }
    let publishing = tokio::spawn({
        let writer = writer.clone();
        async move { writer.publish().await }
    });
    while gate_waits(&gate).await {}
    for at in (0..20).rev() {
        writer.write(at * MIB + 7, Bytes::from_static(b"new")).await.expect("written");
    }
    gate.open();
    publishing.await.expect("no panic").expect("published");
    assert!(bed.bucket.content("k").expect("it is there") == old);
    writer.publish().await.expect("published");
    let mut new = old;
    (0..20).for_each(|at| new[at * MIB as usize + 7..][..3].copy_from_slice(b"new"));
    assert!(bed.bucket.content("k").expect("it is there") == new);
}

/// Whether nobody has come to the gate yet.
async fn gate_waits(gate: &Gate) -> bool {
    tokio::time::timeout(Duration::from_millis(10), gate.arrived(1)).await.is_err()
}

#[tokio::test]
async fn what_the_disk_lost_is_neither_read_nor_published_nor_kept() {
    let bed = Bed::new();
    let writer = bed.writer();
    for at in [9 * MIB, 3 * MIB, 20 * MIB] {
        writer.write(at, Bytes::from_static(b"bytes")).await.expect("written");
    }
    bed.spill.lose_everything();
    let read = read(&writer, ByteRange::of_len(3 * MIB, 5)).await;
    assert!(matches!(read, Err(WriteError::Spill(_))), "{read:?}");
    let published = writer.publish().await;
    assert!(matches!(published, Err(WriteError::Spill(_))), "{published:?}");
    assert!(writer.keep("test").is_err());
    assert!(bed.journal.kept().is_empty() && bed.bucket.keys().is_empty());
    assert!(writer.is_dirty());
}

#[tokio::test]
async fn where_the_disk_is_full_streams_go_on_and_unlinked_files_are_refused() {
    let bed = Bed::with(Spill::in_dir(&std::env::temp_dir()).expect("a file").of_pages(1));
    let content: Vec<u8> = (0..30 * MIB).map(|at| (at % 251) as u8).collect();
    let (stream, unlinked) = (bed.writer(), bed.writer());
    for (nth, bytes) in content.chunks(MIB as usize).enumerate() {
        stream.write(nth as u64 * MIB, Bytes::copy_from_slice(bytes)).await.expect("written");
    }
    unlinked.abandon().await;
    let refused = unlinked.write(0, Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(WriteError::NoSpace)), "{refused:?}");
    stream.publish().await.expect("published");
    assert!(bed.bucket.content("k").expect("it is there") == content);
    unlinked.write(0, Bytes::from_static(b"x")).await.expect("there is room again");
}

#[tokio::test]
async fn without_local_disk_an_unlinked_file_is_refused_what_memory_has_no_room_for() {
    let limits = WriteLimits { staging_bytes: 2 * MIB, part_bytes: MIB, single_put_bytes_max: MIB, uploads_max: 1 };
    let engine = engine(Arc::new(MemoryStore::new()), limits);
    let base = Base::Absent { exclusive: false };
    let writer = engine.writer(WriteTarget { key: "k".into(), base, attributes: ObjectAttributes::default() });
    writer.abandon().await;
    writer.write(0, Bytes::from_static(b"x")).await.expect("within the budget");
    let refused = writer.write(MIB, Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(WriteError::NoSpace)), "{refused:?}");
}

/// A file whose one page takes all memory there is, on its way to S3, and another that is unlinked and wants some.
async fn one_on_its_way_and_one_unlinked(bed: &Bed) -> (Gate, JoinHandle<Result<Published, WriteError>>, [Writer; 2]) {
    let gate = Gate::closed();
    bed.faults.add(Rule::new(Fault::Hold(gate.clone())).on(RequestKind::Put));
    let base = Base::Absent { exclusive: true };
    let target = WriteTarget { key: "k".into(), base, attributes: ObjectAttributes::default() };
    let (first, unlinked) = (bed.engine.writer(target), bed.writer());
    first.write(0, Bytes::from_static(b"x")).await.expect("within the budget");
    unlinked.abandon().await;
    let publication = first.clone();
    let publishing = tokio::spawn(async move { publication.publish().await });
    gate.arrived(1).await;
    (gate, publishing, [first, unlinked])
}

fn writing(writer: &Writer) -> JoinHandle<Result<(), WriteError>> {
    let writer = writer.clone();
    tokio::spawn(async move { writer.write(0, Bytes::from_static(b"temporary")).await })
}

#[tokio::test]
async fn an_unlinked_file_waits_for_memory_as_long_as_something_is_on_its_way_to_s3() {
    let bed = Bed::with(Spill::in_dir(&std::env::temp_dir()).expect("a file").of_pages(0));
    let (gate, publishing, [_first, unlinked]) = one_on_its_way_and_one_unlinked(&bed).await;
    let mut writing = writing(&unlinked);
    while !bed.spill.has_refused() {
        tokio::task::yield_now().await;
    }
    let answer = tokio::time::timeout(Duration::from_millis(50), &mut writing).await;
    assert!(answer.is_err(), "it waits: {answer:?}");
    gate.open();
    publishing.await.expect("no panic").expect("published");
    writing.await.expect("no panic").expect("there is room now");
    assert_eq!(read(&unlinked, ByteRange::new(0, 9)).await.expect("read"), b"temporary");
}

#[tokio::test]
async fn who_waited_for_memory_has_it_also_where_its_other_pages_are_on_disk() {
    let bed = Bed::with(Spill::in_dir(&std::env::temp_dir()).expect("a file").of_pages(1));
    let (gate, publishing, [_first, unlinked]) = one_on_its_way_and_one_unlinked(&bed).await;
    unlinked.write(0, Bytes::from_static(b"x")).await.expect("on disk");
    let writing = tokio::spawn({
        let writer = unlinked.clone();
        async move { writer.write(MIB - 4, Bytes::from_static(b"temporary")).await }
    });
    while !bed.spill.has_refused() {
        tokio::task::yield_now().await;
    }
    gate.open();
    publishing.await.expect("no panic").expect("published");
    writing.await.expect("no panic").expect("there is room now");
    assert_eq!(read(&unlinked, ByteRange::of_len(MIB - 4, 9)).await.expect("read"), b"temporary");
}

#[tokio::test]
async fn who_waits_for_memory_keeps_the_place_in_line_when_room_elsewhere_went_to_others() {
    let bed = Bed::new();
    let [first, second] = [bed.writer(), bed.writer()];
    let used = first.0.shared.room.budget.try_take(MIB).expect("all of it");
    let [elsewhere, _under_way] = [bed.engine.draining(), bed.engine.draining()];
    let (mut turn, mut later) = (None, None);
    {
        let mut first_wait = Box::pin(first.0.more_room(&mut turn));
        let mut second_wait = Box::pin(second.0.more_room(&mut later));
        assert!(first_wait.as_mut().now_or_never().is_none());
        assert!(second_wait.as_mut().now_or_never().is_none());
        elsewhere.freed();
        assert!(matches!(first_wait.await, Some(None)));
        assert!(matches!(second_wait.await, Some(None)));
    }
    let mut second_wait = Box::pin(second.0.more_room(&mut later));
    assert!(second_wait.as_mut().now_or_never().is_none());
    let mut first_wait = Box::pin(first.0.more_room(&mut turn));
    assert!(first_wait.as_mut().now_or_never().is_none());
    drop(used);
    assert!(second_wait.as_mut().now_or_never().is_none(), "it came later");
    assert!(matches!(first_wait.await, Some(Some(_))));
    assert!(matches!(second_wait.await, Some(Some(_))), "the first has let it go");
}

#[tokio::test]
async fn an_unlinked_file_is_refused_when_what_was_on_its_way_made_no_room() {
    let bed = Bed::with(Spill::in_dir(&std::env::temp_dir()).expect("a file").of_pages(0));
    let (gate, publishing, [_first, unlinked]) = one_on_its_way_and_one_unlinked(&bed).await;
    let writing = writing(&unlinked);
    while !bed.spill.has_refused() {
        tokio::task::yield_now().await;
    }
    // It was to be new.
    bed.bucket.put_directly("k", &b"theirs"[..]);
    gate.open();
    publishing.await.expect("no panic").expect_err("another writer was first");
    let refused = writing.await.expect("no panic");
    assert!(matches!(refused, Err(WriteError::NoSpace)), "{refused:?}");
}

#[tokio::test]
async fn beyond_the_budget_the_disk_and_the_overdraft_writes_are_refused() {
    let bed = Bed::with(Spill::in_dir(&std::env::temp_dir()).expect("a file").of_pages(1));
    // A page of the budget, one on disk, and as much beyond as one stream needs: its part, and pages across its borders.
    let files: Vec<_> = (0..12).map(|_| bed.writer()).collect();
    for file in &files {
        file.write(0, Bytes::from_static(b"x")).await.expect("room");
    }
    let one_more = bed.writer();
    let refused = one_more.write(0, Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(WriteError::NoSpace)), "{refused:?}");
    assert_eq!((bed.engine.staged_bytes(), bed.engine.spilled_bytes()), (11 * MIB, MIB));
    files[11].publish().await.expect("published");
    one_more.write(0, Bytes::from_static(b"x")).await.expect("there is room now");
    drop((files, one_more));
    assert_eq!((bed.engine.staged_bytes(), bed.engine.spilled_bytes()), (0, 0));
}
