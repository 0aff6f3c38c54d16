//! Files of the disk cache that the kernel reads itself: that it does, and that nobody can tell but by the speed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(a_whole_file_is_read_by_the_kernel_itself),
        own!(a_file_of_an_earlier_mount_is_checked_and_then_read_by_the_kernel),
        own!(a_damaged_file_is_not_shown_by_the_kernel),
        own!(writers_work_beside_a_reader_by_passthrough),
        own!(truncating_by_path_works_beside_a_reader_by_passthrough),
        own!(eviction_leaves_a_reader_by_passthrough_alone),
        own!(unlinked_and_renamed_while_read_by_passthrough),
        own!(a_reader_by_passthrough_can_map_the_file),
        own!(what_this_mount_wrote_is_seen_at_once_with_a_disk_cache_too),
    ];
    facts.into_iter().map(|fact| fact.on(SIM)).collect()
}

fn number(p: &Place, field: &str) -> u64 {
    let dir = p.mount.dir.display().to_string();
    let output = p.mount.run(&["status", "--json", &dir]).expect("the program runs");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    status[field].as_u64().expect("a number of the status")
}

/// A mount whose disk cache has whole files `names`, each of so many bytes.
fn cached(c: &Context, size: &str, names: &[(&str, usize)]) -> Outcome<(tempfile::TempDir, Place)> {
    let dir = tempfile::Builder::new().prefix("s3mount-cache-").tempdir()?;
    let path = dir.path().display().to_string();
    let p = c.mount(&["--cache-dir", &path, "--cache-size", size, "--metadata-ttl", "60"])?;
    let mut wanted = 0;
    for (name, len) in names {
        p.foreign_put(name, pattern(1, *len))?;
        same_bytes(&p.read(name)?, &pattern(1, *len));
        wanted += *len as u64;
    }
    assert!(poll(SOON, || number(&p, "disk_cache_bytes_written") >= wanted), "the cache does not become whole");
    Ok((dir, p))
}

/// Whether this machine lets the kernel read files itself at all: Linux 6.9, root, and no stacked file system below /tmp.
fn is_possible() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let kind = std::process::Command::new("stat").args(["-f", "-c", "%T", "/tmp"]).output();
    let stacked = kind.is_ok_and(|kind| kind.stdout.starts_with(b"overlay") || kind.stdout.starts_with(b"fuse"));
    version >= (6, 9) && nix::unistd::geteuid().is_root() && !stacked
}

/// Opens a file and checks that the kernel reads it.
fn shown(p: &Place, name: &str) -> Outcome<File> {
    let before = number(p, "passthrough_opens");
    let file = File::open(p.path(name))?;
    assert_eq!(number(p, "passthrough_opens"), before + 1, "{name} is not read by the kernel itself");
    Ok(file)
}

macro_rules! needs_passthrough {
    () => {
        if !is_possible() {
            return skip("passthrough needs Linux 6.9, root, and a /tmp that is no stacked file system");
        }
    };
}

fn all_of(mut file: &File) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn a_whole_file_is_read_by_the_kernel_itself(c: &Context) -> Outcome {
    needs_passthrough!();
    let (_dir, p) = cached(c, "1GiB", &[("f", 6 * MIB + 11)])?;
    p.sim().reset_counts();
    let read = number(&p, "bytes_read");
    let (one, two) = (shown(&p, "f")?, shown(&p, "f")?);
    same_bytes(&all_of(&one)?, &pattern(1, 6 * MIB + 11));
    same_bytes(&all_of(&two)?, &pattern(1, 6 * MIB + 11));
    assert_eq!(number(&p, "bytes_read"), read, "the daemon was not asked");
    assert_eq!(p.sim().counts(), [("GetObject", 2)]);
    assert!(p.sim().bytes_sent() < 10_000, "{} bytes", p.sim().bytes_sent());
    Ok(())
}

fn a_file_of_an_earlier_mount_is_checked_and_then_read_by_the_kernel(c: &Context) -> Outcome {
    needs_passthrough!();
    let (_dir, p) = cached(c, "1GiB", &[("f", 3 * MIB)])?;
    p.mount.remount()?;
    p.names("")?;
    // On a machine with much else to do the check may not end within an open's time; what it did counts for the next.
    assert!(poll(SOON, || {
        let file = File::open(p.path("f")).expect("it is there");
        same_bytes(&all_of(&file).expect("it is readable"), &pattern(1, 3 * MIB));
        number(&p, "passthrough_opens") > 0
    }));
    Ok(())
}

fn a_damaged_file_is_not_shown_by_the_kernel(c: &Context) -> Outcome {
    needs_passthrough!();
    let (dir, p) = cached(c, "1GiB", &[("f", 3 * MIB)])?;
    p.mount.unmount()?;
    let folder = fs::read_dir(dir.path())?.next().expect("the bucket's")?.path();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "data") {
            File::options().write(true).open(path)?.write_all_at(b"damaged", 2_000_000)?;
        }
    }
    p.mount.start_again()?;
    same_bytes(&p.read("f")?, &pattern(1, 3 * MIB));
    same_bytes(&p.read("f")?, &pattern(1, 3 * MIB));
    Ok(())
}

