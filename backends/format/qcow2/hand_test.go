package qcow2

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

const handBits = 12 // clusters of 4 KiB

// A hand is an image made by hand: header in cluster 0, refcount table in 1, a
// block in 2, L1 in 3, one L2 table in 4, and data from 5 on.
type hand struct {
	h Header
	b []byte
}

func newHand() *hand {
	m := &hand{h: Header{
		Version: 3, ClusterBits: handBits, Size: 16 << handBits, RefcountOrder: 4,
		L1Entries: 1, L1Offset: 3 << handBits, RefTableOffset: 1 << handBits, RefTableClusters: 1,
	}}
	m.b = make([]byte, 12<<handBits)
	m.word(1<<handBits, 2<<handBits)
	m.word(3<<handBits, 4<<handBits|Copied)
	for c := 5; c < 12; c++ {
		fill(m.b[c<<handBits:(c+1)<<handBits], byte(c))
	}
	return m
}

func fill(p []byte, c byte) {
	for i := range p {
		p[i] = c
	}
}

func (m *hand) word(off int, v uint64) { binary.BigEndian.PutUint64(m.b[off:], v) }
func (m *hand) entry(i int, v uint64)  { m.word(4<<handBits+8*i, v) }
func (m *hand) cluster(c int) uint64   { return uint64(c) << handBits }
func (m *hand) reader() block.Reader   { return fromBytes(m.bytes()) }
func (m *hand) bytes() []byte {
	head, err := m.h.Encode()
	if err != nil {
		panic(err)
	}
	copy(m.b, head)
	return m.b
}

func (m *hand) deflate(t *testing.T, off int, p []byte) int {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 9)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(p)
	w.Close()
	return copy(m.b[off:], b.Bytes())
}

