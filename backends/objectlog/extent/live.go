package extent

// Live counts, for each segment, the bytes that extents refer to.
type Live map[int64]int64

// Count returns how much of each segment m refers to.
func (m *Map) Count() Live {
	l := make(Live)
	for e := range m.All() {
		l.Add(e)
	}
	return l
}

// Add counts e. Extents that are in no segment do not count.
func (l Live) Add(e Extent) {
	if e.Target.Kind() == Segment {
		id, _ := e.Target.Segment()
		l[id] += e.Len
	}
}

// Sub takes e away. A segment with nothing left is not in the map.
func (l Live) Sub(e Extent) {
	if e.Target.Kind() != Segment {
		return
	}
	id, _ := e.Target.Segment()
	if l[id] -= e.Len; l[id] == 0 {
		delete(l, id)
	}
}
