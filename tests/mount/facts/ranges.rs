//! Lengths and holes: truncate, writes behind the end, SEEK_DATA and SEEK_HOLE, fallocate, copy_file_range, statfs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(truncate_down_cuts_the_object),
        shared!(truncate_up_adds_zeros),
        shared!(truncate_to_nothing_and_write_anew),
        shared!(truncate_down_and_up_leaves_no_old_bytes),
        shared!(truncate_of_a_large_object).seconds(120),
        shared!(ftruncate_while_writing),
        shared!(truncate_by_path_while_open),
        shared!(a_write_behind_the_end_leaves_zeros),
        shared!(a_large_hole_is_read_as_zeros).seconds(120),
        shared!(seek_data_and_hole_answer_as_for_a_plain_file),
        shared!(fallocate_makes_the_file_longer),
        shared!(fallocate_of_other_modes_is_refused).on(S3),
        shared!(copy_file_range_copies),
        shared!(copy_file_range_of_a_large_object).seconds(120),
        shared!(statfs_has_room),
        shared!(blocks_cover_the_size),
    ]
}

fn truncate_down_cuts_the_object(p: &Place) -> Outcome {
    p.write("f", "0123456789")?;
    sys::truncate(&p.path("f"), 4)?;
    assert_eq!(fs::metadata(p.path("f"))?.len(), 4);
    same_bytes(&p.read("f")?, b"0123");
    same_bytes(&p.object("f")?, b"0123");
    Ok(())
}

fn truncate_up_adds_zeros(p: &Place) -> Outcome {
    p.write("f", "0123")?;
    sys::truncate(&p.path("f"), 8)?;
    same_bytes(&p.read("f")?, b"0123\0\0\0\0");
    same_bytes(&p.object("f")?, b"0123\0\0\0\0");
    Ok(())
}

fn truncate_to_nothing_and_write_anew(p: &Place) -> Outcome {
    p.write("f", pattern(1, 50_000))?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    file.set_len(0)?;
    assert_eq!(file.metadata()?.len(), 0);
    file.write_all_at(b"anew", 0)?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, b"anew");
    same_bytes(&p.read("f")?, b"anew");
    Ok(())
}

fn truncate_down_and_up_leaves_no_old_bytes(p: &Place) -> Outcome {
    p.write("f", [b'x'; 10_000])?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    file.set_len(100)?;
    file.set_len(5000)?;
    sys::close(file)?;
    let mut expected = vec![b'x'; 100];
    expected.resize(5000, 0);
    same_bytes(&p.read("f")?, &expected);
    same_bytes(&p.object("f")?, &expected);
    Ok(())
}

fn truncate_of_a_large_object(p: &Place) -> Outcome {
    let bytes = pattern(2, 30 * MIB);
    p.foreign_put("f", &bytes)?;
    sys::truncate(&p.path("f"), 19 * MIB as u64 + 3)?;
    same_bytes(&p.object("f")?, &bytes[..19 * MIB + 3]);
    sys::truncate(&p.path("f"), 21 * MIB as u64)?;
    let mut expected = bytes[..19 * MIB + 3].to_vec();
    expected.resize(21 * MIB, 0);
    same_bytes(&p.object("f")?, &expected);
    same_bytes(&p.read("f")?, &expected);
    Ok(())
}

fn ftruncate_while_writing(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    file.write_all(&pattern(3, 12 * MIB))?;
    file.set_len(5 * MIB as u64)?;
    file.write_all_at(b"end", 5 * MIB as u64)?;
    sys::close(file)?;
    let mut expected = pattern(3, 5 * MIB);
    expected.extend(b"end");
    same_bytes(&p.object("f")?, &expected);
    Ok(())
}

fn truncate_by_path_while_open(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    file.write_all(b"0123456789")?;
    sys::truncate(&p.path("f"), 5)?;
    assert_eq!(file.metadata()?.len(), 5);
    file.write_all_at(b"x", 6)?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, b"01234\0x");
    Ok(())
}

fn a_write_behind_the_end_leaves_zeros(p: &Place) -> Outcome {
    let file = p.create("f")?;
    file.write_all_at(b"end", 100_000)?;
    file.write_all_at(b"start", 0)?;
    sys::close(file)?;
    let mut expected = b"start".to_vec();
    expected.resize(100_000, 0);
    expected.extend(b"end");
    same_bytes(&p.read("f")?, &expected);
    same_bytes(&p.object("f")?, &expected);
    Ok(())
}

