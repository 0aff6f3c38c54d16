//! `mount.s3mount` and `umount.s3mount`: the program as mount(8) and umount(8) call it.
//!
//! Invariant: the helper unmounts by itself and only follows what the daemon does afterwards. It runs in the process group
//! that autofs lets pass (autofs_oz_mode); a daemon that unmounted at the end of an automount's idle time would wait for
//! the end of that very unmount.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use clap::Parser;

use super::say::say;
use super::status::{ask, mount_at, speak};
use super::{mount, refused, remount, unmount};
use crate::config::MountConfig;
use crate::config::cli::Refused;
use crate::config::helper::{Helper, MountCall, UnmountCall};
use crate::export::status::Status;
use crate::lifecycle::{Failure, place, utab};

/// Reads the command line of a helper and does what it says; `Err` has clap's words where they are all there is to say.
pub(super) fn run(helper: Helper, argv: Vec<OsString>) -> Result<Result<(), Failure>, clap::Error> {
    Ok(match helper {
        Helper::Mount => mounted(&MountCall::try_parse_from(argv)?),
        Helper::Unmount => unmounted(&UnmountCall::try_parse_from(argv)?),
    })
}

fn mounted(call: &MountCall) -> Result<(), Failure> {
    enter(call.namespace.as_deref())?;
    let refused = |error| match error {
        Refused::Words(error) => Failure::usage(refused::line(&error)),
        Refused::Option(error) => Failure::usage(error.to_string()),
    };
    if let Some(wish) = call.remount().map_err(refused)? {
        return remount::run(call, wish);
    }
    let mut arguments = call.arguments().map_err(refused)?;
    // mount(8) waits for the helper's end.
    arguments.foreground = false;
    name_the_home();
    if call.verbose {
        say!("mount.s3mount: {} on {}", call.source.display(), call.dir.display());
    }
    if call.fake {
        let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        MountConfig::new(arguments, ids).map_err(|error| Failure::usage(error.to_string()))?;
        return Ok(());
    }
    mount::run(arguments)
}

/// At boot the environment is empty, and the AWS configuration is looked for below `HOME`.
fn name_the_home() {
    if std::env::var_os("HOME").is_some_and(|home| !home.is_empty()) {
        return;
    }
    if let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid()) {
        // SAFETY: the process has one thread: nothing was started before.
        unsafe { std::env::set_var("HOME", user.dir) };
    }
}

fn unmounted(call: &UnmountCall) -> Result<(), Failure> {
    enter(call.namespace.as_deref())?;
    let entry = mount_at(&call.dir)?;
    let shown = entry.dir.display();
    let by_root = nix::unistd::geteuid().is_root();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ResourceBusy if call.read_only && by_root && place::remount(&entry.dir, true, None).is_ok() => {
            Failure::mount(format!("{}: it is read-only now", unmount::in_use(&entry.dir)))
        }
        io::ErrorKind::ResourceBusy => {
            Failure::mount(format!("{}: end them and unmount again, or umount -l", unmount::in_use(&entry.dir)))
        }
        _ => Failure::mount(format!("{shown} cannot be unmounted: {error}")),
    };
    if !call.force {
        refuse_to_lose(&entry)?;
    }
    if call.lazy {
        place::detach(&entry.dir, by_root).map_err(failed)?;
        utab::remove(&entry.dir);
        return Ok(());
    }
    // Asked before the end: afterwards nobody finds the daemon by its mount.
    let steps = speak(&entry, "follow").ok();
    if call.force && by_root {
        place::force(&entry.dir).map_err(failed)?;
    } else {
        place::unmount(&entry.dir, by_root).map_err(failed)?;
    }
    utab::remove(&entry.dir);
    if call.verbose {
        say!("umount.s3mount: {shown} is unmounted");
    }
    // A daemon that belongs to another user, or is dead, is not heard.
    steps.map_or(Ok(()), unmount::follow)
}

/// Fails where files would end with the mount. A daemon that does not answer says nothing of any.
fn refuse_to_lose(entry: &place::MountEntry) -> Result<(), Failure> {
    let Ok(Status { unkept_files: files @ 1.., .. }) = ask(entry) else { return Ok(()) };
    let shown = entry.dir.display();
    Err(Failure::mount(format!(
        "{shown}: {files} files are neither in S3 nor in the journal, and would be lost: make room in the state directory and unmount \
         again, or umount -f, which also takes the mount from those who use it"
    )))
}

/// Goes over to another mount namespace, which must be done before there are threads.
fn enter(namespace: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = namespace else { return Ok(()) };
    let entered = std::fs::File::open(path).and_then(|file| {
        // SAFETY: setns(2) takes a descriptor, which lives, and a constant.
        match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNS) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    });
    entered.map_err(|error| Failure::system(format!("the namespace {} cannot be entered: {error}", path.display())))
}
