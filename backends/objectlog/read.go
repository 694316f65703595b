package objectlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
)

// where says where a run of bytes is.
type where uint8

const (
	isAbsent where = iota
	isZeros
	inJournal
	inSegment
)

// A place is a run of bytes of the disk and where they are.
type place struct {
	off, n int64
	kind   where
	at     int64 // in the journal, or in the payload of seg
	seg    ref
}

// place looks up what is at off, at most n bytes of it. With mu held.
func (l *Log) place(off, n int64) place {
	e := l.fresh.At(off, n)
	switch {
	case e.Target.Kind() == extent.Absent:
		return l.stored.place(off, e.Len)
	case isZero(e.Target):
		return place{off: off, n: e.Len, kind: isZeros}
	}
	return place{off: off, n: e.Len, kind: inJournal, at: e.Target.Pos()}
}

// place looks up what is at off, at most n bytes of it.
func (d *disk) place(off, n int64) place {
	e := d.m.At(off, n)
	p := place{off: off, n: e.Len}
	switch e.Target.Kind() {
	case extent.Zero:
		p.kind = isZeros
	case extent.Segment:
		var seq int64
		seq, p.at = e.Target.Segment()
		p.kind, p.seg = inSegment, d.segs[seq]
	}
	return p
}

// joins tells whether b can be read in one go with a, which is before it.
func joins(a, b place) bool {
	if a.kind != b.kind {
		return false
	}
	return a.kind < inJournal || a.seg.seq == b.seg.seq && a.at+a.n == b.at && a.kind == inSegment
}

// some is how many places are looked up at a time.
const some = 32

// places looks up [off, off+n) and appends to out, up to its capacity.
func places(out []place, off, n int64, look func(off, n int64) place) []place {
	for end := off + n; off < end; {
		p := look(off, end-off)
		off += p.n
		if k := len(out); k > 0 && joins(out[k-1], p) {
			out[k-1].n += p.n
		} else if k == cap(out) {
			break
		} else {
			out = append(out, p)
		}
	}
	return out
}

// ReadAt reads the disk as it is without a base.
func (l *Log) ReadAt(ctx context.Context, p []byte, off int64) error {
	return l.ReadOver(ctx, nil, p, off)
}

// ReadOver reads the disk that the Log makes of below.
func (l *Log) ReadOver(ctx context.Context, below block.Reader, p []byte, off int64) error {
	if err := l.check(ctx, off, int64(len(p))); err != nil {
		return err
	}
	for tries := 0; ; tries++ {
		err := l.read(ctx, below, p, off)
		if err == nil {
			return nil
		}
		// The journal was trimmed, or the segment cleaned away, since the
		// bytes were looked up: they are somewhere else now.
		moved := errors.Is(err, journal.ErrTrimmed) || errors.Is(err, fs.ErrNotExist)
		if !moved || tries == 8 {
			return l.wrap(fmt.Sprintf("read %d bytes at %d", len(p), off), err)
		}
	}
}

func (l *Log) read(ctx context.Context, below block.Reader, p []byte, off int64) error {
	var array [some]place
	for len(p) > 0 {
		l.mu.RLock()
		found := places(array[:0], off, int64(len(p)), l.place)
		l.mu.RUnlock()
		if err := l.fill(ctx, below, p, off, found); err != nil {
			return err
		}
		n := found[len(found)-1].off + found[len(found)-1].n - off
		p, off = p[n:], off+n
	}
	return nil
}

// fill reads found, which begins at off, into p. No lock is held.
func (l *Log) fill(ctx context.Context, below block.Reader, p []byte, off int64, found []place) error {
	l.src.ahead(found)
	for _, f := range found {
		q := p[f.off-off:][:f.n]
		var err error
		switch {
		case f.kind == inJournal:
			err = l.j.ReadAt(q, f.at)
		case f.kind == inSegment:
			err = l.src.read(ctx, f.seg, q, f.at)
		case f.kind == isAbsent && below != nil:
			err = below.ReadAt(ctx, q, f.off)
		default:
			clear(q)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ahead begins to fetch all segments of found, if there are several.
func (s *source) ahead(found []place) {
	var n int
	for _, f := range found {
		if f.kind == inSegment {
			n++
		}
	}
	if n < 2 {
		return
	}
	var few [20]*part
	for _, f := range found {
		if f.kind == inSegment {
			s.want(few[:0], f.seg, f.at, f.n)
		}
	}
}

// Extent tells what is at off.
func (l *Log) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := l.check(ctx, off, n); err != nil {
		return block.Extent{}, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return extentOf(off, n, l.place), nil
}

// extentOf merges the places at off that are of one kind.
func extentOf(off, n int64, look func(off, n int64) place) block.Extent {
	out := block.Extent{Off: off}
	for i := 0; out.Len < n && i < some; i++ {
		p := look(out.End(), n-out.Len)
		kind := block.Data
		switch p.kind {
		case isAbsent:
			kind = block.Absent
		case isZeros:
			kind = block.Zero
		}
		if i > 0 && kind != out.Kind {
			break
		}
		out.Kind = kind
		out.Len += p.n
	}
	return out
}
