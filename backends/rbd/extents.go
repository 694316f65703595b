//go:build rbd

package rbd

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
)

// How much of an image is asked for at once. Where it has a map of its objects
// that is one request, and librbd then takes about a microsecond for each
// object; else it is one request for each object.
const (
	fastWindow = 16 << 30
	slowWindow = 1 << 30
)

// extents knows in which RADOS objects of an image there is data. It asks the
// cluster when somebody asks it, once for each window. An object of which it once said that there
// is data it never takes back, so what writers mark beside a question to the
// cluster stays.
type extents struct {
	size   int64
	order  uint
	window int64
	fast   bool
	parent bool // count what the image has from its parent
	exact  bool // the map of objects is not enough

	set []atomic.Uint64 // by object

	mu     sync.Mutex
	loaded []bool // by window
}

// init prepares for an image. The map of its objects names an object before
// it is written, and keeps it if the write never comes; who must not take one
// for there that is not wants to know exactly.
func (x *extents) init(im *image, size int64, parent, exact bool) {
	x.size, x.order, x.fast, x.parent, x.exact = size, im.order, im.fastDiff(), parent, exact
	x.window = max(slowWindow, int64(1)<<x.order)
	if x.fast && !exact {
		x.window = max(fastWindow, x.window)
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
	found, err := x.find(im, from, min(x.window, x.size-from))
	if err != nil {
		return err
	}
	first, last := from>>x.order/64, min((from+x.window)>>x.order/64, int64(len(x.set)-1))
	for i := first; i <= last; i++ {
		if word := binary.LittleEndian.Uint64(found[i*8:]); word != 0 {
			x.set[i].Or(word)
		}
	}
	x.loaded[w] = true
	return nil
}

// find asks the cluster which objects of a window have data: its map of
// objects, or each object itself. The map leaves none out, so only those that
// it names are asked.
func (x *extents) find(im *image, from, n int64) ([]byte, error) {
	found := make([]byte, len(x.set)*8)
	if err := im.objects(from, n, x.parent, x.fast, found); err != nil || !x.fast || !x.exact {
		return found, err
	}
	sure := make([]byte, len(found))
	for i, end := from>>x.order, (from+n-1)>>x.order+1; i < end; i++ {
		first := i
		for i < end && found[i/8]>>(i%8)&1 != 0 {
			i++
		}
		if i == first {
			continue
		}
		off := first << x.order
		if err := im.objects(off, min(i<<x.order, x.size)-off, x.parent, false, sure); err != nil {
			return nil, err
		}
	}
	return sure, nil
}

// knows tells, of the RADOS object that off is in, whether there is data.
func (x *extents) knows(im *image, off int64) (data bool, err error) {
	if x.has(off >> x.order) {
		return true, nil
	}
	if err := x.load(im, off); err != nil {
		return false, err
	}
	return x.has(off >> x.order), nil
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
