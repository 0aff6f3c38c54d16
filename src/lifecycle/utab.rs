//! The record by which umount(8) finds our helper, in libmount's table of user-space mount options, /run/mount/utab.
//!
//! umount(8) asks the kernel for the type of a mount, hears only `fuse`, and would call `umount.fuse`, which nobody has.
//! A record with `helper=s3mount` sends it to umount.s3mount instead (umount(8), "EXTERNAL HELPERS"), which waits until
//! everything is in S3. Without the record umount(8) does not wait; nothing else is lost.
//!
//! Written only by root, and only where the helper is installed. Lines of other mounts are never touched: a daemon that ends late,
//! after `umount -l`, leaves the record of whoever mounted there since.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::place;

/// libmount's directory (`mnt_get_utab_path`).
const TABLE_DIR: &str = "/run/mount";
/// Where umount(8) looks for the helper.
const HELPER: &str = "/sbin/umount.s3mount";

/// The record of one mount, taken back when dropped.
#[derive(Debug)]
pub struct Record(std::path::PathBuf);

impl Record {
    /// Puts a mount on record; `None` where umount(8) would have no use for it, or it cannot be written.
    pub fn put(dir: &Path, source: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new(HELPER).exists() || !Path::new(TABLE_DIR).is_dir() {
            return None;
        }
        let line = record(source, dir);
        match change(Path::new(TABLE_DIR), |table| without(table, dir) + &line) {
            Ok(()) => Some(Self(dir.to_owned())),
            Err(error) => {
                tracing::debug!(%error, "umount(8) will not wait for uploads");
                None
            }
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Takes the record of a directory away, if there is one, and no mount of ours is there any more. To be called after unmounting.
pub fn remove(dir: &Path) {
    let is_mounted = || place::mounted_at(dir).is_some_and(|entry| entry.kind == "fuse.s3mount");
    if let Err(error) = take_back(Path::new(TABLE_DIR), dir, is_mounted) {
        tracing::debug!(%error, "a record of umount(8) stays behind");
    }
}

/// The look at what is mounted happens under the lock: a mount is made before its record is put.
fn take_back(table_dir: &Path, dir: &Path, is_mounted: impl Fn() -> bool) -> io::Result<()> {
    let there = fs::read_to_string(table_dir.join("utab")).is_ok_and(|table| without(&table, dir) != table);
    if !there {
        return Ok(());
    }
    change(table_dir, |table| if is_mounted() { table.to_owned() } else { without(table, dir) })
}

/// Rewrites the table as libmount does: under the lock of its own file, by a new file that takes the old one's place.
fn change(table_dir: &Path, edit: impl FnOnce(&str) -> String) -> io::Result<()> {
    let lock = File::options().create(true).append(true).open(table_dir.join("utab.lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let path = table_dir.join("utab");
    let table = match fs::read_to_string(&path) {
        Ok(table) => table,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let new = table_dir.join(format!("utab.s3mount-{}", std::process::id()));
    let written = File::create(&new).and_then(|mut file| file.write_all(edit(&table).as_bytes()));
    written.and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

fn record(source: &str, dir: &Path) -> String {
    let (source, target) = (mangled(OsStr::new(source)), mangled(dir.as_os_str()));
    format!("SRC={source} TARGET={target} ROOT=/ OPTS=helper=s3mount\n")
}

/// The table without the records of ours for `dir`.
fn without(table: &str, dir: &Path) -> String {
    let target = format!("TARGET={}", mangled(dir.as_os_str()));
    let ours = |line: &str| line.split(' ').any(|word| word == target) && line.ends_with("OPTS=helper=s3mount");
    table.lines().filter(|line| !ours(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Blanks, backslashes and newlines as octal numbers, as in fstab(5).
fn mangled(text: &OsStr) -> String {
    let mut out = String::new();
    for chunk in text.as_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                ' ' | '\t' | '\n' | '\\' | '#' => out.push_str(&format!("\\{:03o}", u32::from(letter))),
                _ => out.push(letter),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\{byte:03o}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_put_and_taken_and_others_stay() {
        let table_dir = tempfile::tempdir().expect("a directory");
        let other = "SRC=/dev/sdb TARGET=/mnt/a ROOT=/ OPTS=uhelper=udisks2\n";
        fs::write(table_dir.path().join("utab"), other).expect("written");
        let dir = Path::new("/mnt/my data");
        let table = || fs::read_to_string(table_dir.path().join("utab")).expect("a table");
        change(table_dir.path(), |table| without(table, dir) + &record("s3://b/p", dir)).expect("changed");
        let ours = "SRC=s3://b/p TARGET=/mnt/my\\040data ROOT=/ OPTS=helper=s3mount\n";
        assert_eq!(table(), format!("{other}{ours}"));
        change(table_dir.path(), |table| without(table, Path::new("/mnt/a"))).expect("changed");
        assert_eq!(table(), format!("{other}{ours}"));
        take_back(table_dir.path(), dir, || true).expect("it is another mount's by now");
        assert_eq!(table(), format!("{other}{ours}"));
        take_back(table_dir.path(), dir, || false).expect("changed");
        assert_eq!(table(), other);
    }
}
