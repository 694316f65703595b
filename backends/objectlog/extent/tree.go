package extent

import "sort"

// fanout is how many children an inner node has room for.
const fanout = 64

// An inner node has n children. Child i has what begins at keys[i] or behind
// it and before keys[i+1]; keys[0] is not looked at, as what is to the left of
// all others is in the first.
type inner struct {
	edit   uint64 // of the map that may change it
	height int    // of what is below: 1 above leaves
	n      int
	keys   [fanout]int64
	kids   [fanout]child
}

// A child is a leaf, below a node of height 1, or an inner node.
type child struct {
	leaf  *leaf
	inner *inner
}

// find returns the index of the child that has off.
func (in *inner) find(off int64) int {
	return sort.Search(in.n-1, func(i int) bool { return in.keys[i+1] > off })
}

// insert makes c child i, with what begins at key.
func (in *inner) insert(i int, key int64, c child) {
	copy(in.keys[i+1:], in.keys[i:in.n])
	copy(in.kids[i+1:], in.kids[i:in.n])
	in.keys[i], in.kids[i] = key, c
	in.n++
}

// remove forgets child i, not the only one. Its range goes to the one before,
// or to the one behind if it is the first.
func (in *inner) remove(i int) {
	copy(in.keys[i:], in.keys[i+1:in.n])
	copy(in.kids[i:], in.kids[i+1:in.n])
	in.n--
	in.kids[in.n] = child{} // for the garbage collector
}

// ownLeaf returns child i, a leaf, as one that edit may change.
func (in *inner) ownLeaf(i int, edit uint64) *leaf {
	l := in.kids[i].leaf
	if l.edit != edit {
		c := *l
		c.edit = edit
		l = &c
		in.kids[i].leaf = l
	}
	return l
}

// own returns in, or its copy, as one that edit may change.
func (in *inner) own(edit uint64) *inner {
	if in.edit == edit {
		return in
	}
	c := *in
	c.edit = edit
	return &c
}

// A task is one change of a map on its way down.
type task struct {
	edit      uint64
	displaced func(Extent)
	added     int // how many extents there are more than before
}

// put does to the tree in, which is owned, as much of e as belongs into one
// leaf, and returns where that ends. No key above is between e.Off and upper.
func (t *task) put(in *inner, e Extent, upper int64) int64 {
	i := in.find(e.Off)
	if in.height == 1 && in.kids[i].leaf.n+2 > leafSize {
		t.splitLeaf(in, i, e.Off)
	} else if in.height > 1 && in.kids[i].inner.n == fanout {
		t.split(in, i, e.Off)
	}
	if i+1 < in.n && in.keys[i+1] <= e.Off {
		i++
	}
	if i+1 < in.n {
		upper = in.keys[i+1]
	}
	if in.height > 1 {
		kid := in.kids[i].inner.own(t.edit)
		in.kids[i].inner = kid
		end := t.put(kid, e, upper)
		t.tidy(in, i)
		return end
	}
	end := min(e.End(), upper, e.Off+maxLen)
	l := in.ownLeaf(i, t.edit)
	t.added -= l.n
	l.put(e.until(end), t.displaced)
	t.added += l.n
	t.tidyLeaf(in, i)
	return end
}

// splitLeaf makes two of leaf i. One that grows at its end, as it does when
// a disk is written from front to back, stays full.
func (t *task) splitLeaf(in *inner, i int, off int64) {
	l := in.ownLeaf(i, t.edit)
	at := l.n / 2
	if off > l.offs[l.n-1] {
		at = l.n - 1
	}
	right := &leaf{edit: t.edit}
	right.move(l, at)
	in.insert(i+1, right.offs[0], child{leaf: right})
}

func (t *task) split(in *inner, i int, off int64) {
	left := in.kids[i].inner.own(t.edit)
	at := left.n / 2
	if off > left.keys[left.n-1] {
		at = left.n - 1
	}
	right := &inner{edit: t.edit, height: left.height}
	right.take(left, at)
	in.kids[i].inner = left
	in.insert(i+1, right.keys[0], child{inner: right})
}

// take appends the children [i, from.n) of from, which loses them.
func (in *inner) take(from *inner, i int) {
	copy(in.keys[in.n:], from.keys[i:from.n])
	copy(in.kids[in.n:], from.kids[i:from.n])
	in.n += from.n - i
	clear(from.kids[i:from.n])
	from.n = i
}

// tidyLeaf makes one of leaf i, if it has become small, and a neighbour.
func (t *task) tidyLeaf(in *inner, i int) {
	small := in.kids[i].leaf.n
	if small > leafSize/4 || in.n == 1 {
		return
	}
	if small == 0 {
		in.remove(i)
		return
	}
	for _, left := range [2]int{i - 1, i} {
		if left < 0 || left+1 == in.n {
			continue
		}
		if in.kids[left].leaf.n+in.kids[left+1].leaf.n > leafSize*3/4 {
			continue
		}
		l, r := in.ownLeaf(left, t.edit), *in.kids[left+1].leaf
		before := l.n + r.n
		l.move(&r, 0)
		t.added += l.n - before
		in.remove(left + 1)
		return
	}
}

// tidy is tidyLeaf for inner nodes.
func (t *task) tidy(in *inner, i int) {
	if in.kids[i].inner.n > fanout/4 || in.n == 1 {
		return
	}
	for _, left := range [2]int{i - 1, i} {
		if left < 0 || left+1 == in.n {
			continue
		}
		if in.kids[left].inner.n+in.kids[left+1].inner.n > fanout*3/4 {
			continue
		}
		l, r := in.kids[left].inner.own(t.edit), *in.kids[left+1].inner
		// The first key of a node is not kept up to date; here it counts.
		r.keys[0] = in.keys[left+1]
		joint := l.n
		l.take(&r, 0)
		in.kids[left].inner = l
		in.remove(left + 1)
		if l.height == 1 {
			t.tidyLeaf(l, joint)
		} else {
			t.tidy(l, joint)
		}
		return
	}
}
