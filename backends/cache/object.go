package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// An object is what the cache knows of one far object. It stays in the map
// while something of it is kept or somebody reads it.
type object struct {
	cache *Cache
	id    string
	size  int64
	hash  [16]byte // of id; what stands in descriptors
	key   uint64   // of id as well; what digests are bound to
	count counters

	// Guarded by Cache.mu.
	units   map[int64]*unit
	session *session  // while it has readers
	table   *table    // the session's
	dropped bool      // nothing more is kept of it
	listed  bool      // its id is in the list on the disk
	flat    bool      // the far object has no holes
	valued  bool      // it was filled on purpose: its units are worth those that were used again
	kept    int64     // grains
	grown   time.Time // when something was last kept; zero: before Open
}

func newObject(c *Cache, id string, size int64) *object {
	h := sha256.Sum256([]byte(id))
	return &object{cache: c, id: id, size: size, hash: [16]byte(h[:16]), key: binary.LittleEndian.Uint64(h[16:]),
		units: make(map[int64]*unit)}
}

// grains returns how many grains the object has, the last one maybe short.
func (o *object) grains() int64 { return (o.size + grainSize - 1) / grainSize }

// A table finds the units of an object that is being read, without a lock.
type table struct {
	leaves []atomic.Pointer[leaf]
}

const leafUnits = 512

type leaf [leafUnits]atomic.Pointer[unit]

func newTable(size int64) *table {
	units := (size + unitSize - 1) / unitSize
	return &table{leaves: make([]atomic.Pointer[leaf], (units+leafUnits-1)/leafUnits)}
}

func (t *table) get(n int64) *unit {
	l := t.leaves[n/leafUnits].Load()
	if l == nil {
		return nil
	}
	return l[n%leafUnits].Load()
}

// set puts u, or nil, in its place. Only one goroutine does so at a time.
func (t *table) set(n int64, u *unit) {
	slot := &t.leaves[n/leafUnits]
	if slot.Load() == nil {
		slot.Store(new(leaf))
	}
	slot.Load()[n%leafUnits].Store(u)
}

// attach makes a table of the units, for a session that begins. The caller
// holds Cache.mu.
func (o *object) attach() *table {
	o.table = newTable(o.size)
	for n, u := range o.units {
		o.table.set(n, u)
	}
	return o.table
}

// put makes u one of the object's units. The caller holds Cache.mu.
func (o *object) put(u *unit) {
	o.units[u.n] = u
	if o.table != nil {
		o.table.set(u.n, u)
	}
}

// drop makes u none of them. The caller holds Cache.mu.
func (o *object) drop(u *unit) {
	delete(o.units, u.n)
	if o.table != nil {
		o.table.set(u.n, nil)
	}
}

// gap returns the first grains of [a, b) that are not there: those of [lo, hi).
// lo is b if there are none.
func (t *table) gap(a, b int64) (lo, hi int64) {
	for lo = a; lo < b; {
		if n := t.walk(lo, b, true); n > 0 {
			lo += n
			continue
		}
		break
	}
	for hi = lo; hi < b; {
		n := t.walk(hi, b, false)
		if n == 0 {
			break
		}
		hi += n
	}
	return lo, hi
}

// walk returns how many grains from a on, up to b or the end of the unit, are
// there, or are not.
func (t *table) walk(a, b int64, present bool) int64 {
	in := int(a % unitGrains)
	end := int(min(b-a, int64(unitGrains-in))) + in
	u := t.get(a / unitGrains)
	switch {
	case u == nil && present:
		return 0
	case u == nil:
		return int64(end - in)
	case present:
		return int64(u.present.run(in, end))
	}
	return int64(u.present.gap(in, end))
}

// any reports whether one of the grains [a, b), all of one unit, is there.
func (t *table) any(a, b int64) bool {
	if a >= b {
		return false
	}
	u := t.get(a / unitGrains)
	if u == nil {
		return false
	}
	in := int(a % unitGrains)
	return u.present.any(in, in+int(b-a))
}
