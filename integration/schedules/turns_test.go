package schedules

import (
	"context"
	"slices"
	"strings"
	"testing/synctest"
	"time"
)

// turn chooses what happens next.
func (w *world) turn() {
	synctest.Wait()
	w.raise()
	steps := w.beat()
	switch r := w.rng.IntN(100); {
	case r < 4 && w.faults < w.cfg.faults && w.turns > 20:
		w.faults++
		w.fault()
	case r < 20:
		w.command()
	case r < 28:
		w.pass()
	case len(steps) > 0:
		s := steps[w.rng.IntN(len(steps))]
		if !w.trapped(s) {
			w.let(s)
		}
	case !w.command():
		w.idle(time.Duration(1+w.rng.IntN(1000)) * time.Millisecond)
	}
}

// beat lets most heartbeats pass, and returns the steps that may go on.
func (w *world) beat() []*step {
	steps := w.choices()
	return slices.DeleteFunc(steps, func(s *step) bool {
		beats := (s.name == "renew" || s.name == "get gw") && !w.awaited(s.name) && w.rng.IntN(4) > 0
		if beats {
			w.let(s)
		}
		return beats
	})
}

// awaited tells whether there is a trap at a step.
func (w *world) awaited(name string) bool {
	return slices.ContainsFunc(w.cfg.traps, func(t trap) bool { return t.step == name })
}

// trapped has a trap at s go off, if there is one. Then s stays where it is, or
// is done without an answer.
func (w *world) trapped(s *step) bool {
	if s.l.dead || s.left || s.did {
		return false
	}
	for i := range w.cfg.traps {
		t := &w.cfg.traps[i]
		if name, _, _ := strings.Cut(s.name, " 0"); name != t.step { // keys of objects begin with 0
			continue
		}
		if t.n--; t.n != -1 {
			continue
		}
		g, d := s.l.gw, w.span()
		w.mu.Lock()
		w.count("traps at " + t.step)
		w.count("traps: a gateway " + faultNames[t.fault])
		if t.after && s.do != nil {
			s.did, s.err = true, s.do()
		}
		w.note("trap: %s %s at %s for %s, done: %t %v", s.l, faultNames[t.fault], s.name, d, s.did, s.err)
		w.mu.Unlock()
		switch t.fault {
		case standStill:
			g.stopped = time.Now().Add(d)
		case cutKV:
			g.partition(d, true, false)
		case cutStore:
			g.partition(d, false, true)
		case cutAll:
			g.partition(d, true, true)
		case kill:
			w.crash(g, d)
			return true
		}
		if w.rng.IntN(2) == 0 {
			w.wait(d * 3 / 4)
		}
		return true
	}
	return false
}

// wait lets time pass in which those who are well get on with what they do.
func (w *world) wait(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		synctest.Wait()
		for _, s := range w.choices() {
			w.let(s)
		}
		w.idle(time.Second)
	}
}

// raise starts gateways that have been down for long enough.
func (w *world) raise() {
	for _, g := range w.gws {
		if g.life == nil && !time.Now().Before(g.back) {
			g.boot()
			synctest.Wait()
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
	w.say("%s pass", d)
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
		w.say("%s stands still for %s", g.name, d)
		g.stopped = time.Now().Add(d)
		if w.rng.IntN(2) == 0 {
			w.wait(d * 3 / 4)
		}
	case 3, 4:
		w.say("%s is cut off from the catalog for %s", g.name, d)
		g.partition(d, true, false)
	case 5:
		w.say("%s is cut off from the store for %s", g.name, d)
		g.partition(d, false, true)
	case 6:
		w.say("%s is cut off for %s", g.name, d)
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
		w.tally("crashes")
		w.say("%s crashes, for %s", g.life, d)
		g.life.crash()
	case 3, 4:
		w.tally("losses of power")
		w.say("%s loses power, for %s", g.life, d)
		g.life.crash()
		for _, state := range g.disk.CrashesNow(w.rng, 1) {
			g.disk = state
		}
	default:
		w.tally("disks lost")
		w.say("%s crashes and loses its disk, for %s", g.life, d)
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
	case w.rng.IntN(15) == 0:
		g.ask(w.cfg.bug.collector())
	case w.cfg.bug == sweeper && r%4 == 0:
		g.ask(sweepAll)
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
		return false
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
	accept := g.c.loss && r < 50 || r < 3
	g.ask(open(accept))
	return true
}
