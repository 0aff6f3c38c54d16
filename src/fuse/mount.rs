//! mount(2) and its end: a FUSE device that is mounted, and the unmounting of that mount and no other.
//!
//! As root the kernel is asked directly; otherwise fusermount3 does it and hands the device over a socket
//! (`_FUSE_COMMFD`, libfuse's `fusermount.c`). fuser's own mounting is not used: it unmounts by path, so that it can hit a
//! stranger who mounted there since, and lets a comma in the source's name add options.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::cmsg_space;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair};

/// What to mount.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// Directory to mount on, absolute.
    pub dir: PathBuf,
    /// What mount(8) and df(1) show as the source.
    pub source: String,
    /// MS_RDONLY.
    pub read_only: bool,
    /// MS_NOEXEC.
    pub no_exec: bool,
    /// The kernel lets other users in.
    pub others: bool,
}

/// A mount of ours.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    /// The device number of the mount: which tells ours from another at the same path.
    device: u64,
    by_root: bool,
}

/// Mounts; the device must be served at once (see `session::serve`), for the kernel waits for its INIT.
///
/// # Errors
/// What mount(2) or fusermount3 said. Nothing is left mounted.
pub fn mount_fuse(request: &MountRequest) -> io::Result<(OwnedFd, Mounted)> {
    let by_root = nix::unistd::geteuid().is_root();
    let device = if by_root { mount_as_root(request)? } else { mount_by_fusermount(request)? };
    let listed = device_of(&request.dir)
        .and_then(|found| found.ok_or_else(|| io::Error::other("the kernel does not list the new mount")));
    match listed {
        Ok(number) => Ok((device, Mounted { dir: request.dir.clone(), device: number, by_root })),
        Err(error) => {
            // Nobody else can have mounted there within this moment.
            let _ = detach(&request.dir, by_root);
            Err(error)
        }
    }
}

fn mount_as_root(request: &MountRequest) -> io::Result<OwnedFd> {
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").map_err(|error| {
        io::Error::new(error.kind(), format!("/dev/fuse cannot be opened ({error}): is the fuse module loaded?"))
    })?;
    let mode = std::fs::metadata(&request.dir)?.mode() & libc::S_IFMT;
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut data =
        format!("fd={},rootmode={mode:o},user_id={uid},group_id={gid},default_permissions", device.as_raw_fd());
    if request.others {
        data.push_str(",allow_other");
    }
    let flags = flags(request.read_only, request.no_exec);
    // The source is an argument of its own here, so that nothing in it can become an option.
    mount(Some(request.source.as_str()), &request.dir, Some("fuse.s3mount"), flags, Some(data.as_str()))?;
    Ok(device.into())
}

/// The flags of a mount of ours.
fn flags(read_only: bool, no_exec: bool) -> MsFlags {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, read_only);
    flags.set(MsFlags::MS_NOEXEC, no_exec);
    flags
}

fn mount_by_fusermount(request: &MountRequest) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty())?;
    let mut options = format!("fsname={},subtype=s3mount,default_permissions,nosuid,nodev", escaped(&request.source));
    for (wanted, word) in [(request.others, ",allow_other"), (request.read_only, ",ro"), (request.no_exec, ",noexec")] {
        if wanted {
            options.push_str(word);
        }
    }
    nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    let output = fusermount(&["-o", &options], &request.dir, Some(&theirs))?;
    drop(theirs);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().trim_start_matches("fusermount3: ").to_owned()));
    }
    receive_device(&ours)
}

/// Runs fusermount3, or the fusermount of fuse 2 where there is no other (Amazon Linux 2).
fn fusermount(arguments: &[&str], dir: &Path, socket: Option<&OwnedFd>) -> io::Result<Output> {
    for program in ["fusermount3", "fusermount"] {
        let mut command = Command::new(program);
        command.args(arguments).arg("--").arg(dir).stdin(Stdio::null());
        if let Some(socket) = socket {
            command.env("_FUSE_COMMFD", socket.as_raw_fd().to_string());
        }
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
    }
    Err(io::Error::other("fusermount3 is missing: install the package fuse3, or mount as root"))
}

fn receive_device(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(io::Error::other("fusermount3 handed no device over"))
}

/// A source's name with what parts options escaped, as fusermount3 understands it.
fn escaped(source: &str) -> String {
    source.replace('\\', "\\\\").replace(',', "\\,")
}

impl Mounted {
    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Device number, as `/proc/self/mountinfo` spells it: major and minor.
    pub fn device(&self) -> (u64, u64) {
        (u64::from(libc::major(self.device)), u64::from(libc::minor(self.device)))
    }

    /// Whether it is still there, and not another one in its place. True where the kernel does not say.
    pub fn is_there(&self) -> bool {
        device_of(&self.dir).map_or(true, |found| found == Some(self.device))
    }

    /// Unmounts, unless a program still uses the mount.
    ///
    /// # Errors
    /// `ResourceBusy` if one does; what umount(2) or fusermount3 said.
    pub fn unmount(&self) -> io::Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        unmount(&self.dir, self.by_root)
    }

    /// Takes the mount out of the tree at once; programs that still use it may go on until they close (MNT_DETACH). Does
    /// nothing if it is gone.
    ///
    /// # Errors
    /// What umount(2) or fusermount3 said.
    pub fn detach(&self) -> io::Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        detach(&self.dir, self.by_root)
    }
}

