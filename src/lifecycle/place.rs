//! Where things go: the directory to mount on, and the root of what must survive the process.
//!
//! Invariant: of two that mount on one directory at the same time the second finds the first beneath it, and goes.

use std::io;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::fuse::mount;
pub use crate::fuse::mount::{MountEntry, answers, detach, force, mounts, remount, unmount};

/// Checks the directory to mount on and makes its path absolute. A dead mount of ours is taken away first.
///
/// # Errors
/// It is not there, is no directory, is not empty (unless that is as wanted), or something is mounted on it: one line each.
pub fn mount_point(dir: &Path, nonempty: bool) -> Result<PathBuf, Failure> {
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
        Ok(0) => Ok(absolute),
        Ok(_) if nonempty => Ok(absolute),
        Ok(_) => Err(Failure::mount(format!(
            "{shown} is not empty, and what is in it would be hidden: take an empty directory, or say --nonempty"
        ))),
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
