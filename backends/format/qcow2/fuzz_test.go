package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
)

// fenced fails the test at a read that is not inside the file, or is larger
// than any reader needs.
type fenced struct {
	t *testing.T
	b []byte
}

func (f fenced) Size() int64 { return int64(len(f.b)) }

func (f fenced) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), f.Size()); err != nil {
		f.t.Errorf("read outside the file: %v", err)
		return err
	}
	if len(p) > maxFetch+2<<MaxClusterBits {
		f.t.Errorf("a read of %d bytes", len(p))
	}
	copy(p, f.b[off:])
	return nil
}

// exercise opens the file b twice and does with it what doors do. Nothing may
// leave the file, and both must agree.
func exercise(t *testing.T, b []byte) {
	t.Helper()
	ctx := t.Context()
	verdict := Verify(ctx, fenced{t, b})
	one, err1 := Open(ctx, fenced{t, b})
	two, err2 := Open(ctx, fenced{t, b})
	if (err1 == nil) != (err2 == nil) || verdict == nil && err1 != nil {
		t.Fatalf("opened twice: %v, %v; verified: %v", err1, err2, verdict)
	}
	if err1 != nil {
		return
	}
	agree(t, one, two)
	snaps, err := one.Snapshots(ctx)
	if err != nil && verdict == nil {
		t.Fatalf("verified, but: %v", err)
	}
	for _, s := range snaps[:min(len(snaps), 3)] {
		old1, err1 := one.Snapshot(ctx, s.ID)
		old2, err2 := two.Snapshot(ctx, s.ID)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("snapshot opened twice: %v, %v", err1, err2)
		}
		if err1 == nil {
			agree(t, old1, old2)
		}
	}
}

func agree(t *testing.T, one, two *Image) {
	t.Helper()
	ctx := t.Context()
	size := one.Size()
	for _, n := range []int64{512, 70000} {
		for _, off := range []int64{0, size / 3, size / 2, size - n} {
			if off < 0 || off+n > size {
				continue
			}
			p, q := make([]byte, n), make([]byte, n)
			err1, err2 := one.ReadAt(ctx, p, off), error(nil)
			for i := int64(0); i < n && err2 == nil; i += 300 { // in other pieces
				err2 = two.ReadAt(ctx, q[i:min(i+300, n)], off+i)
			}
			if (err1 == nil) != (err2 == nil) || err1 == nil && !bytes.Equal(p, q) {
				t.Fatalf("%d bytes at %d: %v, %v, equal %v", n, off, err1, err2, bytes.Equal(p, q))
			}
			e, err := one.Extent(ctx, off, n)
			if err == nil && (e.Off != off || e.Len < 1 || e.Len > n) {
				t.Fatalf("extent of %d+%d: %+v", off, n, e)
			}
			if err == nil && err1 == nil && e.Kind != block.Data && !bytes.Equal(p[:e.Len], make([]byte, e.Len)) {
				t.Fatalf("extent %+v is not zeros", e)
			}
		}
	}
}

// FuzzImage breaks good images in a few places: a whole image as the input
// would be too large for the fuzzer. Each edit is 12 bytes: where, how wide,
// and what.
func FuzzImage(f *testing.F) {
	images := goldenImages(f)
	m := newHand()
	m.entry(0, m.cluster(5)|Copied)
	m.entry(1, m.h.Geometry().CompressedEntry(6<<handBits, 512))
	images["hand"] = m.bytes()
	var names []string
	for name := range images {
		names = append(names, name)
	}
	slices.Sort(names)
	for i := range names {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0, 0, 0, 36, 3, 0, 0, 0, 0, 0, 0, 1}) // the size of L1
		f.Add(uint8(i), []byte{0, 0, 0, 24, 3, 0, 0, 1, 0, 0, 0, 0}) // the size of the disk
		f.Add(uint8(i), []byte{0, 0, 0x30, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x40, 8, 3, 0xc0, 0, 0, 0, 0, 9, 9})
	}
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		b := bytes.Clone(images[names[int(which)%len(names)]])
		for ; len(edits) >= 12; edits = edits[12:] {
			at := int(binary.BigEndian.Uint32(edits)) % len(b)
			if edits[4] == 0xff {
				b = b[:max(at, 1)] // cut off
				continue
			}
			copy(b[at:], edits[5:5+min(7, 1+int(edits[4]&7))])
		}
		exercise(t, b)
	})
}

// FuzzHeader gives the decoder anything at all.
func FuzzHeader(f *testing.F) {
	for _, b := range goldenImages(f) {
		f.Add(b[:512])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if err != nil || h.Check() != nil {
			return
		}
		again, err := h.Encode()
		if err != nil {
			return // extensions that filled the cluster to the brim
		}
		if h2, err := DecodeHeader(again); err != nil || h2.Size != h.Size || h2.Backing != h.Backing || len(h2.Extensions) != len(h.Extensions) {
			t.Fatalf("%+v became %+v, %v", h, h2, err)
		}
		if len(b) > 1 {
			exercise(t, b)
		}
	})
}
