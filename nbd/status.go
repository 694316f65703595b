package nbd

import (
	"github.com/seed-478a8fee/platter/backends/block"
)

// maxExtents is how many extents one block status tells. A client that wants
// more asks again behind them; the protocol allows a million.
const maxExtents = 8 << 10

// mostExtents is how many extents q may get.
func (c *conn) mostExtents(q *request) int {
	if q.has(cmdFlagReqOne) {
		return 1
	}
	return maxExtents
}

// An allocation is the extents of one block status, as they are found. Borders
// are at multiples of unit: where a unit is not all of one kind it is told as
// data, which is always right.
type allocation struct {
	reply   *buffer
	unit    int64
	off     int64 // where the request starts
	end     int64 // where it ends
	done    int64 // what is told so far
	told    int   // in how many extents
	most    int
	state   uint32 // of the last of them
	enough  bool   // another extent would be one too many
	hollow  uint32 // the state of zeros
	nothing uint32 // the state of what is absent
}

// blockStatus carries out a BLOCK_STATUS and appends its reply to b.
func (c *conn) blockStatus(q *request, b *buffer) error {
	at := len(b.data)
	b.grow(chunkSize + 4)
	a := allocation{
		reply: b, unit: max(int64(c.minBlock), sector), most: c.mostExtents(q),
		off: int64(q.off), end: int64(q.off) + int64(q.n), done: int64(q.off),
		hollow: stateZero | stateHole, nothing: stateZero | stateHole,
	}
	if c.dev != nil {
		a.hollow = stateZero // may be allocated: a client asked for that with NO_HOLE, perhaps
	}
	for pos := a.off; pos < a.end && !a.enough; {
		e, err := block.ExtentAt(c.ctx, c.export.Disk, pos, a.end-pos)
		if err != nil {
			return err
		}
		a.add(e)
		pos = e.End()
	}
	p := b.data[at:]
	putChunk(p, q.cookie, chunkDone, chunkBlockStatus, len(p)-chunkSize)
	be.PutUint32(p[chunkSize:], allocationID)
	return nil
}

// add tells e, which begins where the one before ended.
func (a *allocation) add(e block.Extent) {
	switch e.Kind {
	case block.Zero:
		a.tell(inward(e.Off, a.off, a.unit), 0)
		a.tell(inwardEnd(e.End(), a.end, a.unit), a.hollow)
	case block.Absent:
		a.tell(inward(e.Off, a.off, a.unit), 0)
		a.tell(inwardEnd(e.End(), a.end, a.unit), a.nothing)
	default:
		a.tell(min((e.End()+a.unit-1)/a.unit*a.unit, a.end), 0)
	}
}

// tell tells what is not told yet up to end, which is at most the request's.
func (a *allocation) tell(end int64, state uint32) {
	n := min(end, a.end) - a.done
	switch {
	case n <= 0 || a.enough:
		return
	case a.told > 0 && a.state == state:
		last := a.reply.data[len(a.reply.data)-8:]
		be.PutUint32(last, be.Uint32(last)+uint32(n))
	case a.told == a.most:
		a.enough = true
		return
	default:
		p := a.reply.grow(8)
		be.PutUint32(p, uint32(n))
		be.PutUint32(p[4:], state)
		a.told++
		a.state = state
	}
	a.done += n
}
