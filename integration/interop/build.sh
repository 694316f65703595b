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
unpack() {
	rm -rf "$out/root"
	mmdebstrap --quiet --aptopt='Acquire::Retries "5"' --variant=extract --include=qemu-utils,libnbd-bin,python3-libnbd \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		trixie "$out/root"
}
for pause in 2 6 18 54 0; do # the network may be in its way
	if unpack; then break; fi
	[ $pause != 0 ] || exit 1
	sleep $pause
done
echo "$stamp" >"$out/stamp"
