//! mount(8) and umount(8) find the helpers and speak with them, as root, in a mount namespace of the fact's own.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use s3sim::shaping::{Config, FirstByte};

use super::bed::{Bed, has, hold, run, text};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("mounting::fstab_is_mounted_and_unmounted_by_the_system", fstab_is_mounted_and_unmounted_by_the_system),
    ("mounting::umount_waits_until_everything_is_in_s3", umount_waits_until_everything_is_in_s3),
    ("mounting::both_types_are_found", both_types_are_found),
    ("mounting::the_letters_of_mount_8_mean_what_its_manual_says", the_letters_of_mount_8_mean_what_its_manual_says),
    ("mounting::a_busy_mount_is_told_by_umount_and_goes_lazily", a_busy_mount_is_told_by_umount_and_goes_lazily),
    (
        "mounting::a_daemon_that_ends_late_leaves_the_record_of_the_next",
        a_daemon_that_ends_late_leaves_the_record_of_the_next,
    ),
    ("mounting::of_two_that_mount_at_once_one_does", of_two_that_mount_at_once_one_does),
    ("mounting::nonempty_hides_what_is_there", nonempty_hides_what_is_there),
    ("mounting::a_dead_mount_is_replaced_and_taken_away", a_dead_mount_is_replaced_and_taken_away),
    ("mounting::an_automount_is_mounted_and_expires", an_automount_is_mounted_and_expires),
];

/// The word at which this program is another one: see [`write_by_map`].
pub const WRITE_BY_MAP: &str = "--write-by-map";

/// What every script begins with: the helpers in /sbin, and libmount's table, in this namespace alone.
const PRELUDE: &str = r#"
. "$HERE/root.sh"
layer over
lay_over "$(realpath /sbin)" over "$(realpath /sbin)"
mkdir -p /run/mount
mount -t tmpfs tmpfs /run/mount
for name in mount.s3mount mount.fuse.s3mount umount.s3mount umount.fuse.s3mount; do ln -s "$S3MOUNT" "/sbin/$name"; done
reach="endpoint_url=$ENDPOINT,region=us-east-1,state-dir=$T/state"
leave() { if grep -q " $T/mnt " /proc/self/mountinfo; then umount -i -l "$T/mnt"; fi; }
trap leave EXIT
fails() { # STATUS COMMAND..: prints what it says
    wanted=$1; shift
    status=0; "$@" 2>&1 || status=$?
    [ "$status" = "$wanted" ] || { echo "exit status $status of $*, not $wanted"; exit 1; }
}
daemon_of() { "$S3MOUNT" status --json "$1" | sed 's/.*"pid":\([0-9]*\).*/\1/'; }
"#;

/// Runs a script in a mount namespace of its own; what it printed, or why this machine cannot show it.
fn script(bed: &Bed, body: &str) -> Result<Result<String, String>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Err("mount(8) needs root".into()));
    }
    if !has("unshare") || !has("findmnt") {
        return Ok(Err("no unshare or findmnt (util-linux)".into()));
    }
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = bed.command("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euo", "pipefail", "-c"]);
    command.arg(format!("{PRELUDE}{body}"));
    command.env("T", bed.scratch()).env("S3MOUNT", env!("CARGO_BIN_EXE_s3mount")).env("ENDPOINT", bed.sim.url());
    command.env("TEST", exe).env("HERE", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system"));
    let output = run(&mut command)?;
    let said = text(&output);
    match output.status.code() {
        Some(0) => Ok(Ok(said)),
        Some(77) => Ok(Err(said.trim().to_owned())),
        _ => Err(format!("{}: {said}", output.status)),
    }
}

/// Runs a script, and gives what it printed to `check`.
pub fn shown(bed: &Bed, body: &str, check: impl FnOnce(&str) -> Result<(), String>) -> Shown {
    match script(bed, body)? {
        Ok(said) => check(&said).map(|()| None),
        Err(reason) => Ok(Some(reason)),
    }
}

