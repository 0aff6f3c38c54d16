# A systemd of its own, as process 1 of new namespaces, over an overlay of this machine's root, which stays as it is.
# It runs $T/job, with what that says in $T/out/log, and ends. Exit status 77 with a reason where that cannot be done.
set -euo pipefail
. "$HERE/root.sh"
[ -x /lib/systemd/systemd ] || skip "no systemd"
if [ "$$" != 1 ]; then
    apart="unshare --mount --pid --fork --kill-child --cgroup --ipc --uts --propagation private"
    $apart true || skip "no namespaces"
    exec $apart bash "$0"
fi

root=$T/root
root_apart
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup" || skip "no cgroups of version 2"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom tty fuse; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts"
ln -s /proc/self/fd "$root/dev/fd"
for own in var/lib/s3mount var/log mnt; do
    mkdir -p "$root/$own"
    mount -t tmpfs tmpfs "$root/$own"
done
mkdir -p "$root/etc/systemd/system/s3mount@data.service.d" "$root/run/out"
# Without them the job brings a package that has both.
if [ -n "${S3MOUNT:-}" ]; then
    touch "$root/usr/bin/s3mount"
    mount --bind "$S3MOUNT" "$root/usr/bin/s3mount"
    cp "$UNIT" "$root/usr/lib/systemd/system/"
    mkdir -p "$root/etc/s3mount"
    cp "$T/data.toml" "$root/etc/s3mount/data.toml"
fi
cat >"$root/etc/systemd/system/s3mount@data.service.d/endpoint.conf" <<END
[Service]
Environment=AWS_ENDPOINT_URL=$ENDPOINT AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret
Environment=AWS_EC2_METADATA_DISABLED=true
END
cp "$T/job" "$root/run/job"
mount --bind "$T/out" "$root/run/out"
cat >"$root/etc/systemd/system/job.service" <<'END'
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/bash /run/job
StandardOutput=file:/run/out/log
StandardError=inherit
ExecStopPost=/bin/systemctl --force --force poweroff
END
exec chroot "$root" env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=job.service --log-target=console --show-status=no
