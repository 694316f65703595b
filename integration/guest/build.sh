#!/bin/sh
# Usage: build.sh DIR
# Makes a guest in DIR, once: vmlinuz, initrd and root.qcow2. The kernel is
# Debian's cloud kernel, taken out of its package and not installed here; the
# root file system is made by mmdebstrap and mke2fs, without a loop mount.
# The first program is guest-init, so a boot takes seconds and not a minute.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=$1
stamp=$(cat "$here"/build.sh "$here"/init "$here"/guest-init | cksum)
[ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
[ "$(id -u)" = 0 ] || exec sudo "$0" "$@"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# again runs a command that needs the network until it works, five times at
# most.
again() {
	for pause in 2 6 18 54; do
		if "$@"; then return 0; fi
		sleep $pause
	done
	"$@"
}
apt_get() { apt-get -qq -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300 "$@"; }
package() { apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }'; }
kernel() {
	(cd "$work" && apt_get -o APT::Sandbox::User=root download "$(package)") ||
		{ apt_get update && (cd "$work" && apt_get -o APT::Sandbox::User=root download "$(package)"); }
}
again kernel
dpkg-deb -x "$work"/linux-image-*.deb "$work/kernel"
cp "$work"/kernel/boot/vmlinuz-* "$out/vmlinuz"

initrd=$work/initrd
mkdir -p "$initrd/bin" "$initrd/modules" "$initrd/proc" "$initrd/sys" "$initrd/dev" "$initrd/root"
cp /bin/busybox "$initrd/bin/busybox"
cp "$here/init" "$initrd/init"
chmod 755 "$initrd/init"
n=10
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk net_failover failover virtio_net nbd libcrc32c xfs; do
	file=$(find "$work/kernel/lib/modules" -name "$module.ko")
	[ -z "$file" ] || cp "$file" "$initrd/modules/$n-$module.ko"
	n=$((n + 1))
done
(cd "$initrd" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$out/initrd"

root() {
	rm -rf "$work/root"
	mmdebstrap --quiet --aptopt='Acquire::Retries "5"' --variant=essential --include=e2fsprogs,mount \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		bookworm "$work/root"
}
again root
install -m 755 "$here/guest-init" "$work/root/usr/local/sbin/guest-init"
rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/*
truncate -s 1G "$work/root.raw"
mke2fs -q -t ext4 -L root -d "$work/root" "$work/root.raw"
qemu-img convert -f raw -O qcow2 "$work/root.raw" "$out/root.qcow2.new"
mv "$out/root.qcow2.new" "$out/root.qcow2"
echo "$stamp" >"$out/stamp"
