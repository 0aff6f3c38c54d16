//! What operations cost in requests, counted by the simulator.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::harness::prelude::*;
use crate::harness::sim::Faults;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(opening_and_reading_a_small_file_is_one_get),
        own!(opening_an_unchanged_file_again_moves_no_bytes),
        own!(opening_a_name_that_grew_old_is_one_get),
        own!(a_stat_of_a_name_that_grew_old_is_one_head),
        own!(an_appender_of_a_name_that_grew_old_asks_once),
        own!(a_shuffled_loader_of_several_directories_costs_a_get_an_open),
        own!(writing_a_small_file_is_one_put),
        own!(an_empty_file_is_one_put),
        own!(ls_l_of_2500_names_is_three_lists_and_no_head),
        own!(a_walked_tree_is_scanned_and_needs_no_head),
        own!(names_that_are_not_in_a_listed_directory_cost_nothing),
        own!(an_unknown_name_costs_at_most_a_head_and_a_list),
        own!(an_unknown_directory_is_listed_by_its_lookup),
        own!(mkdir_is_one_put),
        own!(a_rename_of_a_file_is_a_copy_and_a_delete),
        own!(an_unpublished_file_is_renamed_for_nothing),
        own!(a_sequential_read_asks_for_large_ranges),
        own!(a_read_at_one_place_of_a_large_file_moves_little),
        own!(one_byte_changed_in_ten_gib_is_a_handful_of_requests).seconds(180),
        own!(a_large_file_is_uploaded_once),
        own!(copy_file_range_moves_no_bytes),
        own!(closing_a_clean_writer_costs_nothing),
    ];
    facts.into_iter().map(|fact| fact.on(SIM)).collect()
}

/// What was listed stays known for the whole fact, however slow the machine: it is requests for the work that are counted.
const REMEMBERING: &[&str] = &["--metadata-ttl", "60"];

fn opening_and_reading_a_small_file_is_one_get(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.foreign_put("f", "small")?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    same_bytes(&p.read("f")?, b"small");
    assert_eq!(p.sim().counts(), [("GetObject", 1)]);
    Ok(())
}

fn opening_an_unchanged_file_again_moves_no_bytes(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    let bytes = pattern(1, 500_000);
    p.foreign_put("f", &bytes)?;
    same_bytes(&p.read("f")?, &bytes);
    let _quiet = quiet();
    p.sim().reset_counts();
    same_bytes(&p.read("f")?, &bytes);
    let counts = p.sim().counts();
    assert!(counts == [("GetObject", 1)], "{counts:?}");
    assert!(p.sim().bytes_sent() < 10_000, "{} bytes", p.sim().bytes_sent());
    Ok(())
}

/// Whether something came about in one of three tries. A busy machine may hold a thread up for the 100 ms for which an open finds
/// what its lookup asked for, or make a reader wait that else would not.
fn once_in_three(mut tries: impl FnMut() -> Outcome<bool>) -> Outcome {
    for _ in 0..3 {
        if tries()? {
            return Ok(());
        }
    }
    Err(Failure("not in three tries".into()))
}

/// Names grow old at once, so that each call asks for them.
const FORGETTING: &[&str] = &["--metadata-ttl", "20ms"];
const OLD: Duration = Duration::from_millis(100);

fn opening_a_name_that_grew_old_is_one_get(c: &Context) -> Outcome {
    let p = c.mount(FORGETTING)?;
    p.foreign_put("f", "first")?;
    same_bytes(&p.read("f")?, b"first");
    let one_get = |content: &str| -> Outcome<bool> {
        std::thread::sleep(OLD);
        let _quiet = quiet();
        p.sim().reset_counts();
        same_bytes(&p.read("f")?, content.as_bytes());
        Ok(p.sim().counts() == [("GetObject", 1)])
    };
    once_in_three(|| one_get("first"))?;
    // What another client published meanwhile is what that GET brings.
    once_in_three(|| {
        p.foreign_put_unseen("f", "second")?;
        one_get("second")
    })?;
    p.mount.bucket.delete(&p.key("f"))?;
    std::thread::sleep(OLD);
    refused(File::open(p.path("f")), &[libc::ENOENT]);
    p.foreign_put_unseen("f/below", "third")?;
    std::thread::sleep(OLD);
    same_bytes(&p.read("f/below")?, b"third");
    Ok(())
}

