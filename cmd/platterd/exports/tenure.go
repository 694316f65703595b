package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/catalog"
)

// rejoinEvery is how often a gateway whose lease has ended tries to join again.
const rejoinEvery = time.Second

// members is this gateway's place among those that share a catalog. A lease
// that has ended is replaced by a new one.
type members struct {
	join func(ctx context.Context) (*catalog.Membership, error) // nil: there are no others
	now  atomic.Pointer[catalog.Membership]
}

// start joins the others, if there can be any.
func (m *members) start(ctx context.Context) error {
	if m.join == nil {
		return nil
	}
	now, err := m.join(ctx)
	if err != nil {
		return err
	}
	m.now.Store(now)
	return nil
}

// run joins again whenever the lease has ended, until ctx does.
func (m *members) run(ctx context.Context, failed func(error)) {
	for m.join != nil {
		select {
		case <-ctx.Done():
			return
		case <-m.now.Load().Lost():
		}
		next, err := m.join(ctx)
		if err == nil {
			m.now.Store(next)
			continue
		}
		failed(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(rejoinEvery):
		}
	}
}

// close leaves the others.
func (m *members) close() error { return m.now.Load().Close() }

// A tenure is the time in which an overlay is this gateway's: as long as its
// epoch is the newest, and nobody else can have begun another.
type tenure struct {
	e      *Exports
	id     string
	epoch  int64
	proven atomic.Pointer[catalog.Membership] // under which the epoch was seen to be the newest
}

// begins returns the tenure that taking an overlay begins. It is called before
// the taking: a lease that ends in between proves nothing.
func (e *Exports) begins(id string) *tenure {
	t := &tenure{e: e, id: id}
	t.proven.Store(e.members.now.Load())
	return t
}

// gate returns at once while the overlay is surely ours. While that is in
// doubt it waits, and if somebody else took it, it says so.
func (t *tenure) gate(ctx context.Context) error {
	if m := t.e.members.now.Load(); m == t.proven.Load() && m.Valid() {
		return nil
	}
	return t.wait(ctx)
}

func (t *tenure) wait(ctx context.Context) error {
	for {
		m := t.e.members.now.Load()
		if err := m.Wait(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// The lease has ended: a new one is on its way.
			if err := soon(ctx); err != nil {
				return err
			}
			continue
		}
		if m != t.proven.Load() {
			// Others could take the overlay between the two leases. Whoever
			// comes after this look finds us alive.
			h, err := t.e.cfg.Catalog.OverlayHead(ctx, t.id)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return fmt.Errorf("overlay %s was deleted: %w", t.id, objectlog.ErrFenced)
			case errors.Is(err, catalog.ErrUnavailable):
				if err := soon(ctx); err != nil {
					return err
				}
				continue
			case err != nil:
				return fmt.Errorf("overlay %s: is it still ours: %w", t.id, err)
			case h.Epoch != t.epoch:
				return fmt.Errorf("overlay %s: epoch %d was taken, ours is %d: %w", t.id, h.Epoch, t.epoch, objectlog.ErrFenced)
			}
			t.proven.Store(m)
		}
		if m.Valid() {
			return nil
		}
	}
}

// soon waits a moment, unless ctx ends.
func soon(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rejoinEvery / 10):
		return nil
	}
}
