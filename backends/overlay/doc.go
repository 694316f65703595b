// Package overlay lays one reader over another.
//
// [Over] reads through: where the top says [block.Absent], the bytes come
// from below. Backing chains of formats, snapshots and copy-on-write overlays
// are all this one function.
//
// An [Overlay] is writable: a base that never changes, under a [Delta] that
// keeps what was written since. Package delta has the Delta that is a qcow2
// file; DESIGN.md there tells how it survives crashes.
package overlay
