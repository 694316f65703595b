package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// shortLife is what a connection lasts at most that is over as soon as it
	// is there: a look at an export, a probe.
	shortLife = time.Millisecond

	// shortsInRow is how many of them come in a row before the goroutine that
	// accepts serves the next one itself.
	shortsInRow = 8
)

// An acceptor accepts the connections of one listener. Each gets a goroutine of
// its own, as a rule. But while one short connection comes after the other, the
// goroutine that accepts serves them, for to wake another one each time costs
// as much as half of what such a connection does. Should one last after all,
// another goroutine goes on accepting.
type acceptor struct {
	s      *Server
	l      net.Listener
	over   chan error   // gets what ended the accepting
	shorts atomic.Int32 // connections in a row that were short

	mu      sync.Mutex
	serving *conn // by the goroutine that accepts; nil while it accepts
	seen    *conn // what serving was when watch looked
	watched bool  // watch will be called
	timer   *time.Timer
}

// accept accepts and serves until the listener is closed, or until another
// goroutine accepts.
func (a *acceptor) accept(ctx context.Context) {
	pause := time.Duration(0)
	for {
		nc, err := a.l.Accept()
		switch {
		case err == nil:
			pause = 0
			if !a.serve(ctx, nc) {
				return
			}
		case ctx.Err() != nil || a.s.closed.Load():
			a.over <- nil
			return
		case errors.Is(err, net.ErrClosed):
			a.over <- fmt.Errorf("nbd: accept on %s: %w", a.l.Addr(), err)
			return
		default: // out of descriptors, most likely: wait until some are free
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			a.s.log.Warn("nbd: cannot accept connections; raise the limit of open files if this stays",
				"listener", a.l.Addr().String(), "error", err, "retry_in", pause)
			sleep(ctx, pause)
		}
	}
}

// serve has a new connection served, and reports whether the caller is still
// the one that accepts.
func (a *acceptor) serve(ctx context.Context, nc net.Conn) bool {
	c, gone := a.s.start(ctx, nc)
	switch {
	case c == nil:
		return true
	case gone != nil || a.shorts.Load() < shortsInRow:
		go a.run(c) // ends before c.done closes, which Shutdown and Kick wait for
		if gone != nil {
			// A flood is let in no faster than those that make room end.
			select {
			case <-gone.done:
			case <-time.After(leavingPatience):
			}
		}
		return true
	}
	a.mu.Lock()
	a.serving = c
	if !a.watched {
		a.watchLater(ctx)
	}
	a.mu.Unlock()
	a.run(c)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.serving != c {
		return false
	}
	a.serving = nil
	return true
}

// run serves a connection and notes whether it was a short one.
func (a *acceptor) run(c *conn) {
	c.run(c.talk)
	if time.Since(c.since) > shortLife {
		a.shorts.Store(0)
	} else if n := a.shorts.Load(); n < shortsInRow {
		a.shorts.Store(n + 1) // a lost update is harmless
	}
}

// watchLater has watch called in a while. The caller holds a.mu.
func (a *acceptor) watchLater(ctx context.Context) {
	a.watched = true
	if a.timer == nil {
		a.timer = time.AfterFunc(shortLife, func() { a.watch(ctx) })
		return
	}
	a.timer.Reset(shortLife)
}

// watch goes on accepting if the goroutine that did serves what it served the
// last time already.
func (a *acceptor) watch(ctx context.Context) {
	a.mu.Lock()
	c := a.serving
	lasts := c != nil && c == a.seen
	a.seen, a.watched = c, false
	switch {
	case lasts:
		a.serving, a.seen = nil, nil
	case c != nil:
		a.watchLater(ctx)
	}
	a.mu.Unlock()
	if lasts {
		a.shorts.Store(0)
		a.accept(ctx)
	}
}
