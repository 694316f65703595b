package cache

import (
	"sync"
)

// scratch is where a grain is read of which only a part was asked for.
type scratch struct{ pool sync.Pool }

func (s *scratch) get() *[grainSize]byte {
	if b, ok := s.pool.Get().(*[grainSize]byte); ok {
		return b
	}
	return new([grainSize]byte)
}

func (s *scratch) put(b *[grainSize]byte) { s.pool.Put(b) }

// hit fills as much of the beginning of p as is on the disk, and returns how
// much that was. It takes no lock: a place that was given to another unit
// meanwhile has bytes that do not agree with their digest.
func (s *session) hit(p []byte, off int64) (done int) {
	f := s.obj.cache.store.Load()
	if f == nil {
		return 0
	}
	for done < len(p) {
		at := off + int64(done)
		u := s.table.get(at / unitSize)
		if u == nil {
			return done
		}
		in := at % unitSize
		want := min(len(p)-done, int(unitSize-in))
		n := s.fromUnit(f, u, p[done:done+want], in)
		done += n
		if n < want {
			return done
		}
	}
	return done
}

// fromUnit fills as much of the beginning of p as the unit has, from in on, and
// returns how much that was.
func (s *session) fromUnit(f *files, u *unit, p []byte, in int64) int {
	first := int(in / grainSize)
	last := int((in + int64(len(p)) + grainSize - 1) / grainSize)
	n := u.present.run(first, last)
	if n == 0 {
		return 0
	}
	p = p[:min(int64(len(p)), int64(first+n)*grainSize-in)]
	digests := u.sums.Load()
	if digests == nil {
		if digests = s.load(f, u); digests == nil {
			return 0
		}
	}
	if u.fresh.any(first, first+n) {
		s.firstUse(u, first, first+n)
		u.stamp.Store(s.obj.cache.clock.Load()) // no use again, and what follows is the same use
	} else {
		u.used(s.obj.cache)
	}
	return s.check(f, u, digests, p, in)
}

// load gets the digests of a unit into memory.
func (s *session) load(f *files, u *unit) *sums {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone.Load() {
		return nil
	}
	digests, err := u.digests(f)
	if err != nil {
		s.obj.cache.unreadable(u, 0, unitGrains, err)
		return nil
	}
	return digests
}

// check reads p, which the unit has, and compares the digests. It returns how
// many bytes from the beginning of p are right.
func (s *session) check(f *files, u *unit, digests *sums, p []byte, in int64) (done int) {
	for done < len(p) {
		at := in + int64(done)
		g := int(at / grainSize)
		skip := at % grainSize
		rest := p[done:]
		size := min(grainSize, s.obj.size-u.n*unitSize-int64(g)*grainSize)
		if skip == 0 && int64(len(rest)) >= size {
			n, ok := s.whole(f, u, digests, rest, g)
			done += n
			if !ok {
				return done
			}
			continue
		}
		b := s.obj.cache.scratch.get()
		_, ok := s.whole(f, u, digests, b[:size], g)
		if ok {
			done += copy(rest, b[skip:size])
		}
		s.obj.cache.scratch.put(b)
		if !ok {
			return done
		}
	}
	return done
}

// whole reads the whole grains that p has room for, from grain g on, with one
// pread, and compares their digests. It returns how many bytes are right, and
// whether all are.
func (s *session) whole(f *files, u *unit, digests *sums, p []byte, g int) (int, bool) {
	first := u.n*unitGrains + int64(g)
	if tail := len(p) % grainSize; tail != 0 && first*grainSize+int64(len(p)) < s.obj.size {
		p = p[:len(p)-tail] // the last grain is not wanted whole
	}
	if err := f.readData(u.slot, p, int64(g)*grainSize); err != nil {
		s.obj.cache.unreadable(u, g, g+(len(p)+grainSize-1)/grainSize, err)
		return 0, false
	}
	right := len(p)
	for at := 0; at < len(p); at += grainSize {
		i := at / grainSize
		piece := p[at:min(at+grainSize, len(p))]
		if s.obj.digest(first+int64(i), piece) != digests[g+i].Load() {
			s.obj.cache.wrong(u, g+i)
			right = min(right, at) // and look at the rest: all that is wrong is fetched at once
		}
	}
	return right, right == len(p)
}

// wrong forgets a grain that does not agree with its digest, unless that is
// because it was evicted meanwhile.
func (c *Cache) wrong(u *unit, g int) {
	if c.lose(u, g, g+1) == 0 {
		return
	}
	u.obj.count.corrupt.Add(1)
	c.log.Warn("the cache's disk gave other bytes than were written; they are fetched again",
		"object", u.obj.id, "offset", u.n*unitSize+int64(g)*grainSize)
}

// unreadable forgets grains that the disk does not give back.
func (c *Cache) unreadable(u *unit, from, to int, err error) {
	if c.lose(u, from, to) > 0 {
		c.trouble(err)
	}
}

// lose makes grains not present, and returns how many were.
func (c *Cache) lose(u *unit, from, to int) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.gone.Load() {
		return 0
	}
	return c.space.lose(u, from, to)
}
