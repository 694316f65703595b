package probe_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/probe"
)

func content() []byte {
	p := bytes.Repeat([]byte("platter!"), 10_000)
	clear(p[20_000:50_000])
	return p
}

// TestTransparent: a layer that only watches changes nothing.
func TestTransparent(t *testing.T) {
	wraps := map[string]func(d block.Device) block.Device{
		"trace": func(d block.Device) block.Device { return probe.TraceDevice(d, "d", io.Discard) },
		"check": func(d block.Device) block.Device {
			return probe.CheckDevice(d, "d", func(err error) { t.Error(err) })
		},
		"slow":   func(d block.Device) block.Device { return probe.SlowDevice(d, probe.Pace{Rate: 1 << 40}) },
		"faulty": func(d block.Device) block.Device { return probe.FaultyDevice(d) },
	}
	for name, wrap := range wraps {
		t.Run(name, func(t *testing.T) { blocktest.TestDevice(t, wrap(mem.NewDevice(content())), content()) })
	}
	t.Run("compare", func(t *testing.T) {
		r, err := probe.Compare(mem.Reader(content()), mem.Reader(content()))
		if err != nil {
			t.Fatal(err)
		}
		blocktest.TestReader(t, r, content())
	})
	if _, is := probe.Trace(mem.NewDevice(nil), "r", io.Discard).(block.Device); is {
		t.Error("a traced Reader is a Device")
	}
}

func TestTrace(t *testing.T) {
	var out strings.Builder
	ctx := t.Context()
	d := probe.TraceDevice(mem.NewDevice(content()), "disk", &out)
	_ = d.ReadAt(ctx, make([]byte, 10), 5)
	_ = d.WriteAt(ctx, make([]byte, 3), 7)
	_ = d.ReadAt(ctx, make([]byte, 10), 79_999)
	_, _ = block.ExtentAt(ctx, d, 24_576, 4096)
	_ = block.ZeroAt(ctx, d, 0, 512, block.ZeroAllocated)
	_ = block.Discard(ctx, d, 0, 512)
	_ = block.Prefetch(ctx, d, 0, 1)
	_ = d.Flush(ctx)
	want := `disk: read 5+10
disk: write 7+3
disk: read 79999+10: range 79999+10 of 80000 bytes: outside the device
disk: extent 24576+4096 = 4096 zero
disk: zero 0+512 mode 1
disk: discard 0+512
disk: prefetch 0+1
disk: flush
`
	if out.String() != want {
		t.Errorf("trace:\n%swant:\n%s", &out, want)
	}
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := probe.Slow(mem.Reader(content()), probe.Pace{Delay: time.Hour, Rate: 10})
		began := time.Now()
		if err := r.ReadAt(t.Context(), make([]byte, 100), 0); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != time.Hour+10*time.Second {
			t.Errorf("a read took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.ReadAt(ctx, make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ReadAt = %v, want the error of the context", err)
		}
	})
}

func TestFaulty(t *testing.T) {
	ctx := t.Context()
	d := probe.FaultyDevice(mem.NewDevice(content()),
		probe.Fault{Op: probe.Read, From: 100, To: 200},
		probe.Fault{Op: probe.Write, Nth: 2, After: true, Err: syscall.ENOSPC},
		probe.Fault{Op: probe.Flush, Nth: 1},
	)
	read := func(off, n int64) error { return d.ReadAt(ctx, make([]byte, n), off) }
	write := func() error { return d.WriteAt(ctx, []byte("x"), 300) }
	steps := []struct {
		err, want error
	}{
		{read(0, 100), nil}, {read(0, 101), syscall.EIO}, {read(199, 1), syscall.EIO}, {read(200, 1), nil},
		{write(), nil}, {write(), syscall.ENOSPC}, {write(), nil},
		{d.Flush(ctx), syscall.EIO}, {d.Flush(ctx), nil},
	}
	for i, s := range steps {
		if !errors.Is(s.err, s.want) || (s.err != nil) != errors.Is(s.err, probe.ErrInjected) {
			t.Errorf("step %d: %v, want %v", i, s.err, s.want)
		}
	}
}

