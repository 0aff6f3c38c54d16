//! The command lines of mount(8) and umount(8) to their helpers (both manuals, "EXTERNAL HELPERS"): which helper a program's
//! name stands for, and what its letters mean. They are not s3mount's own: `-f` is "fake" here, and "foreground" there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, Command, Parser};

use super::cli::{Cli, MountArgs, Refused};
use super::{file, fstab};

/// The helper that a program's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// `mount.s3mount` or `mount.fuse.s3mount`.
    Mount,
    /// `umount.s3mount` or `umount.fuse.s3mount`.
    Unmount,
}

impl Helper {
    /// The helper as which the program was called; `None` where it was called by its own name.
    pub fn called(program: &OsStr) -> Option<Self> {
        match Path::new(program).file_name()?.to_str()? {
            "mount.s3mount" | "mount.fuse.s3mount" => Some(Self::Mount),
            "umount.s3mount" | "umount.fuse.s3mount" => Some(Self::Unmount),
            _ => None,
        }
    }
}

/// `mount.s3mount SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.
#[derive(Debug, Parser)]
#[command(
    name = "mount.s3mount",
    version,
    about = "Mounts an S3 bucket for mount(8) and fstab(5)",
    args_override_self = true
)]
pub struct MountCall {
    /// Bucket and prefix: s3://BUCKET[/PREFIX]
    #[arg(value_name = "SOURCE")]
    pub source: OsString,
    /// Empty directory to mount on
    #[arg(value_name = "DIR")]
    pub dir: OsString,
    /// Pass over options that are unknown
    #[arg(short = 's')]
    pub sloppy: bool,
    /// Check everything and mount nothing
    #[arg(short = 'f')]
    pub fake: bool,
    /// Keep no record in /etc/mtab: there is none anyway
    #[arg(short = 'n')]
    pub no_mtab: bool,
    /// Say what is done
    #[arg(short = 'v')]
    pub verbose: bool,
    /// Mount in another mount namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub namespace: Option<PathBuf>,
    /// Options of mount(8), fstab(5) and s3mount
    #[arg(short = 'o', value_name = "OPTION[,...]")]
    pub options: Vec<OsString>,
    /// s3mount or fuse.s3mount
    #[arg(short = 't', value_name = "TYPE")]
    pub kind: Option<String>,
}

/// What `mount -o remount` asks for.
#[derive(Debug)]
pub struct Remount {
    /// The wish in the words of s3mount's own command line.
    pub arguments: MountArgs,
    /// Names of the options that were said, here or in the file that `config` names.
    pub said: Vec<String>,
}

impl MountCall {
    /// The same wish in the words of s3mount's own command line.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn arguments(&self) -> Result<MountArgs, Refused> {
        self.arguments_of(&self.options)
    }

    /// The wish for a remount, if it is one (mount(8), "remount").
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn remount(&self) -> Result<Option<Remount>, Refused> {
        let lists = self.options.iter().map(|list| list.to_string_lossy());
        let Some(list) = fstab::remount(&lists.collect::<Vec<_>>().join(",")) else { return Ok(None) };
        let mut words = fstab::arguments(&list, self.sloppy)?;
        let arguments = self.arguments_of(&[list.into()])?;
        if let Some(name) = &arguments.config {
            words.extend(file::read(&file::path(name))?.arguments);
        }
        let name = |word: &String| word.trim_start_matches("--").split('=').next().unwrap_or_default().to_owned();
        Ok(Some(Remount { arguments, said: words.iter().map(name).collect() }))
    }

    fn arguments_of(&self, lists: &[OsString]) -> Result<MountArgs, Refused> {
        let mut argv: Vec<OsString> = vec!["s3mount".into()];
        for list in lists {
            argv.extend(["-o".into(), list.clone()]);
        }
        // A bucket may have the name of a subcommand, and a directory may begin with a dash.
        argv.extend(["--".into(), self.source.clone(), self.dir.clone()]);
        Ok(Cli::read_as(argv, self.sloppy)?.mount)
    }
}

/// `umount.s3mount DIR [-flnrv] [-N NAMESPACE] [-t TYPE]`.
#[derive(Debug, Parser)]
#[command(name = "umount.s3mount", version, about = "Unmounts an S3 bucket for umount(8)", args_override_self = true)]
pub struct UnmountCall {
    /// Where the bucket is mounted
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Break the connection to programs that use it; what they wrote is uploaded or kept
    #[arg(short = 'f')]
    pub force: bool,
    /// Take it out of the tree at once; it ends with its last user
    #[arg(short = 'l')]
    pub lazy: bool,
    /// Keep no record in /etc/mtab: there is none anyway
    #[arg(short = 'n')]
    pub no_mtab: bool,
    /// Make it read-only where it cannot be unmounted
    #[arg(short = 'r')]
    pub read_only: bool,
    /// Say what is done
    #[arg(short = 'v')]
    pub verbose: bool,
    /// Unmount in another mount namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub namespace: Option<PathBuf>,
    /// fuse.s3mount
    #[arg(short = 't', value_name = "TYPE")]
    pub kind: Option<String>,
}

