package delta

import (
	"encoding/binary"
	"math/bits"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// An entry is the mapping of one cluster: where it is in the file, whether
// that place is ours alone, and for each of its 32 subclusters whether it has
// data there, reads as zeros, or is left to the base.
type entry struct {
	host        int64 // 0 if it has no place
	own         bool  // the refcount of the place is 1
	alloc, zero uint32
}

func decodeEntry(b []byte) entry {
	w, m := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	return entry{int64(w & qcow2.OffsetMask), w&qcow2.Copied != 0, uint32(m), uint32(m >> 32)}
}

func (e entry) encode(b []byte) {
	w := uint64(e.host)
	if e.own {
		w |= qcow2.Copied
	}
	binary.BigEndian.PutUint64(b, w)
	binary.BigEndian.PutUint64(b[8:], uint64(e.zero)<<32|uint64(e.alloc))
}

// checkEntry says what is wrong with an entry as it stands in a file.
func checkEntry(b []byte) error {
	w := binary.BigEndian.Uint64(b)
	e := decodeEntry(b)
	switch {
	case w&qcow2.Compressed != 0:
		return decode.Unsupported("compressed cluster in an overlay")
	case w&(qcow2.L2Reserved|qcow2.ZeroFlag) != 0:
		return decode.Corrupt("L2 entry %#x has reserved bits", w)
	case e.host&(clusterSize-1) != 0:
		return decode.Corrupt("cluster at %#x, which is not aligned", e.host)
	case e.alloc&e.zero != 0:
		return decode.Corrupt("subclusters %#x have data and are zero", e.alloc&e.zero)
	case e.host == 0 && (e.alloc != 0 || w != 0):
		return decode.Corrupt("subclusters %#x have data nowhere", e.alloc)
	}
	return nil
}

// run describes the subclusters from i on that are of one kind.
func (e entry) run(i int) (kind block.Kind, n int) {
	var m uint32
	switch bit := uint32(1) << i; {
	case e.alloc&bit != 0:
		kind, m = block.Data, e.alloc
	case e.zero&bit != 0:
		kind, m = block.Zero, e.zero
	default:
		kind, m = block.Absent, ^(e.alloc | e.zero)
	}
	return kind, ones(m, i)
}

// span describes the bytes [in, in+n) of the cluster as far as they are of
// one kind.
func (e entry) span(in, n int64) (block.Kind, int64) {
	i := int(in >> subBits)
	kind, count := e.run(i)
	return kind, min(n, int64(i+count)<<subBits-in)
}

// ones returns how many bits from i on are set.
func ones(m uint32, i int) int {
	return min(bits.TrailingZeros32(^(m >> i)), subCount-i)
}

// mask returns the bits of the subclusters that [in, end) of a cluster
// touches. The range is not empty.
func mask(in, end int64) uint32 {
	first, last := in>>subBits, (end-1)>>subBits
	return ^uint32(0) << first & (^uint32(0) >> (subCount - 1 - last))
}

// runs calls f for each run of set bits, as a range of bytes in the cluster.
func runs(m uint32, f func(from, to int64) error) error {
	for i := bits.TrailingZeros32(m); i < subCount; {
		n := ones(m, i)
		if err := f(int64(i)<<subBits, int64(i+n)<<subBits); err != nil {
			return err
		}
		if i += n; i < subCount {
			i += bits.TrailingZeros32(m >> i)
		}
	}
	return nil
}

// weight is how many bytes the subclusters of m take.
func weight(m uint32) int64 { return int64(bits.OnesCount32(m)) << subBits }
