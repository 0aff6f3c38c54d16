//! Memory mappings.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(a_mapping_reads_the_file),
        shared!(pages_of_a_mapping_are_read_in_any_order),
        shared!(a_shared_mapping_writes_to_the_object),
        shared!(a_shared_mapping_of_a_large_object).seconds(120),
        shared!(a_private_mapping_leaves_the_file),
        shared!(a_mapping_and_writes_agree),
    ]
}

fn a_mapping_reads_the_file(p: &Place) -> Outcome {
    let bytes = pattern(1, 100_001);
    p.write("f", &bytes)?;
    let file = File::open(p.path("f"))?;
    let mut map = sys::Map::new(&file, bytes.len(), false, libc::MAP_SHARED)?;
    drop(file);
    same_bytes(map.bytes(), &bytes);
    Ok(())
}

fn pages_of_a_mapping_are_read_in_any_order(p: &Place) -> Outcome {
    let bytes = pattern(2, 16 * MIB);
    p.foreign_put("f", &bytes)?;
    let file = File::open(p.path("f"))?;
    let mut map = sys::Map::new(&file, bytes.len(), false, libc::MAP_PRIVATE)?;
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..400 {
        let at = random.usize(..bytes.len() - 8);
        assert_eq!(map.bytes()[at..at + 8], bytes[at..at + 8]);
    }
    Ok(())
}

fn a_shared_mapping_writes_to_the_object(p: &Place) -> Outcome {
    let mut bytes = pattern(3, 50_000);
    p.write("f", &bytes)?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    let mut map = sys::Map::new(&file, bytes.len(), true, libc::MAP_SHARED)?;
    map.bytes()[10_000..10_005].copy_from_slice(b"mmap!");
    bytes[10_000..10_005].copy_from_slice(b"mmap!");
    map.sync()?;
    file.sync_all()?;
    same_bytes(&p.object("f")?, &bytes);
    map.bytes()[49_999] = 1;
    bytes[49_999] = 1;
    drop(map);
    sys::close(file)?;
    same_bytes(&p.read("f")?, &bytes);
    Ok(())
}

fn a_shared_mapping_of_a_large_object(p: &Place) -> Outcome {
    let mut bytes = pattern(4, 20 * MIB);
    p.foreign_put("f", &bytes)?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    let mut map = sys::Map::new(&file, bytes.len(), true, libc::MAP_SHARED)?;
    for at in (0..20 * MIB).step_by(3 * MIB + 77) {
        map.bytes()[at] ^= 0xff;
        bytes[at] ^= 0xff;
    }
    map.sync()?;
    drop(map);
    file.sync_all()?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, &bytes);
    same_bytes(&p.read("f")?, &bytes);
    Ok(())
}

fn a_private_mapping_leaves_the_file(p: &Place) -> Outcome {
    p.write("f", "untouched")?;
    let file = File::open(p.path("f"))?;
    let mut map = sys::Map::new(&file, 9, true, libc::MAP_PRIVATE)?;
    map.bytes().fill(b'x');
    assert_eq!(map.bytes(), b"xxxxxxxxx");
    drop(map);
    same_bytes(&p.read("f")?, b"untouched");
    same_bytes(&p.object("f")?, b"untouched");
    Ok(())
}

fn a_mapping_and_writes_agree(p: &Place) -> Outcome {
    p.write("f", [0; 8192])?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    let mut map = sys::Map::new(&file, 8192, true, libc::MAP_SHARED)?;
    map.bytes()[100] = 1;
    map.sync()?;
    let mut found = [0];
    file.read_exact_at(&mut found, 100)?;
    assert_eq!(found, [1]);
    file.write_all_at(&[2], 200)?;
    // What write(2) changed shows in the mapping as it does on a local file system.
    assert_eq!(map.bytes()[200], 2);
    drop(map);
    sys::close(file)?;
    let mut expected = [0; 8192];
    (expected[100], expected[200]) = (1, 2);
    same_bytes(&p.object("f")?, &expected);
    Ok(())
}