fn fstab_is_mounted_and_unmounted_by_the_system() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
cat >"$T/fstab" <<END
s3://data/some/pre\040fix $T/mnt s3mount _netdev,nofail,noexec,allow_other,x-test.word,comment=a\040b,file_mode=640,uid=7,$reach 0 0
END
mount -a -T "$T/fstab"
mount -a -T "$T/fstab" # what is mounted is found again, and left alone
findmnt -n -o SOURCE,FSTYPE,OPTIONS "$T/mnt"
echo hello >"$T/mnt/file"
stat -c 'owner %u' "$T/mnt"
cat /run/mount/utab
umount "$T/mnt"
[ ! -s /run/mount/utab ] || { echo "left in utab:"; cat /run/mount/utab; exit 1; }
[ ! -e "$T/mnt/file" ]
"#;
    shown(&bed, body, |said| {
        hold(said.contains("s3://data/some/pre fix fuse.s3mount"), "source and type are those of fstab", &said)?;
        hold(said.contains("noexec"), "noexec is honoured", &said)?;
        hold(said.contains("owner 7"), "the owner is that of fstab", &said)?;
        hold(said.contains("OPTS=helper=s3mount"), "umount(8) is sent to the helper", &said)?;
        let object = bed.object("some/pre fix/file");
        hold(object.as_deref() == Some(b"hello\n"), "the object is there", &format!("{object:?}"))
    })
}

fn umount_waits_until_everything_is_in_s3() -> Shown {
    let bed = Bed::new()?;
    // What is written by mmap after close is published after the file's last user has gone, by nobody's call.
    let first_byte_ms = FirstByte { put: 3000.0, ..FirstByte::default() };
    bed.sim.set(Config { first_byte_ms, ..Config::default() });
    let body = r#"
mount -t s3mount -o "$reach" s3://data "$T/mnt"
"$TEST" --write-by-map "$T/mnt/mapped"
umount "$T/mnt"
cat "$T/bucket/data/mapped"
"#;
    shown(&bed, body, |said| hold(said.ends_with("by the map"), "the object has what was written last", &said))
}

/// Writes a file, closes it, and writes it again through a mapping that is never synced.
pub fn write_by_map(path: &str) -> ExitCode {
    let options = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let Ok(file) = options.and_then(|file| std::io::Write::write_all(&mut &file, b"by a write").map(|()| file)) else {
        return ExitCode::FAILURE;
    };
    // SAFETY: the kernel chooses where; the length is that of the file.
    let map = unsafe {
        libc::mmap(std::ptr::null_mut(), 10, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if map == libc::MAP_FAILED {
        return ExitCode::FAILURE;
    }
    drop(file);
    // SAFETY: the mapping is ten bytes long and lives until the end of the process.
    unsafe { std::ptr::copy_nonoverlapping(b"by the map".as_ptr(), map.cast::<u8>(), 10) };
    ExitCode::SUCCESS
}

fn both_types_are_found() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
mount -t fuse.s3mount -o "ro,$reach" s3://data "$T/mnt"
findmnt -n -o FSTYPE,OPTIONS "$T/mnt"
umount "$T/mnt"
# systemd's way: nothing is canonicalised, and the helper is found by the whole type.
mount -t s3mount -o "$reach" s3://data "$T/mnt"
umount -c "$T/mnt"
# Without our own helper the one of libfuse is called, which looks for the program in the system's directories.
if [ -e /sbin/mount.fuse ]; then
    rm /sbin/mount.fuse.s3mount
    ln -s "$S3MOUNT" /sbin/s3mount
    mount -t fuse.s3mount -o "$reach" s3://data "$T/mnt"
    findmnt -n -o FSTYPE "$T/mnt"
    umount "$T/mnt"
fi
"#;
    shown(&bed, body, |said| hold(said.starts_with("fuse.s3mount ro,"), "it is mounted", &said))
}

fn the_letters_of_mount_8_mean_what_its_manual_says() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
fails 1 mount -t s3mount -o "alow_other,$reach" s3://data "$T/mnt"
mount -s -v -t s3mount -o "alow_other,$reach" s3://data "$T/mnt"
umount -v "$T/mnt"
fails 1 mount -f -t s3mount -o "alow_other,$reach" s3://data "$T/mnt"
/sbin/mount.s3mount s3://data "$T/mnt" -f -v -n -o "$reach"
! grep -q " $T/mnt " /proc/self/mountinfo
fails 32 mount -t s3mount -o "$reach" s3://no-such-bucket "$T/mnt"
fails 32 mount -t s3mount -o "$reach" s3://data "$T/nowhere"
"#;
    shown(&bed, body, |said| {
        hold(said.contains("did you mean \"allow-other\"?"), "the nearest word is named", &said)?;
        hold(said.contains("no-such-bucket"), "the bucket that is missing is named", &said)
    })
}

