//! `s3mount unmount DIR`: waits until everything is in S3, then unmounts.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::status::{hear, mount_at, speak};
use crate::config::cli::UnmountArgs;
use crate::lifecycle::Failure;
use crate::lifecycle::place::{MountEntry, answers, detach, mounted_at};

/// Unmounts. Fails if somebody uses the mount, or if something could not be uploaded.
pub(super) fn run(arguments: &UnmountArgs) -> Result<(), Failure> {
    let entry = mount_at(&arguments.dir)?;
    let mut steps = match speak(&entry, "unmount") {
        Ok(steps) => steps,
        Err(failure) => return take_dead_away(&entry, failure),
    };
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} uploading {wide_bar} {bytes} of {total_bytes}");
    bar.set_style(style.expect("the template is a constant"));
    let mut most = 0;
    while let Some(step) = hear(&mut steps) {
        let left = u64::try_from(step.dirty_bytes).unwrap_or(0);
        most = most.max(left);
        bar.set_length(most);
        bar.set_position(most - left);
        match step.state.as_str() {
            "ended" => {
                bar.finish_and_clear();
                return match step.kept {
                    0 => Ok(()),
                    kept => Err(Failure::system(format!(
                        "unmounted, but {kept} files could not be uploaded and are kept: see s3mount recover list"
                    ))),
                };
            }
            "busy" => {
                bar.finish_and_clear();
                return Err(Failure::mount(busy(&entry.dir)));
            }
            "failed" => {
                bar.finish_and_clear();
                let why = step.message.unwrap_or_default();
                return Err(Failure::mount(format!("{} cannot be unmounted: {why}", entry.dir.display())));
            }
            _ => {}
        }
    }
    bar.finish_and_clear();
    // The daemon went without a last word: an umount(8) from elsewhere was faster.
    if mounted_at(&entry.dir).is_some_and(|now| now.device == entry.device) {
        return Err(Failure::system("the daemon ended without a word; its log may say why"));
    }
    Ok(())
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

/// Who uses the mount, as far as `/proc` tells.
fn busy(dir: &Path) -> String {
    let users = users_of(dir);
    let shown = dir.display();
    if users.is_empty() {
        return format!("{shown} is in use: everything is in S3; close what is open on it and unmount again");
    }
    format!("{shown} is in use by {}: everything is in S3; end them and unmount again", users.join(", "))
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
