//! Where things go: the directory to mount on, and the root of what must survive the process.
//!
//! Invariant: of two that mount on one directory at the same time one does. A start locks the directory, and the next waits for
//! its end. Where there is no such lock, or somebody else holds it, the second finds the first beneath it, and goes.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failure;
use crate::clock::Clock;
use crate::fuse::mount;
pub use crate::fuse::mount::{MountEntry, answers, detach, force, mounts, remount, unmount};

/// How long a start waits for another one on the same directory, and how often it looks. Anybody who may read the directory may
/// lock it for ever: then it goes on without the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A directory to mount on, locked until dropped: nobody else of us begins to mount there meanwhile.
#[derive(Debug)]
pub struct MountPoint {
    /// Absolute, without links.
    pub dir: PathBuf,
    _lock: Option<File>,
}

/// Checks the directory to mount on and makes its path absolute. A dead mount of ours is taken away first. Another start on the
/// same directory is waited for. May be called before a fork: the lock is shared with the child.
///
/// # Errors
/// It is not there, is no directory, is not empty (unless that is as wanted), or something is mounted on it: one line each.
pub fn mount_point(dir: &Path, nonempty: bool) -> Result<MountPoint, Failure> {
    let shown = dir.display();
    let absolute = std::path::absolute(dir).map_err(|error| Failure::mount(format!("{shown}: {error}")))?;
    take_dead_mount_away(&absolute)?;
    let absolute = match std::fs::canonicalize(&absolute) {
        Ok(absolute) => absolute,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::mount(format!("{shown} does not exist: make it with mkdir -p {shown}")));
        }
        Err(error) => return Err(Failure::mount(format!("{shown} cannot be used: {error}"))),
    };
    take_dead_mount_away(&absolute)?;
    let lock = File::open(&absolute).ok().filter(|lock| locked(lock, &absolute));
    if let Some(entry) = mounted_at(&absolute) {
        return Err(Failure::mount(format!(
            "{shown} is already mounted ({}): unmount it first, or take another directory",
            entry.source
        )));
    }
    match std::fs::read_dir(&absolute).map(Iterator::count) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Failure::mount(format!("{shown} is not a directory: name one to mount on")))
        }
        Err(error) => Err(Failure::mount(format!("{shown} cannot be read: {error}"))),
        Ok(count) if count == 0 || nonempty => Ok(MountPoint { dir: absolute, _lock: lock }),
        Ok(_) => Err(Failure::mount(format!(
            "{shown} is not empty, and what is in it would be hidden: take an empty directory, or say --nonempty"
        ))),
    }
}

/// Locks a directory, unless something is mounted there meanwhile or it takes too long.
fn locked(lock: &File, dir: &Path) -> bool {
    let clock = Clock::system();
    let end = clock.now() + LOCK_LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if clock.now() < end && mounted_at(dir).is_none() => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(_) => return false,
        }
    }
}

/// The topmost mount at a directory.
pub fn mounted_at(dir: &Path) -> Option<MountEntry> {
    mount::mounts().into_iter().rev().find(|entry| entry.dir == dir && entry.kind != "autofs")
}

/// What somebody mounted on a directory since [`mount_point`] looked at it, and lies beneath the mount of ours with this device
/// number: of two that start at once the kernel puts one on the other.
pub fn beneath(dir: &Path, device: u64) -> Option<MountEntry> {
    let mut there =
        mount::mounts().into_iter().filter(|entry| entry.dir == dir).take_while(|entry| entry.device != device);
    there.find(|entry| entry.kind != "autofs")
}

/// A mount whose daemon is dead answers "Transport endpoint is not connected" for ever.
fn take_dead_mount_away(dir: &Path) -> Result<(), Failure> {
    let Some(entry) = mounted_at(dir) else { return Ok(()) };
    let dead = |error: &io::Error| error.raw_os_error() == Some(libc::ENOTCONN);
    if !mount::answers(dir).is_err_and(|error| dead(&error)) {
        return Ok(());
    }
    if entry.kind != "fuse.s3mount" {
        return Err(Failure::mount(format!(
            "{} is a dead mount of another program ({}): take it away with umount -l {}",
            dir.display(),
            entry.kind,
            dir.display()
        )));
    }
    mount::detach(dir, nix::unistd::geteuid().is_root())
        .map_err(|error| Failure::mount(format!("{} is a dead mount and cannot be taken away: {error}", dir.display())))
}

/// The directory for state: as said, `/var/lib/s3mount` for root, `$XDG_STATE_HOME/s3mount` otherwise. Absolute.
pub fn state_root(said: Option<&Path>) -> PathBuf {
    let root = said.map_or_else(state_root_by_default, Path::to_owned);
    std::path::absolute(&root).unwrap_or(root)
}

fn state_root_by_default() -> PathBuf {
    if let Some(dir) = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir).join("s3mount");
    }
    match std::env::var_os("HOME").filter(|_| !nix::unistd::geteuid().is_root()) {
        Some(home) => PathBuf::from(home).join(".local/state/s3mount"),
        None => PathBuf::from("/var/lib/s3mount"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_on_a_directory_waits_for_the_first() {
        let scratch = tempfile::tempdir().expect("a directory");
        let first = mount_point(scratch.path(), false).expect("it is free");
        let dir = first.dir.clone();
        let second = std::thread::spawn(move || mount_point(&dir, false).map(|_| Clock::system().now()));
        std::thread::sleep(10 * LOCK_PAUSE);
        let ended = Clock::system().now();
        drop(first);
        assert!(second.join().expect("no panic").expect("it is free again") >= ended);
        std::fs::write(scratch.path().join("x"), "").expect("written");
        assert!(mount_point(scratch.path(), false).is_err());
        assert!(mount_point(scratch.path(), true).is_ok());
    }
}
