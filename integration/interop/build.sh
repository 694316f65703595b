#!/bin/sh
# Usage: build.sh DIR
# Unpacks the NBD clients of Debian 13 in DIR/root, once: QEMU's speak extended
# headers, which those of Debian 12 do not. Nothing is installed; the programs
# run with the loader and the libraries beside them, see newer_test.go.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=$1
stamp=$(cksum <"$here/build.sh")
[ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
[ "$(id -u)" = 0 ] || exec sudo "$0" "$@"
mkdir -p "$out"
rm -rf "$out/root"
mmdebstrap --quiet --variant=extract --include=qemu-utils,libnbd-bin,python3-libnbd \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	trixie "$out/root"
echo "$stamp" >"$out/stamp"
