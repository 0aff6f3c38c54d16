//! The disk cache: what it saves, and that nothing that befalls it shows in what is read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::mount::{Mount, Mounting};
use crate::harness::prelude::*;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(a_second_mount_reads_from_the_disk_cache_alone),
        own!(own_writes_enter_the_disk_cache_at_close),
        own!(what_random_reads_brought_is_kept_as_it_is),
        own!(a_replaced_object_is_not_read_from_the_disk_cache),
        own!(a_killed_mount_leaves_a_cache_that_serves_nothing_wrong),
        own!(a_flipped_bit_in_any_file_of_the_cache_is_not_seen),
        own!(a_deleted_cache_directory_is_not_missed),
        own!(a_full_disk_is_not_seen),
        own!(a_cache_directory_that_becomes_read_only_is_not_seen),
        own!(two_mounts_of_one_bucket_do_not_share_a_cache_and_are_told_so),
        own!(two_prefixes_share_a_cache_directory),
    ];
    facts.into_iter().map(|fact| fact.on(SIM)).collect()
}

/// A mount with a disk cache in a directory of its own.
fn cached(c: &Context, options: &[&str]) -> Outcome<(tempfile::TempDir, Place)> {
    let dir = tempfile::Builder::new().prefix("s3mount-cache-").tempdir()?;
    let path = dir.path().display().to_string();
    let all = [&["--cache-dir", &path, "--cache-size", "1GiB", "--metadata-ttl", "60"], options].concat();
    let place = c.mount(&all)?;
    Ok((dir, place))
}

