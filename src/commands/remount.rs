//! `mount -o remount`: what a mount that is there may become.
//!
//! The kernel lets a FUSE mount become read-only and writable again, and its programs runnable or not; nothing else. Options
//! of ours are fixed for the daemon's life: the same ones may be said again, as a line of fstab does, others are refused.

use super::status::{ask, mount_at};
use super::unmount::in_use;
use crate::config::MountConfig;
use crate::config::helper::{MountCall, Remount};
use crate::export::status::Status;
use crate::lifecycle::{Failure, place};

/// What may change, in the names of the command line.
const CHANGEABLE: [&str; 4] = ["read-only", "read-write", "exec", "noexec"];

/// Remounts, or says why not.
pub(super) fn run(call: &MountCall, wish: Remount) -> Result<(), Failure> {
    let entry = mount_at(call.dir.as_ref())?;
    let shown = entry.dir.display();
    let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if ids.0 != 0 {
        return Err(Failure::mount(format!("{shown}: only root may remount; unmount it and mount it anew")));
    }
    if call.source.to_str() != Some(&*entry.source) {
        return Err(Failure::mount(format!(
            "{shown} is a mount of {}, not of {}",
            entry.source,
            call.source.display()
        )));
    }
    let Remount { arguments, said } = wish;
    let config = MountConfig::new(arguments, ids).map_err(|error| Failure::usage(error.to_string()))?;
    possible(&config, &said, &ask(&entry)?).map_err(Failure::usage)?;
    if call.fake {
        return Ok(());
    }
    let no_exec = said.iter().any(|name| matches!(&**name, "exec" | "noexec")).then_some(config.no_exec);
    place::remount(&entry.dir, config.read_only, no_exec).map_err(|error| match error.kind() {
        std::io::ErrorKind::ResourceBusy => Failure::mount(format!(
            "{}, and files on it are open for writing: close them and remount it again",
            in_use(&entry.dir)
        )),
        _ => Failure::mount(format!("{shown} cannot be remounted: {error}")),
    })
}

/// Whether the daemon of a mount can be what is asked for; why not, and what to do.
fn possible(config: &MountConfig, said: &[String], now: &Status) -> Result<(), String> {
    let remedy = "unmount it and mount it anew";
    let wanted = config.in_force();
    for name in said.iter().filter(|name| !CHANGEABLE.contains(&&***name)) {
        let (Some(wanted), there) = (wanted.get(name), now.options.get(name)) else { continue };
        if there != Some(wanted) {
            let there = there.map_or("unknown", |value| value);
            return Err(format!(
                "a remount changes ro, rw, exec and noexec alone, and {name} of {} is {there}, not {wanted}: {remedy}",
                now.dir
            ));
        }
    }
    if !config.read_only && now.options.get("read-only").is_some_and(|value| value == "true") {
        return Err(format!("{} was mounted read-only, and its daemon writes nothing: {remedy} with rw", now.dir));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn call(options: &str) -> MountCall {
        MountCall::try_parse_from(["mount.s3mount", "s3://data", "/mnt", "-o", options]).expect("a good call")
    }

    /// What is said of a remount with these options, to a mount that was made with those.
    fn said(options: &str, mounted_with: &str) -> Result<(), String> {
        let config = |arguments| MountConfig::new(arguments, (0, 0)).expect("good options");
        let there = config(call(mounted_with).arguments().expect("known words")).in_force();
        let now = Status { dir: "/mnt".into(), options: there, ..Status::default() };
        let Remount { arguments, said } = call(options).remount().expect("known words").expect("a remount");
        possible(&config(arguments), &said, &now)
    }

    #[test]
    fn read_only_and_noexec_come_and_go() {
        for options in ["remount,ro", "remount,rw,noexec", "remount,exec", "remount"] {
            assert_eq!(said(options, "uid=7,noexec"), Ok(()), "{options}");
        }
    }

    #[test]
    fn the_same_options_may_be_said_again() {
        assert_eq!(
            said("remount,ro,uid=7,metadata_ttl=5000ms,cache-dir=/c", "metadata_ttl=5s,uid=7,cache_dir=/c"),
            Ok(())
        );
    }

    #[test]
    fn another_option_is_named_with_what_is_in_force() {
        let why = said("remount,ro,metadata_ttl=9s", "metadata_ttl=5s").expect_err("it cannot change");
        assert!(why.contains("metadata-ttl of /mnt is 5000ms, not 9000ms"), "{why}");
    }

    #[test]
    fn a_mount_that_was_born_read_only_stays_it() {
        assert!(said("remount,rw", "ro").expect_err("nothing writes there").contains("was mounted read-only"));
        assert_eq!(said("remount,ro", "ro"), Ok(()));
    }
}
