// Package extent maps ranges of a disk to where their bytes are.
//
// A [Map] is a B+ tree of extents, sorted by disk offset, that never overlap:
// each says that a run of bytes of the disk is at a [Target], a position of a
// journal, a place in a numbered segment, or nowhere because it is zero. What
// no extent covers is absent. Neighbours that continue each other, on the disk
// and at the target, become one.
//
// [Map.Snapshot] is free: both maps share all nodes, and whichever changes
// first copies the few nodes on the way. A Map that nobody changes any more can
// be read from any number of goroutines, also while one that shares its nodes
// is changed.
//
// [Encode] and [Decode] write a map as a stream, for checkpoints.
package extent
