package exports

import (
	"context"
	"strings"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/nbd"
)

// bitmaps are what a client of an overlay can ask to have changed: one for each
// snapshot in its record, called by its name. Where several have one name, the
// newest has it and the others are called by their ids. Nothing is opened until
// a client asks.
func bitmaps(v *volume, g *gate, snaps []catalog.OverlaySnapshot) []nbd.Bitmap {
	if v.changes == nil {
		return nil
	}
	newest := map[string]string{}
	for _, s := range snaps {
		newest[s.Name] = s.ID
	}
	var out []nbd.Bitmap
	for _, s := range snaps {
		if strings.HasPrefix(s.Name, ownSnapshot) {
			continue // of a capture, and gone soon
		}
		name := s.Name
		if name == "" || newest[name] != s.ID {
			name = s.ID
		}
		out = append(out, nbd.Bitmap{Name: name, Changed: &since{v: v, id: s.ID, g: g, turn: make(chan struct{}, 1)}})
	}
	return out
}

// since tells what has changed on a volume since a snapshot. It begins to know
// when it is first asked.
type since struct {
	v  *volume
	id string
	g  *gate

	turn chan struct{} // whoever fills it may look at m
	m    block.Mapper
}

// Extent tells whether the bytes at off have changed.
func (s *since) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := s.g.enter(); err != nil {
		return block.Extent{}, err
	}
	defer s.g.leave()
	m, err := s.mapper(ctx)
	if err != nil {
		return block.Extent{}, err
	}
	return m.Extent(ctx, off, n)
}

// mapper returns what the engine has. After an error it is asked again.
func (s *since) mapper(ctx context.Context) (block.Mapper, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	if s.m != nil {
		return s.m, nil
	}
	m, err := s.v.changes(ctx, s.id)
	if err == nil {
		s.m = m
	}
	return m, err
}
