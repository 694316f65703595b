package nbd

import (
	"github.com/seed-478a8fee/platter/backends/block"
)

const (
	holesFrom = 16 << 10 // shorter reads are not worth asking where the holes are
	holeMin   = 4 << 10  // shorter holes are sent as zeros
	maxChunks = 16       // of one read
	sector    = 512
)

// A run is a part of a read that is sent as one chunk.
type run struct {
	n    int
	hole bool
}

// read carries out a READ and appends its reply to b.
func (c *conn) read(q *request, b *buffer) error {
	if c.place(q, b) {
		return nil // how fast the bytes are shows when they are sent
	}
	start := c.s.clock()
	var err error
	switch {
	case c.headers == headersSimple:
		err = c.export.Disk.ReadAt(c.ctx, q.addSimple(b, 0, int(q.n)), int64(q.off))
	case q.n == 0:
		q.addChunk(b, c.headers, chunkDone, chunkNone, 0)
		return nil
	case q.n < holesFrom || q.has(cmdFlagDF):
		err = c.dataChunk(q, b, int64(q.off), int(q.n), chunkDone)
	default:
		err = c.readRuns(q, b)
	}
	c.reads.took(scaled(c.s.clock()-start, q.n))
	return err
}

// dataChunk reads n bytes at off into a chunk.
func (c *conn) dataChunk(q *request, b *buffer, off int64, n int, flags uint16) error {
	p := q.addChunk(b, c.headers, flags, chunkOffsetData, 8+n)
	be.PutUint64(p, uint64(off))
	return c.export.Disk.ReadAt(c.ctx, p[8:], off)
}

// readRuns reads what is worth reading, and tells the rest as holes.
func (c *conn) readRuns(q *request, b *buffer) error {
	var space [maxChunks]run
	runs, err := c.runs(space[:0], q)
	if err != nil {
		return err
	}
	off := int64(q.off)
	for i, r := range runs {
		var flags uint16
		if i == len(runs)-1 {
			flags = chunkDone
		}
		if !r.hole {
			err = c.dataChunk(q, b, off, r.n, flags)
		} else {
			p := q.addChunk(b, c.headers, flags, chunkOffsetHole, 12)
			be.PutUint64(p, uint64(off))
			be.PutUint32(p[8:], uint32(r.n))
		}
		if err != nil {
			return err
		}
		off += int64(r.n)
	}
	return nil
}

// runs appends to runs, up to its capacity, how to send what q reads. Borders
// are at sectors; when there are too many, the rest is data.
func (c *conn) runs(runs []run, q *request) ([]run, error) {
	at, end := int64(q.off), int64(q.off)+int64(q.n)
	for pos := at; pos < end; {
		e, err := block.ExtentAt(c.ctx, c.export.Disk, pos, end-pos)
		if err != nil {
			return nil, err
		}
		pos = e.End()
		if e.Kind == block.Data || len(runs) > cap(runs)-3 {
			continue
		}
		from, to := inward(e.Off, at, sector), inwardEnd(pos, end, sector)
		if to-from < holeMin {
			continue
		}
		if from > at {
			runs = append(runs, run{int(from - at), false})
		}
		if k := len(runs); k > 0 && runs[k-1].hole {
			runs[k-1].n += int(to - from)
		} else {
			runs = append(runs, run{int(to - from), true})
		}
		at = to
	}
	if at < end {
		runs = append(runs, run{int(end - at), false})
	}
	return runs, nil
}

// inward rounds the start of a run up to a multiple of unit, unless it is
// where the request starts.
func inward(off, start, unit int64) int64 {
	if off <= start {
		return start
	}
	return (off + unit - 1) / unit * unit
}

// inwardEnd rounds the end of a run down to a multiple of unit, unless it is
// where the request ends.
func inwardEnd(off, end, unit int64) int64 {
	if off >= end {
		return end
	}
	return off / unit * unit
}