// TestUnusual reads images that are valid, though no program makes them every
// day.
func TestUnusual(t *testing.T) {
	cluster := func(c byte) []byte { return bytes.Repeat([]byte{c}, 1<<handBits) }
	noise := make([]byte, 1<<handBits)
	for i := range noise {
		noise[i] = byte(rand.New(rand.NewPCG(uint64(i), 1)).Uint32())
	}
	for name, c := range map[string]struct {
		make func(*hand)
		want map[int][]byte // by cluster of the disk; the others are zeros
	}{
		"not marked as copied":       {func(m *hand) { m.word(3<<handBits, 4<<handBits); m.entry(2, m.cluster(7)) }, map[int][]byte{2: cluster(7)}},
		"shared cluster":             {func(m *hand) { m.entry(0, m.cluster(6)); m.entry(9, m.cluster(6)) }, map[int][]byte{0: cluster(6), 9: cluster(6)}},
		"any order":                  {func(m *hand) { m.entry(0, m.cluster(8)); m.entry(1, m.cluster(7)) }, map[int][]byte{0: cluster(8), 1: cluster(7)}},
		"zero with a place":          {func(m *hand) { m.entry(0, m.cluster(6)|ZeroFlag) }, nil},
		"zero, place behind the end": {func(m *hand) { m.entry(0, m.cluster(600)|ZeroFlag) }, nil},
		"L1 longer than needed":      {func(m *hand) { m.h.L1Entries = 500; m.entry(1, m.cluster(6)) }, map[int][]byte{1: cluster(6)}},
		"file ends within a cluster": {func(m *hand) { m.entry(3, m.cluster(11)); m.b = m.b[:11<<handBits+100] },
			map[int][]byte{3: append(cluster(11)[:100:100], make([]byte, 1<<handBits-100)...)}},
		"stream over a cluster's end": {func(m *hand) {
			off := 6<<handBits - 7
			m.entry(5, m.h.Geometry().CompressedEntry(int64(off), int64(m.deflate(t, off, noise))))
		}, map[int][]byte{5: noise}},
		"more sectors than the stream": {func(m *hand) {
			m.deflate(t, 5<<handBits+3, cluster(77))
			m.entry(5, m.h.Geometry().CompressedEntry(5<<handBits+3, 1<<handBits))
		}, map[int][]byte{5: cluster(77)}},
		"stream at the end of the file": {func(m *hand) {
			n := m.deflate(t, 11<<handBits+5, cluster(77))
			m.entry(5, m.h.Geometry().CompressedEntry(11<<handBits+5, int64(n)))
			m.b = m.b[:11<<handBits+5+n]
		}, map[int][]byte{5: cluster(77)}},
		"stream longer than a cluster": {func(m *hand) {
			n := m.deflate(t, 5<<handBits, append(cluster(1), 2, 3, 4))
			m.entry(5, m.h.Geometry().CompressedEntry(5<<handBits, int64(n)))
		}, map[int][]byte{5: cluster(1)}},
		"dirty": {func(m *hand) { m.h.Incompatible = Dirty; m.entry(2, m.cluster(7)) }, map[int][]byte{2: cluster(7)}},
		"stale bitmaps": {func(m *hand) {
			m.h.SetExtension(ExtBitmaps, bytes.Repeat([]byte{0xff}, 24))
			m.entry(2, m.cluster(7))
		}, map[int][]byte{2: cluster(7)}},
		"unknown extension": {func(m *hand) { m.h.SetExtension(0x12345678, []byte("abc")) }, nil},
		"longer header":     {func(m *hand) { m.h.Extra = make([]byte, 80) }, nil},
		"version 2, extension at 72": {func(m *hand) {
			m.h.Version = 2
			m.h.SetExtension(0x12345678, bytes.Repeat([]byte{0xff}, 40))
			m.entry(2, m.cluster(7))
		}, map[int][]byte{2: cluster(7)}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newHand()
			c.make(m)
			im, err := Open(t.Context(), m.reader())
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, im.Size())
			for i, p := range c.want {
				copy(want[i<<handBits:], p)
			}
			blocktest.TestReader(t, im, want)
			if err := Verify(t.Context(), m.reader()); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

// TestHostile opens images that lie. Some lies matter only when they are
// touched; Verify must find them all.
func TestHostile(t *testing.T) {
	for name, lie := range map[string]func(*hand){
		"backing file":             func(m *hand) { m.h.Backing = "/etc/shadow" },
		"data file":                func(m *hand) { m.h.Incompatible = DataFile },
		"data file name":           func(m *hand) { m.h.SetExtension(ExtDataFile, []byte("/etc/shadow")) },
		"encryption":               func(m *hand) { m.h.Crypt = 1 },
		"unknown feature":          func(m *hand) { m.h.Incompatible = 1 << 40 },
		"marked corrupt":           func(m *hand) { m.h.Incompatible = CorruptBit },
		"compression type":         func(m *hand) { m.h.CompressionType = 1 },
		"compression bit":          func(m *hand) { m.h.Incompatible = CompressType },
		"extended, small clusters": func(m *hand) { m.h.Incompatible = ExtendedL2 },
		"refcount width":           func(m *hand) { m.h.RefcountOrder = 7 },
		"huge disk":                func(m *hand) { m.h.Size = 1<<64 - 512 },
		"L1 too short":             func(m *hand) { m.h.Size = 3 << 30 },
		"L1 of 32 GiB":             func(m *hand) { m.h.L1Entries = 1<<32 - 1 },
		"L1 behind the end":        func(m *hand) { m.h.L1Offset = 1 << 40 },
		"L1 over the end":          func(m *hand) { m.h.L1Entries = 1 << 20 },
		"L1 not aligned":           func(m *hand) { m.h.L1Offset += 512 },
		"L1 in the header":         func(m *hand) { m.h.L1Offset = 0 },
		"L1 on refcounts":          func(m *hand) { m.h.L1Offset = 1 << handBits },
		"no refcount table":        func(m *hand) { m.h.RefTableClusters = 0 },
		"refcount table outside":   func(m *hand) { m.h.RefTableOffset = 1 << 30 },
		"refcount block outside":   func(m *hand) { m.word(1<<handBits, 1<<30) },
		"refcount block reserved":  func(m *hand) { m.word(1<<handBits, 2<<handBits|4) },
		"L2 outside":               func(m *hand) { m.word(3<<handBits, 1<<40) },
		"L2 not aligned":           func(m *hand) { m.word(3<<handBits, 4<<handBits|512) },
		"L2 is the L1":             func(m *hand) { m.word(3<<handBits, 3<<handBits) },
		"L2 twice":                 func(m *hand) { m.h.L1Entries = 2; m.word(3<<handBits+8, 4<<handBits|Copied) },
		"L2 cut off":               func(m *hand) { m.b = m.b[:4<<handBits+100] },
		"reserved bit in L1":       func(m *hand) { m.word(3<<handBits, 4<<handBits|1) },
		"reserved bit in L2":       func(m *hand) { m.entry(0, m.cluster(5)|2) },
		"data outside":             func(m *hand) { m.entry(0, m.cluster(500)) },
		"data not aligned":         func(m *hand) { m.entry(0, m.cluster(5)+512) },
		"data is the L2":           func(m *hand) { m.entry(0, m.cluster(4)) },
		"data is the header":       func(m *hand) { m.word(4<<handBits, 1<<62) },
		"zero in version 2":        func(m *hand) { m.h.Version = 2; m.entry(0, 1) },
		"stream outside":           func(m *hand) { m.entry(0, m.h.Geometry().CompressedEntry(1<<40, 512)) },
		"stream copied":            func(m *hand) { m.entry(0, m.h.Geometry().CompressedEntry(5<<handBits, 512)|Copied) },
		"snapshots outside":        func(m *hand) { m.h.Snapshots, m.h.SnapshotsOffset = 3, 1<<30 },
		"snapshots of junk":        func(m *hand) { m.h.Snapshots, m.h.SnapshotsOffset = 3, 8<<handBits },
		"snapshots over data": func(m *hand) {
			m.h.Snapshots, m.h.SnapshotsOffset = 1, 8<<handBits
			e := SnapshotEntry{ID: "1", Name: "x", L1Offset: 9 << handBits, L1Entries: 1, DiskSize: 4096}
			copy(m.b[8<<handBits:], e.Encode(nil))
			clear(m.b[9<<handBits : 10<<handBits])
			m.entry(0, m.cluster(8))
		},
		"snapshot without L1": func(m *hand) {
			m.h.Snapshots, m.h.SnapshotsOffset = 1, 8<<handBits
			e := SnapshotEntry{ID: "1", Name: "x", DiskSize: 1 << 40}
			copy(m.b[8<<handBits:], e.Encode(nil))
		},
		"bitmaps outside": func(m *hand) {
			m.h.Autoclear = BitmapsValid
			m.h.SetExtension(ExtBitmaps, bytes.Repeat([]byte{0xff}, 24))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newHand()
			lie(m)
			err := Verify(t.Context(), m.reader())
			if !errors.Is(err, decode.ErrCorrupt) && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("verify: %v", err)
			}
			t.Log(err)
			exercise(t, m.bytes())
		})
	}
	if err := Verify(t.Context(), newHand().reader()); err != nil {
		t.Fatalf("without a lie: %v", err)
	}
}

