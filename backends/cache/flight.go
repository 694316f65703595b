package cache

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// A flight is one fetch from the far object, for however many wait for it.
type flight struct {
	a, b   int64 // the grains it fetches
	ticket ticket
	must   bool // it is fetched in advance, and so in vain if it is not kept
	asked  bool // somebody asked for that, and must not ask faster than the disk takes it
	cancel context.CancelFunc
	refs   atomic.Int32 // its own, and one for each who copies out of buf

	done chan struct{} // closed when buf or err is there
	buf  []byte
	err  error

	// Guarded by session.mu; the bits count from a.
	fresh, pin grainSet

	shared atomic.Bool // it is for more than one, or fetches more than was asked for
}

// A grainSet has one bit for each grain of a flight.
type grainSet [fetchGrains / unitGrains]bitmap

func (s *grainSet) set(from, to int)         { s.each(from, to, (*bitmap).set) }
func (s *grainSet) clear(from, to int) int64 { return s.each(from, to, (*bitmap).clear) }

func (s *grainSet) each(from, to int, do func(b *bitmap, from, to int) int64) (sum int64) {
	for from < to {
		in := from % unitGrains
		n := min(to-from, unitGrains-in)
		sum += do(&s[from/unitGrains], in, in+n)
		from += n
	}
	return sum
}

// any tells whether a bit of [0, to) is set.
func (s *grainSet) any(to int) (found bool) {
	s.runs(to, func(int, int) { found = true })
	return found
}

// runs calls do with every run of bits in [0, to).
func (s *grainSet) runs(to int, do func(from, to int)) {
	for from := 0; from < to; {
		b, in := &s[from/unitGrains], from%unitGrains
		end := min(to-from+in, unitGrains)
		n := b.run(in, end)
		if n > 0 {
			do(from, from+n)
		}
		from += n + b.gap(in+n, end)
	}
}

func newFlight(a, b int64, q *quota, behind bool) *flight {
	f := &flight{a: a, b: b, must: behind, done: make(chan struct{}),
		ticket: ticket{of: q, behind: behind, ready: make(chan struct{})}}
	f.refs.Store(1)
	return f
}

// release gives the buffer back after the last who uses it.
func (s *session) release(f *flight) {
	if f.refs.Add(-1) == 0 && f.buf != nil {
		s.obj.cache.buffers.put(f.buf)
	}
}

// fly waits for its turn, fetches, tells who waits and then keeps what came.
func (s *session) fly(ctx context.Context, f *flight) {
	defer s.release(f)
	defer f.cancel()
	c := s.obj.cache
	buf, err := []byte(nil), c.gate.enter(ctx, &f.ticket)
	if err == nil {
		n := &s.obj.count
		n.fetches.Add(1)
		if buf, err = s.fetch(ctx, f); err == nil {
			n.farBytes.Add(int64(len(buf)))
		} else {
			n.farErrors.Add(1)
			c.gate.leave(&f.ticket)
		}
	}
	if err != nil {
		s.land(f) // first: who is told tries again, and must not find it
		f.err = err
		close(f.done)
		return
	}
	f.buf = buf
	close(f.done)
	runtime.Gosched() // who waited goes first: to keep it takes longer than to use it
	if !f.asked {
		c.gate.leave(&f.ticket)
	}
	if s.toKeep(f) {
		c.backlog.write(len(buf), func() { s.keep(f.a, buf) })
		s.land(f)
		s.settle(f)
	}
	if f.asked {
		c.gate.leave(&f.ticket)
	}
}

// toKeep adds what f has fetched to the backlog. If there is no room it lands
// f, and returns false.
func (s *session) toKeep(f *flight) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.obj.cache.backlog.add(len(f.buf), f.must || f.pin.any(int(f.b-f.a))) {
		return true
	}
	s.obj.count.skipped.Add(int64(len(f.buf)))
	s.remove(f)
	return false
}

// land takes f out of the list. From here on, what it fetched is found on the
// disk, or nowhere.
func (s *session) land(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(f)
}

