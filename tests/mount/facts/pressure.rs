//! What reading costs under load: memory stays within what was allowed, and S3 is asked for little more than is read.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Barrier;
use std::time::Duration;

use crate::harness::prelude::*;
use crate::harness::s3::Bucket;
use crate::harness::sim::Faults;

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(five_hundred_files_read_at_once_stay_within_the_memory_limit).seconds(300),
        own!(writes_here_and_there_go_to_local_disk_beyond_the_memory_limit),
        own!(an_unlinked_open_file_may_be_larger_than_the_memory_limit),
        own!(random_reads_of_128_kib_fetch_at_most_twice_their_bytes),
        own!(random_reads_of_1_mib_fetch_at_most_twice_their_bytes),
        own!(random_reads_of_many_threads_fetch_at_most_twice_their_bytes),
    ];
    facts.into_iter().map(|fact| fact.on(SIM)).collect()
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The bytes of a synthetic object of the simulator: a block of 1 MiB, repeated.
fn is_synthetic(found: &[u8], offset: u64) -> bool {
    let block = s3sim::content::block(1);
    let mut at = usize::try_from(offset % MIB as u64).expect("below a MiB");
    let mut left = found;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.len().min(MIB - at));
        if piece != &block[at..at + piece.len()] {
            return false;
        }
        (left, at) = (rest, 0);
    }
    true
}

fn five_hundred_files_read_at_once_stay_within_the_memory_limit(c: &Context) -> Outcome {
    const FILES: usize = 500;
    const FILE_BYTES: usize = 4 * MIB;
    const RSS_KIB_MAX: u64 = 700 << 10;
    let p = c.mount(&["--memory-limit", "512MiB", "--metadata-ttl", "60"])?;
    let Bucket::S3 { name: bucket, .. } = &p.mount.bucket else { return skip("needs a bucket") };
    for number in 0..FILES {
        p.sim().synthetic(bucket, &format!("many/{number:03}"), FILE_BYTES as u64);
    }
    // As far away as S3 is, so that reading ahead is worth its while.
    p.sim().set(&Faults { first_byte_milliseconds: 25, ..Faults::default() });
    assert_eq!(p.names("many")?.len(), FILES);
    let all_are_open = Barrier::new(FILES);
    let read = |number: usize| -> Outcome {
        let opened = File::open(p.path(format!("many/{number:03}")));
        // Also when the open failed: the others wait.
        all_are_open.wait();
        let file = opened?;
        let mut buffer = vec![0; 128 * KIB];
        for offset in (0..FILE_BYTES).step_by(buffer.len()) {
            file.read_exact_at(&mut buffer, offset as u64)?;
            assert!(is_synthetic(&buffer, offset as u64), "wrong bytes of file {number} at {offset}");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> = (0..FILES).map(|number| scope.spawn(move || read(number))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader reports what failed"))
    })?;
    let pid = p.mount.pid().expect("it is mounted");
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    let peak: u64 = peak.expect("the kernel tells VmHWM in KiB");
    assert!(peak < RSS_KIB_MAX, "the daemon had {} MiB", peak >> 10);
    Ok(())
}

/// A mount with 8 MiB for unpublished bytes.
const LITTLE_MEMORY: &[&str] = &["--memory-limit", "64MiB"];

/// What the daemon's files without a name take on disk, in bytes. No program is asked: one that is started here closes what it inherits,
/// which publishes.
fn spilled_bytes(p: &Place) -> Outcome<u64> {
    let pid = p.mount.pid().expect("it is mounted");
    let mut bytes = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|link| link.to_string_lossy().ends_with(" (deleted)")) {
            bytes += fs::metadata(&path).map_or(0, |file| file.blocks() * 512);
        }
    }
    Ok(bytes)
}

/// Writes 4 KiB into each of 40 pages of different parts, and answers the whole content.
fn write_here_and_there(file: &File) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    for nth in 0..40 {
        let (at, bytes) = (nth * 3 * MIB + 5000, pattern(nth as u64, 4 * KIB));
        file.write_all_at(&bytes, at as u64)?;
        content.resize(at, 0);
        content.extend(bytes);
    }
    Ok(content)
}

fn writes_here_and_there_go_to_local_disk_beyond_the_memory_limit(c: &Context) -> Outcome {
    let p = c.mount(LITTLE_MEMORY)?;
    let _quiet = quiet();
    let file = File::options().read(true).write(true).create_new(true).open(p.path("f"))?;
    let mut content = write_here_and_there(&file)?;
    assert!(spilled_bytes(&p)? > 20 * MIB as u64, "{} bytes", spilled_bytes(&p)?);
    same_bytes(&p.read("f")?, &content);
    // Also what is on disk already is written again.
    file.write_all_at(b"again", 5002)?;
    content[5002..5007].copy_from_slice(b"again");
    file.sync_all()?;
    same_bytes(&p.object("f")?, &content);
    // The room is given back aside.
    while spilled_bytes(&p)? >= MIB as u64 {
        std::thread::sleep(Duration::from_millis(10));
    }
    same_bytes(&p.read("f")?, &content);
    Ok(())
}

fn an_unlinked_open_file_may_be_larger_than_the_memory_limit(c: &Context) -> Outcome {
    let p = c.mount(LITTLE_MEMORY)?;
    let file = File::options().read(true).write(true).create_new(true).open(p.path("temporary"))?;
    fs::remove_file(p.path("temporary"))?;
    let content = pattern(3, 100 * MIB);
    for (nth, bytes) in content.chunks(MIB).enumerate() {
        file.write_all_at(bytes, (nth * MIB) as u64)?;
    }
    let mut found = vec![0; content.len()];
    file.read_exact_at(&mut found, 0)?;
    same_bytes(&found, &content);
    drop(file);
    assert_eq!(p.keys()?, Vec::<String>::new());
    Ok(())
}

fn random_reads_of_128_kib_fetch_at_most_twice_their_bytes(c: &Context) -> Outcome {
    fetch_at_most_twice(c, 128 * KIB, 300, 1)
}

fn random_reads_of_1_mib_fetch_at_most_twice_their_bytes(c: &Context) -> Outcome {
    fetch_at_most_twice(c, MIB, 100, 1)
}

fn random_reads_of_many_threads_fetch_at_most_twice_their_bytes(c: &Context) -> Outcome {
    fetch_at_most_twice(c, 128 * KIB, 640, 16)
}

/// Reads at random places of a huge object, at any byte, on one descriptor.
fn fetch_at_most_twice(c: &Context, size: usize, reads: usize, threads: usize) -> Outcome {
    const OBJECT_BYTES: u64 = 20 << 30;
    let p = c.mount(&["--metadata-ttl", "60"])?;
    p.synthetic("huge", OBJECT_BYTES)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    let file = File::open(p.path("huge"))?;
    let read = |first: usize| -> Outcome {
        let mut buffer = vec![0; size];
        for number in (first..reads).step_by(threads) {
            // Multiplied by an odd number and cut: spread evenly, and the same in every run.
            let offset = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % (OBJECT_BYTES - size as u64);
            file.read_exact_at(&mut buffer, offset)?;
            assert!(is_synthetic(&buffer, offset), "wrong bytes at {offset}");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> = (0..threads).map(|first| scope.spawn(move || read(first))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader reports what failed"))
    })?;
    drop(file);
    let (asked, sent) = ((size * reads) as u64, p.sim().bytes_sent());
    assert!(sent <= 2 * asked, "{sent} bytes were sent for {asked}, in {:?}", p.sim().counts());
    Ok(())
}
