package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A session is the time during which an object has readers. It has the far
// object, once that is needed, and the fetches that are under way.
type session struct {
	obj     *object
	table   *table
	pace    *pace
	quota   quota
	open    func(context.Context) (block.ReadCloser, error)
	readers int // guarded by Cache.mu

	farMu sync.Mutex // held while the far object is opened
	far   block.ReadCloser

	mu      sync.Mutex
	flights []*flight // under way, in order, no two of them overlapping
	ahead   ahead
	extents extents
	closed  bool
	work    sync.WaitGroup // the flights
}

// newSession begins to read o. The caller holds Cache.mu.
func newSession(o *object, far func(context.Context) (block.ReadCloser, error), parallel int, p *pace) *session {
	return &session{
		obj: o, table: o.attach(), pace: p, quota: quota{limit: parallel}, open: far,
		ahead: newAhead(o.cache.cfg.ReadAhead), extents: extents{flat: o.flat},
	}
}

// leave counts one reader less and ends the session after the last.
func (s *session) leave() error {
	c := s.obj.cache
	c.mu.Lock()
	s.readers--
	if s.readers > 0 {
		c.mu.Unlock()
		return nil
	}
	s.obj.session, s.obj.table = nil, nil
	c.mu.Unlock()

	s.mu.Lock()
	s.closed = true
	for _, f := range s.flights {
		f.cancel()
	}
	s.mu.Unlock()
	s.work.Wait()
	c.mu.Lock()
	c.forget(s.obj)
	c.mu.Unlock()
	if s.far == nil {
		return nil
	}
	return s.far.Close()
}

// object returns the far object and opens it if nobody has.
func (s *session) object(ctx context.Context) (block.Reader, error) {
	s.farMu.Lock()
	defer s.farMu.Unlock()
	if s.far != nil {
		return s.far, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	far, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if far.Size() != s.obj.size {
		err := fmt.Errorf("object %s has %d bytes in its store, and should have %d: it is not the one that was stored: %w",
			s.obj.id, far.Size(), s.obj.size, errors.ErrUnsupported)
		return nil, errors.Join(err, far.Close())
	}
	s.far = far
	return far, nil
}

// A purpose is why something is fetched.
type purpose struct {
	behind bool // nobody waits for it, or it can wait
	exact  bool // nothing else is to be fetched
	again  bool // a fetch has failed before
	pin    bool
}

// read fills p with what the object has at off.
func (s *session) read(ctx context.Context, p []byte, off int64, why purpose) error {
	if err := block.CheckRange(off, int64(len(p)), s.obj.size); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n := &s.obj.count
	done := s.hit(p, off)
	n.hitBytes.Add(int64(done))
	if done == len(p) {
		n.hits.Add(1)
		return nil
	}
	n.misses.Add(1)
	return s.miss(ctx, p[done:], off+int64(done), why)
}

// tries is how often a read looks again, without getting on, for what was
// there and no longer is.
const tries = 4

// miss fills p, of which at least the beginning is not on the disk.
func (s *session) miss(ctx context.Context, p []byte, off int64, why purpose) error {
	for try := 0; ; {
		flights, err := s.plan(ctx, off/grainSize, grainsEnd(off, len(p)), why)
		if err != nil {
			return err
		}
		done, fail := s.collect(ctx, p, off, flights)
		p, off = p[done:], off+int64(done)
		switch {
		case len(p) == 0:
			return nil
		case fail != nil && (why.again || ctx.Err() != nil || !fail.shared):
			return fail.error
		case try == tries:
			return s.direct(ctx, p, off)
		case done == 0:
			try++
		}
		why.exact, why.again = true, fail != nil
	}
}

func grainsEnd(off int64, n int) int64 { return (off + int64(n) + grainSize - 1) / grainSize }

// A failure is why a fetch failed. If it fetched more than was asked for, or
// for somebody else, it is worth another try.
type failure struct {
	error
	shared bool
}

// collect fills p from the flights, which are in order, and from the disk
// between them. It returns how much of the beginning of p it filled.
func (s *session) collect(ctx context.Context, p []byte, off int64, flights []*flight) (done int, fail *failure) {
	defer func() {
		for _, f := range flights {
			s.release(f)
		}
	}()
	for _, f := range flights {
		at := off + int64(done)
		if gap := f.a*grainSize - at; gap > 0 {
			n := s.hit(p[done:done+int(gap)], at)
			s.obj.count.hitBytes.Add(int64(n))
			done += n
			if int64(n) < gap {
				return done, nil
			}
			at += gap
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return done, &failure{ctx.Err(), false}
		}
		if f.err != nil {
			return done, &failure{f.err, f.shared.Load()}
		}
		n := copy(p[done:], f.buf[at-f.a*grainSize:])
		s.obj.count.missBytes.Add(int64(n))
		done += n
	}
	n := s.hit(p[done:], off+int64(done))
	s.obj.count.hitBytes.Add(int64(n))
	return done + n, nil
}

// direct reads from the far object what the cache cannot hold on to.
func (s *session) direct(ctx context.Context, p []byte, off int64) error {
	far, err := s.object(ctx)
	if err != nil {
		return err
	}
	s.obj.count.farBytes.Add(int64(len(p)))
	return far.ReadAt(ctx, p, off)
}

// plan makes sure that all grains of [a, b) that are not on the disk are being
// fetched, and returns the flights that do, in order.
func (s *session) plan(ctx context.Context, a, b int64, why purpose) ([]*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("cache: object %s: %w", s.obj.id, fs.ErrClosed)
	}
	var flights []*flight
	for at := a; at < b; {
		lo, hi := s.table.gap(at, b)
		flights = s.cover(ctx, flights, lo, hi, why)
		at = hi
	}
	if !why.exact && !why.behind {
		s.follow(a, b)
	}
	return flights, nil
}

