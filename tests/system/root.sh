# Overlays, so that the machine stays as it is, and the end of a fact that it cannot show. Sourced by the facts' scripts.

# Ends the fact: this machine cannot show it.
skip() { echo "skipped: $*"; exit 77; }

# Makes $T/NAME: room in memory for what is written to an overlay.
layer() { # NAME
    mkdir "$T/$1"
    mount -t tmpfs tmpfs "$T/$1"
    mkdir "$T/$1/up" "$T/$1/work"
}

# Shows a directory at another or the same place; what is written there goes into the layer.
lay_over() { # DIRECTORY LAYER PLACE
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$T/$2/up,workdir=$T/$2/work" "$3"
}

# Makes $T/root, this machine's own apart, in the caller's mount namespace; what is written below it lies in memory, in $T/layer.
root_apart() {
    mkdir "$T/root"
    layer layer
    lay_over / layer "$T/root" || skip "no overlay over /"
    mount -t proc proc "$T/root/proc"
    mount -t tmpfs tmpfs "$T/root/run"
    mount -t tmpfs tmpfs "$T/root/tmp"
}
