//! The disk tier against a model, damage of every kind, restarts, and the limit.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::types::ObjectVersion;

mod failures;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 << 20;

struct Bench {
    dir: tempfile::TempDir,
    cache: Option<DiskCache>,
    limit_bytes: u64,
    clock: Clock,
}

impl Bench {
    fn new(limit_bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let mut bench = Self { dir, cache: None, limit_bytes, clock };
        bench.restart();
        bench
    }

    /// As after a kill: nothing is said to the old process's cache.
    fn restart(&mut self) -> usize {
        self.cache = None;
        let cache = self.open("source").expect("the lock is free");
        let found = cache.recover();
        self.cache = Some(cache);
        found
    }

    fn open(&self, source: &str) -> io::Result<DiskCache> {
        DiskCache::open(
            &self.dir.path().join("c"),
            source,
            self.limit_bytes,
            Arc::new(Metrics::default()),
            self.clock.clone(),
        )
    }

    fn cache(&self) -> &DiskCache {
        self.cache.as_ref().expect("open")
    }

    /// What is read back of a range, block by block, as a request would; `None` where anything is missing.
    fn read(&self, info: &ObjectInfo, range: ByteRange) -> Option<Vec<u8>> {
        let reader = self.cache().reader(info, range)?;
        let mut all = Vec::new();
        for block in blocks_of(range) {
            let part = range.intersect(&ByteRange::of_len(block * BLOCK_BYTES, BLOCK_BYTES));
            let mut bytes = vec![0xaa; part.len() as usize];
            let count = reader.fill(part.start, &mut bytes);
            assert_eq!(&bytes[..count], &content(info, ByteRange::of_len(part.start, count as u64))[..]);
            if count < bytes.len() {
                return None;
            }
            all.extend(bytes);
        }
        Some(all)
    }

    fn write(&self, info: &ObjectInfo, range: ByteRange) -> bool {
        self.cache().write(info, range.start, &content(info, range))
    }

    fn taken_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.dir.path().join("c")).expect("the directory");
        entries.map(|entry| entry.expect("an entry").metadata().expect("a file").blocks() * 512).sum()
    }

    fn file(&self, ending: &str) -> PathBuf {
        let entries = std::fs::read_dir(self.dir.path().join("c")).expect("the directory");
        let mut paths = entries.map(|entry| entry.expect("an entry").path());
        paths.find(|path| path.extension().is_some_and(|it| it == ending)).expect("one file of each kind")
    }
}

fn object(key: &str, size_bytes: u64) -> ObjectInfo {
    ObjectInfo {
        version: ObjectVersion::new(key.into(), "\"tag\"".into(), None),
        size_bytes,
        last_modified: SystemTime::UNIX_EPOCH,
        metadata: None,
        content_type: None,
        storage_class: None,
        headers: None,
    }
}