fn a_busy_mount_is_told_by_umount_and_goes_lazily() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
mount -t s3mount -o "$reach" s3://data "$T/mnt"
exec 5>"$T/mnt/file"
echo kept >&5
fails 32 umount "$T/mnt"
pid=$(daemon_of "$T/mnt")
umount -l "$T/mnt"
[ ! -s /run/mount/utab ]
exec 5>&-
for _ in $(seq 600); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
[ ! -e "/proc/$pid" ]
"#;
    shown(&bed, body, |said| {
        hold(said.contains("is in use by bash"), "who uses it is named", &said)?;
        hold(bed.object("file").as_deref() == Some(b"kept\n"), "it is in S3", &said)
    })
}

fn a_daemon_that_ends_late_leaves_the_record_of_the_next() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
gone() { for _ in $(seq 600); do [ -e "/proc/$1" ] || return 0; sleep 0.1; done; return 1; }
mount -t s3mount -o "$reach" s3://data "$T/mnt"
exec 5>"$T/mnt/file"
echo kept >&5
first=$(daemon_of "$T/mnt")
umount -l "$T/mnt"
mount -t s3mount -o "$reach" s3://data "$T/mnt"
second=$(daemon_of "$T/mnt")
exec 5>&-
gone "$first"
grep "TARGET=$T/mnt " /run/mount/utab
umount "$T/mnt"
# The helper waited: the daemon has nothing left to do.
for _ in $(seq 20); do [ -e "/proc/$second" ] || break; sleep 0.1; done
[ ! -e "/proc/$second" ]
[ ! -s /run/mount/utab ]
"#;
    shown(&bed, body, |said| hold(said.contains("helper=s3mount"), "umount(8) still finds the helper", &said))
}

fn of_two_that_mount_at_once_one_does() -> Shown {
    let bed = Bed::new()?;
    // Without a lock all have looked at the directory before one mounts. In the last round somebody else holds it.
    let first_byte_ms = FirstByte { list: 1000.0, ..FirstByte::default() };
    bed.sim.set(Config { first_byte_ms, ..Config::default() });
    let body = r#"
for round in 1 2 3; do
    if [ "$round" = 3 ]; then exec 9<"$T/mnt"; flock 9; fi
    pids= failed=0
    for n in 1 2 3; do mount -t s3mount -o "$reach" s3://data "$T/mnt" & pids="$pids $!"; done
    for pid in $pids; do wait "$pid" || { status=$?; [ "$status" = 32 ]; failed=$((failed + 1)); }; done
    # Without the lock two may take one another for the first, and go both: then the next is served, and never two are.
    if [ "$round" = 3 ] && [ "$failed" = 3 ]; then exec 9<&-; mount -t s3mount -o "$reach" s3://data "$T/mnt"; failed=2; fi
    [ "$failed" = 2 ] || { echo "$failed of three failed"; exit 1; }
    [ "$(grep -c " $T/mnt " /proc/self/mountinfo)" = 1 ]
    echo "$round" >"$T/mnt/file"
    umount "$T/mnt"
    ! grep -q " $T/mnt " /proc/self/mountinfo
done
"#;
    shown(&bed, body, |said| {
        hold(
            said.matches("mounted (s3://data): unmount it first").count()
                + said.matches("mounted meanwhile (s3://data)").count()
                >= 5,
            "the others are told why",
            &said,
        )?;
        hold(bed.object("file").as_deref() == Some(b"3\n"), "the one that is there works", &said)
    })
}