// cover adds the flights that fetch [lo, hi) to a list: those that do already,
// and new ones for the rest. The caller holds s.mu.
func (s *session) cover(ctx context.Context, flights []*flight, lo, hi int64, why purpose) []*flight {
	for lo < hi {
		f, next := s.flying(lo)
		if f != nil {
			s.join(f, lo, min(hi, f.b), why)
		} else {
			f = s.begin(ctx, lo, min(hi, next), why)
		}
		f.refs.Add(1)
		flights = append(flights, f)
		lo = f.b
	}
	return flights
}

// flying returns the flight that fetches grain g or, if there is none, where
// the next begins.
func (s *session) flying(g int64) (*flight, int64) {
	i := s.behind(g)
	if i == len(s.flights) {
		return nil, s.obj.grains()
	}
	f := s.flights[i]
	if f.a <= g {
		return f, f.a
	}
	return nil, f.a
}

// join takes part in a flight that is under way.
func (s *session) join(f *flight, a, b int64, why purpose) {
	if why.pin {
		f.pin.set(int(a-f.a), int(b-f.a))
	}
	if why.behind {
		return
	}
	s.obj.count.waits.Add(1)
	s.ahead.refund(f.fresh.clear(int(a-f.a), int(b-f.a)))
	f.shared.Store(true)
	s.obj.cache.gate.hurry(&f.ticket)
}

// begin begins a flight for the first grains of [a, b), which nobody fetches,
// or for all and some around them. The caller holds s.mu.
func (s *session) begin(ctx context.Context, a, b int64, why purpose) *flight {
	b = min(b, a+fetchGrains)
	lo, hi := a, b
	if !why.exact && !why.behind {
		lo, hi = s.round(a, b)
	}
	f := newFlight(lo, hi, &s.quota, why.behind)
	f.asked = why.behind
	f.fresh.set(0, int(a-lo))
	f.fresh.set(int(b-lo), int(hi-lo))
	f.shared.Store(hi-lo > b-a)
	if !why.behind {
		s.ahead.earn((b - a) * grainSize / spareShare)
	}
	if why.pin {
		f.pin.set(int(a-lo), int(b-lo))
	}
	s.launch(ctx, f)
	return f
}

// launch has f fetch, whatever becomes of the caller. The caller holds s.mu.
func (s *session) launch(ctx context.Context, f *flight) {
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.flights = slices.Insert(s.flights, s.behind(f.a), f)
	s.work.Go(func() { s.fly(ctx, f) })
}
