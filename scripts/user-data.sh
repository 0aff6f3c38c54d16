#!/bin/sh
# User data of an EC2 instance that mounts a bucket at its first boot and at each later one. Fill in the first three lines;
# the package is one that scripts/package built, put where the instance's role may read it.
#
# For an AMI run it once with ENABLE_ONLY=1: the package is installed and the unit is enabled, and each instance mounts
# at its first boot.
set -eu

PACKAGE_URI="${PACKAGE_URI:-s3://my-bucket/packages/s3mount_amd64.deb}"
SOURCE="${SOURCE:-s3://my-bucket/some/prefix}"
DIR="${DIR:-/mnt/data}"
NAME="${NAME:-data}"

package="/tmp/${PACKAGE_URI##*/}"
case $PACKAGE_URI in
/*) package=$PACKAGE_URI ;;
*) aws s3 cp --only-show-errors "$PACKAGE_URI" "$package" ;;
esac
case $package in
*.deb) DEBIAN_FRONTEND=noninteractive apt-get -q -y install "$package" ;;
*.rpm) dnf -q -y install "$package" ;;
*) echo "neither .deb nor .rpm: $package" >&2; exit 1 ;;
esac

mkdir -p "$DIR" /etc/s3mount
cat >"/etc/s3mount/$NAME.toml" <<END
source = "$SOURCE"
dir = "$DIR"
allow-other = true
END

if [ -n "${ENABLE_ONLY:-}" ]; then
    systemctl enable "s3mount@$NAME"
else
    systemctl enable --now "s3mount@$NAME"
fi
