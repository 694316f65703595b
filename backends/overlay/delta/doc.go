// Package delta keeps what was written on top of an image in a qcow2 file of
// its own, which QEMU can open as well.
//
// [Create] makes the file, [Open] opens it and mends what a crash left. A
// [Delta] is a block device by itself; laid over its base by package overlay
// it is a copy-on-write disk. Internal snapshots are made while writes go on
// and can be read while they go on.
//
// The promise: what was written before a Flush that succeeded is there after
// any crash. After a crash the file has no corruption, clusters counted but
// not used at most, and after Open not these either. A full disk, or a quota
// reached, is syscall.ENOSPC for the write that needs space; all else goes on.
//
// DESIGN.md in this folder says how, and why so.
//
// Locks, in the order in which they are taken: gate, stripe, growth, and next,
// flushing, then refcounts, snaps, mapping. None but gate, stripe, flushing
// and refcounts is held while the disk is waited for. A flush is asked for
// with no lock held, except by those who have the gate alone.
package delta
