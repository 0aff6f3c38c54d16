//! `mount -o remount`, other mount namespaces, and mounts of ordinary users: with the system's own mount(8) and umount(8).

use s3sim::shaping::{Config, FirstByte};

use super::bed::{Bed, has, hold};
use super::mounting::shown;
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("remounting::read_only_comes_and_goes", read_only_comes_and_goes),
    ("remounting::what_cannot_change_is_refused_in_a_line", what_cannot_change_is_refused_in_a_line),
    (
        "remounting::a_file_that_is_being_written_keeps_the_mount_writable",
        a_file_that_is_being_written_keeps_the_mount_writable,
    ),
    ("remounting::another_namespace_is_entered", another_namespace_is_entered),
    ("remounting::an_ordinary_user_mounts_and_unmounts", an_ordinary_user_mounts_and_unmounts),
    ("remounting::of_two_mounts_of_a_user_at_once_one_is", of_two_mounts_of_a_user_at_once_one_is),
    ("remounting::umount_by_a_user_waits_until_everything_is_in_s3", umount_by_a_user_waits_until_everything_is_in_s3),
];

fn read_only_comes_and_goes() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
shows() { case ",$(findmnt -n -o OPTIONS "$T/mnt")," in *",$1,"*) ;; *) findmnt -n -o OPTIONS "$T/mnt"; return 1 ;; esac; }
# With a line in fstab, whose options mount(8) repeats, and without one, where it repeats those that the kernel shows.
for fstab in "s3://data $T/mnt s3mount $reach,allow_other,metadata_ttl=5s 0 0" ""; do
    mount -t s3mount -o "$reach,allow_other,metadata_ttl=5s" s3://data "$T/mnt"
    echo "$fstab" >"$T/fstab"
    echo one >"$T/mnt/file"
    mount -T "$T/fstab" -o remount,ro "$T/mnt"
    shows ro
    fails 1 touch "$T/mnt/file" | grep "Read-only file system"
    [ "$(cat "$T/mnt/file")" = one ]
    mount -T "$T/fstab" -o remount,ro,noexec "$T/mnt"
    shows noexec
    mount -T "$T/fstab" -o remount,rw,exec "$T/mnt"
    shows rw; shows nosuid; shows nodev
    echo two >"$T/mnt/file"
    mount -T "$T/fstab" -o remount "$T/mnt"
    echo three >"$T/mnt/file"
    umount "$T/mnt"
    [ ! -s /run/mount/utab ]
done
"#;
    shown(&bed, body, |said| {
        hold(bed.object("file").as_deref() == Some(b"three\n"), "what was written last is in S3", &said)
    })
}

fn what_cannot_change_is_refused_in_a_line() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
echo "s3://data $T/mnt s3mount $reach,metadata_ttl=5s 0 0" >"$T/fstab"
mount -T "$T/fstab" "$T/mnt"
fails 1 mount -T "$T/fstab" -o remount,metadata_ttl=9s "$T/mnt"
fails 1 mount -T "$T/fstab" -o remount,ro,part_size=16MiB "$T/mnt"
fails 1 mount -T "$T/fstab" -o remount,alow_other "$T/mnt"
fails 32 mount -t s3mount -o remount,ro s3://other "$T/mnt"
touch "$T/mnt/still_writable"
umount "$T/mnt"
fails 32 mount -t s3mount -o remount,ro s3://data "$T/mnt"
mount -t s3mount -o "ro,$reach" s3://data "$T/mnt"
fails 1 mount -o remount,rw "$T/mnt"
umount "$T/mnt"
"#;
    shown(&bed, body, |said| {
        for line in [
            "metadata-ttl of",
            "is 5000ms, not 9000ms: unmount it and mount it anew",
            "is 8388608, not 16777216",
            "did you mean \"allow-other\"?",
            "is a mount of s3://data, not of s3://other",
            "was mounted read-only",
        ] {
            hold(said.contains(line), line, &said)?;
        }
        let ours = said.lines().filter(|line| line.starts_with("mount.s3mount: ")).count();
        hold(ours == 6, "each says one line", &said)
    })
}

