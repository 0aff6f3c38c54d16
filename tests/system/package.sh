# The package on a clean machine: it is installed, a line of fstab is mounted and worked on, umount, and it is removed; then
# nothing of it may be left. Runs in a mount namespace of its own. Exit status 77 with a reason where that cannot be done.
#
# $PACKAGE is a .deb or an .rpm, $AWS_ENDPOINT_URL serves a bucket named my-bucket, $HERE has root.sh, and $T is a directory with
# `lines`: what README tells the user to do, from the installation to umount.
set -euo pipefail
. "$HERE/root.sh"

finish() {
    code=$?
    trap - EXIT
    # What is still mounted goes with its daemon.
    if grep -q " $T/root/mnt/data " /proc/self/mountinfo; then umount -i -l "$T/root/mnt/data" || true; fi
    umount -R -l "$T/root" 2>/dev/null || true
    umount -l "$T/layer" 2>/dev/null || true
    exit "$code"
}
trap finish EXIT

root_apart
mount --rbind /dev "$T/root/dev"
mount --rbind /sys "$T/root/sys"
mkdir "$T/root/run/mount"
cp "$PACKAGE" "$T/lines" "$T/root/tmp/"

cat >"$T/root/tmp/inside" <<'END'
set -euo pipefail
trap 'echo "line $LINENO of what runs inside: $BASH_COMMAND" >&2' ERR
# Records of dpkg, apt and rpm are theirs; everything else must be as it was.
records='^/(var/(log|cache|backups|lib/(dpkg|apt|rpm))|usr/lib/sysimage)'
dpkg -s s3mount >/dev/null 2>&1 && { echo "s3mount is installed already"; exit 1; }
case $1 in
*.deb)
    # As the lines have it; nobody is there to say yes.
    apt() { DEBIAN_FRONTEND=noninteractive apt-get -q -y -o APT::Get::List-Cleanup=0 --no-install-recommends "$@"; }
    install() { eval "$1"; }
    remove() { apt remove s3mount; }
    completions=zsh/vendor-completions/_s3mount
    ;;
*.rpm)
    # Debian's own rpm wants to be asked twice, and knows nothing of the libraries that are there.
    anyway=--nodeps
    if [ -e /etc/debian_version ]; then anyway="$anyway --force-debian"; fi
    install() { rpm $anyway --install ./*.rpm; }
    remove() { rpm $anyway --erase s3mount; }
    completions=zsh/site-functions/_s3mount
    # Directories of other programs, which rpm makes where they are missing.
    records="$records|^/usr/share/(zsh|fish)(/[a-z._-]*)?\$"
    ;;
esac
rm -rf /var/lib/s3mount
# Where a package may put things. Elsewhere the machine's own programs go on writing below the overlay.
everything() { find /etc /usr /var /opt /srv /mnt -xdev -print | LC_ALL=C sort; }
everything >/run/before
cd /tmp
sudo() { "$@"; }
mapfile -t lines <lines
install "${lines[0]}"
cd /
s3mount --version
for name in mount.s3mount mount.fuse.s3mount umount.s3mount umount.fuse.s3mount; do [ -x "/sbin/$name" ]; done
zcat /usr/share/man/man1/s3mount.1.gz /usr/share/man/man8/mount.s3mount.8.gz /usr/share/man/man8/umount.s3mount.8.gz |
    grep metadata >/dev/null
for file in bash-completion/completions/s3mount "$completions" fish/vendor_completions.d/s3mount.fish; do
    [ -s "/usr/share/$file" ]
done
if command -v systemd-analyze >/dev/null; then
    said=$(systemd-analyze verify --man=no /usr/lib/systemd/system/s3mount@.service 2>&1 | grep s3mount || true)
    [ -z "$said" ] || { echo "$said"; exit 1; }
fi

cp /etc/fstab /run/fstab 2>/dev/null || touch /run/fstab
for line in "${lines[@]:1:3}"; do eval "$line"; done
mount -a
tar -C /usr/share/doc/s3mount -cf - . | tar -C /mnt/data -xf -
diff -r /usr/share/doc/s3mount /mnt/data
eval "${lines[4]}"
[ -z "$(ls -A /mnt/data)" ]
cp /run/fstab /etc/fstab

remove
[ ! -e /usr/bin/s3mount ]
everything >/run/after
left=$(LC_ALL=C comm -13 /run/before /run/after | grep -vE "$records|^/mnt/data" || true)
lost=$(LC_ALL=C comm -23 /run/before /run/after | grep -vE "$records" || true)
[ -z "$left$lost" ] || { printf 'left behind:\n%s\ntaken along:\n%s\n' "$left" "$lost"; exit 1; }
END

HOME=/root chroot "$T/root" bash /tmp/inside "$PACKAGE"
echo "the package was installed, mounted, unmounted and removed, and left nothing behind"
