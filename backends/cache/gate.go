package cache

import (
	"context"
	"slices"
	"sync"
)

// A gate bounds how many fetches run, in all and for each object, and lets
// those that somebody waits for go before those that run ahead. The latter
// never take the last quarter of what may run.
type gate struct {
	mu      sync.Mutex
	limit   int
	running int
	demand  []*ticket // waiting, the first first
	behind  []*ticket
}

// A ticket is one fetch at the gate.
type ticket struct {
	of     *quota
	behind bool          // nobody waits for it; guarded by gate.mu
	ready  chan struct{} // closed when it may run
}

// A quota is how many fetches of one object run. Guarded by gate.mu.
type quota struct {
	limit, running int
}

func newGate(limit int) *gate { return &gate{limit: limit} }

// reserve is what of a limit is kept for demand.
func reserve(limit int) int { return limit / 4 }

// fits reports whether t may run now.
func (g *gate) fits(t *ticket) bool {
	if t.behind {
		return g.running < g.limit-reserve(g.limit) && t.of.running < max(t.of.limit-reserve(t.of.limit), 1)
	}
	return g.running < g.limit && t.of.running < t.of.limit
}

// enter waits until t may run.
func (g *gate) enter(ctx context.Context, t *ticket) error {
	g.mu.Lock()
	if t.behind {
		g.behind = append(g.behind, t)
	} else {
		g.demand = append(g.demand, t)
	}
	g.admit()
	g.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-t.ready: // meanwhile it was let in
		return nil
	default:
	}
	is := func(other *ticket) bool { return other == t }
	g.demand = slices.DeleteFunc(g.demand, is)
	g.behind = slices.DeleteFunc(g.behind, is)
	return ctx.Err()
}

// leave says that t has run.
func (g *gate) leave(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	t.of.running--
	g.admit()
}

// hurry says that somebody waits for t now.
func (g *gate) hurry(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !t.behind {
		return
	}
	t.behind = false
	if i := slices.Index(g.behind, t); i >= 0 {
		g.behind = slices.Delete(g.behind, i, i+1)
		g.demand = append(g.demand, t)
		g.admit()
	}
}

// admit lets in whoever may run. The caller holds mu.
func (g *gate) admit() {
	g.demand = g.admitFrom(g.demand)
	g.behind = g.admitFrom(g.behind)
}

func (g *gate) admitFrom(queue []*ticket) []*ticket {
	return slices.DeleteFunc(queue, func(t *ticket) bool {
		if !g.fits(t) {
			return false
		}
		g.running++
		t.of.running++
		close(t.ready)
		return true
	})
}

// load returns how many run and how many wait.
func (g *gate) load() (running, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, len(g.demand) + len(g.behind)
}
