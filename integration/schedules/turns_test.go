package schedules

import (
	"context"
	"testing/synctest"
	"time"
)

// turn chooses what happens next.
func (w *world) turn() {
	synctest.Wait()
	w.raise()
	steps := w.choices()
	switch r := w.rng.IntN(100); {
	case r < 4 && w.faults < w.cfg.faults && w.turns > 20:
		w.faults++
		w.fault()
	case r < 20:
		w.command()
	case r < 28:
		w.pass()
	case len(steps) > 0:
		w.let(steps[w.rng.IntN(len(steps))])
	case !w.command():
		w.idle(time.Duration(1+w.rng.IntN(1000)) * time.Millisecond)
	}
}

// raise starts gateways that have been down for long enough.
func (w *world) raise() {
	for _, g := range w.gws {
		if g.life == nil && !time.Now().Before(g.back) {
			g.boot()
		}
	}
}

// pass lets time pass while nobody gets on.
func (w *world) pass() {
	d := time.Duration(1+w.rng.IntN(300)) * time.Millisecond
	switch w.rng.IntN(16) {
	case 0:
		d = time.Duration(w.rng.Int64N(int64(3 * ttl)))
	case 1, 2:
		d = time.Duration(w.rng.Int64N(int64(ttl)))
	}
	w.note("%s pass", d)
	w.sleep(d)
}

// span is how long a fault lasts: often longer than a lease.
func (w *world) span() time.Duration { return time.Duration(w.rng.Int64N(int64(5 * ttl / 2))) }

// fault lets something happen to a gateway, most likely to the one that has
// the overlay.
func (w *world) fault() {
	g := w.gws[w.rng.IntN(len(w.gws))]
	for _, other := range w.gws {
		if other.name == w.m.holder && w.rng.IntN(2) == 0 {
			g = other
		}
	}
	d := w.span()
	switch w.rng.IntN(10) {
	case 0, 1, 2:
		w.note("%s stands still for %s", g.name, d)
		g.stopped = time.Now().Add(d)
		if w.rng.IntN(2) == 0 {
			w.sleep(d * 3 / 4) // others are as slow
		}
	case 3, 4:
		w.note("%s is cut off from the catalog for %s", g.name, d)
		g.partition(d, true, false)
	case 5:
		w.note("%s is cut off from the store for %s", g.name, d)
		g.partition(d, false, true)
	case 6:
		w.note("%s is cut off for %s", g.name, d)
		g.partition(d, true, true)
	default:
		w.crash(g, d)
	}
}

// crash kills a gateway, which starts again after d, or at once.
func (w *world) crash(g *gateway, d time.Duration) {
	if g.life == nil {
		return
	}
	if w.rng.IntN(3) == 0 {
		d = 0
	}
	g.back = time.Now().Add(d)
	switch w.rng.IntN(6) {
	case 0, 1, 2:
		w.note("%s crashes, for %s", g.life, d)
		g.life.crash()
	case 3, 4:
		w.note("%s loses power, for %s", g.life, d)
		g.life.crash()
		for _, state := range g.disk.CrashesNow(w.rng, 1) {
			g.disk = state
		}
	default:
		w.note("%s crashes and loses its disk, for %s", g.life, d)
		g.life.crash()
		g.disk, g.lost = newDisk(g.dir), true
	}
}

// command has a client ask for something. It is false if all are busy.
func (w *world) command() bool {
	first := w.rng.IntN(len(w.gws))
	for i := range w.gws {
		g := w.gws[(first+i)%len(w.gws)]
		if g.up() && w.commandTo(g) {
			return true
		}
	}
	return false
}

func (w *world) commandTo(g *gateway) bool {
	c := &g.c
	w.mu.Lock()
	s, x, busy, flushing := c.s, c.x, c.busy, c.flushing
	w.mu.Unlock()
	r := w.rng.IntN(100)
	if s != nil && !flushing && r < 12 && !s.bad {
		if busy || r < 4 { // beside whatever else it does
			g.beside(flush(s, x))
			return true
		}
	}
	switch {
	case busy:
		return false
	case s == nil:
		return w.tryOpen(g, r)
	case flushing:
		return false
	case s.bad, r < 6:
		g.ask(shut(s, x))
	case r < 60:
		n := 1 + w.rng.IntN(2)
		g.ask(put(s, x, w.rng.IntN(blocks+1-n), n, w.rng.IntN(8) == 0))
	case r < 84:
		g.ask(flush(s, x))
	case r < 90:
		g.ask(read(s, x))
	case r < 94:
		g.ask(snapshot(s))
	case r < 96:
		if len(s.snaps) == 0 {
			return false
		}
		id := s.snaps[0]
		s.snaps = s.snaps[1:]
		g.ask(unsnap(s, id))
	default:
		g.ask(w.cfg.bug.collector())
	}
	return true
}

// tryOpen opens the disk through g, unless somebody has it who is well.
func (w *world) tryOpen(g *gateway, r int) bool {
	for _, other := range w.gws {
		if other != g && other.c.s != nil && other.well() && r > 1 {
			return false
		}
	}
	if _, err := w.kv.Get(context.Background(), "gw/"+w.m.holder); err == nil && w.m.holder != g.name && r > 20 {
		return false // it was told so
	}
	w.sweep()
	if r > 90 {
		g.ask(w.cfg.bug.collector())
		return true
	}
	accept := g.c.loss && r < 50 || r < 3
	g.ask(open(accept))
	return true
}
