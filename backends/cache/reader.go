package cache

import (
	"context"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Reader is an object read through the cache. It is a block.ReadCloser, a
// block.Mapper and a block.Prefetcher.
type Reader struct {
	s      *session
	closed atomic.Bool
}

// Size returns the number of bytes of the object.
func (r *Reader) Size() int64 { return r.s.obj.size }

// ReadAt fills p with the bytes of the object that start at off.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if r.closed.Load() {
		return r.gone("read")
	}
	return r.s.read(ctx, p, off, purpose{})
}

// Extent describes the run that starts at off, as the far object does. What
// it said is remembered.
func (r *Reader) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if r.closed.Load() {
		return block.Extent{}, r.gone("extent")
	}
	if err := ctx.Err(); err != nil {
		return block.Extent{}, err
	}
	return r.s.extent(ctx, off, n)
}

// Prefetch fetches what the cache lacks of a range, behind what anybody waits
// for, and returns when that is done.
func (r *Reader) Prefetch(ctx context.Context, off, n int64) error {
	if r.closed.Load() {
		return r.gone("prefetch")
	}
	return r.s.bring(ctx, off, n, purpose{behind: true, exact: true})
}

// Pin fetches what the cache lacks of a range and keeps the range for as long
// as the object exists and what is pinned has room, which is a quarter of the
// cache. That it is fetched and kept is certain when the Reader was closed.
func (r *Reader) Pin(ctx context.Context, off, n int64) error {
	if r.closed.Load() {
		return r.gone("pin")
	}
	return r.s.bring(ctx, off, n, purpose{exact: true, pin: true})
}

// Pinning returns the object as a Reader that pins whatever is read through
// it, and fetches nothing else. It is to be used while r is open.
func (r *Reader) Pinning() block.Reader { return pinning{r} }

type pinning struct{ r *Reader }

func (p pinning) Size() int64 { return p.r.Size() }

func (p pinning) ReadAt(ctx context.Context, b []byte, off int64) error {
	if p.r.closed.Load() {
		return p.r.gone("read")
	}
	if err := p.r.s.read(ctx, b, off, purpose{exact: true, pin: true}); err != nil {
		return err
	}
	p.r.s.pin(off/grainSize, grainsEnd(off, len(b)))
	return nil
}

// Close ends the use of the object. Reads must have returned. What was being
// fetched ahead is given up, what was fetched is kept.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return r.gone("close")
	}
	return r.s.leave()
}

func (r *Reader) gone(op string) error {
	return fmt.Errorf("cache: object %s: %s: %w", r.s.obj.id, op, fs.ErrClosed)
}

// bring has a range fetched, some flights at a time, and throws away what
// came.
func (s *session) bring(ctx context.Context, off, n int64, why purpose) error {
	if err := block.CheckRange(off, n, s.obj.size); err != nil {
		return err
	}
	end := (off + n + grainSize - 1) / grainSize
	for a := off / grainSize; a < end; a += 4 * fetchGrains {
		b := min(a+4*fetchGrains, end)
		if why.pin {
			s.pin(a, b)
		}
		flights, err := s.plan(ctx, a, b, why)
		if err != nil {
			return err
		}
		for _, f := range flights {
			select {
			case <-f.done:
				if err == nil {
					err = f.err
				}
			case <-ctx.Done():
				err = ctx.Err()
			}
			s.release(f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pin pins those of the grains [a, b) that are there.
func (s *session) pin(a, b int64) {
	c := s.obj.cache
	f := c.store.Load()
	for a < b && f != nil {
		in := int(a % unitGrains)
		n := min(b-a, int64(unitGrains-in))
		if u := c.find(s.obj, a/unitGrains); u != nil {
			if err := c.pinUnit(f, u, in, in+int(n)); err != nil {
				c.trouble(err)
				return
			}
		}
		a += n
	}
}

// find returns a unit of o, or nil. A session that ends has a table that is no
// longer kept up.
func (c *Cache) find(o *object, n int64) *unit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return o.units[n]
}

func (c *Cache) pinUnit(f *files, u *unit, from, to int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.mu.Lock()
	if u.gone.Load() || !c.space.pin(u, from, to) {
		c.mu.Unlock()
		return nil
	}
	d := u.desc()
	c.mu.Unlock()
	return f.writeDesc(u.slot, d)
}
