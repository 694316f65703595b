package overlay

import (
	"context"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Over returns top laid over below: the bytes of top, and those of below
// where top has nothing. It has the size of top. Below may be shorter, and
// then the rest reads as zeros, or longer, and then what is past the end is
// never seen.
func Over(top, below block.Reader) block.Reader {
	return &over{top: top, below: fit(below, top.Size())}
}

type over struct {
	top, below block.Reader
}

func (o *over) Size() int64 { return o.top.Size() }

func (o *over) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), o.Size()); err != nil {
		return err
	}
	for len(p) > 0 {
		e, err := o.run(ctx, off, int64(len(p)))
		if err != nil {
			return err
		}
		switch e.Kind {
		case block.Data:
			err = o.top.ReadAt(ctx, p[:e.Len], off)
		case block.Zero:
			clear(p[:e.Len])
		default:
			err = o.below.ReadAt(ctx, p[:e.Len], off)
		}
		if err != nil {
			return err
		}
		p, off = p[e.Len:], off+e.Len
	}
	return nil
}

// run is the extent of top at off, lengthened over neighbours of its kind: a
// read from a store far below is dear by the piece, not by the byte.
func (o *over) run(ctx context.Context, off, n int64) (block.Extent, error) {
	e, err := block.ExtentAt(ctx, o.top, off, n)
	for err == nil && e.Len < n {
		var next block.Extent
		next, err = block.ExtentAt(ctx, o.top, e.End(), n-e.Len)
		if next.Kind != e.Kind {
			break
		}
		e.Len += next.Len
	}
	return e, err
}

func (o *over) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	e, err := block.ExtentAt(ctx, o.top, off, n)
	if err != nil || e.Kind != block.Absent {
		return e, err
	}
	return block.ExtentAt(ctx, o.below, off, e.Len)
}

// Depth counts top as one layer.
func (o *over) Depth(ctx context.Context, off, n int64) (int64, int, error) {
	e, err := block.ExtentAt(ctx, o.top, off, n)
	if err != nil {
		return 0, 0, err
	}
	return depth(ctx, e, o.below)
}

// depth tells where the bytes of e come from, an extent of what lies directly
// on below.
func depth(ctx context.Context, e block.Extent, below block.Reader) (run int64, depth int, err error) {
	if e.Kind != block.Absent {
		return e.Len, 1, nil
	}
	run, depth, err = block.DepthAt(ctx, below, e.Off, e.Len)
	if depth > 0 {
		depth++
	}
	return run, depth, err
}

func (o *over) Prefetch(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, o.Size()); err != nil {
		return err
	}
	for n > 0 {
		e, err := block.ExtentAt(ctx, o.top, off, n)
		if err != nil {
			return err
		}
		switch e.Kind {
		case block.Data:
			err = block.Prefetch(ctx, o.top, off, e.Len)
		case block.Absent:
			err = block.Prefetch(ctx, o.below, off, e.Len)
		}
		if err != nil {
			return err
		}
		off, n = off+e.Len, n-e.Len
	}
	return nil
}

// fit returns r with size bytes at least: past its end it is Absent, zeros.
// What a longer r has more is never asked for.
func fit(r block.Reader, size int64) block.Reader {
	if r.Size() >= size {
		return r
	}
	return &padded{r: r, size: size}
}

type padded struct {
	r    block.Reader
	size int64
}

func (p *padded) Size() int64 { return p.size }

func (p *padded) ReadAt(ctx context.Context, b []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(b)), p.size); err != nil {
		return err
	}
	n := min(max(p.r.Size()-off, 0), int64(len(b)))
	clear(b[n:])
	if n == 0 {
		return nil
	}
	return p.r.ReadAt(ctx, b[:n], off)
}

func (p *padded) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	rest := p.r.Size() - off
	if rest <= 0 {
		return block.Extent{Off: off, Len: n, Kind: block.Absent}, nil
	}
	return block.ExtentAt(ctx, p.r, off, min(n, rest))
}

func (p *padded) Depth(ctx context.Context, off, n int64) (int64, int, error) {
	rest := p.r.Size() - off
	if rest <= 0 {
		return n, 0, nil
	}
	return block.DepthAt(ctx, p.r, off, min(n, rest))
}

func (p *padded) Prefetch(ctx context.Context, off, n int64) error {
	n = min(n, p.r.Size()-off)
	if n <= 0 {
		return nil
	}
	return block.Prefetch(ctx, p.r, off, n)
}
