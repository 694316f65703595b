package cache

import (
	"errors"
	"sync"
	"time"
)

// health says whether anything can be kept at present.
type health struct {
	mu    sync.Mutex
	why   string
	until time.Time // when it is tried again
	pause time.Duration
}

// The cache tries a disk that made trouble again after a pause, which grows.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

func (h *health) reason() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.why
}

// mayTry reports whether something may be kept. While the disk is in trouble,
// one after each pause may try.
func (h *health) mayTry() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why == "" {
		return true
	}
	now := time.Now()
	if now.Before(h.until) {
		return false
	}
	h.until = now.Add(h.pause)
	return true
}

// trouble notes that the disk failed: nothing is kept for a while.
func (c *Cache) trouble(err error) {
	h := &c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why == "" {
		h.pause = firstPause
		c.log.Error("the cache cannot use its disk and reads through until it can", "dir", c.cfg.Dir, "err", err)
	} else {
		h.pause = min(2*h.pause, lastPause)
	}
	h.why = err.Error()
	h.until = time.Now().Add(h.pause)
}

// well notes that the disk works.
func (c *Cache) well() {
	h := &c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why != "" {
		c.log.Info("the cache uses its disk again", "dir", c.cfg.Dir)
		h.why = ""
	}
}

// errGone is the error of keeping something in a unit that was evicted.
var errGone = errors.New("evicted meanwhile")

// keep stores the grains from a on that were fetched, if the disk allows it.
// Nobody waits for it.
func (s *session) keep(a int64, data []byte) {
	c := s.obj.cache
	if !c.health.mayTry() {
		s.obj.count.skipped.Add(int64(len(data)))
		return
	}
	for len(data) > 0 {
		in := int(a % unitGrains)
		n := min(len(data), (unitGrains-in)*grainSize)
		err := c.keep(s.obj, a/unitGrains, in, data[:n])
		switch {
		case errors.Is(err, errGone):
			s.obj.count.skipped.Add(int64(n))
		case err != nil:
			s.obj.count.skipped.Add(int64(len(data)))
			c.trouble(err)
			return
		}
		data, a = data[n:], a+int64(n+grainSize-1)/grainSize
	}
	c.well()
}

// keep stores grains of one unit.
func (c *Cache) keep(o *object, n int64, in int, data []byte) error {
	f, err := c.disk()
	if err != nil {
		return err
	}
	if c.cfg.Guard != nil {
		if err := c.cfg.Guard.Take(int64(len(data))); err != nil {
			return err
		}
	}
	if err := c.makeRoom(f, int64(len(data))); err != nil {
		return err
	}
	defer c.made(int64(len(data)))
	u, err := c.unit(f, o, n)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return c.fill(f, u, in, data)
}

// fill writes data, then what it must agree with, then that it is there. The
// caller holds u.mu.
func (c *Cache) fill(f *files, u *unit, in int, data []byte) error {
	if u.gone.Load() {
		return errGone
	}
	if err := f.writeData(u.slot, data, int64(in)*grainSize); err != nil {
		return err
	}
	var values []uint64
	first := u.n*unitGrains + int64(in)
	for i := 0; i < len(data); i += grainSize {
		values = append(values, u.obj.digest(first+int64(len(values)), data[i:min(i+grainSize, len(data))]))
	}
	if err := f.writeSums(u.slot, in, values); err != nil {
		return err
	}
	digests, err := u.digests(f)
	if err != nil {
		return err
	}
	for i, v := range values {
		digests[in+i].Store(v)
	}
	c.mu.Lock()
	if u.gone.Load() {
		c.mu.Unlock()
		return errGone
	}
	c.space.gain(u, in, in+len(values))
	u.stamp.Store(c.clock.Add(int64(len(data))))
	d := u.desc()
	c.mu.Unlock()
	return f.writeDesc(u.slot, d)
}

// desc describes u. The caller holds Cache.mu.
func (u *unit) desc() *desc {
	d := &desc{hash: u.obj.hash, n: u.n, stamp: u.stamp.Load(), uses: uint8(u.uses.Load()),
		main: u.queue == &u.obj.cache.space.main}
	for w := range d.present {
		d.present[w], d.pinned[w] = u.present[w].Load(), u.pinned[w].Load()
	}
	return d
}

// unit returns unit n of o, a new one if there is none.
func (c *Cache) unit(f *files, o *object, n int64) (*unit, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.dropped {
		return nil, errGone
	}
	if u := o.units[n]; u != nil {
		return u, nil
	}
	if !o.listed {
		if err := f.list(o); err != nil {
			return nil, err
		}
		o.listed = true
	}
	slot, ok := c.space.place()
	if !ok {
		return nil, errGone
	}
	u := &unit{obj: o, n: n, slot: slot}
	u.sums.Store(new(sums))
	u.stamp.Store(c.clock.Load())
	c.loaded.add(u)
	c.space.add(u)
	return u, nil
}

// made ends what makeRoom began.
func (c *Cache) made(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.space.coming -= n
}

// makeRoom evicts until n more bytes and one more unit have room, and keeps
// the room.
func (c *Cache) makeRoom(f *files, n int64) error {
	for {
		c.mu.Lock()
		s := &c.space
		if s.used+s.coming+n <= s.size && (len(s.free) > 0 || s.slots < s.maxSlots()) {
			s.coming += n
			c.mu.Unlock()
			return nil
		}
		u := s.victim()
		if u == nil {
			c.mu.Unlock()
			return errGone
		}
		freed, out := s.evict(u)
		u.obj.count.evicted.Add(freed)
		if out {
			c.forget(u.obj)
		}
		c.mu.Unlock()
		if out {
			c.vacate(u)
		} else if err := c.hollow(f, u); err != nil {
			return err
		}
	}
}

// vacate frees the place of a unit that was taken out.
func (c *Cache) vacate(u *unit) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sums.Store(nil)
	if f := c.store.Load(); f != nil {
		err := f.punch(u.slot, 0, unitSize)
		if err == nil {
			err = f.clearDesc(u.slot)
		}
		if err != nil {
			c.trouble(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.space.free = append(c.space.free, u.slot)
}

// hollow frees what of a unit is not present.
func (c *Cache) hollow(f *files, u *unit) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone.Load() {
		return nil
	}
	for from := 0; from < unitGrains; {
		from += u.present.run(from, unitGrains)
		n := u.present.gap(from, unitGrains)
		if n > 0 {
			if err := f.punch(u.slot, int64(from)*grainSize, int64(n)*grainSize); err != nil {
				return err
			}
		}
		from += n
	}
	c.mu.Lock()
	if u.gone.Load() {
		c.mu.Unlock()
		return nil
	}
	d := u.desc()
	c.mu.Unlock()
	return f.writeDesc(u.slot, d)
}
