// Package qcow2 reads the disk inside a qcow2 file, checks such files, and
// writes new ones.
//
// Read are versions 2 and 3 with every cluster size (512 bytes to 2 MiB),
// refcount width, zlib and zstd compression, extended L2 entries, zero
// clusters, internal snapshots, and files whose dirty bit is set (their
// mapping is good). Bitmaps are ignored. Refused are external data files,
// encryption and unknown incompatible features. A backing file is a claim
// that nobody here opens: what the file leaves to it is [block.Absent].
//
// An [Image] costs its header at first, and later what is touched: pages of
// the L1 table, slices of L2 tables in a cache of fixed size, and decoded
// clusters in another. A read of plain clusters allocates nothing. Who reads
// compressed clusters in order has the next ones inflated by the cores that are
// free meanwhile, if [Config] says so.
//
// [Encode] streams a standalone file, metadata first, from the extents of any
// Reader. [Verify] walks all metadata of a stranger's file. The header and
// the entries of tables are exported for the writer of overlays, so that the
// format is spelled out once.
package qcow2
