package trace

import (
	"cmp"
	"slices"
	"sort"
)

// A range is kept while it was seen in one of so many boots, and replayed
// while it was in one of so many.
const (
	forget = 4
	replay = 2
)

// Merge returns old with what one more boot read. Ranges keep their order,
// and what is new comes after what it was read after. Ranges that boots no
// longer read are forgotten by and by.
func Merge(old, boot Trace) Trace {
	if old.Size != boot.Size || old.Boots == 0 {
		return boot
	}
	m := merger{old: old, after: make(map[int][]Range)}
	for i := range old.Ranges {
		m.sorted = append(m.sorted, i)
	}
	slices.SortFunc(m.sorted, func(a, b int) int { return cmp.Compare(old.Ranges[a].Off, old.Ranges[b].Off) })
	m.again = make([][]Range, len(old.Ranges))
	last := -1 // of old, read before what comes
	for _, r := range boot.Ranges {
		last = m.add(r, last)
	}
	return m.result()
}

type merger struct {
	old    Trace
	sorted []int           // ranges of old by offset
	again  [][]Range       // pieces of each that were read again
	after  map[int][]Range // what is new, by the range of old that it comes after
}

// add splits r into what old has and what is new, and returns the range of
// old that what comes next was read after.
func (m *merger) add(r Range, last int) int {
	i := sort.Search(len(m.sorted), func(i int) bool { return m.old.Ranges[m.sorted[i]].End() > r.Off })
	for r.Len > 0 {
		next := r.End()
		if i < len(m.sorted) {
			have := m.old.Ranges[m.sorted[i]]
			if have.Off <= r.Off {
				last = m.sorted[i]
				end := min(have.End(), r.End())
				m.again[last] = append(m.again[last], Range{Off: r.Off, Len: end - r.Off})
				r.Off, r.Len = end, r.End()-end
				i++
				continue
			}
			next = min(next, have.Off)
		}
		m.after[last] = append(m.after[last], Range{Off: r.Off, Len: next - r.Off})
		r.Off, r.Len = next, r.End()-next
	}
	return last
}

// result puts the pieces together.
func (m *merger) result() Trace {
	t := Trace{Size: m.old.Size, Boots: min(m.old.Boots+1, MaxBoots)}
	var bytes int64
	put := func(r Range) {
		if r.Len <= 0 || r.Seen*forget < t.Boots || bytes+r.Len > MaxBytes {
			return
		}
		bytes += r.Len
		if n := len(t.Ranges); n > 0 && t.Ranges[n-1].End() == r.Off && t.Ranges[n-1].Seen == r.Seen {
			t.Ranges[n-1].Len += r.Len
			return
		}
		t.Ranges = append(t.Ranges, r)
	}
	news := func(i int) {
		for _, r := range m.after[i] {
			r.Seen = (t.Boots + forget - 1) / forget // enough to be kept until the next boot
			put(r)
		}
	}
	news(-1)
	for i, r := range m.old.Ranges {
		seen, again := r.Seen, min(r.Seen+1, MaxBoots)
		if m.old.Boots == MaxBoots {
			seen-- // the oldest boots no longer count
		}
		at := r.Off
		for _, a := range byOffset(m.again[i]) {
			put(Range{Off: at, Len: a.Off - at, Seen: seen})
			put(Range{Off: a.Off, Len: a.Len, Seen: again})
			at = a.End()
		}
		put(Range{Off: at, Len: r.End() - at, Seen: seen})
		news(i)
	}
	return t
}