fn a_stat_of_a_name_that_grew_old_is_one_head(c: &Context) -> Outcome {
    let p = c.mount(FORGETTING)?;
    p.foreign_put("f", "x")?;
    assert_eq!(fs::metadata(p.path("f"))?.len(), 1);
    std::thread::sleep(OLD);
    let _quiet = quiet();
    p.sim().reset_counts();
    assert_eq!(fs::metadata(p.path("f"))?.len(), 1);
    assert_eq!(p.sim().counts(), [("HeadObject", 1)]);
    Ok(())
}

fn an_appender_of_a_name_that_grew_old_asks_once(c: &Context) -> Outcome {
    let p = c.mount(FORGETTING)?;
    p.foreign_put("log", "one")?;
    same_bytes(&p.read("log")?, b"one");
    once_in_three(|| {
        p.foreign_put_unseen("log", "one, two")?;
        std::thread::sleep(OLD);
        let _quiet = quiet();
        p.sim().reset_counts();
        let mut file = File::options().append(true).create(true).open(p.path("log"))?;
        file.write_all(b", three")?;
        sys::close(file)?;
        let asked_once = p.sim().counts() == [("GetObject", 1), ("PutObject", 1)];
        same_bytes(&p.object("log")?, b"one, two, three");
        Ok(asked_once)
    })
}

