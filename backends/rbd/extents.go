//go:build rbd

package rbd

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
)

// window is how much of an image without a map of its objects is asked for at
// once: one request for each RADOS object.
const window = 1 << 30

// extents knows in which RADOS objects of an image there is data. It asks the
// cluster when somebody asks it, once: for all of the image if that is one
// request, else window by window. An object of which it once said that there
// is data it never takes back, so what writers mark beside a question to the
// cluster stays.
type extents struct {
	size   int64
	order  uint
	window int64
	fast   bool
	parent bool // count what the image has from its parent

	set []atomic.Uint64 // by object

	mu     sync.Mutex
	loaded []bool // by window
}

func (x *extents) init(im *image, size int64, parent bool) {
	x.size, x.order, x.fast, x.parent = size, im.order, im.fastDiff(), parent
	x.window = max(window, int64(1)<<x.order)
	if x.fast {
		x.window = max(size, 1)
	}
	x.set = make([]atomic.Uint64, (size>>x.order)/64+1)
	x.loaded = make([]bool, (size+x.window-1)/x.window)
}

// load makes sure that the window around off is known.
func (x *extents) load(im *image, off int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	w := off / x.window
	if x.loaded[w] {
		return nil
	}
	from := w * x.window
	found := make([]byte, len(x.set)*8)
	if err := im.objects(from, min(x.window, x.size-from), x.parent, x.fast, found); err != nil {
		return err
	}
	for i := range x.set {
		if word := binary.LittleEndian.Uint64(found[i*8:]); word != 0 {
			x.set[i].Or(word)
		}
	}
	x.loaded[w] = true
	return nil
}

// loadAll makes sure that everything is known.
func (x *extents) loadAll(im *image) error {
	for off := int64(0); off < x.size; off += x.window {
		if err := x.load(im, off); err != nil {
			return err
		}
	}
	return nil
}

// mark says that there is, or will be, data in a range.
func (x *extents) mark(off, n int64) {
	if n <= 0 {
		return
	}
	for i := off >> x.order; i <= (off+n-1)>>x.order; i++ {
		if !x.has(i) {
			x.set[i/64].Or(1 << (i % 64))
		}
	}
}

// has tells whether there is data in an object.
func (x *extents) has(object int64) bool {
	return x.set[object/64].Load()>>(object%64)&1 != 0
}

// count returns in how many objects there is data, as far as is known.
func (x *extents) count() (n int64) {
	for i := range x.set {
		n += int64(bits.OnesCount64(x.set[i].Load()))
	}
	return n
}

// at returns the extent at off, which ends at off+n at the latest.
func (x *extents) at(im *image, off, n int64) (block.Extent, error) {
	if err := x.load(im, off); err != nil {
		return block.Extent{}, err
	}
	end := min(off+n, (off/x.window+1)*x.window)
	first, last := off>>x.order, (end-1)>>x.order
	e := block.Extent{Off: off, Kind: block.Zero}
	if x.has(first) {
		e.Kind = block.Data
	}
	e.Len = min(end, x.next(first, last+1, e.Kind == block.Data)<<x.order) - off
	return e, nil
}

// next returns the first object of (from, to) that is unlike from, or to.
func (x *extents) next(from, to int64, data bool) int64 {
	for i := from; i < to; i = (i/64 + 1) * 64 {
		word := x.set[i/64].Load()
		if data {
			word = ^word
		}
		if word >>= i % 64; word != 0 {
			return min(to, i+int64(bits.TrailingZeros64(word)))
		}
	}
	return to
}