func TestCompare(t *testing.T) {
	ctx := t.Context()
	other := content()
	other[30_000] = 1
	r, err := probe.Compare(mem.Reader(content()), mem.Reader(other))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReadAt(ctx, make([]byte, 30_000), 0); err != nil {
		t.Error(err)
	}
	if err := r.ReadAt(ctx, make([]byte, 30_001), 0); !errors.Is(err, probe.ErrDiffer) {
		t.Errorf("a read of what differs = %v", err)
	}
	if _, err := block.ExtentAt(ctx, r, 24_576, 20_000); !errors.Is(err, probe.ErrDiffer) {
		t.Errorf("an extent of zeros over data = %v", err)
	}
	if _, err := probe.Compare(r, mem.Reader(other[1:])); !errors.Is(err, probe.ErrDiffer) {
		t.Errorf("sizes that differ = %v", err)
	}
}

// liar breaks promises.
type liar struct {
	block.Device
	size   int64
	read   func(p []byte, off int64) error
	write  func(p []byte)
	extent block.Extent
}

func (l *liar) Size() int64 { return l.size }

func (l *liar) ReadAt(_ context.Context, p []byte, off int64) error { return l.read(p, off) }

func (l *liar) WriteAt(_ context.Context, p []byte, _ int64) error {
	l.write(p)
	return nil
}

func (l *liar) Extent(context.Context, int64, int64) (block.Extent, error) { return l.extent, nil }

func TestCheck(t *testing.T) {
	ctx := t.Context()
	ok := func([]byte, int64) error { return nil }
	var kept []byte
	keep := func(p []byte, _ int64) error {
		if kept != nil {
			kept[0] = 1
		}
		kept = p
		return nil
	}
	read := func(off int64) func(block.Device) error {
		return func(d block.Device) error { return d.ReadAt(ctx, make([]byte, 10), off) }
	}
	twice := func(d block.Device) error {
		_ = d.ReadAt(ctx, make([]byte, 10), 0)
		return d.ReadAt(ctx, make([]byte, 10), 0)
	}
	extent := func(d block.Device) error {
		_, err := block.ExtentAt(ctx, d, 10, 10)
		return err
	}
	write := func(d block.Device) error { return d.WriteAt(ctx, []byte("text"), 0) }
	cases := map[string]struct {
		l   liar
		do  func(block.Device) error
		bad bool
	}{
		"good":          {liar{read: ok}, read(0), false},
		"no bounds":     {liar{read: ok}, read(91), true},
		"narrow bounds": {liar{read: func([]byte, int64) error { return block.ErrBounds }}, read(90), true},
		"EOF":           {liar{read: func([]byte, int64) error { return io.EOF }}, read(90), true},
		"late write":    {liar{read: keep}, twice, true},
		"good extent":   {liar{extent: block.Extent{Off: 10, Len: 10}}, extent, false},
		"other extent":  {liar{extent: block.Extent{Off: 9, Len: 10}}, extent, true},
		"no extent":     {liar{extent: block.Extent{Off: 10}}, extent, true},
		"long extent":   {liar{extent: block.Extent{Off: 10, Len: 11}}, extent, true},
		"odd extent":    {liar{extent: block.Extent{Off: 10, Len: 1, Kind: 7}}, extent, true},
		"good write":    {liar{write: func([]byte) {}}, write, false},
		"changed slice": {liar{write: func(p []byte) { p[0]++ }}, write, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.l.size = 100
			reported := 0
			err := c.do(probe.CheckDevice(&c.l, "liar", func(error) { reported++ }))
			if errors.Is(err, probe.ErrContract) != c.bad || (reported > 0) != c.bad {
				t.Errorf("error %v, %d reported, want broken = %v", err, reported, c.bad)
			}
		})
	}
	l := liar{read: ok, size: 100}
	r := probe.Check(&l, "liar", nil)
	l.size = 50
	if err := r.ReadAt(ctx, nil, 0); !errors.Is(err, probe.ErrContract) {
		t.Errorf("a size that changed = %v", err)
	}
}