// remove is land for who holds s.mu.
func (s *session) remove(f *flight) {
	if i := s.behind(f.a); i < len(s.flights) && s.flights[i] == f {
		s.flights = slices.Delete(s.flights, i, i+1)
	}
}

// behind returns the place in the list of the first flight that ends behind
// grain g. The caller holds s.mu.
func (s *session) behind(g int64) int {
	i, _ := slices.BinarySearchFunc(s.flights, g+1, func(f *flight, end int64) int { return cmp.Compare(f.b, end) })
	return i
}

// settle does what remains to be done with what f fetched and kept.
func (s *session) settle(f *flight) {
	size := int(f.b - f.a)
	f.pin.runs(size, func(from, to int) { s.pin(f.a+int64(from), f.a+int64(to)) })
	f.fresh.runs(size, func(from, to int) { s.mark(f.a+int64(from), f.a+int64(to)) })
}

// mark remembers that nobody asked for the grains [a, b) yet, all of one unit
// of the flight and so of two of the object.
func (s *session) mark(a, b int64) {
	s.obj.count.aheadBytes.Add((b - a) * grainSize)
	for a < b {
		in := int(a % unitGrains)
		n := min(b-a, int64(unitGrains-in))
		if u := s.obj.cache.find(s.obj, a/unitGrains); u != nil {
			u.fresh.set(in, in+int(n))
		}
		a += n
	}
}

// An answer is what one of two fetches of the same range brought.
type answer struct {
	buf    []byte
	err    error
	second bool
}

// fetch reads what f is for. If that takes unusually long, and not too much
// was read twice of late, it is read a second time, and the first answer
// counts.
func (s *session) fetch(ctx context.Context, f *flight) ([]byte, error) {
	far, err := s.object(ctx)
	if err != nil {
		return nil, err
	}
	off := f.a * grainSize
	n := min(f.b*grainSize, s.obj.size) - off
	get := func(ctx context.Context) ([]byte, error) {
		buf := s.obj.cache.buffers.get(int(n))
		if err := far.ReadAt(ctx, buf, off); err != nil {
			s.obj.cache.buffers.put(buf)
			return nil, fmt.Errorf("cache: fetch %d bytes at %d of object %s: %w", n, off, s.obj.id, err)
		}
		return buf, nil
	}
	began := time.Now()
	slow := s.pace.slow(n)
	if s.obj.cache.cfg.NoHedge || slow == 0 {
		buf, err := get(ctx)
		if err == nil {
			s.pace.took(n, time.Since(began))
		}
		return buf, err
	}
	a := s.race(ctx, n, slow, get)
	if a.err == nil {
		s.pace.took(n, time.Since(began))
	}
	return a.buf, a.err
}

// race runs get and, if it is slow, a second one beside it. It returns when
// both have, so it gives the first answer to the caller by way of a channel.
func (s *session) race(ctx context.Context, n int64, slow time.Duration, get func(context.Context) ([]byte, error)) answer {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer, 2)
	run := func(second bool) {
		s.work.Go(func() {
			buf, err := get(ctx)
			answers <- answer{buf, err, second}
		})
	}
	run(false)
	timer := time.NewTimer(slow)
	defer timer.Stop()
	select {
	case a := <-answers:
		cancel()
		return a
	case <-timer.C:
	}
	count := &s.obj.count
	if !s.pace.spend(n) {
		defer cancel()
		return <-answers
	}
	count.hedges.Add(1)
	count.farBytes.Add(n)
	run(true)
	a := <-answers
	if a.err != nil && ctx.Err() == nil {
		defer cancel()
		return <-answers
	}
	cancel()
	if a.second && a.err == nil {
		count.hedgesWon.Add(1)
	}
	s.work.Go(func() { // the other one ends soon, for nobody wants it
		if late := <-answers; late.buf != nil {
			s.obj.cache.buffers.put(late.buf)
		}
	})
	return a
}
