package qcow2

import (
	"context"
	"math/bits"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

type kind uint8

const (
	absent kind = iota
	zero
	plain
	packed // compressed
)

func (k kind) block() block.Kind {
	switch k {
	case absent:
		return block.Absent
	case zero:
		return block.Zero
	}
	return block.Data
}

// A run is a part of the disk that is of one kind and, if plain, lies in one
// piece in the file.
type run struct {
	kind kind
	n    int64
	host int64  // plain: where the run's first byte lies
	word uint64 // packed: the descriptor of the one cluster that the run is in
}

// find describes the run that begins at off, at most n bytes of it, n being
// at least 1 and the range inside the disk. It does not look beyond one slice
// of an L2 table.
func (im *Image) find(ctx context.Context, off, n int64) (run, error) {
	g := &im.f.g
	shift := g.ClusterBits + g.L2Bits
	i := off >> shift
	l1, err := im.l1entry(ctx, i)
	if err != nil {
		return run{}, err
	}
	if l1&OffsetMask == 0 {
		return run{kind: absent, n: min(n, im.absentL1(i)<<shift-off)}, nil
	}
	words, err := im.f.slice(ctx, l1, off)
	if err != nil {
		return run{}, err
	}
	if g.EntrySize == 16 {
		return im.f.findExtended(words, off, n)
	}
	return im.f.findStandard(words, off, n)
}

// absentL1 returns the first L1 entry after i that may have a table, as far
// as that is known without reading more.
func (im *Image) absentL1(i int64) int64 {
	const per = pageBytes / 8
	page := im.pages[i/per].Load()
	for i++; i < im.entries; i++ {
		if i%per == 0 {
			page = im.pages[i/per].Load()
		}
		if page == nil || (*page)[i%per]&OffsetMask != 0 {
			break
		}
	}
	return i
}

func (f *file) findStandard(words []uint64, off, n int64) (run, error) {
	first := off >> f.g.ClusterBits & (f.tables.entries - 1)
	within := off & (f.g.ClusterSize - 1)
	k, host, err := f.classify(words[first])
	if err != nil {
		return run{}, at(off, err)
	}
	r := run{kind: k, n: f.g.ClusterSize - within, host: host + within, word: words[first]}
	if k == packed {
		r.n = min(r.n, n)
		return r, nil
	}
	for _, w := range words[first+1:] {
		if r.n >= n {
			break
		}
		if k == plain { // the common case, spelled out: the next cluster lies next
			if w&^Copied != uint64(r.host+r.n) || f.size <= r.host+r.n {
				break
			}
		} else if next, _, err := f.classify(w); err != nil || next != k {
			break // an error is told when its cluster is asked for
		}
		r.n += f.g.ClusterSize
	}
	r.n = min(r.n, n)
	return r, nil
}

// classify says what a standard L2 entry means, and where a plain cluster
// lies.
func (f *file) classify(w uint64) (kind, int64, error) {
	if w&Compressed != 0 {
		return packed, 0, nil
	}
	if w&ZeroFlag != 0 {
		if f.h.Version < 3 {
			return 0, 0, decode.Corrupt("zero cluster in version 2")
		}
		return zero, 0, nil
	}
	host := w & OffsetMask
	if host == 0 {
		return absent, 0, nil
	}
	return plain, int64(host), f.checkHost(host)
}

func (f *file) checkHost(host uint64) error {
	if host&uint64(f.g.ClusterSize-1) != 0 || host >= uint64(f.size) {
		return decode.Corrupt("data at %d: not a place in a file of %d bytes", host, f.size)
	}
	return nil
}

func at(off int64, err error) error {
	return decode.Corrupt("qcow2: disk offset %d: %w", off, err)
}

// findExtended is findStandard for entries of two words, where each of 32
// subclusters is of a kind of its own.
func (f *file) findExtended(words []uint64, off, n int64) (run, error) {
	first := off >> f.g.ClusterBits & (f.tables.entries - 1)
	within := off & (f.g.ClusterSize - 1)
	r, whole, err := f.subclusters(words[2*first], words[2*first+1], within)
	if err != nil {
		return run{}, at(off, err)
	}
	for i := first + 1; whole && r.kind != packed && r.n < n && i < f.tables.entries; i++ {
		var next run
		next, whole, err = f.subclusters(words[2*i], words[2*i+1], 0)
		if err != nil || next.kind != r.kind || r.kind == plain && next.host != r.host+r.n {
			break
		}
		r.n += next.n
	}
	r.n = min(r.n, n)
	return r, nil
}

// subclusters describes the run that begins so far within a cluster, and
// whether it goes to the cluster's end.
func (f *file) subclusters(w, bitmap uint64, within int64) (r run, whole bool, err error) {
	if w&Compressed != 0 {
		return run{kind: packed, n: f.g.ClusterSize - within, word: w}, true, nil
	}
	data, zeros := uint32(bitmap), uint32(bitmap>>32)
	if data&zeros != 0 {
		return r, false, decode.Corrupt("subclusters both allocated and zero")
	}
	host := w & OffsetMask
	if data != 0 {
		if host == 0 {
			return r, false, decode.Corrupt("subclusters allocated in no cluster")
		}
		if err := f.checkHost(host); err != nil {
			return r, false, err
		}
	}
	sub := within >> f.g.SubBits
	same := ^(data | zeros)
	switch {
	case data>>sub&1 != 0:
		r.kind, same = plain, data
	case zeros>>sub&1 != 0:
		r.kind, same = zero, zeros
	}
	end := sub + int64(bits.TrailingZeros32(^(same >> sub)))
	end = min(end, Subclusters)
	r.n = end<<f.g.SubBits - within
	r.host = int64(host) + within
	return r, end == Subclusters, nil
}

// Extent describes the run of one Kind that starts at off. What the file does
// not have is Absent, whether or not it names a backing file.
func (im *Image) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := block.CheckRange(off, n, im.size); err != nil {
		return block.Extent{}, err
	}
	e := block.Extent{Off: off}
	for e.Len < n {
		r, err := im.find(ctx, off+e.Len, n-e.Len)
		if err == nil {
			r, err = im.seek(ctx, r)
		}
		if err != nil {
			if e.Len > 0 {
				break // told when it is asked for
			}
			return block.Extent{}, err
		}
		if e.Len > 0 && r.kind.block() != e.Kind {
			break
		}
		e.Kind = r.kind.block()
		e.Len += r.n
	}
	return e, nil
}

// Place names where the range lies in the file, if it lies there as it is and
// in one piece.
func (im *Image) Place(ctx context.Context, off, n int64) (block.Place, bool) {
	first, err := im.find(ctx, off, n)
	for at := first.n; err == nil && at < n; {
		var r run
		if r, err = im.find(ctx, off+at, n-at); r.kind != plain || r.host != first.host+at {
			return block.Place{}, false
		}
		at += r.n
	}
	if err != nil || first.kind != plain {
		return block.Place{}, false
	}
	return block.PlaceAt(ctx, im.f.r, first.host, n) // not if the file ends before
}

// seek looks whether a plain run lies in a hole of the file, as preallocation
// and sparse copying leave it, and cuts the run where that changes. Behind the
// end of the file there are zeros, too.
func (im *Image) seek(ctx context.Context, r run) (run, error) {
	n := min(r.n, im.f.size-r.host)
	if r.kind != plain || n <= 0 {
		return r, nil
	}
	e, err := block.ExtentAt(ctx, im.f.r, r.host, n)
	if err != nil {
		return r, err
	}
	if e.Kind != block.Data {
		r.kind = zero
	}
	if e.Len < n {
		r.n = e.Len
	}
	return r, nil
}
