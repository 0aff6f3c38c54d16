//! Facts.

use super::*;

fn room(budget_bytes: u64, spill: Option<Spill>) -> Room {
    let (pool, budget) = (PagePool::new(4 * PAGE_BYTES), Budget::new(budget_bytes));
    Room { pool, budget, spill, overdraft: Overdraft::default(), overdraft_bytes_max: 4 * PAGE }
}

fn staging(budget_bytes: u64) -> Staging {
    Staging::new(room(budget_bytes, None))
}

fn spill() -> Spill {
    Spill::in_dir(&std::env::temp_dir()).expect("a file")
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    let read = pieces.iter().map(|piece| match piece {
        Piece::Staged(bytes) => bytes.clone(),
        Piece::Spilled(range) => range.read().expect("reads"),
        other => panic!("not staged: {other:?}"),
    });
    read.collect::<Vec<_>>().concat()
}

#[test]
fn an_upload_keeps_the_bytes_that_it_began_with() {
    let mut staging = staging(8 << 20);
    for data in [vec![1; 1000], vec![1; PAGE_BYTES]] {
        let range = ByteRange::of_len(0, data.len() as u64);
        staging.reserve(range, Over::Nothing, &mut None).expect("within the budget");
        staging.write(0, &data, 1).expect("memory");
        let shared = staging.share(range);
        staging.write(10, &[2; 5], 2).expect("memory");
        assert!(bytes(&shared).iter().all(|&byte| byte == 1));
        assert_eq!(&bytes(&staging.share(range))[9..16], &[1, 2, 2, 2, 2, 2, 1]);
    }
}

#[test]
fn pages_over_the_budget_are_refused_or_overdrawn() {
    let mut staging = staging(2 * PAGE);
    let more = ByteRange::of_len(2 * PAGE, 1);
    assert!(staging.reserve(ByteRange::new(0, 2 * PAGE), Over::Nothing, &mut None).is_ok());
    assert!(staging.reserve(more, Over::Nothing, &mut None).is_err());
    assert!(staging.reserve(more, Over::Disk, &mut None).is_err(), "there is no disk");
    assert!(staging.reserve(more, Over::DiskOrMemory(0), &mut None).is_ok());
    assert!(
        staging.reserve(ByteRange::of_len(3 * PAGE, 4 * PAGE), Over::DiskOrMemory(0), &mut None).is_err(),
        "by so much"
    );
    assert!(
        staging.reserve(ByteRange::of_len(3 * PAGE, 4 * PAGE), Over::DiskOrMemory(5 * PAGE), &mut None).is_ok(),
        "or by more"
    );
    assert_eq!(staging.room.memory_bytes(), 7 * PAGE);
    staging.truncate(0);
    assert_eq!(staging.room.memory_bytes(), 0);
}

#[test]
fn where_the_disk_is_full_a_file_that_can_be_uploaded_overdraws_memory() {
    let spill = spill().of_pages(1);
    let mut staging = Staging::new(room(PAGE, Some(spill.clone())));
    let all = ByteRange::new(0, 4 * PAGE);
    assert!(staging.reserve(all, Over::Disk, &mut None).is_err());
    staging.reserve(all, Over::DiskOrMemory(0), &mut None).expect("memory");
    assert_eq!(spill.used_bytes(), PAGE);
    staging.write(0, &vec![1; 4 * PAGE_BYTES], 1).expect("writes");
    let shared = staging.share(all);
    staging.write(PAGE + 10, &[2; 5], 2).expect("a copy in memory");
    assert!(bytes(&shared).iter().all(|&byte| byte == 1));
    assert_eq!(&bytes(&staging.share(all))[PAGE_BYTES + 9..][..7], &[1, 2, 2, 2, 2, 2, 1]);
}

#[test]
fn what_is_within_the_budget_takes_no_disk() {
    let spill = spill().of_pages(0);
    let mut staging = Staging::new(room(64 << 20, Some(spill.clone())));
    let all = ByteRange::new(0, 64 << 20);
    staging.reserve(all, Over::Disk, &mut None).expect("within the budget");
    for at in (0..64 << 20).step_by(128 << 10) {
        staging.write(at, &[3; 128 << 10], 1).expect("memory");
        assert_eq!(spill.used_bytes(), 0);
    }
    assert!(!spill.has_refused(), "it was not even asked");
    assert!(!staging.is_on_disk(all));
}

#[test]
fn what_goes_over_the_budget_is_on_local_disk() {
    let spill = spill();
    let mut staging = Staging::new(room(PAGE, Some(spill.clone())));
    let all = ByteRange::new(0, 3 * PAGE);
    staging.reserve(all, Over::Disk, &mut None).expect("room on the disk");
    assert_eq!(spill.used_bytes(), 2 * PAGE);
    assert!(!staging.is_on_disk(ByteRange::new(0, PAGE)) && staging.is_on_disk(ByteRange::new(PAGE - 1, PAGE + 1)));
    staging.write(0, &vec![1; 3 * PAGE_BYTES], 1).expect("writes");
    let shared = staging.share(all);
    staging.write(PAGE + 10, &[2; 5], 2).expect("writes");
    assert!(bytes(&shared).iter().all(|&byte| byte == 1), "an upload keeps the bytes that it began with");
    assert_eq!(&bytes(&staging.share(all))[PAGE_BYTES + 9..][..7], &[1, 2, 2, 2, 2, 2, 1]);
    assert_eq!(spill.used_bytes(), 3 * PAGE, "the copy, as long as the upload goes on");
    drop(shared);
    assert_eq!(spill.used_bytes(), 2 * PAGE);
    let blocks = staging.release(2, 3 * PAGE, &RangeSet::default());
    assert_eq!(blocks.into_iter().map(|(index, _)| index).collect::<Vec<_>>(), [0], "for a cache in memory");
    assert_eq!(spill.used_bytes(), 0);
}

#[test]
fn a_small_file_takes_little_more_than_its_bytes() {
    let mut staging = staging(8 << 20);
    staging.reserve(ByteRange::new(0, 100), Over::Nothing, &mut None).expect("within the budget");
    staging.write(0, &[7; 100], 1).expect("memory");
    let Place::Memory(buffer, _) = &staging.pages[&0].place else { panic!("it fits") };
    assert!(matches!(&**buffer, Buffer::Small(bytes) if bytes.capacity() < 4096));
}
