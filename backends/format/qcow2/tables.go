package qcow2

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// maxSlice is the most of an L2 table that is read and kept at once. A table
// of 2 MiB is too much for a read of one sector.
const maxSlice = 64 << 10

// tables keeps slices of L2 tables. Each slice of the disk has one place, which
// it shares with those a whole number of caches away: so a look-up is one load and one
// comparison, without a lock, and memory is bounded.
type tables struct {
	bytes   int64 // of a slice
	entries int64 // in a slice
	bits    uint  // log2 of the disk bytes that a slice maps
	slots   []atomic.Pointer[slice]
	flight  decode.Flight[int64, *slice]
}

type slice struct {
	host int64 // where it lies in the file; no two slices lie at one place
	e    []uint64
}

func (t *tables) init(g Geometry, disk, limit int64) {
	t.bytes = min(g.ClusterSize, maxSlice)
	t.entries = t.bytes / g.EntrySize
	t.bits = g.ClusterBits
	for n := t.entries; n > 1; n >>= 1 {
		t.bits++
	}
	t.slots = make([]atomic.Pointer[slice], max(1, min(limit/(t.bytes+64), disk>>t.bits+1)))
}

// slice returns the words of the L2 slice that maps off, given the L1 entry.
func (f *file) slice(ctx context.Context, l1 uint64, off int64) ([]uint64, error) {
	t := &f.tables
	n := off >> t.bits
	perTable := f.g.ClusterSize / t.bytes
	host := int64(l1&OffsetMask) + n%perTable*t.bytes
	slot := &t.slots[n%int64(len(t.slots))]
	if s := slot.Load(); s != nil && s.host == host {
		return s.e, nil
	}
	s, err := t.flight.Do(ctx, host, func(ctx context.Context) (*slice, error) {
		table := l1 & OffsetMask
		if table%uint64(f.g.ClusterSize) != 0 || !f.inside(table, f.g.ClusterSize) {
			return nil, decode.Corrupt("qcow2: L2 table at %d: not a place in a file of %d bytes", table, f.size)
		}
		e, err := f.readEntries(ctx, host, t.bytes)
		if err != nil {
			return nil, fmt.Errorf("qcow2: read L2 table at %d: %w", host, err)
		}
		return &slice{host, e}, nil
	})
	if err != nil {
		return nil, err
	}
	slot.Store(s)
	return s.e, nil
}
