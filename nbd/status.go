package nbd

import (
	"context"
	"fmt"
	"math/bits"

	"github.com/seed-478a8fee/platter/backends/block"
)

// maxExtents is how many extents one block status tells, of all contexts
// together. A client that wants more asks again behind them; the protocol
// allows a million.
const maxExtents = 8 << 10

// mostExtents is how many extents q may get for each of its contexts.
func (c *conn) mostExtents(q *request) int {
	if q.has(cmdFlagReqOne) {
		return 1
	}
	return maxExtents / max(bits.OnesCount64(q.contexts), 1)
}

// statusSize is how many bytes the reply of q may have.
func (c *conn) statusSize(q *request) int {
	return bits.OnesCount64(q.contexts) * (extendedChunkSize + 8 + extentSize(c.headers)*c.mostExtents(q))
}

// extentSize is how long one extent is on the wire.
func extentSize(h headers) int {
	if h == headersExtended {
		return 16
	}
	return 8
}

// filter reads the payload of a block status, which names the contexts that
// it is about. over says that q was refused.
func (c *conn) filter(q *request) (over bool, err error) {
	if q.burden%4 != 0 || q.burden < 12 || q.burden > 8+4*maxContexts {
		return true, c.decline(q, refuse(EINVAL, "block-status with a payload of %d bytes: it takes a length of 8 bytes and from 1 to %d context ids of 4 each", q.burden, maxContexts))
	}
	p, err := c.await(int(q.burden))
	if err != nil {
		return true, c.putBack(q, nil, err)
	}
	c.in.skip(int(q.burden))
	q.n, q.burden, q.contexts = be.Uint64(p), 0, 0
	for p = p[8:]; len(p) > 0; p = p[4:] {
		place := c.contextOf(be.Uint32(p))
		if place < 0 || q.contexts&(1<<place) != 0 {
			return true, c.decline(q, refuse(EINVAL, "block-status for context id %d, which was not chosen or is named twice", be.Uint32(p)))
		}
		q.contexts |= 1 << place
	}
	return false, nil
}

// blockStatus carries out a BLOCK_STATUS and appends its reply to b: a chunk
// for each context.
func (c *conn) blockStatus(q *request, b *buffer) error {
	for left := q.contexts; left != 0; left &= left - 1 {
		var flags uint16
		if left&(left-1) == 0 {
			flags = chunkDone
		}
		m := &c.contexts[bits.TrailingZeros64(left)]
		if err := c.statusIn(m, q, b, flags); err != nil {
			return err
		}
	}
	return nil
}

// statusIn appends the chunk about one context.
func (c *conn) statusIn(m *metaContext, q *request, b *buffer, flags uint16) error {
	at := len(b.data)
	kind, head := uint16(chunkBlockStatus), 4
	if c.headers == headersExtended {
		kind, head = chunkStatus64, 8
	}
	b.grow(c.headers.chunkSize() + head)
	t := teller{
		reply: b, wide: c.headers == headersExtended, unit: max(int64(c.minBlock), sector), most: c.mostExtents(q),
		off: int64(q.off), end: int64(q.off + q.n), done: int64(q.off), join: m.join(),
	}
	for pos := t.off; pos < t.end && !t.enough; {
		n, state, err := m.state(c.ctx, &c.export, pos, t.end-pos, c.dev != nil)
		if err != nil {
			return err
		}
		if n < 1 {
			return fmt.Errorf("the disk tells nothing of %d bytes at %d in %s; this is a bug of the server", t.end-pos, pos, m.name)
		}
		pos += n
		t.add(pos, state)
	}
	p := b.data[at:]
	q.putChunk(p, c.headers, flags, kind, len(p)-c.headers.chunkSize())
	p = p[c.headers.chunkSize():]
	be.PutUint32(p, m.id)
	if t.wide {
		be.PutUint32(p[4:], uint32(t.told))
	}
	return nil
}

// A teller writes the extents of one block status as they are found. Borders
// are at multiples of unit: where a unit is not all in one state, join makes
// one of two.
type teller struct {
	reply  *buffer
	wide   bool // extents of extended headers
	unit   int64
	off    int64 // where the request starts
	end    int64 // where it ends
	done   int64 // what is told so far
	join   func(a, b uint32) uint32
	open   bool   // the unit that begins at done is known in part
	part   uint32 // in this state
	told   int    // in how many extents
	most   int
	state  uint32 // of the last of them
	enough bool   // another extent would be one too many
}

// add says that from where the last ended up to end all is in one state.
func (t *teller) add(end int64, state uint32) {
	if t.open {
		t.part = t.join(t.part, state)
		border := min((t.done/t.unit+1)*t.unit, t.end)
		if end < border {
			return
		}
		t.open = false
		t.tell(border, t.part)
	}
	whole := end / t.unit * t.unit
	if end == t.end {
		whole = end
	}
	t.tell(whole, state)
	if end > t.done {
		t.open, t.part = true, state
	}
}

// tell tells what is not told yet up to end.
func (t *teller) tell(end int64, state uint32) {
	n := end - t.done
	switch {
	case n <= 0 || t.enough:
		return
	case t.told > 0 && t.state == state:
		t.lengthen(n)
	case t.told == t.most:
		t.enough = true
		return
	case t.wide:
		p := t.reply.grow(16)
		be.PutUint64(p, uint64(n))
		be.PutUint64(p[8:], uint64(state))
		t.told++
	default:
		p := t.reply.grow(8)
		be.PutUint32(p, uint32(n))
		be.PutUint32(p[4:], state)
		t.told++
	}
	t.state = state
	t.done += n
}

// lengthen makes the last extent n bytes longer.
func (t *teller) lengthen(n int64) {
	data := t.reply.data
	if t.wide {
		last := data[len(data)-16:]
		be.PutUint64(last, be.Uint64(last)+uint64(n))
		return
	}
	last := data[len(data)-8:]
	be.PutUint32(last, be.Uint32(last)+uint32(n))
}

// state tells in which state the bytes at off are, and for how many of n that
// holds. writable says that the client may write.
func (m *metaContext) state(ctx context.Context, e *Export, off, n int64, writable bool) (run int64, state uint32, err error) {
	switch m.kind {
	case kindDepth:
		run, depth, err := block.DepthAt(ctx, e.Disk, off, n)
		return run, uint32(max(depth, 0)), err
	case kindBitmap:
		if m.changed == nil {
			return n, stateDirty, nil
		}
		x, err := m.changed.Extent(ctx, off, n)
		if x.Kind == block.Data {
			state = stateDirty
		}
		return x.End() - off, state, err
	}
	x, err := block.ExtentAt(ctx, e.Disk, off, n)
	switch {
	case x.Kind == block.Absent || x.Kind == block.Zero && !writable:
		state = stateZero | stateHole
	case x.Kind == block.Zero:
		state = stateZero // may be allocated: a client asked for that with NO_HOLE, perhaps
	}
	return x.End() - off, state, err
}

// join returns what to tell of a unit that is in two states.
func (m *metaContext) join() func(a, b uint32) uint32 {
	switch m.kind {
	case kindDepth:
		return shallower
	case kindBitmap:
		return func(a, b uint32) uint32 { return a | b }
	}
	return func(a, b uint32) uint32 { return a & b } // what holds of both
}

// shallower returns the smaller of two depths; 0 is none.
func shallower(a, b uint32) uint32 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
