//! The directory for what must survive the process: one for each mount of a bucket and prefix, and for one process alone.
//!
//! What stands in it is finished at the next mount: renames are resumed and uploads aborted, which would destroy the work of
//! a process that still runs. So a lock is held for as long as the process lives, a second mount of the same source takes a
//! directory of its own beside the first, and what an ended process left in any of them is handed to the next mount.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Failure;

/// Mounts of one bucket and prefix that one machine may have at once.
const MOUNTS_MAX: u32 = 256;

/// A directory that belongs to this process until dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a mount found.
#[derive(Debug)]
pub struct Claimed {
    /// Its own directory.
    pub own: StateDir,
    /// Those of processes that are gone, to be finished and let go.
    pub abandoned: Vec<StateDir>,
}

/// Claims a directory below `root` for one bucket and prefix, and whatever others of them nobody holds. May be called before
/// a fork: the lock is shared with the child.
///
/// # Errors
/// It cannot be made or written; too many mounts.
pub fn claim(root: &Path, bucket: &str, prefix: &str) -> Result<Claimed, Failure> {
    let source = format!("{bucket}/{prefix}");
    let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, source.as_bytes());
    let mut own = None;
    let mut abandoned = Vec::new();
    for number in 1..=MOUNTS_MAX {
        let name = if number == 1 { format!("{bucket}-{hash:016x}") } else { format!("{bucket}-{hash:016x}.{number}") };
        let path = root.join(name);
        if own.is_some() && !path.exists() {
            break;
        }
        let claimed = lock(&path, &source).map_err(|error| {
            Failure::system(format!(
                "the state directory {} cannot be written ({error}): name another with --state-dir",
                path.display()
            ))
        })?;
        match (claimed, &own) {
            (Some(dir), None) => own = Some(dir),
            (Some(dir), Some(_)) => abandoned.push(dir),
            (None, _) => {}
        }
    }
    let own = own.ok_or_else(|| Failure::system(format!("{source} is mounted {MOUNTS_MAX} times already")))?;
    Ok(Claimed { own, abandoned })
}

/// `None` if another process holds it.
fn lock(path: &Path, source: &str) -> io::Result<Option<StateDir>> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    std::fs::write(path.join("bucket"), format!("{source}\n"))?;
    Ok(Some(StateDir { path: path.to_owned(), _lock: lock }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mounts_of_one_source_never_share_a_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let first = claim(root.path(), "bucket", "p/").expect("it is free");
        let second = claim(root.path(), "bucket", "p/").expect("another is free");
        assert_ne!(first.own.path(), second.own.path());
        assert!(first.abandoned.is_empty() && second.abandoned.is_empty());
        let other = claim(root.path(), "bucket", "").expect("it is free");
        assert_ne!(other.own.path(), first.own.path());
    }

    #[test]
    fn what_an_ended_process_left_is_handed_to_the_next() {
        let root = tempfile::tempdir().expect("a directory");
        let first = claim(root.path(), "bucket", "").expect("it is free");
        let second = claim(root.path(), "bucket", "").expect("another is free");
        let left = second.own.path().to_owned();
        drop(second);
        drop(first);
        let third = claim(root.path(), "bucket", "").expect("both are free");
        assert_eq!(third.abandoned.iter().map(StateDir::path).collect::<Vec<_>>(), [left]);
    }
}
