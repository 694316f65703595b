package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// layers is a disk of layers: each MiB comes from the layer of that number, 0
// for none. The bytes from odd on are one layer deeper.
type layers struct {
	readOnly
	odd int64
}

func (l layers) Depth(_ context.Context, off, n int64) (int64, int, error) {
	run := min(n, (off/(1<<20)+1)<<20-off)
	depth := int(off >> 20)
	if l.odd > off {
		return min(run, l.odd-off), depth, nil
	}
	if l.odd > 0 {
		depth++
	}
	return run, depth, nil
}

// changes is a bitmap: what lies between the pairs of borders has changed.
type changes []int64

func (c changes) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	kind, end := block.Zero, off+n
	for i, border := range c {
		if off < border {
			end = min(end, border)
			break
		}
		if kind = block.Data; i%2 == 1 {
			kind = block.Absent
		}
	}
	return block.Extent{Off: off, Len: end - off, Kind: kind}, nil
}

// serveContexts serves "layers" with two bitmaps.
func serveContexts(t *testing.T) *aServer {
	a := serve(t)
	a.exports.byName["layers"] = nbd.Export{Disk: layers{readOnly{a.disk}, 0}, Label: "layers", Bitmaps: []nbd.Bitmap{
		{Name: "monday", Changed: changes{1 << 20, 2 << 20, 3 << 20, 3<<20 + 1}},
		{Name: ""}, {Name: strings.Repeat("x", 4096)}, {Name: "\xff"}, // not offered
		{Name: "tuesday", Changed: changes{0, 512}},
	}}
	return a
}

func TestMetaContexts(t *testing.T) {
	a := serveContexts(t)
	const alloc, depth, monday, tuesday = "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:monday", "qemu:dirty-bitmap:tuesday"
	for name, agree := range map[string]func(c *nbdtest.Client) error{
		"structured": (*nbdtest.Client).StructuredReplies, "extended": (*nbdtest.Client).ExtendedHeaders,
	} {
		c := a.dial(t)
		_, err := c.ListContexts("layers")
		denied(t, err, nbdtest.RepErrInvalid) // not before one of the two
		if err := agree(c); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ queries, list, set []string }{
			{nil, []string{alloc, depth, monday, tuesday}, nil},
			{[]string{"base:"}, []string{alloc}, nil},
			{[]string{"qemu:"}, []string{depth, monday, tuesday}, nil},
			{[]string{"qemu:dirty-bitmap:"}, []string{monday, tuesday}, nil},
			{[]string{"base:", "qemu:"}, []string{alloc, depth, monday, tuesday}, nil},
			{[]string{alloc}, []string{alloc}, []string{alloc}},
			{[]string{alloc, alloc, "base:"}, []string{alloc}, []string{alloc}},
			{[]string{tuesday, depth}, []string{depth, tuesday}, []string{depth, tuesday}},
			{[]string{monday, alloc, tuesday, depth, "qemu:"}, []string{alloc, depth, monday, tuesday}, []string{alloc, depth, monday, tuesday}},
			{[]string{"base:other", "qemu:other", "qemu:dirty-bitmap:x", "qemu:dirty-bitmap", "qemu:allocation-depth:"}, nil, nil},
			{[]string{"x-unknown:y", "", "noname", ":", "nbd-server:"}, nil, nil},
		} {
			list, err := c.ListContexts("layers", tt.queries...)
			if err != nil || !slices.Equal(slices.Sorted(maps.Keys(list)), tt.list) {
				t.Errorf("%s: list %q: %v, %v", name, tt.queries, list, err)
			}
			set, err := c.SetContexts("layers", tt.queries...)
			if err != nil || !slices.Equal(slices.Sorted(maps.Keys(set)), tt.set) {
				t.Errorf("%s: set %q: %v, %v", name, tt.queries, set, err)
			}
		}
		_, err = c.ListContexts("none")
		denied(t, err, nbdtest.RepErrUnknown)
		if list, err := c.ListContexts("rw"); err != nil || len(list) != 2 {
			t.Errorf("%s: a disk without bitmaps has %v, %v", name, list, err)
		}
		many := slices.Repeat([]string{alloc}, 257)
		_, err = c.SetContexts("layers", many...)
		denied(t, err, nbdtest.RepErrTooBig)
		_, err = c.ListContexts("layers", many...)
		denied(t, err, nbdtest.RepErrTooBig)
		if _, err = c.SetContexts("layers", many[1:]...); err != nil {
			t.Error(err)
		}
	}
}

// TestTooManyContexts has an export with more bitmaps than one connection may
// choose.
func TestTooManyContexts(t *testing.T) {
	a := serve(t)
	e, names := nbd.Export{Disk: a.disk}, []string(nil)
	for i := range 80 {
		e.Bitmaps = append(e.Bitmaps, nbd.Bitmap{Name: fmt.Sprint(i), Changed: changes{int64(i) << 16, diskSize}})
		names = append(names, fmt.Sprint("qemu:dirty-bitmap:", i))
	}
	a.exports.byName["many"] = e
	c := a.dial(t)
	c.ExtendedHeaders()
	if list, err := c.ListContexts("many"); err != nil || len(list) != 82 {
		t.Fatalf("%d listed, %v", len(list), err)
	}
	_, err := c.SetContexts("many", names...)
	denied(t, err, nbdtest.RepErrTooBig)
	if set, err := c.SetContexts("many", names[:64]...); err != nil || len(set) != 64 {
		t.Fatalf("%d chosen, %v", len(set), err)
	}
	if _, err := c.Go("many"); err != nil {
		t.Fatal(err)
	}
	r, err := c.Do(nbdtest.Request{Cmd: nbdtest.CmdBlockStatus, Len: diskSize})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		want := fmt.Sprintf("[{%d 0} {%d 1}]", i<<16, diskSize-i<<16)
		if i == 0 {
			want = fmt.Sprintf("[{%d 1}]", diskSize)
		}
		if got := fmt.Sprint(r.Status[c.Contexts[names[i]]]); got != want {
			t.Errorf("bitmap %d: %s, want %s", i, got, want)
		}
	}
}