/// The words that `-o` takes beside those of mount(8), each with its help: for the manual page.
pub fn option_words() -> Vec<(String, String)> {
    let known = MountArgs::augment_args(Command::new("s3mount"));
    let shown = known.get_arguments().filter(|option| !option.is_hide_set());
    let words = shown.filter_map(|option| {
        let long = option.get_long()?;
        let value = option.get_value_names().filter(|_| option.get_action().takes_values());
        let word = value.map_or_else(|| long.to_owned(), |names| format!("{long}={}", names.join(",")));
        Some((word, option.get_help()?.to_string()))
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helpers_are_known_by_their_names() {
        for (name, helper) in [
            ("/sbin/mount.s3mount", Some(Helper::Mount)),
            ("/usr/sbin/mount.fuse.s3mount", Some(Helper::Mount)),
            ("umount.s3mount", Some(Helper::Unmount)),
            ("/sbin/umount.fuse.s3mount", Some(Helper::Unmount)),
            ("/usr/bin/s3mount", None),
        ] {
            assert_eq!(Helper::called(OsStr::new(name)), helper, "{name}");
        }
    }

    #[test]
    fn what_mount_8_says_is_understood() {
        let said =
            "mount.s3mount s3://unmount/p /mnt -s -f -n -v -o rw,noexec,nosuid,uid=5,_netdev,user -t fuse.s3mount";
        let call = MountCall::try_parse_from(said.split(' ')).expect("what mount(8) says");
        assert!(call.sloppy && call.fake && call.no_mtab && call.verbose);
        let arguments = call.arguments().expect("known words");
        assert_eq!(arguments.source.as_deref(), Some("s3://unmount/p"));
        assert_eq!((arguments.uid, arguments.foreground, arguments.noexec), (Some(5), false, true));
    }

    #[test]
    fn a_bucket_may_have_the_name_of_a_command() {
        let call = MountCall::try_parse_from(["mount.s3mount", "status", "/mnt", "-o", "ro"]).expect("a good call");
        let arguments = call.arguments().expect("known words");
        assert_eq!((arguments.source.as_deref(), arguments.read_only), (Some("status"), true));
    }

    #[test]
    fn a_sloppy_call_passes_over_unknown_words() {
        let call =
            |letters: &'static str| MountCall::try_parse_from(letters.split(' ')).expect("a good call").arguments();
        assert!(call("mount.s3mount b /mnt -o zebra,uid=7").is_err());
        assert_eq!(call("mount.s3mount b /mnt -s -o zebra,uid=7").expect("sloppy").uid, Some(7));
        assert_eq!(call("mount.s3mount b /mnt -o zebra,sloppy,uid=7").expect("sloppy").uid, Some(7));
    }

    #[test]
    fn a_remount_has_the_words_of_fstab_or_those_of_the_kernel() {
        let remount = |options: &'static str| {
            let call = MountCall::try_parse_from(["mount.s3mount", "s3://b", "/mnt", "-o", options]).expect("a call");
            call.remount().expect("known words").map(|it| (it.said, it.arguments.read_only))
        };
        assert_eq!(remount("ro,uid=7"), None);
        let of_fstab = remount("ro,remount,noexec,nosuid,metadata_ttl=5s,allow_other,_netdev,user");
        let said = ["read-only", "noexec", "metadata-ttl", "allow-other"].map(str::to_owned).to_vec();
        assert_eq!(of_fstab, Some((said, true)));
        let shown =
            "rw,nosuid,nodev,relatime,remount,user_id=0,group_id=0,default_permissions,allow_other,helper=s3mount";
        assert_eq!(remount(shown), Some((vec!["read-write".to_owned()], false)));
    }

    #[test]
    fn a_comma_in_a_value_stays_one_in_a_remount() {
        let options = r"remount,profile=a\,b\\c";
        let call = MountCall::try_parse_from(["mount.s3mount", "s3://b", "/mnt", "-o", options]).expect("a call");
        let remount = call.remount().expect("known words").expect("a remount");
        assert_eq!(remount.arguments.s3.profile.as_deref(), Some(r"a,b\c"));
    }

    #[test]
    fn what_umount_8_says_is_understood() {
        let call =
            UnmountCall::try_parse_from(["umount.s3mount", "/mnt", "-f", "-l", "-n", "-r", "-v", "-t", "fuse.s3mount"]);
        let call = call.expect("what umount(8) says");
        assert!(call.force && call.lazy && call.no_mtab && call.read_only && call.verbose);
    }
}
