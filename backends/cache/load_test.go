package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/mem"
)

// FuzzLoad: whatever the files say, the cache opens, keeps its limits, and
// what is read is right.
func FuzzLoad(f *testing.F) {
	data := bytes.Repeat([]byte("platter!"), 200_000)
	o := newObject(nil, "o", int64(len(data)))
	d := desc{hash: o.hash, n: 1, stamp: 5, present: [2]uint64{7, 1}, pinned: [2]uint64{2, 0}, uses: 2}
	list := listing{id: "o", size: int64(len(data))}.append(nil)
	f.Add(d.append(nil), list, []byte{1, 2, 3}, data[:5000])
	f.Add(append(d.append(nil), d.append(nil)...), append(list, list...), []byte{}, []byte{})
	f.Add([]byte{}, []byte("x"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, descs, list, sums, slot []byte) {
		if len(descs)+len(list)+len(sums)+len(slot) > 1<<20 {
			return
		}
		for at := 0; at+descSize <= len(descs); at += descSize {
			binary.LittleEndian.PutUint32(descs[at+descSize-4:], crc(descs[at:at+descSize-4]))
		}
		for rest := list; len(rest) >= idHead; {
			n := idHead + int(binary.LittleEndian.Uint32(rest[4:]))%(maxID+1)
			if n > len(rest) {
				break
			}
			binary.LittleEndian.PutUint32(rest, crc(rest[4:n]))
			rest = rest[n:]
		}
		disk := crashfs.New()
		if err := disk.Mkdir("/c", 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"index": append(head(), descs...), "objects": list, "sums": sums, "data.0": slot} {
			file, err := disk.Open("/c/"+name, os.O_CREATE|os.O_RDWR, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteAt(data, 0); err != nil {
				t.Fatal(err)
			}
			file.Close()
		}
		c, err := Open(Config{Dir: "/c", FS: disk, Size: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Reader("o", int64(len(data)), func(context.Context) (block.ReadCloser, error) { return mem.Reader(data), nil }, ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		for range 2 {
			if err := r.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("other bytes, %v", err)
			}
			clear(got)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Degraded != "" || s.Used > s.Size {
			t.Errorf("%+v", s)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestShrink: a cache that is opened with a smaller size keeps to it.
func TestShrink(t *testing.T) {
	disk := crashfs.New()
	data := bytes.Repeat([]byte{1}, 4<<20)
	for _, size := range []int64{8 << 20, 1 << 20, 8 << 20} {
		c, err := Open(Config{Dir: "/c", FS: disk, Size: size})
		if err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Used > size {
			t.Errorf("%d bytes are used of %d", s.Used, size)
		}
		r, err := c.Reader("o", int64(len(data)), func(context.Context) (block.ReadCloser, error) { return mem.Reader(data), nil }, ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.ReadAt(t.Context(), make([]byte, len(data)), 0); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Used > size {
			t.Errorf("%d bytes are used of %d", s.Used, size)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBitmap compares bitmaps and grain sets with slices of bool.
func TestBitmap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var b bitmap
	var set grainSet
	want, wide := make([]bool, unitGrains), make([]bool, fetchGrains)
	count := func(s []bool, v bool) (n int64) {
		for _, x := range s {
			if x == v {
				n++
			}
		}
		return n
	}
	length := func(s []bool, v bool) int {
		if i := slices.Index(s, !v); i >= 0 {
			return i
		}
		return len(s)
	}
	fill := func(s []bool, v bool) {
		for i := range s {
			s[i] = v
		}
	}
	for range 20_000 {
		from, wfrom := rng.IntN(unitGrains), rng.IntN(fetchGrains)
		to, wto := from+rng.IntN(unitGrains-from+1), wfrom+rng.IntN(fetchGrains-wfrom+1)
		part := want[from:to]
		if b.run(from, to) != length(part, true) || b.gap(from, to) != length(part, false) || b.any(from, to) != slices.Contains(part, true) {
			t.Fatal("search", from, to)
		}
		v := rng.IntN(2) == 0
		if v {
			if got := b.set(from, to); got != count(part, false) {
				t.Fatal("set", from, to, got)
			}
			set.set(wfrom, wto)
		} else {
			if got := b.clear(from, to); got != count(part, true) {
				t.Fatal("clear", from, to, got)
			}
			if got := set.clear(wfrom, wto); got != count(wide[wfrom:wto], true) {
				t.Fatal("clear", wfrom, wto, got)
			}
		}
		fill(part, v)
		fill(wide[wfrom:wto], v)
		if b.count() != count(want, true) {
			t.Fatal("count")
		}
		got := make([]bool, fetchGrains)
		set.runs(fetchGrains, func(from, to int) { fill(got[from:to], true) })
		if !slices.Equal(got, wide) {
			t.Fatal("runs")
		}
	}
}

// TestExtentList: what was learned in any order is known.
func TestExtentList(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	kinds := make([]block.Kind, 1000)
	for i := range kinds {
		kinds[i] = block.Kind(rng.IntN(2))
	}
	var x extents
	known := make([]bool, len(kinds))
	for range 3000 {
		off := rng.IntN(len(kinds))
		n := 1
		for off+n < len(kinds) && kinds[off+n] == kinds[off] {
			n++
		}
		x.add(block.Extent{Off: int64(off), Len: int64(n), Kind: kinds[off]})
		for i := range n {
			known[off+i] = true
		}
		at := rng.IntN(len(kinds))
		e, ok := x.find(int64(at), 5)
		if ok && (!known[at] || e.Kind != kinds[at] || e.Off != int64(at) || e.Len < 1 || e.Len > 5) {
			t.Fatalf("at %d, of kind %v: %+v", at, kinds[at], e)
		}
	}
}

// BenchmarkOpen measures the start with a cache of so many units.
func BenchmarkOpen(b *testing.B) {
	for _, units := range []int64{20_000, 200_000} {
		b.Run(fmt.Sprint(units), func(b *testing.B) {
			dir := b.TempDir()
			cfg := Config{Dir: dir, Size: 200 << 30}
			c, err := Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			f := c.store.Load()
			o := newObject(c, "o", units*unitSize)
			if err := f.list(o); err != nil {
				b.Fatal(err)
			}
			var all []byte
			for n := range units {
				d := desc{hash: o.hash, n: n, stamp: n, present: [2]uint64{^uint64(0), ^uint64(0)}}
				all = d.append(all)
			}
			if _, err := f.index.WriteAt(all, headSize); err != nil {
				b.Fatal(err)
			}
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				c, err := Open(cfg)
				if err != nil {
					b.Fatal(err)
				}
				if got := c.space.units; got != units {
					b.Fatal(got)
				}
				if err := c.store.Load().close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
