//! Large files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(three_hundred_mib_in_sequence).seconds(240),
        own!(a_sparse_file_of_five_gib_copied_in_and_out).on(SIM).seconds(420),
        own!(a_huge_object_is_read_at_its_ends).on(SIM),
    ]
}

fn three_hundred_mib_in_sequence(p: &Place) -> Outcome {
    // moto keeps what it is sent in Python's memory and takes ten times as long for it.
    let pieces = if p.kind() == Kind::Moto { 100 } else { 300 };
    let mut file = p.create("f")?;
    for piece in 0..pieces {
        file.write_all(&pattern_at(1, piece * MIB as u64, MIB))?;
    }
    sys::close(file)?;
    assert_eq!(fs::metadata(p.path("f"))?.len(), pieces * MIB as u64);
    let mut file = File::open(p.path("f"))?;
    let mut found = vec![0; MIB];
    for piece in 0..pieces {
        file.read_exact(&mut found)?;
        same_bytes(&found, &pattern_at(1, piece * MIB as u64, MIB));
    }
    assert_eq!(file.read(&mut found)?, 0);
    drop(file);
    same_bytes(&p.object("f")?, &pattern(1, usize::try_from(pieces)? * MIB));
    fs::remove_file(p.path("f"))?;
    Ok(())
}

fn a_sparse_file_of_five_gib_copied_in_and_out(c: &Context) -> Outcome {
    const SIZE: u64 = 5 << 30;
    let p = c.mount(&[])?;
    let outside = tempfile::tempdir()?;
    let original = outside.path().join("original");
    let file = File::create(&original)?;
    file.set_len(SIZE)?;
    for (at, bytes) in [(0, b"start"), (SIZE / 2 + 7, b"midst"), (SIZE - 5, b"ended")] {
        file.write_all_at(bytes, at)?;
    }
    drop(file);
    let back = outside.path().join("back");
    let (original, back) = (original.to_string_lossy(), back.to_string_lossy());
    p.shell(&format!("cp --sparse=always '{original}' f; cp --sparse=always f '{back}'; cmp '{original}' '{back}'"))?;
    let head = p.mount.bucket.head("f")?.ok_or_else(|| Failure("no object".into()))?;
    assert_eq!(head.size_bytes, SIZE);
    let file = File::open(p.path("f"))?;
    let mut found = [0; 7];
    file.read_exact_at(&mut found, SIZE / 2 + 6)?;
    assert_eq!(&found, b"\0midst\0");
    Ok(())
}

fn a_huge_object_is_read_at_its_ends(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.synthetic("huge", 40 << 40)?;
    assert_eq!(fs::metadata(p.path("huge"))?.len(), 40 << 40);
    let file = File::open(p.path("huge"))?;
    let mut found = [0; 4096];
    file.read_exact_at(&mut found, 0)?;
    file.read_exact_at(&mut found, (40 << 40) - 4096)?;
    assert_eq!(file.read_at(&mut found, 40 << 40)?, 0);
    Ok(())
}
