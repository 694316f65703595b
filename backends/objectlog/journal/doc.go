// Package journal is an append-only log of disk changes on local disk.
//
// An overlay that lives in an object store appends each write here first: the
// bytes can be read at once, and are on stable storage when Sync returned. Once
// they are in the store as well, Trim gives the space back.
//
// # Positions
//
// A position is a place in the journal, in bytes, and only grows. A [Record]
// has two: Pos, where its payload begins, and Next, where the record ends.
// Next is what [Journal.Trim] and [Journal.Records] take, and orders records.
//
// # What a crash leaves
//
// Of the records that were appended a prefix is there: all that a Sync covered
// that returned, and perhaps more. A record that is torn or missing ends it;
// nothing behind it comes back, now or after another crash. Trim is not synced:
// after a crash the journal may begin before the last trim, never behind it.
//
// # After an error
//
// When the disk fails a write or an fsync, nobody knows what is on it (the
// kernel forgets the dirty pages that it could not write). The journal is
// broken from then on: each later Append and Sync fails with the same error.
// What was acknowledged before stays and can be read.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. Records that are
// appended at the same time are written in one go, and all who wait for Sync
// share one fdatasync; nobody waits for a clock.
//
// DESIGN.md has the format byte by byte.
package journal
