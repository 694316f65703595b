package cache

import (
	"context"
	"slices"

	"github.com/seed-478a8fee/platter/backends/block"
)

// extents are what is known of where the far object has data, in order,
// without overlaps. Guarded by session.mu.
type extents struct {
	flat bool // all of it is data
	list []block.Extent
}

const (
	// maxExtents bounds how many are remembered.
	maxExtents = 64 << 10
	// askExtents is how much the far object is asked about at once, at least.
	askExtents = 64 << 20
)

// find returns what is known about off, cut to n bytes.
func (x *extents) find(off, n int64) (block.Extent, bool) {
	if x.flat {
		return block.Extent{Off: off, Len: n}, true
	}
	i, ok := slices.BinarySearchFunc(x.list, off, func(e block.Extent, off int64) int {
		switch {
		case e.End() <= off:
			return -1
		case e.Off > off:
			return 1
		}
		return 0
	})
	if !ok {
		return block.Extent{}, false
	}
	e := x.list[i]
	return block.Extent{Off: off, Len: min(e.End()-off, n), Kind: e.Kind}, true
}

// add remembers e, but for what is known already.
func (x *extents) add(e block.Extent) {
	if len(x.list) >= maxExtents {
		x.list = nil
	}
	i, _ := slices.BinarySearchFunc(x.list, e.Off, func(have block.Extent, off int64) int {
		if have.End() <= off {
			return -1
		}
		return 1
	})
	if i < len(x.list) && x.list[i].Off < e.End() {
		if x.list[i].Off <= e.Off {
			return
		}
		e.Len = x.list[i].Off - e.Off
	}
	x.list = slices.Insert(x.list, i, e)
}

// extent describes the run that starts at off. An object of which it is known
// that it has no holes is not opened for that.
func (s *session) extent(ctx context.Context, off, n int64) (block.Extent, error) {
	s.mu.Lock()
	e, ok := s.extents.find(off, n)
	s.mu.Unlock()
	if ok {
		return e, nil
	}
	far, err := s.object(ctx)
	if err != nil {
		return e, err
	}
	if e, err = block.ExtentAt(ctx, far, off, min(max(n, askExtents), s.obj.size-off)); err != nil {
		return e, err
	}
	if e.Kind == block.Data && e.Len < s.obj.size {
		// One question more, once, tells whether there are any holes.
		if whole, err := block.ExtentAt(ctx, far, 0, s.obj.size); err == nil && whole.Kind == block.Data && whole.Len == s.obj.size {
			e.Off, e.Len = 0, s.obj.size
		}
	}
	s.learn(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.extents.find(off, n); ok {
		return known, nil
	}
	return block.Extent{Off: off, Len: min(e.End()-off, n), Kind: e.Kind}, nil
}

// learn remembers an extent.
func (s *session) learn(e block.Extent) {
	s.mu.Lock()
	s.extents.flat = s.extents.flat || e.Kind == block.Data && e.Len == s.obj.size
	if !s.extents.flat {
		s.extents.add(e)
	}
	flat := s.extents.flat
	s.mu.Unlock()
	if !flat {
		return
	}
	c := s.obj.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.store.Load(); f != nil && s.obj.listed && !s.obj.flat {
		s.obj.flat = true
		if err := f.list(s.obj); err != nil {
			c.log.Warn("the cache cannot note that an object has no holes", "object", s.obj.id, "err", err)
		}
	}
	s.obj.flat = true
}