/// Files of six directories in no order, by four threads, as far away as S3 is: each name has grown old when its turn comes,
/// and its directory was confirmed a moment ago by another file.
fn a_shuffled_loader_of_several_directories_costs_a_get_an_open(c: &Context) -> Outcome {
    const FILES: usize = 240;
    const THREADS: usize = 4;
    let p = c.mount(&["--metadata-ttl", "1s"])?;
    let mut names: Vec<String> = (0..FILES).map(|number| format!("set/{}/{number:03}", number % 6)).collect();
    p.foreign_put_many(&names)?;
    for directory in 0..6 {
        assert_eq!(p.names(&format!("set/{directory}"))?.len(), FILES / 6);
    }
    std::thread::sleep(Duration::from_millis(1100));
    p.sim().set(&Faults { first_byte_milliseconds: 25, ..Faults::default() });
    fastrand::Rng::with_seed(11).shuffle(&mut names);
    let _quiet = quiet();
    p.sim().reset_counts();
    let read = |share: &[String]| -> Outcome {
        share.iter().try_for_each(|name| {
            same_bytes(&p.read(name)?, p.key(name).as_bytes());
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let shares: Vec<_> = names.chunks(FILES / THREADS).map(|share| scope.spawn(|| read(share))).collect();
        shares.into_iter().try_for_each(|reader| reader.join().expect("a reader reports what failed"))
    })?;
    let counts = p.sim().counts();
    // One in twenty may be asked for twice where its first byte is late, and a thread that the machine holds up between the two halves
    // of an open asks again; with a HEAD or a second GET for each it would be 480.
    let gets = FILES as u64..=FILES as u64 * 11 / 10;
    assert!(gets.contains(&counts.of("GetObject")) && counts.of("HeadObject") == 0, "{counts:?}");
    // The directories themselves are old at the start; a machine that stands still for a second may make them so again.
    assert!(counts.of("ListObjectsV2") <= 2 * 7, "{counts:?}");
    Ok(())
}

fn writing_a_small_file_is_one_put(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    p.write("f", "small")?;
    assert_eq!(p.sim().counts(), [("PutObject", 1)]);
    Ok(())
}

fn an_empty_file_is_one_put(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    drop(p.create("empty")?);
    assert!(p.has_object("empty")?);
    let counts = p.sim().counts();
    assert_eq!(counts.of("PutObject"), 1, "{counts:?}");
    Ok(())
}

fn ls_l_of_2500_names_is_three_lists_and_no_head(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.foreign_put_many(&(0..2500).map(|n| format!("d/{n:04}")).collect::<Vec<_>>())?;
    assert!(p.path("d").is_dir());
    p.sim().reset_counts();
    assert_eq!(p.shell("ls -l d | tail -n +2 | wc -l")?.trim(), "2500");
    let counts = p.sim().counts();
    assert!(counts.of("ListObjectsV2") <= 3 && counts.total() == counts.of("ListObjectsV2"), "{counts:?}");
    Ok(())
}

fn a_walked_tree_is_scanned_and_needs_no_head(c: &Context) -> Outcome {
    let p = c.mount(&["--metadata-ttl", "60"])?;
    p.foreign_put_many(&(0..2000).map(|n| format!("t/{:03}/{:02}", n / 20, n % 20)).collect::<Vec<_>>())?;
    assert!(p.path("t").is_dir());
    p.sim().reset_counts();
    assert_eq!(p.shell("find t -type f -size +0 | wc -l")?.trim(), "2000");
    let counts = p.sim().counts();
    // The root of the tree, its first directory, and 2,000 keys in windows; one by one it would be 101.
    assert!(counts.of("ListObjectsV2") <= 12 && counts.total() == counts.of("ListObjectsV2"), "{counts:?}");
    Ok(())
}

fn names_that_are_not_in_a_listed_directory_cost_nothing(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.foreign_put("d/f", "x")?;
    p.names("d")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    for n in 0..50 {
        refused(fs::metadata(p.path(format!("d/missing {n}"))), &[libc::ENOENT]);
    }
    assert_eq!(p.sim().counts().total(), 0);
    Ok(())
}

fn an_unknown_name_costs_at_most_a_head_and_a_list(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.foreign_put_unseen("f", "x")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    assert_eq!(fs::metadata(p.path("f"))?.len(), 1);
    let counts = p.sim().counts();
    assert!(counts.of("HeadObject") <= 1 && counts.of("ListObjectsV2") <= 1 && counts.total() <= 2, "{counts:?}");
    Ok(())
}

fn an_unknown_directory_is_listed_by_its_lookup(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.foreign_put_unseen("d/e/f", "x")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    assert_eq!(p.names("d")?, ["e"]);
    assert_eq!(p.sim().counts(), [("ListObjectsV2", 1)]);
    // Also on the way to something below.
    p.foreign_put_unseen("g/h/i/j", "y")?;
    p.sim().reset_counts();
    same_bytes(&p.read("g/h/i/j")?, b"y");
    let counts = p.sim().counts();
    assert!(counts.of("ListObjectsV2") == 2 && counts.total() == 5, "{counts:?}");
    // And a file that nothing is known of.
    p.foreign_put_unseen("file", "z")?;
    p.sim().reset_counts();
    same_bytes(&p.read("file")?, b"z");
    assert_eq!(p.sim().counts().of("GetObject"), 1);
    assert_eq!(p.sim().counts().of("HeadObject"), 0);
    Ok(())
}

fn mkdir_is_one_put(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    fs::create_dir(p.path("d"))?;
    assert_eq!(p.sim().counts(), [("PutObject", 1)]);
    Ok(())
}

fn a_rename_of_a_file_is_a_copy_and_a_delete(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.foreign_put("a", pattern(1, 2 * MIB))?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    fs::rename(p.path("a"), p.path("b"))?;
    let counts = p.sim().counts();
    assert!(counts.of("CopyObject") == 1 && counts.of("DeleteObject") == 1, "{counts:?}");
    assert!(counts.total() <= 3, "{counts:?}");
    Ok(())
}

fn an_unpublished_file_is_renamed_for_nothing(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    let file = p.create("a")?;
    file.write_all_at(b"content", 0)?;
    fs::rename(p.path("a"), p.path("b"))?;
    sys::close(file)?;
    assert_eq!(p.sim().counts(), [("PutObject", 1)]);
    Ok(())
}

fn a_sequential_read_asks_for_large_ranges(c: &Context) -> Outcome {
    const BYTES: u64 = 256 << 20;
    let p = c.mount(REMEMBERING)?;
    const NAMES: [&str; 3] = ["one", "two", "three"];
    for name in NAMES {
        p.synthetic_unseen(name, BYTES)?;
    }
    p.names("")?;
    let mut names = NAMES.into_iter();
    // How often a reader waits is the machine's affair, and whether a late first byte is asked for twice.
    once_in_three(|| {
        let name = names.next().expect("a name for each try");
        let _quiet = quiet();
        p.sim().reset_counts();
        assert_eq!(std::io::copy(&mut File::open(p.path(name))?, &mut std::io::sink())?, BYTES);
        let counts = p.sim().counts();
        assert_eq!(counts.total(), counts.of("GetObject"), "{counts:?}");
        // A reader that waits has its window cut into blocks at first, into larger requests as it grows; block by block it would be 256.
        Ok(counts.of("GetObject") <= 160 && p.sim().bytes_sent() < 270 << 20)
    })
}

fn a_read_at_one_place_of_a_large_file_moves_little(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.synthetic("huge", 4 << 30)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    let file = File::open(p.path("huge"))?;
    file.read_exact_at(&mut [0; 100], 3 << 30)?;
    let counts = p.sim().counts();
    assert!(counts.total() <= 4, "{counts:?}");
    assert!(p.sim().bytes_sent() <= 24 << 20, "{} bytes", p.sim().bytes_sent());
    Ok(())
}

fn one_byte_changed_in_ten_gib_is_a_handful_of_requests(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.synthetic("huge", 10 << 30)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    let file = File::options().write(true).open(p.path("huge"))?;
    file.write_all_at(b"!", 7 << 30)?;
    sys::close(file)?;
    let counts = p.sim().counts();
    assert!(counts.total() <= 20, "{counts:?}");
    assert!(p.sim().bytes_received() < 80 << 20, "{} bytes", p.sim().bytes_received());
    assert_eq!(fs::metadata(p.path("huge"))?.len(), 10 << 30);
    let file = File::open(p.path("huge"))?;
    let mut found = [0; 1];
    file.read_exact_at(&mut found, 7 << 30)?;
    assert_eq!(&found, b"!");
    Ok(())
}

fn a_large_file_is_uploaded_once(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    p.write("f", pattern(3, 64 * MIB))?;
    let counts = p.sim().counts();
    assert!(counts.of("UploadPart") <= 9 && counts.total() <= 11, "{counts:?}");
    assert!(p.sim().bytes_received() < 66 << 20, "{} bytes", p.sim().bytes_received());
    Ok(())
}

fn copy_file_range_moves_no_bytes(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    let bytes = pattern(4, 48 * MIB);
    p.foreign_put("from", &bytes)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    let (from, to) = (File::open(p.path("from"))?, p.create("to")?);
    let mut done = 0;
    while done < bytes.len() {
        let copied = usize::try_from(sys::copy_range(&from, done as u64, &to, done as u64, bytes.len() - done)?)?;
        assert!(copied > 0);
        done += copied;
    }
    sys::close(to)?;
    let received = p.sim().bytes_received();
    assert!(received < 1 << 20, "{received} bytes were uploaded: {:?}", p.sim().counts());
    same_bytes(&p.object("to")?, &bytes);
    Ok(())
}

fn closing_a_clean_writer_costs_nothing(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.foreign_put("f", "content")?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    sys::close(File::options().write(true).open(p.path("f"))?)?;
    assert_eq!(p.sim().counts().of("PutObject"), 0);
    same_bytes(&p.object("f")?, b"content");
    Ok(())
}
