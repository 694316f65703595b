//go:build rbd

package rbd

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
)

// TestExtents: runs of objects are found as a look at each object finds them.
func TestExtents(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		x := &extents{order: 12, window: 1 << (12 + rng.IntN(10)), size: 1 + rng.Int64N(400<<12)}
		x.set = make([]atomic.Uint64, (x.size>>x.order)/64+1)
		x.loaded = make([]bool, (x.size+x.window-1)/x.window)
		for i := range x.loaded {
			x.loaded[i] = true
		}
		model := make([]bool, x.size)
		for range rng.IntN(30) {
			off := rng.Int64N(x.size)
			n := min(1+rng.Int64N(20<<12), x.size-off)
			x.mark(off, n)
			first, end := off>>12<<12, min((off+n+4095)>>12<<12, x.size)
			for i := first; i < end; i++ {
				model[i] = true
			}
		}
		for range 100 {
			off := rng.Int64N(x.size)
			n := 1 + rng.Int64N(x.size-off)
			e, err := x.at(nil, off, n)
			if err != nil || e.Off != off || e.Len < 1 || e.Len > n {
				t.Fatalf("at(%d, %d) = %+v, %v", off, n, e, err)
			}
			for i := off; i < e.End(); i++ {
				if model[i] != (e.Kind == block.Data) {
					t.Fatalf("at(%d, %d) = %+v, but byte %d is data: %v", off, n, e, i, model[i])
				}
			}
			if end := e.End(); end < off+n && end%x.window != 0 && model[end] == model[off] {
				t.Fatalf("at(%d, %d) = %+v ends early", off, n, e)
			}
		}
	}
}

func TestZeros(t *testing.T) {
	for n := range 40 {
		p := make([]byte, n)
		if !isZero(p) {
			t.Errorf("%d zeros are none", n)
		}
		for i := range p {
			p[i] = 1
			if isZero(p) {
				t.Errorf("byte %d of %d is overlooked", i, n)
			}
			p[i] = 0
		}
	}
	for _, n := range []int{1, 4095, 4096, 4097, 20000} {
		p := append(bytes.Repeat([]byte{7}, n), make([]byte, 50000)...)
		end := dataEnd(p)
		if end < n || end > n+headSize || !isZero(p[end:]) {
			t.Errorf("the data of %d bytes end at %d", n, end)
		}
	}
	if end := dataEnd(make([]byte, 1<<20)); end != headSize {
		t.Errorf("an object of zeros is written as %d bytes, want %d", end, headSize)
	}
}
