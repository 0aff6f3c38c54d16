//! `--cache-dir auto --format-instance-store` beside a loop device that looks like an instance store, as root, in a mount namespace
//! with a /sys/block of its own.

use super::bed::{Bed, hold};
use super::mounting::shown;
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("instance_disk::a_blank_disk_gets_a_file_system_once", a_blank_disk_gets_a_file_system_once),
    ("instance_disk::what_a_disk_carries_stays", what_a_disk_carries_stays),
    ("instance_disk::without_the_option_nothing_is_written", without_the_option_nothing_is_written),
];

/// A disk, as the kernel tells of an instance store.
const DISK: &str = r#"
truncate -s 300M "$T/disk"
modprobe loop 2>/dev/null || true
loop=$(losetup --show --find "$T/disk" 2>&1) || skip "no loop device: $loop"
away() { leave; umount -l /var/cache/s3mount 2>/dev/null || true; losetup --detach "$loop"; }
trap away EXIT
name=${loop#/dev/}
mkdir -p "$T/block/$name/device"
cp "/sys/class/block/$name/dev" "/sys/class/block/$name/size" "$T/block/$name/"
echo "Amazon EC2 NVMe Instance Storage" >"$T/block/$name/device/model"
mount --bind "$T/block" /sys/block
mount -t tmpfs tmpfs /var/cache
unmount_when_free() { for _ in $(seq 100); do umount "$1" 2>/dev/null && break; sleep 0.1; done; } # the daemon leaves
mount_with() { "$S3MOUNT" data "$T/mnt" -o "$reach" --cache-dir auto "$@"; }
"#;

fn on_a_disk(body: &str, check: impl FnOnce(&str) -> Result<(), String>) -> Shown {
    shown(&Bed::new()?, &format!("{DISK}{body}"), check)
}

fn a_blank_disk_gets_a_file_system_once() -> Shown {
    let body = r#"
mount_with --format-instance-store
findmnt -n -o SOURCE,FSTYPE,OPTIONS /var/cache/s3mount
stat -c 'mode %a' /var/cache/s3mount/s3mount-cache/s3mount-data-*
echo hello >"$T/mnt/file"
umount "$T/mnt"
touch /var/cache/s3mount/still-there
echo "-- it is mounted"
mount_with --format-instance-store
umount "$T/mnt"
unmount_when_free /var/cache/s3mount
echo "-- it is not mounted any more"
mount_with --format-instance-store
umount "$T/mnt"
ls /var/cache/s3mount
"#;
    on_a_disk(body, |said| {
        hold(said.contains("ext4") && said.contains("nodev"), "there is a file system", &said)?;
        hold(said.contains("mode 700"), "the cache is for its owner alone", &said)?;
        hold(said.contains("still-there"), "the second and the third mount made none", &said)
    })
}

fn what_a_disk_carries_stays() -> Shown {
    let body = r#"
refused() { before=$(cksum <"$T/disk"); fails 34 mount_with --format-instance-store; [ "$before" = "$(cksum <"$T/disk")" ]; }
mkfs.ext4 -q -L mine "$loop"; refused
wipefs -qa "$loop"; refused
blkdiscard -z "$loop"
# One partition of Linux, as an MBR has it.
printf '\0\0\2\0\203\377\377\377\0\10\0\0\0\20\0\0' | dd of="$loop" bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of="$loop" bs=1 seek=510 conv=notrunc status=none; refused
wipefs -qa "$loop"; blkdiscard -z "$loop"
mkfs.ext4 -q "$loop"; mkdir "$T/theirs"; mount "$loop" "$T/theirs"
mount_with --format-instance-store
ls "$T/theirs"
umount "$T/mnt"
unmount_when_free "$T/theirs"
"#;
    on_a_disk(body, |said| {
        hold(said.contains("carries ext4 named mine and stays as it is"), "a file system stays", &said)?;
        hold(said.contains("carries data without a file system"), "so does what has no signature any more", &said)?;
        hold(said.contains("a partition table (dos)"), "and a partition table", &said)?;
        hold(said.contains("s3mount-cache"), "a disk that is mounted is used where it is", &said)
    })
}

fn without_the_option_nothing_is_written() -> Shown {
    let body = r#"
fails 34 mount_with
[ "$(tr -d '\0' <"$T/disk" | wc -c)" = 0 ]
"#;
    on_a_disk(body, |said| {
        hold(said.contains("is not mounted: mount it, or let --format-instance-store"), "the remedy is named", &said)
    })
}
