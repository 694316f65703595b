package cache_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/backends/cache"
)

// TestFill: a full cache takes a whole object of half its size, which a scan
// behind it does not drive out, and knows after a restart that it is whole.
func TestFill(t *testing.T) {
	cfg := cache.Config{Dir: t.TempDir(), Size: 32 << 20}
	first := open(t, cfg)
	hot, whole, scan := newFar(24<<20), newFar(16<<20-77), newFar(24<<20)
	h := reader(t, first, "hot", hot)
	for range 2 { // what is evicted in between is worth more when it comes again
		read(t, h, hot, 0, 24<<20)
		settled(first)
		filler := newFar(12 << 20)
		r := reader(t, first, "filler", filler)
		read(t, r, filler, 0, 12<<20)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		settled(first)
	}
	r := reader(t, first, "whole", whole)
	read(t, r, whole, 5<<20, 100_000)
	if first.Whole("whole") {
		t.Error("a part is the whole")
	}
	if err := r.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Fill(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if !first.Whole("whole") || first.Whole("hot") || first.Whole("none") {
		t.Errorf("what is whole: %+v", first.List())
	}
	s := reader(t, first, "scan", scan)
	for off := int64(0); off < 24<<20; off += 65536 {
		read(t, s, scan, off, 65536)
	}
	settled(first)
	if n := first.Stats(); !first.Whole("whole") || n.Used > n.Size {
		t.Errorf("after a scan: %+v, %+v", first.List(), n)
	}
	for _, open := range []interface{ Close() error }{h, s} {
		if err := open.Close(); err != nil {
			t.Fatal(err)
		}
	}
	second := again(t, first, cfg)
	for _, i := range second.List() {
		if i.ID == "whole" && !i.Whole || i.ID == "hot" && i.Whole || !i.Grown.IsZero() {
			t.Errorf("after a restart: %+v", i)
		}
	}
	before := whole.bytes.Load()
	r = reader(t, second, "whole", whole)
	read(t, r, whole, 0, 16<<20-77)
	if n := whole.bytes.Load() - before; n != 0 {
		t.Errorf("%d bytes of a whole object were fetched", n)
	}
	second.Drop("whole")
	if second.Whole("whole") {
		t.Error("what was dropped is whole")
	}
}

// again closes c and opens another on its folder.
func again(t *testing.T, c *cache.Cache, cfg cache.Config) *cache.Cache {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return open(t, cfg)
}

// TestFillTooLarge: what has no room is not whole, and the cache keeps to its
// size.
func TestFillTooLarge(t *testing.T) {
	f := newFar(8 << 20)
	c := open(t, cache.Config{Size: 4 << 20})
	r := reader(t, c, "o", f)
	if err := r.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled(c)
	if s := c.Stats(); c.Whole("o") || s.Used > s.Size {
		t.Errorf("%+v", s)
	}
}
