//! Facts.

use std::os::unix::fs::MetadataExt;

use super::*;

fn spill() -> Spill {
    Spill::in_dir(&std::env::temp_dir()).expect("a file")
}

fn on_disk(spill: &Spill) -> u64 {
    spill.0.settle();
    spill.0.file.metadata().expect("a file").blocks() * 512
}

#[test]
fn pages_hold_what_was_written_apart_from_each_other() {
    let spill = spill();
    let mut pages: Vec<_> = (0..4).map(|_| spill.take(0).expect("room")).collect();
    for (n, page) in pages.iter_mut().enumerate() {
        page.write(3, &[n as u8 + 1; 5000]).expect("writes");
        page.write(PAGE_BYTES - 10, &[n as u8 + 1; 10]).expect("writes");
        page.write(4090, &[9; 12]).expect("writes");
    }
    for (n, page) in pages.iter().enumerate() {
        let (mut expected, old) = ([n as u8 + 1; 5000], n as u8 + 1);
        expected[4087..4099].fill(9);
        assert!(page.read(3..5003).expect("reads") == expected);
        assert_eq!(page.read(PAGE_BYTES - 10..PAGE_BYTES).expect("reads"), [old; 10]);
        assert_eq!(page.written(), 0..PAGE_BYTES);
    }
}

#[test]
fn a_copy_is_apart_from_what_it_was_copied_from() {
    let spill = spill();
    let (mut page, mut copy) = (spill.take(0).expect("room"), spill.take(0).expect("room"));
    page.write(10_000, &[1; 100]).expect("writes");
    copy.copy_from(&page).expect("copies");
    page.write(10_050, &[2; 100]).expect("writes");
    assert_eq!(copy.read(10_000..10_100).expect("reads"), [1; 100]);
    assert_eq!(copy.written(), 8192..12_288);
    let (mut empty, nothing) = (spill.take(0).expect("room"), spill.take(0).expect("room"));
    empty.copy_from(&nothing).expect("nothing to copy");
    assert!(empty.written().is_empty());
}

#[test]
fn what_the_disk_lost_is_an_error_and_no_zeros() {
    let spill = spill();
    let mut page = spill.take(0).expect("room");
    page.write(100, &[7; 10]).expect("writes");
    spill.lose_everything();
    assert_eq!(page.read(100..110).expect_err("lost").kind(), io::ErrorKind::InvalidData);
    assert!(page.write(105, &[8; 10]).is_err(), "half a block is no good without its other half");
    page.write(0, &[8; BLOCK_BYTES]).expect("a whole one is");
    assert_eq!(page.read(100..110).expect("reads"), [8; 10]);
}

#[test]
fn what_is_dropped_gives_its_room_back() {
    let spill = spill();
    let mut pages: Vec<_> = (0..40).map(|_| spill.take(0).expect("room")).collect();
    pages.iter_mut().for_each(|page| page.write(0, &[7; PAGE_BYTES]).expect("writes"));
    assert_eq!(spill.used_bytes(), 40 << 20);
    assert!(on_disk(&spill) >= 40 << 20);
    pages.truncate(2);
    assert_eq!(spill.used_bytes(), 2 << 20);
    assert!(on_disk(&spill) < 20 << 20, "but for a few");
    pages.extend((0..38).map(|_| spill.take(0).expect("room")));
    assert_eq!(pages.iter().map(|page| page.slot).max(), Some(39), "slots are taken again");
    assert!(pages[39].written().is_empty());
    pages.clear();
    assert!(on_disk(&spill) < 1 << 20);
}

#[test]
fn a_file_system_that_reserves_nothing_gives_all_room_back_with_the_last_page() {
    let mut spill = spill();
    Arc::get_mut(&mut spill.0).expect("alone").reserves = false;
    let mut pages: Vec<_> = (0..20).map(|_| spill.take(0).expect("room")).collect();
    pages.iter_mut().for_each(|page| page.write(0, &[7; PAGE_BYTES]).expect("writes"));
    pages.truncate(1);
    assert!(on_disk(&spill) >= 20 << 20);
    assert_eq!(pages[0].read(0..10).expect("reads"), [7; 10]);
    pages.clear();
    assert!(on_disk(&spill) < 1 << 20);
    let mut again = spill.take(0).expect("room");
    again.write(5, &[1]).expect("writes");
    assert_eq!((again.slot, again.read(5..6).expect("reads")), (0, vec![1]));
}

#[test]
fn a_disk_that_is_full_refuses_until_a_page_comes_back() {
    let spill = spill().of_pages(2);
    let pages = [spill.take(0).expect("room"), spill.take(0).expect("room")];
    assert_eq!(spill.take(0).expect_err("full").kind(), io::ErrorKind::StorageFull);
    assert!(spill.has_refused());
    drop(pages);
    spill.take(0).expect("room");
    assert!(!spill.has_refused());
}

#[test]
fn no_more_is_taken_than_could_be_kept() {
    // Nothing can be kept on it.
    let spill = spill().kept_in(Path::new("/proc")).expect("a directory");
    assert_eq!(spill.take(0).expect_err("full").kind(), io::ErrorKind::StorageFull);
    let spill = self::spill().kept_in(&std::env::temp_dir()).expect("a directory");
    spill.take(0).expect("room");
}
