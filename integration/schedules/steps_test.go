package schedules

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// errDead is what a gateway that crashed gets of everything: nobody sees it.
var errDead = fmt.Errorf("this process is dead: %w", catalog.ErrUnavailable)

// errLost is that of a request, or of its answer, that did not arrive.
var errLost = fmt.Errorf("the network is broken: %w", catalog.ErrUnavailable)

// A side is what a step goes to.
type side uint8

const (
	inside  side = iota // the gateway itself
	onKV                // the catalog
	onStore             // the store
)

// A step is a place where a gateway waits for the scheduler.
type step struct {
	l     *life
	side  side
	name  string
	key   string       // sorts
	do    func() error // what others see of it; nil: nothing
	did   bool         // do was called: only the answer is missing
	err   error
	left  bool // nobody waits for the answer
	ready chan struct{}
}

// A world is one schedule.
type world struct {
	rng   *rand.Rand
	cfg   settings
	kv    *memkv.KV
	store *mem.Store
	gws   []*gateway
	begun time.Time

	mu      sync.Mutex
	pending []*step // those whose gateway waits, and those that arrive late
	arrived chan struct{}
	trace   []line
	failed  error
	seen    map[string]int // how often something of interest happened
	m       model
	given   int // steps that somebody did not want to wait for
	turns   int
	faults  int
	dying   *sync.WaitGroup // those who bury the dead
}

// at is where a gateway waits until the scheduler lets it do what others see.
func (l *life) at(ctx context.Context, on side, name string, do func() error) error {
	w := l.w
	w.mu.Lock()
	if l.dead {
		w.mu.Unlock()
		return errDead
	}
	s := &step{l: l, side: on, name: name, key: l.gw.name + " " + name, do: do, ready: make(chan struct{})}
	w.pending = append(w.pending, s)
	w.mu.Unlock()
	select {
	case w.arrived <- struct{}{}:
	default:
	}
	select {
	case <-s.ready:
		if errors.Is(s.err, errLost) && !l.isDead() {
			time.Sleep(100 * time.Millisecond) // it takes a while to notice
		}
		return s.err
	case <-ctx.Done():
		w.mu.Lock()
		s.left = true
		w.given++
		if strings.HasPrefix(name, "get ") || w.given%4 > 0 {
			w.drop(s) // nothing comes of it
		}
		w.mu.Unlock()
		return fmt.Errorf("%w: %w", ctx.Err(), errLost)
	}
}

func (l *life) isDead() bool {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.dead
}

// say is note for those who do not hold mu.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(format, args...)
}

// note adds a line to the story that a failure tells. With mu held.
func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, line{time.Since(w.begun), format, args})
}

// A line of a story is put into words only when somebody wants to read it.
type line struct {
	at     time.Duration
	format string
	args   []any
}

// String is the line in words.
func (l line) String() string {
	return fmt.Sprintf("%8.3fs ", l.at.Seconds()) + fmt.Sprintf(l.format, l.args...)
}

// count counts what is worth to be seen now and then. With mu held.
func (w *world) count(what string) { w.seen[what]++ }

// tally is count for those who do not hold mu.
func (w *world) tally(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count(what)
}

// fail ends the schedule. With mu held.
func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf(format, args...)
		w.note("FAILED: %v", w.failed)
	}
}

func (w *world) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed != nil
}

// choices are the steps that may go on now, in an order that does not depend
// on who was faster.
func (w *world) choices() []*step {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*step
	for _, s := range w.pending {
		if s.l.dead || !s.l.gw.frozen() {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b *step) int { return strings.Compare(a.key, b.key) })
	return list
}

// let lets a step go on, or goes wrong with it.
func (w *world) let(s *step) {
	fate := w.rng.IntN(100)
	w.mu.Lock()
	defer w.mu.Unlock()
	cut := s.l.gw.cut(s.side)
	switch {
	case s.l.dead || s.left: // it arrives, and nobody waits for the answer
		if s.do != nil && !s.did && !cut {
			w.count("requests that arrived late")
			if strings.HasPrefix(s.name, "put ") {
				w.count("uploads that arrived late")
			}
			w.note("%s: late: %s: %v", s.l, s.name, s.do())
		}
		w.drop(s)
		return
	case s.did:
		if cut {
			s.err = errLost
		}
	case s.do == nil:
	case cut:
		s.err = errLost
	case fate < w.cfg.lossy:
		if fate%2 == 0 {
			w.note("%s: the answer is lost: %s: %v", s.l, s.name, s.do())
		} else {
			w.note("%s: the request is lost: %s", s.l, s.name)
		}
		s.err = errLost
	case fate < w.cfg.lossy+w.cfg.held:
		s.did, s.err = true, s.do()
		w.note("%s: done, and the answer is on its way: %s: %v", s.l, s.name, s.err)
		return
	default:
		s.err = s.do()
	}
	w.note("%s: %s: %v", s.l, s.name, s.err)
	w.drop(s)
	close(s.ready)
}

// drop takes s off the list. With mu held.
func (w *world) drop(s *step) {
	if i := slices.Index(w.pending, s); i >= 0 {
		w.pending = slices.Delete(w.pending, i, i+1)
	}
}

// sleep lets time pass. Who comes to a step meanwhile waits there.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// idle lets time pass until somebody comes to a step, but not longer than d.
func (w *world) idle(d time.Duration) {
	select {
	case <-w.arrived:
	case <-time.After(d):
	}
	synctest.Wait()
}
