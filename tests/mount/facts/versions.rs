//! Versions: another client overwrites, makes and deletes objects while this mount works. Bytes of two versions are
//! never mixed, and what another client published is seen at the next open.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;
/// Over any metadata time to live that the facts mount with.
const SOON: Duration = Duration::from_secs(20);

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(overwritten_while_read_is_all_old_or_stale).on(S3),
        shared!(overwritten_by_a_shorter_object_while_read).on(S3),
        shared!(deleted_while_read_is_all_old_or_stale).on(S3),
        shared!(overwritten_again_and_again_while_read).on(S3).seconds(120),
        shared!(a_foreign_overwrite_is_read_at_the_next_open).on(S3),
        shared!(a_foreign_size_shows_after_open).on(S3),
        shared!(a_foreign_file_appears).on(S3),
        shared!(a_foreign_delete_is_seen).on(S3),
        shared!(a_foreign_directory_appears_and_goes).on(S3),
        shared!(a_mapping_shows_the_next_version_after_open).on(S3),
        own!(an_edit_does_not_overwrite_a_foreign_version),
        own!(a_truncating_overwrite_wins),
        own!(an_edit_of_a_deleted_object_is_kept),
    ]
}

/// Reads every MiB of an open file: each is of the old version, or ESTALE.
fn all_old_or_stale(file: &File, old: &[u8]) -> Outcome {
    let mut found = vec![0; MIB];
    for at in (0..old.len()).step_by(MIB) {
        match file.read_at(&mut found, at as u64) {
            Ok(got) => {
                assert!(got > 0, "the file ends at {at}");
                same_bytes(&found[..got], &old[at..at + got]);
            }
            Err(error) => refused::<()>(Err(error), &[libc::ESTALE]),
        }
    }
    Ok(())
}

fn overwritten_while_read_is_all_old_or_stale(p: &Place) -> Outcome {
    let (old, new) = (pattern(1, 48 * MIB), pattern(2, 48 * MIB));
    p.foreign_put("f", &old)?;
    let file = File::open(p.path("f"))?;
    let mut found = vec![0; MIB];
    file.read_exact_at(&mut found, 0)?;
    same_bytes(&found, &old[..MIB]);
    p.foreign_put_unseen("f", &new)?;
    all_old_or_stale(&file, &old)?;
    drop(file);
    same_bytes(&p.read("f")?, &new);
    Ok(())
}

fn overwritten_by_a_shorter_object_while_read(p: &Place) -> Outcome {
    let old = pattern(3, 24 * MIB);
    p.foreign_put("f", &old)?;
    let file = File::open(p.path("f"))?;
    file.read_exact_at(&mut [0; 100], 0)?;
    p.foreign_put_unseen("f", "short")?;
    all_old_or_stale(&file, &old)?;
    drop(file);
    same_bytes(&p.read("f")?, b"short");
    Ok(())
}

fn deleted_while_read_is_all_old_or_stale(p: &Place) -> Outcome {
    let old = pattern(4, 24 * MIB);
    p.foreign_put("f", &old)?;
    let file = File::open(p.path("f"))?;
    file.read_exact_at(&mut [0; 100], 0)?;
    p.mount.bucket.delete(&p.key("f"))?;
    all_old_or_stale(&file, &old)?;
    drop(file);
    refused(File::open(p.path("f")), &[libc::ENOENT]);
    Ok(())
}

fn overwritten_again_and_again_while_read(p: &Place) -> Outcome {
    let len = 10 * MIB;
    for version in 0..8_u64 {
        p.foreign_put("f", pattern(version, len))?;
        let file = File::open(p.path("f"))?;
        p.foreign_put_unseen("f", pattern(version + 100, len))?;
        // Whatever is read belongs to one version, and that is one of the two that were there at the open.
        let mut found = vec![0; len];
        let mut read = Vec::new();
        for at in (0..len).step_by(MIB) {
            if file.read_exact_at(&mut found[at..at + MIB], at as u64).is_ok() {
                read.push(at);
            }
        }
        let is_of = |seed: u64| {
            let expected = pattern(seed, len);
            read.iter().all(|&at| found[at..at + MIB] == expected[at..at + MIB])
        };
        assert!(is_of(version) || is_of(version + 100), "bytes of two versions are mixed");
    }
    Ok(())
}

fn a_foreign_overwrite_is_read_at_the_next_open(p: &Place) -> Outcome {
    p.write("f", "mine")?;
    same_bytes(&p.read("f")?, b"mine");
    for round in 0..5 {
        let theirs = format!("theirs, round {round}");
        p.foreign_put_unseen("f", &theirs)?;
        same_bytes(&p.read("f")?, theirs.as_bytes());
    }
    p.foreign_put_unseen("f", "")?;
    same_bytes(&p.read("f")?, b"");
    p.foreign_put_unseen("f", pattern(5, 3 * MIB))?;
    same_bytes(&p.read("f")?, &pattern(5, 3 * MIB));
    Ok(())
}

