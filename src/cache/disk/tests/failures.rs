//! What a failing disk, and damage, do to others than the version that they meet.

use super::*;

#[test]
fn damage_leaves_the_bytes_of_a_file_that_the_kernel_shows_where_they_are() {
    let bench = Bench::new(LIMIT);
    let info = object("shown", 3 * MIB);
    bench.write(&info, whole(&info));
    let shown = bench.cache().whole(&info).expect("whole, and written by this process");
    let at = MIB + 5000;
    let file = File::options().read(true).write(true).open(bench.file(DATA_ENDING)).expect("the file");
    let right = content(&info, whole(&info));
    file.write_all_at(&[right[at as usize] ^ 1], at).expect("our own file");
    assert!(bench.read(&info, whole(&info)).is_none(), "we see it");
    let mut seen = vec![0; right.len()];
    shown.file.read_exact_at(&mut seen, 0).expect("it stays readable");
    let differing: Vec<_> = (0..right.len()).filter(|&at| seen[at] != right[at]).collect();
    assert_eq!(differing, [at as usize], "and nothing else has changed below the kernel");
    assert!(bench.cache().whole(&info).is_none(), "nobody else is shown it");
    assert!(!bench.write(&info, whole(&info)));
    drop(shown);
    assert_eq!(bench.cache().used_bytes(), 0);
    assert!(bench.write(&info, whole(&info)));
    assert!(bench.cache().whole(&info).is_some());
}

#[test]
fn an_object_that_is_too_large_for_the_file_system_stops_nobody_else() {
    let bench = Bench::new(LIMIT);
    let huge = object("huge", 1 << 62);
    // Some file systems hold it.
    bench.write(&huge, ByteRange::new(0, MIB));
    let other = object("other", MIB);
    assert!(bench.write(&other, whole(&other)));
    bench.write(&huge, ByteRange::new(MIB, 2 * MIB));
    assert!(bench.read(&other, whole(&other)).is_some());
    assert!(bench.taken_bytes() <= bench.cache().used_bytes());
}

#[test]
fn what_could_not_be_deleted_counts_until_it_can_be_and_no_longer() {
    let bench = Bench::new(LIMIT);
    let stuck = object("stuck", 20 * MIB);
    bench.write(&stuck, whole(&stuck));
    // A directory is not deleted as a file is.
    let path = bench.file(DATA_ENDING);
    std::fs::remove_file(&path).expect("our own file");
    std::fs::create_dir(&path).expect("free");
    let nth = |n: u32| object(&format!("k{n}"), 2 * MIB);
    let written = (0..100).filter(|&n| bench.write(&nth(n), whole(&nth(n)))).count();
    assert!(written < 25, "the cache is full, and cannot make room");
    assert!(!bench.cache().may_hold(&stuck, whole(&stuck)) && bench.cache().used_bytes() > 20 * MIB);
    std::fs::remove_dir(&path).expect("it is empty");
    bench.clock.advance(std::time::Duration::from_secs(60));
    for n in 100..200 {
        assert!(bench.write(&nth(n), whole(&nth(n))));
        assert!(bench.cache().used_bytes() <= LIMIT);
    }
    let there = (100..200).filter(|&n| bench.cache().may_hold(&nth(n), ByteRange::new(0, 1))).count();
    assert!(there >= 30, "{there} of 31 that fit");
}