// TestStatusOfContexts asks for several contexts at once.
func TestStatusOfContexts(t *testing.T) {
	a := serveContexts(t)
	wide, narrow := a.extended(t, "layers"), a.dial(t)
	narrow.StructuredReplies()
	if _, err := narrow.SetContexts("layers", slices.Collect(maps.Keys(wide.Contexts))...); err != nil {
		t.Fatal(err)
	}
	if _, err := narrow.Go("layers"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		off, n                 uint64
		flags                  uint16
		depth, monday, tuesday string
	}{
		{0, 4 << 20, 0, "[{1048576 0} {1048576 1} {1048576 2} {1048576 3}]",
			"[{1048576 0} {1048576 1} {1048576 0} {512 1} {1048064 0}]", "[{512 1} {4193792 0}]"},
		{0, 4 << 20, nbdtest.ReqOne, "[{1048576 0}]", "[{1048576 0}]", "[{512 1}]"},
		{1<<20 + 1, 1 << 20, 0, "[{1048575 1} {1 2}]", "[{1048575 1} {1 0}]", "[{1048576 0}]"},
		{diskSize - 1, 1, 0, "[{1 8}]", "[{1 0}]", "[{1 0}]"},
	} {
		for _, c := range []*nbdtest.Client{wide, narrow} {
			r, err := c.Do(nbdtest.Request{Cmd: nbdtest.CmdBlockStatus, Off: tt.off, Len: tt.n, Flags: tt.flags})
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{
				"qemu:allocation-depth": tt.depth, "qemu:dirty-bitmap:monday": tt.monday, "qemu:dirty-bitmap:tuesday": tt.tuesday,
				"base:allocation": fmt.Sprintf("[{%d 3}]", tt.n),
			} {
				if got := fmt.Sprint(r.Status[c.Contexts[name]]); got != want {
					t.Errorf("%s of %d+%d: %s, want %s", name, tt.off, tt.n, got, want)
				}
			}
		}
	}
}

// TestDepthAligned looks that a unit which comes from several layers is told
// as from the topmost of them.
func TestDepthAligned(t *testing.T) {
	a := serve(t)
	a.exports.byName["odd"] = nbd.Export{Disk: layers{readOnly{a.disk}, 1<<20 + 5000}, MinBlock: 4096}
	c := a.extended(t, "odd")
	r, err := c.Do(nbdtest.Request{Cmd: nbdtest.CmdBlockStatus, Len: 2 << 20})
	if got := fmt.Sprint(r.Status[c.Contexts["qemu:allocation-depth"]]); err != nil || got != "[{1048576 0} {8192 1} {1040384 2}]" {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestContextFails looks that an error in one context is the answer.
func TestContextFails(t *testing.T) {
	a := serve(t)
	a.exports.byName["bad"] = nbd.Export{Disk: a.disk, Bitmaps: []nbd.Bitmap{{Name: "bad", Changed: badChanges{}}, {Name: "none"}}}
	c := a.extended(t, "bad")
	_, err := c.Status(0, 4096, 0)
	want(t, err, nbdtest.EIO)
	r, err := c.Do(nbdtest.Request{Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.PayloadLen,
		Payload: nbdtest.StatusFilter(4096, c.Contexts["qemu:dirty-bitmap:none"])})
	if err != nil || fmt.Sprint(r.Status) != "map[4:[{4096 1}]]" {
		t.Errorf("a bitmap that nobody knows of is told as %v, %v", r.Status, err)
	}
}

type badChanges struct{}

func (badChanges) Extent(context.Context, int64, int64) (block.Extent, error) {
	return block.Extent{}, errors.New("the bitmap is gone")
}

// TestContextsHold looks when a chosen context may be used.
func TestContextsHold(t *testing.T) {
	a := serve(t)
	for name, tt := range map[string]struct {
		prepare func(c *nbdtest.Client)
		want    uint32
	}{
		"chosen":             {func(c *nbdtest.Client) { c.SetContexts("rw", "base:allocation") }, 0},
		"not chosen":         {func(c *nbdtest.Client) {}, nbdtest.EINVAL},
		"of another export":  {func(c *nbdtest.Client) { c.SetContexts("ro", "base:allocation") }, nbdtest.EINVAL},
		"replaced by none":   {func(c *nbdtest.Client) { c.SetContexts("rw", "base:allocation"); c.SetContexts("rw") }, nbdtest.EINVAL},
		"replaced by errors": {func(c *nbdtest.Client) { c.SetContexts("rw", "base:allocation"); c.SetContexts("none", "x") }, nbdtest.EINVAL},
		"info in between":    {func(c *nbdtest.Client) { c.SetContexts("rw", "base:allocation"); c.Info("ro") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := a.dial(t)
			c.StructuredReplies()
			tt.prepare(c)
			if _, err := c.Go("rw"); err != nil {
				t.Fatal(err)
			}
			_, err := c.Status(0, 4096, 0)
			want(t, err, tt.want)
		})
	}
}
