package extent

import (
	"fmt"
	"iter"
	"math"
)

// A builder makes a tree of extents that come in order: full leaves, but for
// an eighth that is left for what comes later, and inner nodes on top.
type builder struct {
	edit  uint64
	leaf  *leaf
	kids  []child
	keys  []int64
	count int
	end   int64
}

const (
	denseLeaf  = leafSize * 7 / 8
	denseInner = fanout * 7 / 8
)

// add appends e, which begins at the end of the one before or behind it.
func (b *builder) add(e Extent) error {
	if e.Off < b.end || e.Len <= 0 || e.Len > math.MaxInt64-e.Off || e.Target == 0 || !e.Target.fits(e.Len) {
		return fmt.Errorf("%d bytes at %d as %v after an extent that ends at %d: %w", e.Len, e.Off, e.Target, b.end, ErrCorrupt)
	}
	b.end = e.End()
	for e.Len > 0 {
		piece := e.until(min(e.End(), e.Off+maxLen))
		b.append(piece)
		e = e.from(piece.End())
	}
	return nil
}

func (b *builder) append(e Extent) {
	if l := b.leaf; l != nil && l.n > 0 && joins(l.at(l.n-1), e) {
		l.lens[l.n-1] += uint32(e.Len)
		return
	}
	if b.leaf == nil || b.leaf.n == denseLeaf {
		b.leaf = &leaf{edit: b.edit}
		b.kids = append(b.kids, child{leaf: b.leaf})
		b.keys = append(b.keys, e.Off)
	}
	b.leaf.set(b.leaf.n, e)
	b.leaf.n++
	b.count++
}

// finish returns the map of what was added.
func (b *builder) finish() *Map {
	m := New()
	b.edit = m.edit
	if len(b.kids) == 0 {
		return m
	}
	for height := 1; ; height++ {
		b.level(height)
		if len(b.kids) == 1 {
			break
		}
	}
	m.root, m.count = b.kids[0].inner, b.count
	return m
}

// level puts inner nodes above kids and makes these the new kids.
func (b *builder) level(height int) {
	var kids []child
	var keys []int64
	for i := 0; i < len(b.kids); i += denseInner {
		in := &inner{edit: b.edit, height: height}
		in.n = copy(in.kids[:denseInner], b.kids[i:])
		copy(in.keys[:denseInner], b.keys[i:])
		kids, keys = append(kids, child{inner: in}), append(keys, in.keys[0])
	}
	b.kids, b.keys = kids, keys
}

// Load returns the Map of extents that come in order and do not overlap, else
// an error. It is quicker and denser than to insert them.
func Load(extents iter.Seq[Extent]) (*Map, error) {
	b := builder{edit: 1}
	for e := range extents {
		if err := b.add(e); err != nil {
			return nil, err
		}
	}
	return b.finish(), nil
}
