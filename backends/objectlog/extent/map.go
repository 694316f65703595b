package extent

import (
	"fmt"
	"iter"
	"math"
	"sync/atomic"
)

// A Map maps disk ranges to targets. New makes one.
type Map struct {
	root  *inner
	count int
	edit  uint64         // of the nodes that this map, and no other, has
	edits *atomic.Uint64 // the last number given, in all maps that may share nodes
}

// New returns an empty Map.
func New() *Map {
	m := &Map{edit: 1, edits: new(atomic.Uint64)}
	m.edits.Store(1)
	m.root = &inner{edit: 1, height: 1, n: 1}
	m.root.kids[0].leaf = &leaf{edit: 1}
	return m
}

// Insert makes e.Target the place of [e.Off, e.End()). displaced, unless nil,
// is called with each piece of an extent that this takes away, in order; it
// must not use the map. An extent whose target is Absent only takes away. An
// empty extent does nothing; one that cannot be, on a disk or at its target,
// panics.
func (m *Map) Insert(e Extent, displaced func(Extent)) {
	if e.Off < 0 || e.Len < 0 || e.Len > math.MaxInt64-e.Off || !e.Target.fits(e.Len) {
		panic(fmt.Sprintf("extent: insert %d bytes at %d as %v", e.Len, e.Off, e.Target))
	}
	t := task{edit: m.edit, displaced: displaced}
	for e.Len > 0 {
		m.grow()
		end := t.put(m.root, e, math.MaxInt64)
		m.shrink()
		e = e.from(end)
	}
	m.count += t.added
}

// grow makes the root one that is owned and has room for a child.
func (m *Map) grow() {
	m.root = m.root.own(m.edit)
	if m.root.n == fanout {
		top := &inner{edit: m.edit, height: m.root.height + 1, n: 1}
		top.kids[0].inner = m.root
		m.root = top
	}
}

// shrink takes away a root that has only one child.
func (m *Map) shrink() {
	for m.root.n == 1 && m.root.height > 1 {
		m.root = m.root.kids[0].inner
	}
}

// Move makes to the place of those bytes in [off, off+n) that are now at from,
// where from and to are the targets of off; all else stays. It is how bytes
// that were copied elsewhere, and may have been overwritten on the disk
// meanwhile, change places. moved, unless nil, is called with each piece that
// did, as it is now.
func (m *Map) Move(off, n int64, from, to Target, moved func(Extent)) {
	for end, at := off+n, off; at < end; {
		e := m.At(at, end-at)
		if e.Target != 0 && e.Target == from.Add(at-off) {
			e.Target = to.Add(at - off)
			m.Insert(e, nil)
			if moved != nil {
				moved(e)
			}
		}
		at = e.End()
	}
}

// At returns what is at off: the part from off on of the extent that covers
// it, or, up to the next extent or off+n, an Absent one. It does not go past
// off+n and may end early; n is at least 1.
func (m *Map) At(off, n int64) Extent {
	end := off + n
	in, upper := m.root, int64(math.MaxInt64)
	for {
		i := in.find(off)
		if i+1 < in.n {
			upper = in.keys[i+1]
		}
		if in.height > 1 {
			in = in.kids[i].inner
			continue
		}
		l := in.kids[i].leaf
		k := l.find(off)
		switch {
		case k < l.n && l.offs[k] <= off:
			return l.at(k).clip(off, end)
		case k < l.n:
			upper = l.offs[k]
		}
		return Extent{Off: off, Len: min(end, upper) - off}
	}
}

// Lookup yields what [off, off+n) consists of, without gaps: where no extent
// is, an Absent one. The map must not change meanwhile.
func (m *Map) Lookup(off, n int64) iter.Seq[Extent] {
	return func(yield func(Extent) bool) {
		if n <= 0 {
			return
		}
		at, end := off, off+n
		more := m.root.walk(off, end, func(e Extent) bool {
			if e.Off > at && !yield(Extent{Off: at, Len: e.Off - at}) {
				return false
			}
			e = e.clip(off, end)
			at = e.End()
			return yield(e)
		})
		if more && at < end {
			yield(Extent{Off: at, Len: end - at})
		}
	}
}

// All yields all extents in order of their offsets. The map must not change
// meanwhile.
func (m *Map) All() iter.Seq[Extent] {
	return func(yield func(Extent) bool) { m.root.walk(0, math.MaxInt64, yield) }
}

// walk yields the extents that touch [off, end), whole.
func (in *inner) walk(off, end int64, yield func(Extent) bool) bool {
	for i := in.find(off); i < in.n && (in.keys[i] < end || i == 0); i++ {
		if in.height > 1 {
			if !in.kids[i].inner.walk(off, end, yield) {
				return false
			}
			continue
		}
		l := in.kids[i].leaf
		for k := l.find(off); k < l.n && l.offs[k] < end; k++ {
			if !yield(l.at(k)) {
				return false
			}
		}
	}
	return true
}

// Len returns the number of extents.
func (m *Map) Len() int { return m.count }

// Snapshot returns a Map of what m is now. Either can change without the other
// noticing. For others who use m at the same time this is a change of m.
func (m *Map) Snapshot() *Map {
	s := &Map{root: m.root, count: m.count, edits: m.edits, edit: m.edits.Add(1)}
	m.edit = m.edits.Add(1)
	return s
}
