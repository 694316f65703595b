// Package objectlog keeps a writable disk as a log of objects in a store: an
// overlay for S3, Swift and everything else that has objects and no disks.
//
// A write goes to a local journal and to a map in memory. FLUSH returns when
// the journal is on stable storage or, with durability [Store], when the store
// has it. In the background the journal is sealed into immutable segments of a
// few MiB, which are uploaded side by side and committed in order: the head,
// which says how far the log is valid, is changed in one transaction of the
// catalog ([Heads]). So what the store has is at any time the disk as it was at
// some moment, and nobody but the owner of the head's epoch can change it. The
// model is the log-structured virtual disk (Hajkazemi et al., EuroSys 2022).
//
// [Create] makes a log, [Open] opens one and recovers from the journal and the
// store, or from the store alone. A [Log] is an overlay.Delta. Snapshots pin
// segments and copy nothing.
//
// DESIGN.md has the formats byte by byte, the promise in one table, and the
// reasons.
//
// Locks, in the order in which they are taken: work, mu. Neither is held while a
// disk or a server is waited for. What the sealer, the committer and the cleaner
// have for themselves needs none.
package objectlog
