package blocktest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

// device is right, but for what its hooks do to it.
type device struct {
	mu     sync.Mutex
	data   []byte
	read   func(d *device, p []byte, off int64) error
	write  func(d *device, p []byte, off int64) error
	extent func(d *device, e block.Extent) block.Extent
}

func (d *device) Size() int64                 { return int64(len(d.data)) }
func (d *device) Flush(context.Context) error { return nil }

func (d *device) ReadAt(_ context.Context, p []byte, off int64) error {
	if d.read != nil {
		return d.read(d, p, off)
	}
	return d.get(p, off)
}

func (d *device) get(p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.Size()); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(p, d.data[off:])
	return nil
}

func (d *device) WriteAt(_ context.Context, p []byte, off int64) error {
	if d.write != nil {
		return d.write(d, p, off)
	}
	return d.put(p, off)
}

func (d *device) put(p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.Size()); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], p)
	return nil
}

func (d *device) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	e := block.Extent{Off: off, Len: n, Kind: block.Data}
	if d.extent != nil {
		e = d.extent(d, e)
	}
	return e, nil
}

func content() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 150_001)
	for i := range p {
		p[i] = byte(rng.Uint32()) | 1
	}
	return p
}

func TestGood(t *testing.T) {
	blocktest.TestDevice(t, &device{data: content()}, content())
	blocktest.TestDevice(t, &device{}, nil)
}

// TestBroken tests the tests: each of these breaks one promise.
func TestBroken(t *testing.T) {
	outside := func(d *device, p []byte, off int64) error {
		if err := d.get(p, off); err != nil || cap(p) == len(p) {
			return err
		}
		p[:len(p)+1][len(p)] = 0
		return nil
	}
	short := func(d *device, p []byte, off int64) error {
		if err := block.CheckRange(off, int64(len(p)), d.Size()); err != nil {
			return err
		}
		return d.get(p[:min(len(p), 100_000)], off)
	}
	lenient := func(d *device, p []byte, off int64) error {
		if off < 0 || off > d.Size() {
			return block.ErrBounds
		}
		copy(p, d.data[off:])
		return nil
	}
	var kept []byte
	keep := func(d *device, p []byte, off int64) error {
		if err := d.put(kept, 0); err != nil {
			return err
		}
		if len(p) < 1000 {
			kept = p
		}
		return d.put(p, off)
	}
	broken := map[string]struct {
		device *device
		want   string
	}{
		"other bytes": {&device{data: slices.Repeat([]byte{7}, 150_001)}, "all"},
		"other size":  {&device{data: content()[1:]}, "size"},
		"outside p":   {&device{data: content(), read: outside}, "outside its slice"},
		"short read":  {&device{data: content(), read: short}, "byte"},
		"no bounds":   {&device{data: content(), read: lenient}, "bounds"},
		"lying hole": {&device{data: content(), extent: func(_ *device, e block.Extent) block.Extent {
			e.Kind = block.Zero
			return e
		}}, "extents"},
		"long extent": {&device{data: content(), extent: func(_ *device, e block.Extent) block.Extent {
			e.Len++
			return e
		}}, "extents"},
		"empty extent": {&device{data: content(), extent: func(_ *device, e block.Extent) block.Extent {
			e.Len = 0
			return e
		}}, "extents"},
		"odd kind": {&device{data: content(), extent: func(_ *device, e block.Extent) block.Extent {
			e.Kind = 9
			return e
		}}, "kind"},
		"lost write": {&device{data: content(), write: func(d *device, p []byte, off int64) error {
			return block.CheckRange(off, int64(len(p)), d.Size())
		}}, "write"},
		"kept slice": {&device{data: content(), write: keep}, "write"},
		"wrong error": {&device{data: content(), write: func(d *device, p []byte, off int64) error {
			if d.put(p, off) != nil {
				return errors.New("no")
			}
			return nil
		}}, "ErrBounds"},
	}
	for name, c := range broken {
		t.Run(name, func(t *testing.T) {
			err := blocktest.CheckDevice(t.Context(), c.device, content())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("CheckDevice = %v, want an error about %q", err, c.want)
			}
		})
	}
}
