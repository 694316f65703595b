package nbd

import (
	"math/bits"
	"sync"
)

const (
	headRoom   = 1 << 10 // beside the data of a request: reply headers, error texts
	smallClass = 12      // the smallest buffers hold 4 KiB of data
	classes    = 19      // the largest 1 GiB, the most that MaxRequest can be
)

// A buffer is reply or payload bytes, taken from pools and freed to them.
type buffer struct {
	data  []byte
	class int
	from  *pools
	owner *conn // whose bytes in flight it counts as; nil if uncounted
	held  int64 // how many
	whole bool  // also taken from the memory of all connections

	placed placed // bytes in a file, in the midst of data
}

// pools keep free buffers, one pool for each power of two.
type pools struct {
	free     [classes]sync.Pool
	requests sync.Pool
	inputs   sync.Pool // what connections have of their own
}

// get returns an empty buffer with room for n bytes of data and the headers
// about them.
func (p *pools) get(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), smallClass) - smallClass
	if b, ok := p.free[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{data: make([]byte, 0, 1<<(class+smallClass)+headRoom), class: class, from: p}
}

// release gives the buffer back, with the bytes in flight that it held.
func (b *buffer) release() {
	if b.owner != nil {
		b.owner.repay(b.held, b.whole)
		b.owner, b.held, b.whole = nil, 0, false
	}
	b.data = b.data[:0]
	b.placed = placed{}
	if cap(b.data) == 1<<(b.class+smallClass)+headRoom {
		b.from.free[b.class].Put(b)
	}
}

// isPlaced reports whether some of the bytes lie in a file.
func (b *buffer) isPlaced() bool { return b.placed.head > 0 }

// grow makes b n bytes longer and returns the new bytes, which may hold
// anything.
func (b *buffer) grow(n int) []byte {
	at := len(b.data)
	if at+n > cap(b.data) {
		b.data = append(b.data, make([]byte, n)...)
	} else {
		b.data = b.data[:at+n]
	}
	return b.data[at:]
}

// uncounted returns the memory of b if it is not counted as in flight.
func (b *buffer) uncounted() int {
	if b.owner != nil {
		return 0
	}
	return cap(b.data)
}

// room returns how many bytes fit without growing the memory.
func (b *buffer) room() int { return cap(b.data) - len(b.data) }

// input returns memory for what a client sends.
func (p *pools) input() []byte {
	if b, ok := p.inputs.Get().(*[smallInput]byte); ok {
		return b[:]
	}
	return make([]byte, smallInput)
}

// request returns an empty request.
func (p *pools) request() *request {
	if q, ok := p.requests.Get().(*request); ok {
		return q
	}
	return new(request)
}
