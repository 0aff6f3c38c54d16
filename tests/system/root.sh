# A root apart: this machine's under an overlay, so that the machine stays as it is. Sourced by the facts' scripts.

# Ends the fact: this machine cannot show it.
skip() { echo "skipped: $*"; exit 77; }

# Makes $T/root, in the caller's mount namespace; what is written below it lies in memory, in $T/layer.
root_apart() {
    mkdir "$T/layer" "$T/root"
    mount -t tmpfs tmpfs "$T/layer"
    mkdir "$T/layer/up" "$T/layer/work"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$T/layer/up,workdir=$T/layer/work" "$T/root" ||
        skip "no overlay over /"
    mount -t proc proc "$T/root/proc"
    mount -t tmpfs tmpfs "$T/root/run"
    mount -t tmpfs tmpfs "$T/root/tmp"
}
