package qcow2

// A bitmap has a bit for each of many clusters, and memory only for the
// neighbourhoods where a bit is set.
type bitmap struct {
	pages [][]uint64
}

const pageWords = 1024 // 64 Ki bits

func newBitmap(bits int64) *bitmap {
	return &bitmap{make([][]uint64, (bits+pageWords*64-1)/(pageWords*64))}
}

func (m *bitmap) get(i int64) bool {
	page := m.pages[i/(pageWords*64)]
	return page != nil && page[i/64%pageWords]>>(i%64)&1 != 0
}

// set sets bit i and reports whether it was set before.
func (m *bitmap) set(i int64) bool {
	page := &m.pages[i/(pageWords*64)]
	if *page == nil {
		*page = make([]uint64, pageWords)
	}
	w := &(*page)[i/64%pageWords]
	was := *w>>(i%64)&1 != 0
	*w |= 1 << (i % 64)
	return was
}

// next returns the first bit from i on that is set, and limit if there is
// none before it.
func (m *bitmap) next(i, limit int64) int64 {
	for i < limit {
		if m.pages[i/(pageWords*64)] == nil {
			i = (i/(pageWords*64) + 1) * (pageWords * 64)
			continue
		}
		if m.get(i) {
			return i
		}
		i++
	}
	return limit
}