/// Bytes that are of this object and this place alone.
fn content(info: &ObjectInfo, range: ByteRange) -> Vec<u8> {
    let salt = info.key().as_str().bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (range.start..range.end).map(|at| ((at ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn whole(info: &ObjectInfo) -> ByteRange {
    ByteRange::new(0, info.size_bytes)
}

#[test]
fn what_was_written_is_read_back_and_nothing_else() {
    let bench = Bench::new(LIMIT);
    let info = object("k", 3 * MIB + 1000);
    assert!(bench.write(&info, ByteRange::new(MIB, 2 * MIB)));
    assert!(bench.read(&info, ByteRange::new(MIB, 2 * MIB)).is_some());
    assert!(bench.read(&info, ByteRange::new(MIB + 5, MIB + 6000)).is_some());
    assert!(bench.read(&info, ByteRange::new(0, MIB)).is_none());
    assert!(bench.read(&info, ByteRange::new(2 * MIB - 1, 2 * MIB + 1)).is_none());
    assert!(bench.cache().holds_block(&info, 1) && !bench.cache().holds_block(&info, 0));
}

#[test]
fn what_a_random_read_brought_is_kept_by_granules() {
    let bench = Bench::new(LIMIT);
    let info = object("k", MIB + 100);
    assert!(bench.write(&info, ByteRange::new(4096 - 10, 4 * 4096 + 10)));
    assert!(bench.read(&info, ByteRange::new(4096, 4 * 4096)).is_some());
    assert!(bench.read(&info, ByteRange::new(4095, 4 * 4096)).is_none());
    assert!(!bench.write(&info, ByteRange::new(5, 4096)), "no granule is filled");
    assert!(bench.write(&info, ByteRange::new(MIB, MIB + 100)), "the last granule ends with the object");
    assert!(bench.read(&info, ByteRange::new(MIB + 7, MIB + 100)).is_some());
}

#[test]
fn another_version_of_the_key_is_another_object() {
    let bench = Bench::new(LIMIT);
    let info = object("k", MIB);
    bench.write(&info, whole(&info));
    let mut other = info.clone();
    other.version = ObjectVersion::new("k".into(), "\"other\"".into(), None);
    assert!(!bench.cache().may_hold(&other, whole(&other)));
    assert!(!bench.cache().may_hold(&object("k", MIB + 1), whole(&info)));
}

#[test]
fn the_cache_is_there_after_a_restart() {
    let mut bench = Bench::new(LIMIT);
    let (one, two) = (object("one", 2 * MIB), object("two", 777));
    bench.write(&one, whole(&one));
    bench.write(&two, whole(&two));
    let used = bench.cache().used_bytes();
    assert_eq!(bench.restart(), 2);
    assert_eq!(bench.cache().used_bytes(), used);
    assert!(bench.read(&one, whole(&one)).is_some());
    assert!(bench.read(&two, whole(&two)).is_some());
}

#[test]
fn a_directory_in_use_is_refused() {
    let bench = Bench::new(LIMIT);
    let error = bench.open("source").expect_err("it is locked");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new(LIMIT);
    bench.cache = None;
    let dir = bench.dir.path().join("c");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).expect("our own directory");
    assert_eq!(bench.open("source").expect_err("others may write").kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn files_of_another_bucket_of_another_format_or_torn_are_dropped_and_strangers_stay() {
    let mut bench = Bench::new(LIMIT);
    let info = object("k", MIB);
    bench.write(&info, whole(&info));
    let (map, data) = (bench.file(MAP_ENDING), bench.file(DATA_ENDING));
    let stranger = bench.dir.path().join("c/notes.data");
    std::fs::write(&stranger, "mine").expect("room");
    let good = std::fs::read(&map).expect("the map");
    let mut newer = good.clone();
    newer[8] += 1;
    for bad in [newer, good[..100].to_vec(), Vec::new()] {
        std::fs::write(&map, bad).expect("our own file");
        assert_eq!(bench.restart(), 0);
        assert!(!map.exists() && !data.exists() && stranger.exists());
        assert_eq!(bench.cache().used_bytes(), 0);
        bench.write(&info, whole(&info));
    }
    bench.cache = None;
    let foreign = bench.open("another source").expect("the lock is free");
    assert_eq!(foreign.recover(), 0);
    assert!(!map.exists() && !data.exists());
}

const MAP_ENDING: &str = super::super::files::MAP;
const DATA_ENDING: &str = super::super::files::DATA;

#[test]
fn a_flipped_bit_anywhere_is_a_miss() {
    let info = object("k", 2 * MIB);
    for (ending, places) in
        [(DATA_ENDING, vec![0, 4095, 5000, 2 * MIB - 1]), (MAP_ENDING, vec![4096, 4099, 5120, 6143])]
    {
        for place in places {
            for restarted in [false, true] {
                let mut bench = Bench::new(LIMIT);
                bench.write(&info, whole(&info));
                let file = File::options().read(true).write(true).open(bench.file(ending)).expect("the file");
                let mut byte = [0];
                file.read_exact_at(&mut byte, place).expect("within the file");
                file.write_all_at(&[byte[0] ^ 0x10], place).expect("our own file");
                if restarted {
                    bench.restart();
                }
                assert!(bench.read(&info, whole(&info)).is_none(), "{ending} {place}");
                // The rest stays, and what was bad is written anew.
                bench.write(&info, whole(&info));
                assert!(bench.read(&info, whole(&info)).is_some(), "{ending} {place}");
            }
        }
    }
}

#[test]
fn truncated_emptied_and_deleted_files_are_misses() {
    let info = object("k", 2 * MIB);
    for ending in [DATA_ENDING, MAP_ENDING] {
        for length in [None, Some(0), Some(4096 + 512), Some(MIB + 5)] {
            for restarted in [false, true] {
                let mut bench = Bench::new(LIMIT);
                bench.write(&info, whole(&info));
                let path = bench.file(ending);
                match length {
                    None => std::fs::remove_file(&path).expect("our own file"),
                    Some(length) => {
                        let file = File::options().write(true).open(&path).expect("the file");
                        file.set_len(length).expect("our own file");
                    }
                }
                if restarted {
                    bench.restart();
                }
                let whole_map = ending == MAP_ENDING && length == Some(MIB + 5);
                assert_eq!(bench.read(&info, whole(&info)).is_some(), whole_map, "{ending} {length:?}");
                bench.write(&info, whole(&info));
                assert!(bench.cache().used_bytes() <= LIMIT);
            }
        }
    }
}

#[test]
fn a_deleted_directory_loses_speed_only() {
    let bench = Bench::new(LIMIT);
    let info = object("k", MIB);
    bench.write(&info, whole(&info));
    std::fs::remove_dir_all(bench.dir.path().join("c")).expect("our own directory");
    assert!(bench.read(&info, whole(&info)).is_none());
    assert!(!bench.write(&info, whole(&info)));
    assert!(!bench.write(&object("l", MIB), whole(&info)));
    assert_eq!(bench.cache().used_bytes(), 0);
}

#[test]
fn the_limit_holds_after_every_write_and_the_oldest_goes_first() {
    let bench = Bench::new(LIMIT);
    for n in 0..100 {
        let info = object(&format!("k{n}"), 2 * MIB);
        assert!(bench.write(&info, whole(&info)));
        assert!(bench.cache().used_bytes() <= LIMIT);
        assert!(bench.taken_bytes() <= bench.cache().used_bytes(), "what files take is counted");
    }
    let there = |n: u32| bench.cache().may_hold(&object(&format!("k{n}"), 2 * MIB), ByteRange::new(0, 1));
    assert!(there(99) && there(75) && !there(60) && !there(0));
}

#[test]
fn an_object_larger_than_the_cache_passes_through_it() {
    let bench = Bench::new(LIMIT);
    let info = object("large", 200 * MIB);
    for block in 0..200 {
        assert!(bench.write(&info, ByteRange::of_len(block * MIB, MIB)));
        assert!(bench.cache().used_bytes() <= LIMIT && bench.taken_bytes() <= LIMIT);
    }
    assert!(bench.read(&info, ByteRange::of_len(199 * MIB, MIB)).is_some());
    assert!(bench.read(&info, ByteRange::of_len(0, MIB)).is_none());
}

#[test]
fn what_is_used_again_stays() {
    let bench = Bench::new(LIMIT);
    let kept = object("kept", MIB);
    bench.write(&kept, whole(&kept));
    for n in 0..200 {
        let info = object(&format!("k{n}"), MIB);
        bench.write(&info, whole(&info));
        assert!(bench.read(&kept, whole(&kept)).is_some());
    }
}

#[test]
fn a_file_that_the_kernel_shows_is_not_evicted_and_counts_until_it_is_let_go() {
    let bench = Bench::new(LIMIT);
    let info = object("shown", 4 * MIB);
    bench.write(&info, ByteRange::new(0, 3 * MIB));
    assert!(bench.cache().whole(&info).is_none(), "not whole yet");
    bench.write(&info, ByteRange::new(3 * MIB, 4 * MIB));
    let shown = bench.cache().whole(&info).expect("whole, and written by this process");
    for n in 0..100 {
        let other = object(&format!("k{n}"), 2 * MIB);
        bench.write(&other, whole(&other));
    }
    assert!(bench.read(&info, whole(&info)).is_some());
    // Its files are lost: it goes on being shown, and being counted.
    std::fs::remove_dir_all(bench.dir.path().join("c")).expect("our own directory");
    for n in 0..100 {
        assert!(bench.read(&object(&format!("k{n}"), 2 * MIB), ByteRange::new(0, 1)).is_none());
    }
    assert!(bench.read(&info, whole(&info)).is_none());
    assert!(bench.cache().used_bytes() >= 4 * MIB);
    let mut bytes = vec![0; 4 << 20];
    shown.file.read_exact_at(&mut bytes, 0).expect("an unlinked file stays readable");
    assert!(bytes == content(&info, whole(&info)));
    drop(shown);
    assert_eq!(bench.cache().used_bytes(), 0);
}

#[test]
fn what_another_process_wrote_is_checked_before_the_kernel_shows_it() {
    let mut bench = Bench::new(LIMIT);
    let info = object("k", 2 * MIB + 5);
    bench.write(&info, whole(&info));
    bench.restart();
    assert!(bench.cache().whole(&info).is_none());
    let stop = AtomicBool::new(true);
    assert!(!bench.cache().verify(&info, &stop));
    stop.store(false, Relaxed);
    assert!(bench.cache().verify(&info, &stop));
    assert!(bench.cache().whole(&info).is_some());
    bench.restart();
    assert!(bench.read(&info, whole(&info)).is_some(), "reading checks, too");
    assert!(bench.cache().whole(&info).is_some());
}

#[test]
fn bytes_that_a_killed_process_did_not_enter_into_the_map_are_not_left_behind() {
    let mut bench = Bench::new(LIMIT);
    let info = object("k", 40 * MIB);
    bench.write(&info, ByteRange::new(MIB, 2 * MIB));
    let data = File::options().write(true).open(bench.file(DATA_ENDING)).expect("the file");
    data.write_all_at(&vec![7; 4 << 20], 10 * MIB).expect("room");
    drop(data);
    assert!(bench.taken_bytes() > 5 * MIB);
    bench.restart();
    assert!(bench.taken_bytes() <= bench.cache().used_bytes());
    assert!(bench.read(&info, ByteRange::new(MIB, 2 * MIB)).is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Write { object: u8, start: u64, len: u64 },
    Read { object: u8, start: u64, len: u64 },
    Restart,
    Flip { nth: usize, at: u64 },
    Truncate { nth: usize, to: u64 },
    Delete { nth: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0_u8..5, 0_u64..(6 << 20), 1_u64..(3 << 20));
    let step = prop_oneof![
        6 => range().prop_map(|(object, start, len)| Step::Write { object, start, len }),
        4 => range().prop_map(|(object, start, len)| Step::Read { object, start, len }),
        1 => Just(Step::Restart),
        1 => (0_usize..10, 0_u64..(6 << 20)).prop_map(|(nth, at)| Step::Flip { nth, at }),
        1 => (0_usize..10, 0_u64..(6 << 20)).prop_map(|(nth, to)| Step::Truncate { nth, to }),
        1 => (0_usize..10).prop_map(|nth| Step::Delete { nth }),
    ];
    prop::collection::vec(step, 1..40)
}

/// The `nth` file of the directory, if there are so many.
fn nth_file(bench: &Bench, nth: usize) -> Option<PathBuf> {
    let entries = std::fs::read_dir(bench.dir.path().join("c")).expect("the directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().nth(nth)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// `Bench::read` compares every byte that is answered; what is there must also be found as long as nothing was damaged or
    /// evicted.
    #[test]
    fn whatever_happens_a_hit_is_right_and_the_limit_holds(steps in steps(), limit_mib in prop_oneof![Just(8_u64), Just(64)]) {
        let mut bench = Bench::new(limit_mib << 20);
        let mut written: HashMap<u8, Vec<ByteRange>> = HashMap::new();
        let mut damaged = false;
        for step in steps {
            match step {
                Step::Write { object: n, start, len } => {
                    let info = object(&format!("k{n}"), 5 * MIB + u64::from(n) * 1000);
                    let range = ByteRange::of_len(start, len).intersect(&whole(&info));
                    if bench.write(&info, range) {
                        written.entry(n).or_default().push(range);
                    }
                }
                Step::Read { object: n, start, len } => {
                    let info = object(&format!("k{n}"), 5 * MIB + u64::from(n) * 1000);
                    let range = ByteRange::of_len(start, len).intersect(&whole(&info));
                    if range.is_empty() {
                        continue;
                    }
                    let found = bench.read(&info, range).is_some();
                    let inner = ByteRange::new(range.start.saturating_sub(4096), range.end + 4096).intersect(&whole(&info));
                    let known = written.get(&n).is_some_and(|all| all.iter().any(|one| one.contains_range(&inner)));
                    prop_assert!(found || !known || damaged || limit_mib == 8, "{n} {range} was written and is lost");
                }
                Step::Restart => {
                    bench.restart();
                }
                Step::Flip { nth, at } => if let Some(path) = nth_file(&bench, nth) {
                    let file = File::options().read(true).write(true).open(path).expect("the file");
                    let mut byte = [0];
                    if file.read_exact_at(&mut byte, at).is_ok() {
                        file.write_all_at(&[byte[0] ^ 1], at).expect("our own file");
                        damaged = true;
                    }
                },
                Step::Truncate { nth, to } => if let Some(path) = nth_file(&bench, nth) {
                    let file = File::options().write(true).open(path).expect("the file");
                    if file.metadata().expect("open").len() > to {
                        file.set_len(to).expect("our own file");
                        damaged = true;
                    }
                },
                Step::Delete { nth } => if let Some(path) = nth_file(&bench, nth) {
                    std::fs::remove_file(path).expect("our own file");
                    damaged = true;
                },
            }
            prop_assert!(bench.cache().used_bytes() <= limit_mib << 20);
            // Damage from outside (a flipped bit in a hole) takes room that the next start gives back.
            prop_assert!(damaged || bench.taken_bytes() <= bench.cache().used_bytes());
        }
    }
}