// TestTouchedLies reads what points nowhere: an error, never other bytes.
func TestTouchedLies(t *testing.T) {
	for name, lie := range map[string]func(*hand){
		"data outside":   func(m *hand) { m.entry(0, m.cluster(500)) },
		"L2 outside":     func(m *hand) { m.word(3<<handBits, 1<<40) },
		"stream outside": func(m *hand) { m.entry(0, m.h.Geometry().CompressedEntry(1<<40, 512)) },
		"stream of junk": func(m *hand) { m.entry(0, m.h.Geometry().CompressedEntry(7<<handBits, 512)) },
	} {
		m := newHand()
		lie(m)
		im, err := Open(t.Context(), m.reader())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{512, 4096, 16384} {
			if err := im.ReadAt(t.Context(), make([]byte, n), 0); !errors.Is(err, decode.ErrCorrupt) {
				t.Errorf("%s, %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	h := newHand().h
	h.Extra = []byte{1, 2, 3, 4, 5, 6, 7, 8}
	h.Backing = "nbd+unix:///image?socket=/run/nbd.sock"
	h.SetExtension(ExtBackingFormat, []byte("raw"))
	h.SetExtension(0x77777777, []byte("unknown"))
	b, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(b, again) || got.Backing != h.Backing || got.BackingFormat() != "raw" {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := DecodeHeader(b[:n]); !errors.Is(err, decode.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	h.Backing = string(make([]byte, 1024))
	if _, err := h.Encode(); !errors.Is(err, fs.ErrInvalid) {
		t.Fatalf("long name: %v", err)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	e := SnapshotEntry{ID: "12", Name: "before", L1Offset: 1 << 20, L1Entries: 7, VMStateSize: 1 << 33, DiskSize: 1 << 30, Icount: 5, Extra: []byte("extra")}
	b := e.Encode(nil)
	got, n, err := DecodeSnapshot(b)
	if err != nil || n != len(b) || n%8 != 0 || got.Name != e.Name || got.ID != e.ID || got.VMStateSize != e.VMStateSize || string(got.Extra) != "extra" {
		t.Fatalf("%+v, %d of %d, %v", got, n, len(b), err)
	}
}

func TestRefcounts(t *testing.T) {
	for order := range uint(7) {
		b := make([]byte, 64)
		rng := rand.New(rand.NewPCG(1, uint64(order)))
		want := make([]uint64, 64*8>>order)
		for range 300 {
			i := rng.IntN(len(want))
			want[i] = rng.Uint64() & (1<<(1<<order) - 1)
			if order == 6 {
				want[i] = rng.Uint64()
			}
			SetRefcount(b, order, i, want[i])
		}
		for i, w := range want {
			if got := Refcount(b, order, i); got != w {
				t.Fatalf("order %d, entry %d: %d, want %d", order, i, got, w)
			}
		}
	}
}

func TestSnapshotMissing(t *testing.T) {
	im, err := Open(t.Context(), newHand().reader())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.Snapshot(t.Context(), "no"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// Reading plain clusters, once their tables are there, and bits of decoded
// ones, must not allocate.
func TestReadDoesNotAllocate(t *testing.T) {
	m := newHand()
	for c := range 4 {
		m.entry(c, m.cluster(c+6)|Copied)
	}
	m.deflate(t, 11<<handBits, bytes.Repeat([]byte{9}, 1<<handBits))
	m.entry(5, m.h.Geometry().CompressedEntry(11<<handBits, 512))
	im, err := Open(t.Context(), m.reader())
	if err != nil {
		t.Fatal(err)
	}
	ctx, p := context.Background(), make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() { im.ReadAt(ctx, p, 512) }); n > 0 {
		t.Errorf("plain: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { im.ReadAt(ctx, p[:512], 5<<handBits+512) }); n > 0 {
		t.Errorf("compressed: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { im.Extent(ctx, 0, im.Size()) }); n > 0 {
		t.Errorf("extent: %v allocations", n)
	}
}