fn writers_work_beside_a_reader_by_passthrough(c: &Context) -> Outcome {
    needs_passthrough!();
    let (_dir, p) = cached(c, "1GiB", &[("f", 2 * MIB), ("g", 2 * MIB), ("h", 2 * MIB)])?;
    let old = pattern(1, 2 * MIB);
    for (name, options) in [
        ("f", File::options().append(true).clone()),
        ("g", File::options().read(true).write(true).clone()),
        ("h", File::options().write(true).truncate(true).clone()),
    ] {
        let reader = shown(&p, name)?;
        let mut writer = options.open(p.path(name))?;
        writer.write_all(b"new bytes")?;
        let third = File::open(p.path(name))?;
        drop(writer);
        let wanted = match name {
            "f" => [&old[..], b"new bytes"].concat(),
            "g" => [b"new bytes", &old[9..]].concat(),
            _ => b"new bytes".to_vec(),
        };
        same_bytes(&p.object(name)?, &wanted);
        same_bytes(&all_of(&third)?, &wanted);
        same_bytes(&p.read(name)?, &wanted);
        same_bytes(&all_of(&reader)?, &old);
        assert_eq!(fs::metadata(p.path(name))?.len(), wanted.len() as u64);
    }
    Ok(())
}

fn truncating_by_path_works_beside_a_reader_by_passthrough(c: &Context) -> Outcome {
    needs_passthrough!();
    let (_dir, p) = cached(c, "1GiB", &[("f", 2 * MIB)])?;
    let reader = shown(&p, "f")?;
    sys::truncate(&p.path("f"), 100)?;
    same_bytes(&p.read("f")?, &pattern(1, 100));
    same_bytes(&p.object("f")?, &pattern(1, 100));
    same_bytes(&all_of(&reader)?, &pattern(1, 2 * MIB));
    Ok(())
}

fn eviction_leaves_a_reader_by_passthrough_alone(c: &Context) -> Outcome {
    needs_passthrough!();
    let (_dir, p) = cached(c, "64MiB", &[("f", 8 * MIB)])?;
    let reader = shown(&p, "f")?;
    p.synthetic("large", 200 << 20)?;
    let mut large = File::open(p.path("large"))?;
    std::io::copy(&mut large, &mut std::io::sink())?;
    assert!(number(&p, "disk_cache_bytes") <= 64 << 20);
    same_bytes(&all_of(&reader)?, &pattern(1, 8 * MIB));
    Ok(())
}

fn unlinked_and_renamed_while_read_by_passthrough(c: &Context) -> Outcome {
    needs_passthrough!();
    let (_dir, p) = cached(c, "1GiB", &[("f", 2 * MIB), ("g", 2 * MIB)])?;
    let (one, two) = (shown(&p, "f")?, shown(&p, "g")?);
    fs::remove_file(p.path("f"))?;
    fs::rename(p.path("g"), p.path("moved"))?;
    same_bytes(&p.read("moved")?, &pattern(1, 2 * MIB));
    p.write("f", b"another")?;
    same_bytes(&p.read("f")?, b"another");
    same_bytes(&all_of(&one)?, &pattern(1, 2 * MIB));
    same_bytes(&all_of(&two)?, &pattern(1, 2 * MIB));
    drop((one, two));
    same_bytes(&p.read("moved")?, &pattern(1, 2 * MIB));
    Ok(())
}

fn a_reader_by_passthrough_can_map_the_file(c: &Context) -> Outcome {
    needs_passthrough!();
    let (_dir, p) = cached(c, "1GiB", &[("f", 2 * MIB)])?;
    let before = number(&p, "passthrough_opens");
    p.python(
        "import mmap\nwith open('f','rb') as f:\n  m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n  assert m[:] == f.read()",
    )?;
    assert_eq!(number(&p, "passthrough_opens"), before + 1);
    Ok(())
}

fn what_this_mount_wrote_is_seen_at_once_with_a_disk_cache_too(c: &Context) -> Outcome {
    let (_dir, p) = cached(c, "1GiB", &[])?;
    p.write("log", b"one\n")?;
    same_bytes(&p.read("log")?, b"one\n");
    let reader = File::open(p.path("log"))?;
    for n in 0..5 {
        let mut log = File::options().append(true).open(p.path("log"))?;
        log.write_all(b"more\n")?;
        let mut bytes = vec![0; 100];
        let count = reader.read_at(&mut bytes, 0)?;
        assert_eq!(count, 4 + 5 * (n + 1), "a reader follows what is appended");
    }
    Ok(())
}
