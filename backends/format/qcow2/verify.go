package qcow2

import (
	"context"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// maxVerify is how many clusters a file may have that Verify looks at: its
// memory is two bits for each.
const maxVerify = 1 << 28

// Verify walks all metadata of a stranger's file, once the file is whole, and
// returns ErrCorrupt or errors.ErrUnsupported unless everything that it refers
// to lies in the file, is aligned, has its reserved bits clear, and no table
// lies over another table or over data. It refuses what an upload must not
// have: a backing file, an external data file, encryption, the mark of
// corruption. Several clusters of data may share their place, stale refcounts
// do not matter, and what is compressed is not decompressed.
//
// Its time is linear in the size of the metadata, which is bounded by the
// size of the file, and its memory in the number of clusters.
func Verify(ctx context.Context, r block.Reader) error {
	im, err := Open(ctx, r)
	if err != nil {
		return err
	}
	v := verifier{f: im.f}
	if err := v.header(); err != nil {
		return wrap("verify", err)
	}
	return wrap("verify", v.walk(ctx))
}

// CheckUpload returns an error if the header claims something that no upload
// may have.
func (h *Header) CheckUpload() error {
	if err := h.Check(); err != nil {
		return err
	}
	_, dataFile := h.Extension(ExtDataFile)
	_, luks := h.Extension(ExtLUKS)
	switch {
	case h.BackingOffset != 0:
		return decode.Unsupported("a backing file (%.80q) is not part of the upload", h.Backing)
	case dataFile || h.Autoclear&DataFileRaw != 0 && h.Version >= 3:
		return decode.Unsupported("an external data file is not part of the upload")
	case luks:
		return decode.Unsupported("encryption")
	case h.Incompatible&CorruptBit != 0:
		return decode.Corrupt("marked as corrupt by the program that wrote it; try qemu-img check -r all")
	}
	return nil
}

type verifier struct {
	f      *file
	meta   *bitmap // clusters that have metadata
	walked *bitmap // clusters that are L2 tables already looked through
	trees  []tree
}

// A tree is an L1 table and all beneath it.
type tree struct {
	what    string
	off     uint64
	entries int64
}

func (v *verifier) header() error {
	f := v.f
	if err := f.h.CheckUpload(); err != nil {
		return err
	}
	clusters := (f.size + f.g.ClusterSize - 1) >> f.g.ClusterBits
	if clusters > maxVerify {
		return decode.Unsupported("%d clusters: with so large a file, larger ones are needed", clusters)
	}
	v.meta, v.walked = newBitmap(clusters), newBitmap(clusters)
	v.meta.set(0)
	if b, ok := f.h.Extension(ExtBitmaps); ok && f.h.Autoclear&BitmapsValid != 0 {
		if len(b) != 24 || !f.inside(be64(b[16:]), int64(min(be64(b[8:]), 1<<40))) {
			return decode.Corrupt("bitmap directory outside the file")
		}
	}
	return nil
}

// walk marks all metadata first, and then looks for data that lies over it.
func (v *verifier) walk(ctx context.Context) error {
	h := v.f.h
	v.trees = []tree{{"L1 table", h.L1Offset, int64(h.L1Entries)}}
	if err := v.snapshots(ctx); err != nil {
		return err
	}
	if err := v.refcounts(ctx); err != nil {
		return err
	}
	for i, t := range v.trees {
		if t.entries > 0 {
			if err := v.claim(t.what, t.off, t.entries*8); err != nil {
				return err
			}
		}
		if err := v.eachTable(ctx, t, func(_ context.Context, l2 uint64) error { return v.claimL2(l2, i > 0) }); err != nil {
			return err
		}
	}
	v.walked = newBitmap(int64(len(v.walked.pages)) * pageWords * 64)
	for _, t := range v.trees {
		if err := v.eachTable(ctx, t, v.table); err != nil {
			return err
		}
	}
	return nil
}

// claim marks n bytes at off as metadata. They must be in the file, begin a
// cluster, and not be metadata already. (The last table of a file need not
// fill its cluster.)
func (v *verifier) claim(what string, off uint64, n int64) error {
	f := v.f
	if off == 0 || off%uint64(f.g.ClusterSize) != 0 || !f.inside(off, n) {
		return decode.Corrupt("%s at %d (%d bytes): not a place in a file of %d bytes", what, off, n, f.size)
	}
	for c := int64(off) >> f.g.ClusterBits; c<<f.g.ClusterBits < int64(off)+n; c++ {
		if v.meta.set(c) {
			return decode.Corrupt("%s at %d lies over other metadata", what, off)
		}
	}
	return nil
}

// claimL2 is claim for L2 tables. Snapshots share tables with the active disk
// and with one another; within the active disk each has its own.
func (v *verifier) claimL2(off uint64, shared bool) error {
	if shared && off%uint64(v.f.g.ClusterSize) == 0 && off < uint64(v.f.size) && v.walked.get(int64(off)>>v.f.g.ClusterBits) {
		return nil
	}
	if err := v.claim("L2 table", off, v.f.g.ClusterSize); err != nil {
		return err
	}
	v.walked.set(int64(off) >> v.f.g.ClusterBits)
	return nil
}

func (v *verifier) snapshots(ctx context.Context) error {
	end := int64(0)
	var bad error
	err := v.f.snapshots(ctx, func(e SnapshotEntry, e1 int64) bool {
		end = e1
		var size int64
		if size, bad = v.f.snapshotSize(&e); bad != nil {
			return false
		}
		if need := v.f.g.L1Need(size); need > int64(e.L1Entries) {
			bad = decode.Corrupt("snapshot %.40q: L1 table of %d entries for a disk of %d bytes", e.ID, e.L1Entries, size)
			return false
		}
		v.trees = append(v.trees, tree{fmt.Sprintf("L1 table of snapshot %.40q", e.ID), e.L1Offset, int64(e.L1Entries)})
		return true
	})
	if err == nil {
		err = bad
	}
	if err != nil || v.f.h.Snapshots == 0 {
		return err
	}
	return v.claim("snapshot table", v.f.h.SnapshotsOffset, end-int64(v.f.h.SnapshotsOffset))
}

func (v *verifier) refcounts(ctx context.Context) error {
	f := v.f
	n := int64(f.h.RefTableClusters) << f.g.ClusterBits
	if n == 0 {
		return decode.Corrupt("no refcount table")
	}
	if err := v.claim("refcount table", f.h.RefTableOffset, n); err != nil {
		return err
	}
	return f.eachEntry(ctx, int64(f.h.RefTableOffset), n/8, func(e uint64) error {
		if e == 0 {
			return nil
		}
		if e&^RefTableMask != 0 {
			return decode.Corrupt("refcount table entry %#x: reserved bits", e)
		}
		return v.claim("refcount block", e, f.g.ClusterSize)
	})
}

// eachEntry calls do with the n words at off, reading them piece by piece.
func (f *file) eachEntry(ctx context.Context, off, n int64, do func(uint64) error) error {
	for n > 0 {
		k := min(n, pageBytes/8)
		words, err := f.readEntries(ctx, off, k*8)
		if err != nil {
			return fmt.Errorf("read table at %d: %w", off, err)
		}
		for _, w := range words {
			if err := do(w); err != nil {
				return err
			}
		}
		off, n = off+k*8, n-k
	}
	return ctx.Err()
}

func (v *verifier) eachTable(ctx context.Context, t tree, do func(context.Context, uint64) error) error {
	return v.f.eachEntry(ctx, int64(t.off), t.entries, func(e uint64) error {
		if e&L1Reserved != 0 {
			return decode.Corrupt("%s: entry %#x: reserved bits", t.what, e)
		}
		if e&OffsetMask == 0 {
			return nil
		}
		return do(ctx, e&OffsetMask)
	})
}

// table looks through the L2 table at off, once.
func (v *verifier) table(ctx context.Context, off uint64) error {
	f := v.f
	if v.walked.set(int64(off) >> f.g.ClusterBits) {
		return nil
	}
	var check func(uint64) error
	if f.g.EntrySize == 8 {
		check = v.standard
	} else {
		check = v.extended()
	}
	if err := f.eachEntry(ctx, int64(off), f.g.ClusterSize/8, check); err != nil {
		return fmt.Errorf("L2 table at %d: %w", off, err)
	}
	return nil
}

func (v *verifier) standard(w uint64) error {
	if w == 0 {
		return nil
	}
	if w&Compressed != 0 {
		return v.compressed(w)
	}
	if w&L2Reserved != 0 || w&ZeroFlag != 0 && v.f.h.Version < 3 {
		return decode.Corrupt("entry %#x: reserved bits", w)
	}
	return v.data(w&OffsetMask, w&ZeroFlag != 0)
}

// extended checks words that come in pairs.
func (v *verifier) extended() func(uint64) error {
	var first uint64
	second := false
	return func(w uint64) error {
		second = !second
		if second {
			first = w
			return nil
		}
		data, zeros := uint32(w), uint32(w>>32)
		switch {
		case first&Compressed != 0:
			return v.compressed(first)
		case first&(L2Reserved|ZeroFlag) != 0:
			return decode.Corrupt("entry %#x: reserved bits", first)
		case data&zeros != 0:
			return decode.Corrupt("entry %#x: subclusters %#x both allocated and zero", first, data&zeros)
		case data != 0 && first&OffsetMask == 0:
			return decode.Corrupt("subclusters allocated in no cluster")
		}
		return v.data(first&OffsetMask, data == 0)
	}
}

// data checks a cluster of data, or one that is only reserved: that may lie
// behind the end of the file, since it is never read.
func (v *verifier) data(off uint64, reserved bool) error {
	f := v.f
	switch {
	case off == 0:
		return nil
	case off&uint64(f.g.ClusterSize-1) != 0:
		return decode.Corrupt("cluster at %d: not aligned", off)
	case off >= uint64(f.size) && !reserved:
		return decode.Corrupt("cluster at %d, behind the end of the file at %d: was it cut off?", off, f.size)
	case off < uint64(f.size) && v.meta.get(int64(off)>>f.g.ClusterBits):
		return decode.Corrupt("cluster at %d lies over metadata", off)
	}
	return nil
}

func (v *verifier) compressed(w uint64) error {
	f := v.f
	if w&Copied != 0 {
		return decode.Corrupt("entry %#x: compressed and marked as copied", w)
	}
	off, n, err := f.stream(w)
	if err != nil {
		return err
	}
	// The count of sectors may be too large, so that only where the stream
	// begins is certain to be its own.
	if v.meta.get(off >> f.g.ClusterBits) {
		return decode.Corrupt("compressed cluster at %d (%d bytes) lies over metadata", off, n)
	}
	return nil
}