fn a_large_hole_is_read_as_zeros(p: &Place) -> Outcome {
    let file = p.create("f")?;
    file.write_all_at(b"middle", 20 * MIB as u64)?;
    file.set_len(33 * MIB as u64)?;
    let mut found = vec![1; 64];
    file.read_exact_at(&mut found, 20 * MIB as u64 - 10)?;
    assert_eq!(&found[..16], b"\0\0\0\0\0\0\0\0\0\0middle");
    assert!(found[16..].iter().all(|&b| b == 0));
    sys::close(file)?;
    let mut expected = vec![0; 33 * MIB];
    expected[20 * MIB..20 * MIB + 6].copy_from_slice(b"middle");
    same_bytes(&p.object("f")?, &expected);
    same_bytes(&p.read("f")?, &expected);
    Ok(())
}

fn seek_data_and_hole_answer_as_for_a_plain_file(p: &Place) -> Outcome {
    p.write("f", pattern(4, 10_000))?;
    let file = File::open(p.path("f"))?;
    assert_eq!(sys::seek(&file, 0, libc::SEEK_DATA)?, 0);
    assert_eq!(sys::seek(&file, 500, libc::SEEK_DATA)?, 500);
    assert_eq!(sys::seek(&file, 0, libc::SEEK_HOLE)?, 10_000);
    refused(sys::seek(&file, 10_000, libc::SEEK_DATA), &[libc::ENXIO]);
    refused(sys::seek(&file, 10_001, libc::SEEK_HOLE), &[libc::ENXIO]);
    Ok(())
}

fn fallocate_makes_the_file_longer(p: &Place) -> Outcome {
    let file = p.create("f")?;
    file.write_all_at(b"start", 0)?;
    sys::fallocate(&file, 0, 0, 5000)?;
    assert_eq!(file.metadata()?.len(), 5000);
    sys::fallocate(&file, 0, 0, 100)?;
    assert_eq!(file.metadata()?.len(), 5000);
    sys::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 9000).or_else(|e| match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Ok(()),
        _ => Err(e),
    })?;
    assert_eq!(file.metadata()?.len(), 5000);
    sys::close(file)?;
    let mut expected = b"start".to_vec();
    expected.resize(5000, 0);
    same_bytes(&p.object("f")?, &expected);
    Ok(())
}

fn fallocate_of_other_modes_is_refused(p: &Place) -> Outcome {
    let file = p.create("f")?;
    file.write_all_at(&[7; 8192], 0)?;
    for mode in [
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_COLLAPSE_RANGE,
        libc::FALLOC_FL_INSERT_RANGE,
    ] {
        refused(sys::fallocate(&file, mode, 0, 4096), &[libc::EOPNOTSUPP]);
    }
    sys::close(file)?;
    same_bytes(&p.object("f")?, &[7; 8192]);
    Ok(())
}

fn copy_file_range_copies(p: &Place) -> Outcome {
    let bytes = pattern(5, 100_000);
    p.write("from", &bytes)?;
    let (from, to) = (File::open(p.path("from"))?, p.create("to")?);
    let copied = usize::try_from(sys::copy_range(&from, 10, &to, 0, 50_000)?)?;
    assert!(copied > 0);
    sys::close(to)?;
    same_bytes(&p.object("to")?, &bytes[10..10 + copied]);
    // Nothing is left behind the end, and behind the end there is nothing to copy.
    let to = File::options().write(true).open(p.path("to"))?;
    assert_eq!(sys::copy_range(&from, 100_000, &to, 0, 10)?, 0);
    Ok(())
}

fn copy_file_range_of_a_large_object(p: &Place) -> Outcome {
    let bytes = pattern(6, 30 * MIB + 9);
    p.foreign_put("from", &bytes)?;
    let (from, to) = (File::open(p.path("from"))?, p.create("to")?);
    let mut done = 0;
    while done < bytes.len() {
        let copied = sys::copy_range(&from, done as u64, &to, done as u64, bytes.len() - done)?;
        assert!(copied > 0, "stopped at {done}");
        done += usize::try_from(copied)?;
    }
    sys::close(to)?;
    same_bytes(&p.object("to")?, &bytes);
    same_bytes(&p.read("to")?, &bytes);
    p.shell("cp from third; cmp from third")?;
    same_bytes(&p.object("third")?, &bytes);
    Ok(())
}

fn statfs_has_room(p: &Place) -> Outcome {
    let stat = nix::sys::statvfs::statvfs(&p.dir)?;
    assert!(stat.block_size() > 0 && stat.fragment_size() > 0);
    assert!(stat.blocks_available() > 0 && stat.blocks_available() <= stat.blocks());
    assert_eq!(stat.name_max(), 255);
    p.shell("df . > /dev/null; df -i . > /dev/null")?;
    Ok(())
}

fn blocks_cover_the_size(p: &Place) -> Outcome {
    for len in [1, 4096, 100_000] {
        p.write("f", pattern(7, len))?;
        let found = fs::metadata(p.path("f"))?;
        assert!(found.blocks() * 512 >= len as u64, "{} blocks for {len} bytes", found.blocks());
        assert!(found.blksize() >= 512);
    }
    Ok(())
}
