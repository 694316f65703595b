package main

import (
	"context"
	"sort"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

// remote is an image's native bytes, read over HTTP. Small reads, which are
// metadata, come from a few pages that are kept.
type remote struct {
	cl   *client.Client
	id   string
	size int64

	mu    sync.Mutex
	pages map[int64][]byte
}

const (
	pageSize = 256 << 10
	pagesMax = 64
)

// Size returns the number of bytes.
func (r *remote) Size() int64 { return r.size }

// ReadAt fills p from the gateway.
func (r *remote) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), r.size); err != nil || len(p) == 0 {
		return err
	}
	if len(p) >= pageSize {
		return r.cl.ReadAt(ctx, r.id, p, off)
	}
	for len(p) > 0 {
		page, err := r.page(ctx, off/pageSize)
		if err != nil {
			return err
		}
		n := copy(p, page[off%pageSize:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (r *remote) page(ctx context.Context, no int64) ([]byte, error) {
	r.mu.Lock()
	page := r.pages[no]
	r.mu.Unlock()
	if page != nil {
		return page, nil
	}
	page = make([]byte, min(pageSize, r.size-no*pageSize))
	if err := r.cl.ReadAt(ctx, r.id, page, no*pageSize); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pages) >= pagesMax {
		clear(r.pages)
	}
	r.pages[no] = page
	return page, nil
}

// A sparse is a remote image whose disk bytes are its native bytes. The
// gateway says where its holes are, so that they do not cross the wire.
type sparse struct {
	remote *remote

	once sync.Once
	runs []block.Extent // in order; none if the gateway cannot say
}

// Size returns the number of bytes.
func (s *sparse) Size() int64 { return s.remote.Size() }

// ReadAt fills p from the gateway.
func (s *sparse) ReadAt(ctx context.Context, p []byte, off int64) error {
	return s.remote.ReadAt(ctx, p, off)
}

// Extent tells holes from data.
func (s *sparse) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	s.once.Do(func() { s.ask(ctx) })
	e := block.Extent{Off: off, Len: n}
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].End() > off })
	if i == len(s.runs) || s.runs[i].Off > off {
		return e, ctx.Err() // nothing is known, so it is data
	}
	e.Len, e.Kind = min(n, s.runs[i].End()-off), s.runs[i].Kind
	return e, nil
}

// ask gets the map. Without one everything is read.
func (s *sparse) ask(ctx context.Context) {
	for e, err := range s.remote.cl.Map(ctx, s.remote.id) {
		if err != nil {
			s.runs = nil
			return
		}
		kind := block.Data
		if e.Kind != block.Data.String() {
			kind = block.Zero
		}
		s.runs = append(s.runs, block.Extent{Off: e.Offset, Len: e.Length, Kind: kind})
	}
}
