package exports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/nbd"
)

// errEnded is the error of a request of a session that is over.
var errEnded = fmt.Errorf("detached: %w", syscall.ESHUTDOWN)

// A session is one connection's use of a disk.
type session struct {
	client     nbd.Client
	disk       string // id of the overlay or image it uses
	attachment string // or ""
	owner      string // whoever shares it may write beside it
	holder     string // the same for people
	writes     bool
	since      time.Time

	gate   gate
	shared *shared // of a writable disk; set once it is open

	once sync.Once
	err  error // of end

	mu    sync.Mutex
	ended bool
	free  func() error // lets go of the disk
}

// end turns away new requests, waits for those in flight and lets go of the
// disk. It may be called more than once; all calls wait for the end.
func (s *session) end() error {
	s.once.Do(func() {
		s.gate.close()
		s.mu.Lock()
		s.ended = true
		free := s.free
		s.mu.Unlock()
		if free != nil {
			s.err = free()
		}
	})
	return s.err
}

// hold gives the session its disk. If it ended while the disk was opened, the
// disk is let go again.
func (s *session) hold(free func() error) error {
	s.mu.Lock()
	ended := s.ended
	s.free = free
	s.mu.Unlock()
	if ended {
		return errors.Join(errEnded, free())
	}
	return nil
}

// handover is how long who opens a disk for writing waits for the one before,
// whose goodbye may still be on its way: two commands in a row are no conflict.
const handover = time.Second

// begin notes a session. A session that writes is refused while one of
// another owner does.
func (e *Exports) begin(ctx context.Context, s *session) error {
	return e.patiently(ctx, func() error { return e.tryBegin(s) })
}

// patiently tries again for as long as a goodbye may take, while what stands
// in the way is a client.
func (e *Exports) patiently(ctx context.Context, try func() error) error {
	late := time.After(e.handover)
	for {
		err := try()
		var busy *busyError
		if !errors.As(err, &busy) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-late:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

func (e *Exports) tryBegin(s *session) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	if s.writes {
		for other := range e.sessions {
			if other.disk == s.disk && other.writes && other.owner != s.owner {
				return &busyError{disk: s.disk, holder: other.holder}
			}
		}
	}
	e.sessions[s] = struct{}{}
	return nil
}

// finish ends a session and forgets it.
func (e *Exports) finish(s *session) error {
	err := s.end()
	e.mu.Lock()
	delete(e.sessions, s)
	e.mu.Unlock()
	return err
}

// endSessions ends those that match, cuts their connections and waits.
func (e *Exports) endSessions(match func(*session) bool) {
	list := e.matching(match)
	var conns []uint64
	for _, s := range list {
		s.gate.shut()
		conns = append(conns, s.client.ID)
	}
	if e.cfg.Kick != nil && len(conns) > 0 {
		e.cfg.Kick(conns) // cancels what is in flight
	}
	// At a time, for a store that is away delays each of them.
	var g errgroup.Group
	g.SetLimit(closers)
	for _, s := range list {
		g.Go(func() error {
			e.finish(s) // its error is logged where the disk is closed
			return nil
		})
	}
	g.Wait()
}

// closers is how many sessions are ended at a time.
const closers = 32

func (e *Exports) matching(match func(*session) bool) []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*session
	for s := range e.sessions {
		if match(s) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *session) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.client.ID, b.client.ID))
	})
	return list
}

// Use tells how many bytes an overlay or attachment stores and who has it
// open.
func (e *Exports) Use(ctx context.Context, id string) platter.Use {
	use := platter.Use{Bytes: e.stored(ctx, id)}
	for _, s := range e.matching(func(s *session) bool { return s.disk == id || s.attachment == id }) {
		use.Clients = append(use.Clients, platter.ClientInfo{
			Client: clientName(s.client), Transport: s.client.Transport, Since: s.since,
		})
	}
	return use
}