fn a_file_that_is_being_written_keeps_the_mount_writable() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
mount -t s3mount -o "$reach" s3://data "$T/mnt"
exec 5>"$T/mnt/file"
fails 32 mount -o remount,ro "$T/mnt"
echo written >&5
exec 5>&-
exec 6<"$T/mnt/file"
mount -o remount,ro "$T/mnt"
exec 6<&-
mount -o remount,rw "$T/mnt"
# umount -r: what cannot go becomes read-only.
exec 6<"$T/mnt/file"
fails 32 umount -r "$T/mnt"
fails 1 touch "$T/mnt/file"
exec 6<&-
umount "$T/mnt"
"#;
    shown(&bed, body, |said| {
        hold(said.contains("files on it are open for writing"), "why is told", &said)?;
        hold(said.contains("it is read-only now"), "umount -r tells what it did", &said)?;
        hold(bed.object("file").as_deref() == Some(b"written\n"), "it is in S3", &said)
    })
}

fn another_namespace_is_entered() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
unshare --mount --propagation private sleep 600 &
other=$!
leave() { kill $other; }
until [ "$(readlink "/proc/$other/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done
there() { nsenter --mount="/proc/$other/ns/mnt" "$@"; }
mount -N $other -t s3mount -o "$reach" s3://data "$T/mnt"
! grep -q " $T/mnt " /proc/self/mountinfo
there sh -c 'echo hello >"$1/mnt/file"' - "$T"
[ ! -e "$T/mnt/file" ]
umount -N $other "$T/mnt"
! there grep " $T/mnt " /proc/self/mountinfo
"#;
    if !has("nsenter") {
        return Ok(Some("no nsenter (util-linux)".into()));
    }
    shown(&bed, body, |said| hold(bed.object("file").as_deref() == Some(b"hello\n"), "it is in S3", &said))
}

/// A machine's /etc and a user's home, in the namespace of the fact: mount(8) reads no other fstab for a user.
const USER: &str = r#"
for program in mount umount fusermount3; do
    [ -u "$(command -v $program)" ] || skip "$program is not set-user-ID"
done
layer etc
lay_over /etc etc /etc
mount -t tmpfs tmpfs /mnt
# Below the scratch directory nobody but root finds anything.
cp "$S3MOUNT" /mnt/s3mount
for name in mount.s3mount mount.fuse.s3mount umount.s3mount umount.fuse.s3mount; do ln -sf /mnt/s3mount "/sbin/$name"; done
mknod -m 666 /mnt/fuse c 10 229 # as udev would have it
mount --bind /mnt/fuse /dev/fuse
mkdir -p /mnt/mine /mnt/home /mnt/theirs
echo 'someone:x:64242:64242::/mnt/home:/bin/sh' >>/etc/passwd # mount(8) drops HOME, and the helper finds it there
chown 64242:64242 /mnt/mine /mnt/home
as_user() { setpriv --reuid 64242 --regid 64242 --clear-groups env -u XDG_RUNTIME_DIR HOME=/mnt/home "$@"; }
leave() {
    if grep -q " /mnt/mine " /proc/self/mountinfo; then umount -i -l /mnt/mine; fi
    rm -rf /tmp/s3mount-64242 # where the socket of such a user is
}
"#;

