package qcow2

import "math/bits"

// Bits of L1 and L2 entries. An entry of 0 is unallocated.
const (
	OffsetMask = 0x00fffffffffffe00 // host offset of a table or cluster
	Copied     = 1 << 63            // the refcount is exactly 1 (active L1 only)
	Compressed = 1 << 62            // an L2 entry that is a compressed descriptor
	ZeroFlag   = 1 << 0             // reads as zeros (version 3, not extended)
	L1Reserved = ^uint64(OffsetMask | Copied)
	L2Reserved = ^uint64(OffsetMask | Copied | Compressed | ZeroFlag)

	// RefTableMask is the host offset in an entry of the refcount table.
	RefTableMask = ^uint64(511)

	// Subclusters is how many parts a cluster has with extended L2 entries.
	Subclusters = 32
)

// A Geometry is what follows from cluster size and entry size.
type Geometry struct {
	ClusterBits uint
	ClusterSize int64
	EntrySize   int64 // bytes of an L2 entry: 8, or 16 if extended
	L2Entries   int64 // in one L2 table, which is one cluster
	L2Bits      uint  // log2 of L2Entries
	L2Span      int64 // bytes of disk that one L2 table maps
	SubBits     uint  // log2 of a subcluster's bytes (the cluster's if not extended)
}

// Geometry returns the sizes that follow from the header.
func (h *Header) Geometry() Geometry {
	g := Geometry{ClusterBits: uint(h.ClusterBits), ClusterSize: 1 << h.ClusterBits, EntrySize: 8, SubBits: uint(h.ClusterBits)}
	if h.Extended() {
		g.EntrySize, g.SubBits = 16, g.ClusterBits-5
	}
	g.L2Entries = g.ClusterSize / g.EntrySize
	g.L2Bits = uint(bits.TrailingZeros64(uint64(g.L2Entries)))
	g.L2Span = g.L2Entries << g.ClusterBits
	return g
}

// L1Need returns how many L1 entries a disk of size bytes needs.
func (g Geometry) L1Need(size int64) int64 {
	shift := g.L2Bits + g.ClusterBits
	n := size >> shift
	if size&(1<<shift-1) != 0 {
		n++
	}
	return n
}

// CompressedRange returns where in the file a compressed cluster's stream
// begins, and the most bytes that it may take (the file may end earlier).
func (g Geometry) CompressedRange(entry uint64) (off, n int64) {
	x := 62 - (g.ClusterBits - 8)
	off = int64(entry & (1<<x - 1))
	sectors := int64(entry&(Compressed-1)) >> x
	return off, (sectors+1)*512 - off%512
}

// CompressedEntry is the L2 entry of a stream of n bytes at off.
func (g Geometry) CompressedEntry(off, n int64) uint64 {
	x := 62 - (g.ClusterBits - 8)
	sectors := (off%512 + n - 1) / 512
	return Compressed | uint64(sectors)<<x | uint64(off)
}

// Refcount returns entry i of the refcount block b, whose entries have
// 1<<order bits. Narrower than a byte, the low bits come first.
func Refcount(b []byte, order uint, i int) uint64 {
	switch order {
	case 0, 1, 2:
		width := 1 << order
		per := 8 / width
		return uint64(b[i/per]>>(i%per*width)) & (1<<width - 1)
	}
	n := 1 << (order - 3)
	var v uint64
	for _, c := range b[i*n : i*n+n] {
		v = v<<8 | uint64(c)
	}
	return v
}

// SetRefcount sets entry i of the refcount block b to v, which must fit.
func SetRefcount(b []byte, order uint, i int, v uint64) {
	switch order {
	case 0, 1, 2:
		width := 1 << order
		per := 8 / width
		mask := byte(1<<width-1) << (i % per * width)
		b[i/per] = b[i/per]&^mask | byte(v)<<(i%per*width)&mask
		return
	}
	n := 1 << (order - 3)
	for k := n - 1; k >= 0; k-- {
		b[i*n+k] = byte(v)
		v >>= 8
	}
}

// RefcountsPerBlock returns how many refcounts one block (a cluster) holds.
func (g Geometry) RefcountsPerBlock(order uint) int64 {
	return g.ClusterSize * 8 >> order
}
