// Package interop has the NBD clients that people use speak to the real
// daemon: libnbd's nbdinfo, nbdcopy and nbdsh, QEMU's qemu-img, qemu-io and
// qemu-nbd, and fio, those of Debian 12 and, for extended headers, those of
// Debian 13. They come over every transport to every kind of export, and what
// they see is compared with what qemu-img says of the file.
package interop