fn an_ordinary_user_mounts_and_unmounts() -> Shown {
    let bed = Bed::new()?;
    let body = r#"
for word in user users; do
    echo "s3://data/$word /mnt/mine s3mount noauto,$word,endpoint_url=$ENDPOINT,region=us-east-1 0 0" >/etc/fstab
    as_user mount /mnt/mine
    findmnt -n -o SOURCE,FSTYPE,OPTIONS /mnt/mine
    as_user sh -c 'echo hello >/mnt/mine/file'
    [ "$(as_user stat -c %u /mnt/mine/file)" = 64242 ]
    fails 1 cat /mnt/mine/file # not even root looks into it
    as_user mount | grep -q " /mnt/mine "
    pid=$(as_user /mnt/s3mount status --json /mnt/mine | sed 's/.*"pid":\([0-9]*\).*/\1/')
    [ "$(stat -c %u "/proc/$pid")" = 64242 ]
    fails 32 as_user mount -o remount,ro /mnt/mine
    as_user umount /mnt/mine
    ! grep -q " /mnt/mine " /proc/self/mountinfo
    cat "$T/bucket/data/$word/file"
done
# Without the word, and on a directory of somebody else, a user may not.
echo "s3://data /mnt/theirs s3mount noauto,endpoint_url=$ENDPOINT,region=us-east-1 0 0" >/etc/fstab
fails 32 as_user mount /mnt/theirs
"#;
    as_user(&bed, body, |said| {
        hold(said.matches("fuse.s3mount rw,nosuid,nodev,noexec").count() == 2, "mounted as mount(8) says", &said)?;
        hold(said.matches("user_id=64242").count() == 2, "as the user", &said)?;
        hold(said.contains("no write access to mountpoint"), "why another's directory is refused", &said)
    })
}

fn of_two_mounts_of_a_user_at_once_one_is() -> Shown {
    let bed = Bed::new()?;
    // As for root: see `mounting`. Here fusermount3 mounts, and takes back.
    let first_byte_ms = FirstByte { list: 1000.0, ..FirstByte::default() };
    bed.sim.set(Config { first_byte_ms, ..Config::default() });
    let body = r#"
echo "s3://data /mnt/mine s3mount noauto,user,endpoint_url=$ENDPOINT,region=us-east-1 0 0" >/etc/fstab
for round in 1 2; do
    as_user mount /mnt/mine & one=$!
    as_user mount /mnt/mine & two=$!
    failed=0
    for pid in $one $two; do wait $pid || { status=$?; [ "$status" = 32 ]; failed=$((failed + 1)); }; done
    [ "$failed" = 1 ] || { echo "$failed of two failed"; cat /proc/self/mountinfo; exit 1; }
    [ "$(grep -c " /mnt/mine " /proc/self/mountinfo)" = 1 ]
    as_user sh -c "echo $round >/mnt/mine/file"
    as_user umount /mnt/mine
    ! grep -q " /mnt/mine " /proc/self/mountinfo
done
"#;
    as_user(&bed, body, |said| {
        hold(bed.object("file").as_deref() == Some(b"2\n"), "the one that is there works", &said)?;
        hold(said.matches("already mounted (s3://data): unmount it first").count() == 2, "the other is told why", &said)
    })
}

fn umount_by_a_user_waits_until_everything_is_in_s3() -> Shown {
    let bed = Bed::new()?;
    // As for root: see `mounting`.
    let first_byte_ms = FirstByte { put: 3000.0, ..FirstByte::default() };
    bed.sim.set(Config { first_byte_ms, ..Config::default() });
    let body = r#"
echo "s3://data /mnt/mine s3mount noauto,user,endpoint_url=$ENDPOINT,region=us-east-1 0 0" >/etc/fstab
as_user mount /mnt/mine
as_user "$TEST" --write-by-map /mnt/mine/mapped
as_user umount /mnt/mine
cat "$T/bucket/data/mapped"
"#;
    as_user(&bed, body, |said| hold(said.ends_with("by the map"), "the object has what was written last", &said))
}

/// Runs a script for which there is a user, and gives what it printed to `check`.
fn as_user(bed: &Bed, body: &str, check: impl FnOnce(&str) -> Result<(), String>) -> Shown {
    if !has("setpriv") {
        return Ok(Some("no setpriv (util-linux)".into()));
    }
    shown(bed, &format!("{USER}{body}"), check)
}