fn a_foreign_size_shows_after_open(p: &Place) -> Outcome {
    p.write("f", "short")?;
    p.foreign_put_unseen("f", "very much longer")?;
    let file = File::open(p.path("f"))?;
    assert_eq!(file.metadata()?.len(), 16);
    assert_eq!(fs::metadata(p.path("f"))?.len(), 16);
    Ok(())
}

fn a_foreign_file_appears(p: &Place) -> Outcome {
    assert_eq!(p.names("")?, Vec::<String>::new());
    refused(fs::metadata(p.path("new")), &[libc::ENOENT]);
    p.foreign_put_unseen("new", "from elsewhere")?;
    assert!(poll(SOON, || p.names("").is_ok_and(|names| names == ["new"])), "it is never listed");
    assert!(poll(SOON, || fs::metadata(p.path("new")).is_ok()), "it is never found");
    same_bytes(&p.read("new")?, b"from elsewhere");
    Ok(())
}

fn a_foreign_delete_is_seen(p: &Place) -> Outcome {
    p.write("f", "x")?;
    p.write("g", "x")?;
    p.mount.bucket.delete(&p.key("f"))?;
    refused(File::open(p.path("f")), &[libc::ENOENT]);
    p.mount.bucket.delete(&p.key("g"))?;
    assert!(poll(SOON, || fs::metadata(p.path("g")).is_err()), "its attributes are never forgotten");
    assert!(poll(SOON, || p.names("").is_ok_and(|names| names.is_empty())), "it is listed for ever");
    Ok(())
}

fn a_foreign_directory_appears_and_goes(p: &Place) -> Outcome {
    assert_eq!(p.names("")?, Vec::<String>::new());
    p.foreign_put_unseen("d/x", "x")?;
    assert!(poll(SOON, || p.names("").is_ok_and(|names| names == ["d"])), "it is never listed");
    assert_eq!(p.names("d")?, ["x"]);
    p.mount.bucket.delete(&p.key("d/x"))?;
    if p.kind() == Kind::Versitygw {
        // The folder of its back end is removed with its last file.
        return Ok(());
    }
    assert!(poll(SOON, || p.names("d").is_err() || p.names("d").is_ok_and(|names| names.is_empty())));
    Ok(())
}

fn a_mapping_shows_the_next_version_after_open(p: &Place) -> Outcome {
    p.foreign_put("f", [b'a'; 8192])?;
    let first = File::open(p.path("f"))?;
    let mut map = sys::Map::new(&first, 8192, false, libc::MAP_SHARED)?;
    assert_eq!(map.bytes()[0], b'a');
    drop((map, first));
    p.foreign_put_unseen("f", [b'b'; 8192])?;
    let second = File::open(p.path("f"))?;
    let mut map = sys::Map::new(&second, 8192, false, libc::MAP_SHARED)?;
    assert!(map.bytes().iter().all(|&byte| byte == b'b'), "pages of the old version were kept");
    Ok(())
}

fn an_edit_does_not_overwrite_a_foreign_version(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.foreign_put("f", "base version")?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    same_bytes(std::io::read_to_string(&file)?.as_bytes(), b"base version");
    file.write_all_at(b"EDIT", 0)?;
    p.foreign_put_unseen("f", "their version")?;
    let closed = sys::close(file);
    assert!(closed.is_err(), "close must tell that the edit is not in S3");
    same_bytes(&p.object("f")?, b"their version");
    assert!(poll(SOON, || p.read("f").is_ok_and(|found| found == b"their version")));
    super::durability::is_kept(&p, "f", b"EDIT version")
}

fn a_truncating_overwrite_wins(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.foreign_put("f", "base version")?;
    let mut file = File::options().write(true).truncate(true).open(p.path("f"))?;
    file.write_all(b"whole new content")?;
    p.foreign_put_unseen("f", "their version")?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, b"whole new content");
    Ok(())
}

fn an_edit_of_a_deleted_object_is_kept(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.foreign_put("f", "base version")?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    file.write_all_at(b"EDIT", 0)?;
    p.mount.bucket.delete("f")?;
    if sys::close(file).is_ok() {
        // Publishing it anew is as good: nothing of another writer is lost.
        same_bytes(&p.object("f")?, b"EDIT version");
        return Ok(());
    }
    // What lay around the edit is gone with the object; of a small file that was read it may still be in memory.
    let kept = super::durability::kept(&p, "f", &["--holes"])?;
    assert!(kept == b"EDIT version" || kept == b"EDIT\0\0\0\0\0\0\0\0", "{kept:?}");
    Ok(())
}