/// Unmounts whatever is mounted at `dir`, unless a program still uses it.
///
/// # Errors
/// `ResourceBusy` if one does; what umount(2) or fusermount3 said.
pub fn unmount(dir: &Path, by_root: bool) -> io::Result<()> {
    if by_root {
        return Ok(umount2(dir, MntFlags::UMOUNT_NOFOLLOW)?);
    }
    let output = fusermount(&["-u"], dir, None)?;
    match String::from_utf8_lossy(&output.stderr) {
        _ if output.status.success() => Ok(()),
        said if said.contains("busy") => Err(io::ErrorKind::ResourceBusy.into()),
        said => Err(io::Error::other(said.trim().to_owned())),
    }
}

/// Unmounts what is mounted at `dir` as root, and breaks the connection to its daemon first (MNT_FORCE): requests that
/// hang end with an error.
///
/// # Errors
/// What umount(2) said; `ResourceBusy` where a program still uses it.
pub fn force(dir: &Path) -> io::Result<()> {
    Ok(umount2(dir, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW)?)
}

/// Makes what is mounted at `dir` read-only or writable, and its programs runnable or not (as they are, if nothing is said),
/// as root. The kernel keeps its times' mode, and lets nothing else of a FUSE mount be changed (fuse_reconfigure).
///
/// # Errors
/// What mount(2) said; `ResourceBusy` where a file is open for writing that would have to be read-only.
pub fn remount(dir: &Path, read_only: bool, no_exec: Option<bool>) -> io::Result<()> {
    let no_exec = match no_exec {
        Some(no_exec) => no_exec,
        None => nix::sys::statvfs::statvfs(dir)?.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC),
    };
    Ok(mount(None::<&str>, dir, None::<&str>, MsFlags::MS_REMOUNT | flags(read_only, no_exec), None::<&str>)?)
}

/// Detaches whatever is mounted at `dir`.
///
/// # Errors
/// What umount(2) or fusermount3 said.
pub fn detach(dir: &Path, by_root: bool) -> io::Result<()> {
    if by_root {
        return Ok(umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?);
    }
    let output = fusermount(&["-u", "-z"], dir, None)?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Device number, as stat(2) has it in st_dev.
    pub device: u64,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Type, such as `fuse.s3mount`.
    pub kind: String,
    /// Source.
    pub source: String,
}

/// All mounts, in the order in which they were made. Asks no mount anything, so that a dead one does no harm.
pub fn mounts() -> Vec<MountEntry> {
    listed_mounts().unwrap_or_default()
}

fn listed_mounts() -> io::Result<Vec<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|&byte| byte == b'\n').filter_map(parse_mountinfo).collect())
}

/// proc_pid_mountinfo(5): `36 35 98:0 /root /dir options optional-fields - type source super-options`. Names are bytes: the
/// kernel escapes blanks, tabs, newlines and backslashes alone.
fn parse_mountinfo(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let text = |field: &[u8]| std::str::from_utf8(field).ok().map(str::to_owned);
    let device = text(fields.get(2)?)?;
    let (major, minor) = device.split_once(':')?;
    // The optional fields, of any number, stand between the sixth field and the dash.
    let dash = 6 + fields.get(6..)?.iter().position(|field| *field == b"-")?;
    Some(MountEntry {
        device: libc::makedev(major.parse().ok()?, minor.parse().ok()?),
        dir: PathBuf::from(std::ffi::OsStr::from_bytes(&unescaped(fields.get(4)?))),
        kind: text(fields.get(dash + 1)?)?,
        source: String::from_utf8_lossy(&unescaped(fields.get(dash + 2)?)).into_owned(),
    })
}

/// Blanks and backslashes are written as `\040` and the like.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let letter = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(letter.unwrap_or(bytes[at]));
        at += if letter.is_some() { 4 } else { 1 };
    }
    out
}

/// The device of the topmost mount at `dir`, without touching it.
fn device_of(dir: &Path) -> io::Result<Option<u64>> {
    Ok(listed_mounts()?.into_iter().rev().find(|entry| entry.dir == dir).map(|entry| entry.device))
}

/// Whether the mount at `dir` answers: statfs(2) reaches the daemon.
///
/// # Errors
/// `ENOTCONN` where the daemon is dead.
pub fn answers(dir: &Path) -> io::Result<()> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let mut buffer = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` ends in NUL and `buffer` is as large as the kernel writes.
    let outcome = unsafe { libc::statfs(path.as_ptr(), buffer.as_mut_ptr()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the read-ahead of a mount to `kibibytes`, where that is permitted. The kernel reads ahead by the device's
/// `read_ahead_kb` (Documentation/ABI/testing/sysfs-class-bdi); 128 KiB is its default and too little for S3.
///
/// # Errors
/// Not root, or no such device.
pub fn raise_read_ahead(mounted: &Mounted, kibibytes: u64) -> io::Result<()> {
    let (major, minor) = mounted.device();
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kibibytes.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = br"36 35 0:98 / /mnt/my\040data rw,nosuid shared:1 - fuse.s3mount bucket\054x rw,user_id=0";
        let entry = parse_mountinfo(line).expect("a good line");
        assert_eq!(entry.dir, Path::new("/mnt/my data"));
        assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("fuse.s3mount", "bucket,x"));
        assert_eq!(entry.device, libc::makedev(0, 98));
    }

    #[test]
    fn a_directory_that_is_not_utf8_is_read_like_any_other() {
        let line = b"36 35 0:98 / /mnt/caf\xe9 rw - ext4 /dev/sda1 rw";
        assert_eq!(parse_mountinfo(line).expect("a good line").dir.as_os_str().as_bytes(), b"/mnt/caf\xe9");
    }

    #[test]
    fn a_comma_in_the_source_is_no_option() {
        assert_eq!(escaped(r"b/a,allow_other\"), r"b/a\,allow_other\\");
    }

    #[test]
    fn this_machine_has_a_root_mount() {
        assert!(matches!(device_of(Path::new("/")), Ok(Some(_))));
    }
}
