package cache

// space is what the cache may take, and who has it: the S3-FIFO algorithm
// (Yang et al., SOSP 2023) in bytes. New units queue in small; those that
// were used again when their turn comes move to main, others are evicted and
// remembered, by name only, for a while. What is read once, as a scan does,
// passes through small and leaves main alone. All of it is guarded by
// Cache.mu.
type space struct {
	size   int64 // bytes that may be kept
	used   int64
	coming int64 // of bytes that are about to be kept
	pinned int64
	close  int64 // uses that are closer to each other are one

	small, main queue
	units       int64

	ghosts map[ghost]struct{} // evicted from small
	order  []ghost            // a ring
	oldest int

	free  []int64 // places
	slots int64   // places that were ever given out
}

// A ghost is a unit that was evicted.
type ghost struct {
	key uint64
	n   int64
}

// A queue has units in the order of their coming, the first behind front.prev.
type queue struct {
	front unit // of a ring
	bytes int64
}

func newSpace(size int64) space {
	return space{size: size, close: min(16<<20, size/64), ghosts: make(map[ghost]struct{})}
}

// maxSlots is how many units there may be. Units of which only little is there
// would else need much memory and very long files.
func (s *space) maxSlots() int64 { return max(s.size/partSize, 64) }

func (q *queue) init() {
	if q.front.next == nil {
		q.front.next, q.front.prev = &q.front, &q.front
	}
}

func (q *queue) push(u *unit) {
	q.init()
	u.prev, u.next = &q.front, q.front.next
	u.prev.next, u.next.prev = u, u
	u.queue = q
	q.bytes += u.bytes()
}

func (q *queue) remove(u *unit) {
	u.prev.next, u.next.prev = u.next, u.prev
	u.prev, u.next, u.queue = nil, nil, nil
	q.bytes -= u.bytes()
}

func (q *queue) oldest() *unit {
	if q.front.prev == nil || q.front.prev == &q.front {
		return nil
	}
	return q.front.prev
}

func (u *unit) bytes() int64 { return u.present.count() * grainSize }

// place returns a place for a new unit, or false if there is none.
func (s *space) place() (int64, bool) {
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot, true
	}
	if s.slots == s.maxSlots() {
		return 0, false
	}
	s.slots++
	return s.slots - 1, true
}

// add puts a new unit in its queue.
func (s *space) add(u *unit) {
	s.units++
	u.obj.put(u)
	g := ghost{u.obj.key, u.n}
	if u.obj.valued {
		u.uses.Store(maxUses)
	}
	if _, again := s.ghosts[g]; again || u.obj.valued {
		delete(s.ghosts, g)
		s.main.push(u)
		return
	}
	s.small.push(u)
}

// remove takes a unit out. Its place is free once it was vacated.
func (s *space) remove(u *unit) {
	u.gone.Store(true)
	s.units--
	s.used -= u.bytes()
	u.obj.keeps(-u.present.count())
	s.pinned -= u.pinned.count() * grainSize
	u.queue.remove(u)
	u.obj.drop(u)
}

// gain makes grains of u present.
func (s *space) gain(u *unit, from, to int) {
	n := u.present.set(from, to)
	u.obj.keeps(n)
	n *= grainSize
	s.used += n
	u.queue.bytes += n
}

// lose makes grains of u not present, and returns how many were.
func (s *space) lose(u *unit, from, to int) int64 {
	s.pinned -= u.pinned.clear(from, to) * grainSize
	u.fresh.clear(from, to)
	n := u.present.clear(from, to)
	u.obj.keeps(-n)
	s.used -= n * grainSize
	u.queue.bytes -= n * grainSize
	return n
}

// pin pins those of the grains that are present.
func (s *space) pin(u *unit, from, to int) (changed bool) {
	for from < to {
		from += u.present.gap(from, to)
		n := u.present.run(from, to)
		if c := u.pinned.set(from, from+n); c > 0 {
			s.pinned += c * grainSize
			changed = true
		}
		from += n
	}
	return changed
}

// keepPinned reports whether pins are honoured: all together they may have a
// quarter of the cache.
func (s *space) keepPinned() bool { return s.pinned <= s.size/4 }

// victim returns the unit that is to be evicted next: all of it or, if it has
// pinned grains, the rest. It is nil if there is none.
func (s *space) victim() *unit {
	for tries := 2*s.units*(maxUses+1) + 2; tries > 0; tries-- {
		u := s.small.oldest()
		if u == nil || s.small.bytes <= s.size/10 && s.main.oldest() != nil {
			u = s.main.oldest()
		}
		switch {
		case u == nil:
			return nil
		case u.uses.Load() > 0 && u.queue == &s.small:
			u.uses.Store(0)
			s.move(u)
		case u.uses.Load() > 0:
			u.uses.Add(-1)
			s.move(u)
		case s.keepPinned() && u.pinned.count() > 0 && u.pinned.count() == u.present.count():
			s.move(u)
		default:
			return u
		}
	}
	return nil
}

// move puts u last in main.
func (s *space) move(u *unit) {
	u.queue.remove(u)
	s.main.push(u)
}

// evict takes u out, or what of it is not pinned, and returns how many bytes
// that frees and whether it is out.
func (s *space) evict(u *unit) (freed int64, out bool) {
	if s.keepPinned() && u.pinned.count() > 0 {
		s.move(u)
		for from := 0; from < unitGrains; {
			from += u.pinned.run(from, unitGrains)
			n := u.pinned.gap(from, unitGrains)
			freed += s.lose(u, from, from+n) * grainSize
			from += n
		}
		return freed, false
	}
	if u.queue == &s.small {
		s.remember(ghost{u.obj.key, u.n})
	}
	freed = u.bytes()
	s.remove(u)
	return freed, true
}

// remember keeps the name of an evicted unit, as many as there are units.
func (s *space) remember(g ghost) {
	if int64(len(s.order)) < max(s.units, 256) {
		s.order = append(s.order, g)
	} else {
		delete(s.ghosts, s.order[s.oldest%len(s.order)])
		s.order[s.oldest%len(s.order)] = g
		s.oldest++
	}
	s.ghosts[g] = struct{}{}
}
