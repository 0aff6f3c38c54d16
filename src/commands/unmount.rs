//! `s3mount unmount DIR`: waits until everything is in S3, then unmounts.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::status::{hear, mount_at, speak};
use crate::config::cli::UnmountArgs;
use crate::export::status::Status;
use crate::lifecycle::place::{MountEntry, answers, detach, mounted_at};
use crate::lifecycle::{Failure, left_behind};

/// Unmounts. Fails if somebody uses the mount, or if something could not be uploaded.
pub(super) fn run(arguments: &UnmountArgs) -> Result<(), Failure> {
    let entry = mount_at(&arguments.dir)?;
    let mut steps = match speak(&entry, "unmount") {
        Ok(steps) => steps,
        Err(failure) => return take_dead_away(&entry, failure),
    };
    match watched(&mut steps) {
        Some(step) => ended(&entry.dir, &step),
        // The daemon went without a last word: an umount(8) from elsewhere was faster.
        None if mounted_at(&entry.dir).is_some_and(|now| now.device == entry.device) => {
            Err(Failure::system("the daemon ended without a word; its log may say why"))
        }
        None => Ok(()),
    }
}

/// Waits for the end of the daemon of a mount that is gone from the tree.
pub(super) fn follow(mut steps: BufReader<UnixStream>) -> Result<(), Failure> {
    match watched(&mut steps) {
        Some(step) => all_is_there(&step),
        None => Ok(()),
    }
}

/// Shows progress until the last step, which it gives; `None` if the daemon went without one.
fn watched(steps: &mut BufReader<UnixStream>) -> Option<Status> {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} uploading {wide_bar} {bytes} of {total_bytes}");
    bar.set_style(style.expect("the template is a constant"));
    let mut most = 0;
    while let Some(step) = hear(steps) {
        let left = u64::try_from(step.dirty_bytes).unwrap_or(0);
        most = most.max(left);
        bar.set_length(most);
        bar.set_position(most - left);
        if matches!(step.state.as_str(), "ended" | "busy" | "failed") {
            bar.finish_and_clear();
            return Some(step);
        }
    }
    bar.finish_and_clear();
    None
}

fn ended(dir: &Path, step: &Status) -> Result<(), Failure> {
    match step.state.as_str() {
        "busy" => Err(Failure::mount(busy(dir, step.kept))),
        "failed" => {
            let why = step.message.as_deref().unwrap_or_default();
            Err(Failure::mount(format!("{} cannot be unmounted: {why}", dir.display())))
        }
        _ => all_is_there(step),
    }
}

/// Fails where the end left something behind.
fn all_is_there(end: &Status) -> Result<(), Failure> {
    let left = left_behind(end.kept, end.unkept_files);
    left.map_or(Ok(()), |line| Err(Failure::system(format!("unmounted, but {line}"))))
}

fn take_dead_away(entry: &MountEntry, failure: Failure) -> Result<(), Failure> {
    let dead = answers(&entry.dir).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN));
    if !dead {
        return Err(failure);
    }
    detach(&entry.dir, nix::unistd::geteuid().is_root()).map_err(|error| {
        Failure::mount(format!("{} is a dead mount and cannot be taken away: {error}", entry.dir.display()))
    })
}

/// What is told of a mount that cannot go, because of those who use it.
fn busy(dir: &Path, kept: usize) -> String {
    let done = match kept {
        0 => "everything is in S3".to_owned(),
        _ => format!("{kept} files could not be uploaded and are kept (see s3mount recover list)"),
    };
    format!("{}: {done}; close what is open on it and unmount again", in_use(dir))
}

/// That the mount is used, and by whom as far as `/proc` tells.
pub(super) fn in_use(dir: &Path) -> String {
    let (shown, users) = (dir.display(), users_of(dir));
    if users.is_empty() { format!("{shown} is in use") } else { format!("{shown} is in use by {}", users.join(", ")) }
}

/// Processes with a descriptor or their working directory on the mount. Only links are read: nothing asks the mount.
fn users_of(dir: &Path) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let on_mount = |link: &Path| std::fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    let mut users = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let home = process.path();
        let descriptors = std::fs::read_dir(home.join("fd")).into_iter().flatten().flatten();
        if on_mount(&home.join("cwd")) || descriptors.map(|entry| entry.path()).any(|link| on_mount(&link)) {
            let name = std::fs::read_to_string(home.join("comm")).unwrap_or_default();
            users.push(format!("{} ({pid})", name.trim()));
        }
    }
    users
}