fn nonempty_hides_what_is_there() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
echo hidden >"$T/mnt/under"
fails 32 mount -t s3mount -o "$reach" s3://data "$T/mnt"
mount -t s3mount -o "nonempty,$reach" s3://data "$T/mnt"
[ ! -e "$T/mnt/under" ]
umount "$T/mnt"
cat "$T/mnt/under"
"#;
    shown(&bed, body, |said| {
        hold(said.contains("is not empty") && said.contains("--nonempty"), "what helps is said", &said)?;
        hold(said.ends_with("hidden\n"), "it is there again", &said)
    })
}

fn a_dead_mount_is_replaced_and_taken_away() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
die() { kill -9 "$(daemon_of "$T/mnt")"; while stat "$T/mnt" >/dev/null 2>&1; do sleep 0.05; done; }
echo "s3://data $T/mnt s3mount $reach 0 0" >"$T/fstab"
mount -T "$T/fstab" "$T/mnt"
die
mount -T "$T/fstab" "$T/mnt"
[ "$(grep -c " $T/mnt " /proc/self/mountinfo)" = 1 ]
echo hello >"$T/mnt/file"
die
umount "$T/mnt"
! grep -q " $T/mnt " /proc/self/mountinfo
[ ! -s /run/mount/utab ]
"#;
    shown(&bed, body, |said| hold(bed.object("file").is_some(), "the new mount works", &said))
}

/// systemd's part is played by a few lines of Python: a direct autofs mount, whose requests to mount and to expire are
/// answered by mount(8) and umount(8) in the same process group, as systemd runs them.
const AUTOMOUNTER: &str = r#"
import ctypes, fcntl, os, struct, subprocess, sys, threading, time
mnt, fstab = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
READY, FAIL, EXPIRE_MULTI = 0x9360, 0x9361, 0x40049366  # linux/auto_fs.h
r, w = os.pipe()
os.set_inheritable(w, False)
data = f"fd={w},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct".encode()
if libc.mount(b"test", mnt.encode(), b"autofs", 0, data):
    print("no autofs:", os.strerror(ctypes.get_errno())); sys.exit(77)
root = os.open(mnt, os.O_RDONLY | os.O_DIRECTORY)  # our process group lets us see the trigger itself
def answer(command):
    packet = os.read(r, 4096)
    token = struct.unpack_from("=iiI", packet, 0)[2]  # protocol version, type, token
    code = subprocess.run(command).returncode
    fcntl.ioctl(root, FAIL if code else READY, token)
    return code
def user():  # somebody else: another session, whom autofs makes wait
    return subprocess.Popen(["sh", "-c", f"cat {mnt}/file"], start_new_session=True, stdout=subprocess.PIPE)
somebody = user()
if answer(["mount", "-T", fstab, mnt]): sys.exit("mount failed")
print("read:", somebody.communicate(timeout=60)[0].decode().strip(), flush=True)
# The end of the idle time: the kernel asks for the expiry while the ioctl waits.
result = []
def expire():
    try: fcntl.ioctl(root, EXPIRE_MULTI, struct.pack("i", 1)); result.append("expired")
    except OSError as error: result.append(f"not expired: {error}")
thread = threading.Thread(target=expire); thread.start()
if answer(["umount", "-c", mnt]): sys.exit("umount failed")
thread.join(60)
print(result, flush=True)
os.close(root)
libc.umount2(mnt.encode(), 2)
"#;

fn an_automount_is_mounted_and_expires() -> Shown {
    if !has("python3") {
        return Ok(Some("no python3 to play the automounter".into()));
    }
    let bed = Bed::new()?;
    std::fs::write(bed.path("automounter.py"), AUTOMOUNTER).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(bed.path("bucket/data")).map_err(|e| e.to_string())?;
    let body = r#"
mount -t s3mount -o "$reach" s3://data "$T/mnt"
echo hello >"$T/mnt/file"
umount "$T/mnt"
echo "s3://data $T/mnt s3mount $reach,x-systemd.automount 0 0" >"$T/fstab"
timeout -k 5 100 setsid -w python3 "$T/automounter.py" "$T/mnt" "$T/fstab"
"#;
    shown(&bed, body, |said| {
        hold(said.contains("read: hello"), "the first access mounts", &said)?;
        hold(said.contains("['expired']"), "the idle mount is unmounted", &said)
    })
}