/// Every file below a directory, in order.
fn files_below(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files_below(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

fn a_second_mount_reads_from_the_disk_cache_alone(c: &Context) -> Outcome {
    let (_dir, p) = cached(c, &[])?;
    let contents = [("small", pattern(1, 50_000)), ("large", pattern(2, 20 * MIB + 5)), ("block", pattern(3, MIB))];
    for (name, bytes) in &contents {
        p.foreign_put(name, bytes)?;
        same_bytes(&p.read(name)?, bytes);
    }
    p.mount.remount()?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    for (name, bytes) in &contents {
        same_bytes(&p.read(name)?, bytes);
    }
    assert_eq!(p.sim().counts(), [("GetObject", 3)]);
    assert!(p.sim().bytes_sent() < 10_000, "{} bytes", p.sim().bytes_sent());
    Ok(())
}

fn own_writes_enter_the_disk_cache_at_close(c: &Context) -> Outcome {
    let (_dir, p) = cached(c, &[])?;
    let bytes = pattern(1, 11 * MIB + 77);
    p.write("f", &bytes)?;
    p.mount.remount()?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    same_bytes(&p.read("f")?, &bytes);
    assert_eq!(p.sim().counts(), [("GetObject", 1)]);
    assert!(p.sim().bytes_sent() < 10_000, "{} bytes", p.sim().bytes_sent());
    Ok(())
}

fn what_random_reads_brought_is_kept_as_it_is(c: &Context) -> Outcome {
    let (_dir, p) = cached(c, &[])?;
    p.synthetic("f", 1 << 30)?;
    let read = || -> Outcome<Vec<Vec<u8>>> {
        let file = File::open(p.path("f"))?;
        let places = (1..20_u64).map(|n| (n * 52_000_000) >> 12 << 12);
        places
            .map(|at| {
                let mut bytes = vec![0; 64 << 10];
                file.read_exact_at(&mut bytes, at)?;
                Ok(bytes)
            })
            .collect()
    };
    // The kernel's read-ahead would ask for more than is read.
    let first = read()?;
    p.mount.remount()?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    let second = read()?;
    assert!(first == second);
    let sent = p.sim().bytes_sent();
    assert!(sent < 300_000, "{sent} bytes for 19 reads of 64 KiB that were read before");
    Ok(())
}

fn a_replaced_object_is_not_read_from_the_disk_cache(c: &Context) -> Outcome {
    let (_dir, p) = cached(c, &[])?;
    let (old, new) = (pattern(1, 3 * MIB), pattern(2, 3 * MIB));
    p.foreign_put("f", &old)?;
    same_bytes(&p.read("f")?, &old);
    p.mount.remount()?;
    p.names("")?;
    p.foreign_put_unseen("f", &new)?;
    same_bytes(&p.read("f")?, &new);
    Ok(())
}

fn a_killed_mount_leaves_a_cache_that_serves_nothing_wrong(c: &Context) -> Outcome {
    let (_dir, p) = cached(c, &[])?;
    let bytes = pattern(1, 30 * MIB);
    p.foreign_put("f", &bytes)?;
    for _ in 0..3 {
        same_bytes(&p.read("f")?, &bytes);
        p.mount.kill()?;
        p.mount.start_again()?;
    }
    same_bytes(&p.read("f")?, &bytes);
    Ok(())
}

fn a_flipped_bit_in_any_file_of_the_cache_is_not_seen(c: &Context) -> Outcome {
    let (dir, p) = cached(c, &[])?;
    let bytes = pattern(1, 5 * MIB + 99);
    p.foreign_put("f", &bytes)?;
    same_bytes(&p.read("f")?, &bytes);
    for round in 0..4 {
        p.mount.unmount()?;
        for path in files_below(dir.path())? {
            let file = File::options().read(true).write(true).open(&path)?;
            let len = file.metadata()?.len();
            for place in [0, 4096 + 4 * round, len / 2, len.saturating_sub(1)] {
                let mut byte = [0];
                if file.read_exact_at(&mut byte, place).is_ok() {
                    file.write_all_at(&[byte[0] ^ 4], place)?;
                }
            }
        }
        p.mount.start_again()?;
        same_bytes(&p.read("f")?, &bytes);
    }
    Ok(())
}

fn a_deleted_cache_directory_is_not_missed(c: &Context) -> Outcome {
    let (dir, p) = cached(c, &[])?;
    let bytes = pattern(1, 12 * MIB);
    p.foreign_put("f", &bytes)?;
    p.foreign_put("g", &bytes)?;
    same_bytes(&p.read("f")?, &bytes);
    p.mount.remount()?;
    for entry in fs::read_dir(dir.path())? {
        fs::remove_dir_all(entry?.path())?;
    }
    same_bytes(&p.read("f")?, &bytes);
    same_bytes(&p.read("g")?, &bytes);
    assert!(files_below(dir.path())?.is_empty(), "nothing is written to a directory that another mount may lock");
    Ok(())
}

/// A file system in memory, mounted for as long as this lives.
pub struct Tmpfs {
    path: PathBuf,
    _made: Option<tempfile::TempDir>,
}

impl Tmpfs {
    fn new(size: &str) -> Outcome<Option<Self>> {
        let dir = tempfile::Builder::new().prefix("s3mount-tmpfs-").tempdir()?;
        let it = Self::over(dir.path(), size)?;
        Ok(it.map(|mut it| {
            it._made = Some(dir);
            it
        }))
    }

    /// On a directory that is there; `None` without the right to.
    pub fn over(dir: &Path, size: &str) -> Outcome<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).status()?;
        if !status.success() {
            return Err(Failure(format!("mount: {status}")));
        }
        Ok(Some(Self { path: dir.to_owned(), _made: None }))
    }

    fn path(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn a_full_disk_is_not_seen(c: &Context) -> Outcome {
    let Some(tmpfs) = Tmpfs::new("48m")? else { return skip("mounting a tmpfs needs root") };
    let place = c.mount(&["--cache-dir", &tmpfs.path(), "--cache-size", "1GiB", "--memory-limit", "64MiB"])?;
    for seed in 0..6 {
        let name = format!("f{seed}");
        place.foreign_put(&name, pattern(seed, 16 * MIB))?;
        same_bytes(&place.read(&name)?, &pattern(seed, 16 * MIB));
    }
    for seed in 0..6 {
        same_bytes(&place.read(&format!("f{seed}"))?, &pattern(seed, 16 * MIB));
    }
    place.mount.remount()?;
    for seed in 0..6 {
        same_bytes(&place.read(&format!("f{seed}"))?, &pattern(seed, 16 * MIB));
    }
    place.mount.unmount()?;
    Ok(())
}

fn a_cache_directory_that_becomes_read_only_is_not_seen(c: &Context) -> Outcome {
    let Some(tmpfs) = Tmpfs::new("200m")? else { return skip("mounting a tmpfs needs root") };
    let place = c.mount(&["--cache-dir", &tmpfs.path(), "--cache-size", "100MiB"])?;
    let bytes = pattern(1, 10 * MIB);
    place.foreign_put("f", &bytes)?;
    place.foreign_put("g", &bytes)?;
    same_bytes(&place.read("f")?, &bytes);
    place.mount.remount()?;
    let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&tmpfs.path).status()?;
    assert!(status.success());
    same_bytes(&place.read("f")?, &bytes);
    same_bytes(&place.read("g")?, &bytes);
    place.mount.remount()?;
    same_bytes(&place.read("f")?, &bytes);
    place.mount.unmount()?;
    Ok(())
}

fn two_mounts_of_one_bucket_do_not_share_a_cache_and_are_told_so(c: &Context) -> Outcome {
    let (dir, p) = cached(c, &[])?;
    p.foreign_put("f", "content")?;
    let Err(Failure(said)) = c.second(&p, &["--cache-dir", &dir.path().display().to_string()]) else {
        return Err(Failure("the second mount came up".into()));
    };
    assert!(said.contains("in use by another mount of the same bucket and prefix"), "{said}");
    same_bytes(&p.read("f")?, b"content");
    Ok(())
}

fn two_prefixes_share_a_cache_directory(c: &Context) -> Outcome {
    let (dir, p) = cached(c, &[])?;
    p.foreign_put("d/f", "content")?;
    same_bytes(&p.read("d/f")?, b"content");
    let how = Mounting {
        prefix: "d".into(),
        options: vec!["--cache-dir".into(), dir.path().display().to_string(), "--cache-size".into(), "64MiB".into()],
        ..Mounting::default()
    };
    let below = Place::top(Mount::start(&p.mount.server, &p.mount.bucket, &how)?);
    same_bytes(&below.read("f")?, b"content");
    Ok(())
}
