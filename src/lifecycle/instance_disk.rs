//! Makes the instance's own disk ready for a cache where that was asked for: a file system on a blank one, and its mount.
//!
//! Owns the only writes to a block device. Leaves mounted what it mounted, for the next mount of a bucket to find.
//! Invariant: a device that is in use, or that carries anything but zeros or a file system made here, is never written to.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::Failure;

/// Where a disk that was made ready is mounted.
pub(super) const MOUNT_POINT: &str = "/var/cache/s3mount";
/// By which a file system made here is known again; ext4 takes 16 bytes.
const LABEL: &str = "s3mount-cache";
/// An instance store is zeros when the instance first starts. What has no signature that blkid(8) knows and is yet no zeros here, at
/// its beginning or its end, is somebody's raw data.
const LOOKED_AT_BYTES: u64 = 4 << 20;

/// What stands on a device.
#[derive(Debug, PartialEq, Eq)]
enum Contents {
    Nothing,
    /// A file system made here.
    Ours,
    /// In words.
    Foreign(String),
}

/// Mounts the device at `at`, with a file system made now if it is blank. Blocks, for seconds. Nothing is done if `is_mounted`
/// says that another process was faster.
///
/// # Errors
/// The caller is not root; the device carries something else or is in use; mkfs.ext4(8) or mount(8) fail.
pub(super) fn make_ready(device: &Path, at: &Path, is_mounted: impl Fn() -> bool) -> Result<(), Failure> {
    let shown = device.display();
    let failed = |what: &str| Failure::system(format!("--format-instance-store: {shown} {what}"));
    if !nix::unistd::geteuid().is_root() {
        return Err(failed("can be made ready by root alone: mount it as root, or name a directory with --cache-dir"));
    }
    let unreadable = |error: io::Error| failed(&format!("cannot be read: {error}"));
    let looked_at = File::open(device).map_err(unreadable)?;
    // As systemd-udevd wants it of whoever changes a device (systemd.io/BLOCK_DEVICE_LOCKING).
    let mut looked_at =
        Flock::lock(looked_at, FlockArg::LockExclusive).map_err(|(_, error)| unreadable(error.into()))?;
    if is_mounted() {
        return Ok(());
    }
    match contents(device, &mut looked_at).map_err(unreadable)? {
        Contents::Ours => {}
        Contents::Foreign(what) => {
            let remedy = "mount it yourself, or empty it with wipefs -a and blkdiscard";
            return Err(failed(&format!("carries {what} and stays as it is: {remedy}")));
        }
        Contents::Nothing => {
            // With O_EXCL a block device that is mounted, or part of another, is busy: open(2).
            let claimed = OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(device);
            drop(claimed.map_err(|error| failed(&format!("is blank and cannot be taken: {error}")))?);
            tracing::info!(device = %shown, "making a file system on a blank instance store");
            // Lazily, since the tables of a TB would take a minute; for root alone nothing is set aside.
            run(
                "mkfs.ext4",
                &["-q", "-m", "0", "-L", LABEL, "-E", "lazy_itable_init=1,lazy_journal_init=1"],
                device,
                None,
            )
            .map_err(|said| failed(&said))?;
        }
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(at);
    made.map_err(|error| failed(&format!("has no place to be mounted, {}: {error}", at.display())))?;
    run("mount", &["-t", "ext4", "-o", "noatime,nodev,nosuid,noexec"], device, Some(at))
        .map_err(|said| failed(&said))?;
    tracing::info!(device = %shown, at = %at.display(), "the instance store is mounted");
    Ok(())
}

/// What a device carries: what blkid(8) probes of it, not what it remembers.
fn contents(device: &Path, opened: &mut File) -> io::Result<Contents> {
    let probed =
        Command::new("blkid").args(["--probe", "--output", "export"]).arg(device).env("LC_ALL", "C").output()?;
    match probed.status.code() {
        Some(0) => Ok(named(&String::from_utf8_lossy(&probed.stdout))),
        // blkid(8): nothing was found.
        Some(2) if is_blank(opened)? => Ok(Contents::Nothing),
        Some(2) => Ok(Contents::Foreign("data without a file system".into())),
        // 8: signatures of more than one kind.
        Some(8) => Ok(Contents::Foreign("signatures of several kinds".into())),
        _ => Err(io::Error::other(String::from_utf8_lossy(&probed.stderr).trim().to_owned())),
    }
}

/// Of the lines `KEY=value` of a device with a signature.
fn named(export: &str) -> Contents {
    let value = |key: &str| export.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    match (value("TYPE"), value("PTTYPE"), value("LABEL")) {
        (Some("ext4"), None, Some(LABEL)) => Contents::Ours,
        (Some(kind), _, Some(label)) => Contents::Foreign(format!("{kind} named {label}")),
        (Some(kind), _, None) => Contents::Foreign(kind.to_owned()),
        (None, Some(table), _) => Contents::Foreign(format!("a partition table ({table})")),
        (None, None, _) => Contents::Foreign("an unknown signature".into()),
    }
}

/// Whether both ends are zeros.
fn is_blank(device: &mut File) -> io::Result<bool> {
    let size_bytes = device.seek(SeekFrom::End(0))?;
    for start in [0, size_bytes.saturating_sub(LOOKED_AT_BYTES)] {
        device.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        device.take(LOOKED_AT_BYTES).read_to_end(&mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(size_bytes > 0)
}

/// Runs a program of the system on a device; what it says when it fails.
fn run(program: &str, words: &[&str], device: &Path, at: Option<&Path>) -> Result<(), String> {
    let done = Command::new(program).args(words).arg(device).args(at).env("LC_ALL", "C").output();
    let done = done.map_err(|error| format!("needs {program}(8): {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().replace('\n', "; ");
    Err(format!("was refused by {program}(8): {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_system_made_here_is_ours() {
        assert_eq!(named("DEVNAME=/dev/x\nLABEL=s3mount-cache\nTYPE=ext4\nUSAGE=filesystem\n"), Contents::Ours);
        let foreign = |export| match named(export) {
            Contents::Foreign(what) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(foreign("LABEL=data\nTYPE=ext4\n"), "ext4 named data");
        assert_eq!(foreign("LABEL=s3mount-cache\nTYPE=xfs\n"), "xfs named s3mount-cache");
        assert_eq!(foreign("TYPE=LVM2_member\n"), "LVM2_member");
        assert_eq!(foreign("PTUUID=1\nPTTYPE=gpt\n"), "a partition table (gpt)");
        assert_eq!(foreign("LABEL=s3mount-cache\nTYPE=ext4\nPTTYPE=dos\n"), "ext4 named s3mount-cache");
    }

    #[test]
    fn a_disk_is_blank_if_both_of_its_ends_are_zeros() {
        let mut disk = tempfile::tempfile().expect("a file");
        assert!(!is_blank(&mut disk).expect("reads"), "nothing is no disk");
        disk.set_len(64 << 20).expect("a sparse file");
        assert!(is_blank(&mut disk).expect("reads"));
        for at in [0, LOOKED_AT_BYTES - 1, (64 << 20) - 1] {
            use std::os::unix::fs::FileExt;
            disk.write_all_at(&[1], at).expect("writes");
            assert!(!is_blank(&mut disk).expect("reads"), "{at}");
            disk.write_all_at(&[0], at).expect("writes");
        }
    }
}
