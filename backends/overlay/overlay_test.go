package overlay_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

// striped has runs of 1000 bytes: data of its letter, zeros, nothing.
type striped struct {
	letter byte
	size   int64
	turn   int64
}

func (s striped) Size() int64 { return s.size }

func (s striped) kind(off int64) block.Kind { return block.Kind((off/1000 + s.turn) % 3) }

func (s striped) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), s.size); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range p {
		p[i] = 0
		if s.kind(off+int64(i)) == block.Data {
			p[i] = s.letter
		}
	}
	return nil
}

func (s striped) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	return block.Extent{Off: off, Len: min(n, 1000-off%1000), Kind: s.kind(off)}, nil
}

// merged is what the layers, top first, should read as.
func merged(size int64, layers ...striped) []byte {
	p := make([]byte, size)
	for i := range p {
		for _, l := range layers {
			if int64(i) >= l.size {
				break
			}
			if k := l.kind(int64(i)); k != block.Absent {
				if k == block.Data {
					p[i] = l.letter
				}
				break
			}
		}
	}
	return p
}

func TestOver(t *testing.T) {
	a := striped{'a', 50_000, 0}
	for _, b := range []striped{{'b', 50_000, 1}, {'b', 31_337, 1}, {'b', 77_777, 2}, {'b', 0, 0}} {
		t.Run(fmt.Sprint(b.size), func(t *testing.T) {
			two := overlay.Over(a, b)
			blocktest.TestReader(t, two, merged(a.size, a, b))
			if b.size < a.size {
				return // a shorter middle ends the chain there, too
			}
			c := striped{'c', 45_000, 2}
			blocktest.TestReader(t, overlay.Over(a, overlay.Over(b, c)), merged(a.size, a, b, c))
		})
	}
}

// depthOf is where merged takes byte i from.
func depthOf(i int64, layers ...striped) int {
	for depth, l := range layers {
		if i >= l.size {
			break
		}
		if l.kind(i) != block.Absent {
			return depth + 1
		}
	}
	return 0
}

func TestDepth(t *testing.T) {
	const size = 50_000
	a, b, c := striped{'a', size, 0}, striped{'b', size, 1}, striped{'c', 31_337, 2}
	d, err := delta.Create(t.Context(), delta.Config{Path: filepath.Join(t.TempDir(), "d"), Size: size})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fork := overlay.New(overlay.Over(a, c), d)
	for name, x := range map[string]struct {
		r    block.Reader
		want func(i int64) int
	}{
		"one":   {a, func(i int64) int { return depthOf(i, a) }},
		"two":   {overlay.Over(a, c), func(i int64) int { return depthOf(i, a, c) }},
		"three": {overlay.Over(a, overlay.Over(b, c)), func(i int64) int { return depthOf(i, a, b, c) }},
		"overlay": {fork, func(i int64) int {
			if i >= 8192 && i < 8192+16384 {
				return 1
			}
			if below := depthOf(i, a, c); below > 0 {
				return below + 1
			}
			return 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if x.r == block.Reader(fork) {
				if err := fork.WriteAt(t.Context(), make([]byte, 8192), 8192); err != nil {
					t.Fatal(err)
				}
				if err := fork.Zero(t.Context(), 16384, 8192, block.ZeroAny); err != nil {
					t.Fatal(err)
				}
			}
			for off := int64(0); off < size; {
				run, depth, err := block.DepthAt(t.Context(), x.r, off, size-off)
				if err != nil {
					t.Fatal(err)
				}
				for i := off; i < off+run; i++ {
					if want := x.want(i); depth != want {
						t.Fatalf("byte %d is of layer %d, want %d", i, depth, want)
					}
				}
				off += run
			}
		})
	}
}

func TestOverlay(t *testing.T) {
	const size = 300_000
	for _, base := range []striped{{'a', size, 0}, {'a', 123_456, 1}, {'a', size + 9999, 2}, {'a', 0, 0}} {
		t.Run(fmt.Sprint(base.size), func(t *testing.T) {
			d, err := delta.Create(t.Context(), delta.Config{Path: filepath.Join(t.TempDir(), "d"), Size: size})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			blocktest.TestDevice(t, overlay.New(base, d), merged(size, base))
		})
	}
}

// What is neither in the base nor in the delta costs nothing to zero.
func TestZeroCostsNothing(t *testing.T) {
	d, err := delta.Create(t.Context(), delta.Config{Path: filepath.Join(t.TempDir(), "d"), Size: 64 << 40})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o := overlay.New(striped{'a', 0, 0}, d)
	before := d.Usage()
	if err := block.ZeroAt(t.Context(), o, 5, o.Size()-9, block.ZeroAny); err != nil {
		t.Fatal(err)
	}
	if err := block.Discard(t.Context(), o, 5, o.Size()-9); err != nil {
		t.Fatal(err)
	}
	if now := d.Usage(); now != before {
		t.Errorf("%d bytes used, before %d", now, before)
	}
}

func ExampleOver() {
	ctx := context.Background()
	base := block.FromReaderAt(bytes.NewReader([]byte("the base of it all")), 18)
	top := striped{'-', 18, 2} // nothing of its own
	p := make([]byte, 8)
	if err := overlay.Over(top, base).ReadAt(ctx, p, 4); err != nil {
		fmt.Println(err)
	}
	fmt.Println(string(p))
	// Output: base of
}
