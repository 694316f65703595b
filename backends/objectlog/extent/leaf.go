package extent

import "sort"

// leafSize is how many extents a leaf has room for: with 20 bytes each it
// fills an allocation of 2688 bytes, which has no pointers for the garbage
// collector to follow.
const leafSize = 132

// maxLen is the length of the longest extent in a leaf, which has 32 bits for
// it. What is longer is several extents.
const maxLen = 1<<32 - 4096

// A leaf holds extents, sorted. Of its arrays the first n are in use.
type leaf struct {
	edit    uint64 // of the map that may change it
	n       int
	offs    [leafSize]int64
	targets [leafSize]Target
	lens    [leafSize]uint32
}

func (l *leaf) at(i int) Extent { return Extent{l.offs[i], int64(l.lens[i]), l.targets[i]} }

func (l *leaf) set(i int, e Extent) {
	l.offs[i], l.lens[i], l.targets[i] = e.Off, uint32(e.Len), e.Target
}

// find returns the index of the first extent that ends behind off.
func (l *leaf) find(off int64) int {
	i := sort.Search(l.n, func(i int) bool { return l.offs[i] > off })
	if i > 0 && l.at(i-1).End() > off {
		return i - 1
	}
	return i
}

// put makes e, which is at most maxLen long, the only extent of its range, or
// clears the range if its target is Absent. It adds two extents at most.
func (l *leaf) put(e Extent, displaced func(Extent)) {
	var with [3]Extent // what comes in the place of [i, j)
	c := 0
	i := l.find(e.Off)
	j := i
	if i < l.n && l.offs[i] < e.Off {
		with[c] = l.at(i).until(e.Off)
		c++
	} else if i > 0 {
		i-- // the neighbour may become one with e
		with[c] = l.at(i)
		c++
	}
	if e.Target != 0 {
		c = join(&with, c, e)
	}
	var last Extent
	for ; j < l.n && l.offs[j] < e.End(); j++ {
		last = l.at(j)
		if displaced != nil {
			displaced(last.clip(e.Off, e.End()))
		}
	}
	switch {
	case last.End() > e.End():
		c = join(&with, c, last.from(e.End()))
	case j < l.n && c > 0:
		if k := join(&with, c, l.at(j)); k == c {
			j++
		}
	}
	l.splice(i, j, with[:c])
}

// join appends e to the first c of with, or makes it one with the last of
// them, and returns how many there are.
func join(with *[3]Extent, c int, e Extent) int {
	if c > 0 && joins(with[c-1], e) {
		with[c-1].Len += e.Len
		return c
	}
	if c < len(with) {
		with[c] = e
	}
	return c + 1
}

// joins tells whether a and b may be one extent.
func joins(a, b Extent) bool {
	return a.End() == b.Off && continues(a.Target, a.Len, b.Target) && a.Len+b.Len <= maxLen
}

// splice puts with in the place of [i, j).
func (l *leaf) splice(i, j int, with []Extent) {
	to := i + len(with)
	if to != j {
		copy(l.offs[to:], l.offs[j:l.n])
		copy(l.lens[to:], l.lens[j:l.n])
		copy(l.targets[to:], l.targets[j:l.n])
	}
	l.n += to - j
	for k, e := range with {
		l.set(i+k, e)
	}
}

// move appends the extents [i, from.n) of from, which loses them.
func (l *leaf) move(from *leaf, i int) {
	if l.n > 0 && i < from.n && joins(l.at(l.n-1), from.at(i)) {
		l.lens[l.n-1] += from.lens[i]
		copy(from.offs[i:], from.offs[i+1:from.n])
		copy(from.lens[i:], from.lens[i+1:from.n])
		copy(from.targets[i:], from.targets[i+1:from.n])
		from.n--
	}
	copy(l.offs[l.n:], from.offs[i:from.n])
	copy(l.lens[l.n:], from.lens[i:from.n])
	copy(l.targets[l.n:], from.targets[i:from.n])
	l.n += from.n - i
	from.n = i
}
