package consistency

import "testing"

// TestHistory has the checker judge histories by hand: those that a disk can
// show, and those that it cannot.
func TestHistory(t *testing.T) {
	write := func(h *History) *Write { return h.Begin(0, 1, false, false) }
	done := func(h *History) *Write {
		w := write(h)
		w.Answered(false)
		return w
	}
	read := func(h *History, v uint64) bool { return h.Read(h.Now(), 0, []uint64{v}) == nil }
	crash := func(h *History, v uint64) bool { return h.Crashed([]uint64{v}) == nil }
	for _, c := range []struct {
		name string
		run  func(h *History) bool
		ok   bool
	}{
		{"the base at first", func(h *History) bool { return read(h, Base) }, true},
		{"zeros at first", func(h *History) bool { return read(h, Zero) }, false},
		{"a write", func(h *History) bool { w := done(h); return read(h, w.Value) }, true},
		{"a write is not there", func(h *History) bool { done(h); return read(h, Base) }, false},
		{"a write under way, early", func(h *History) bool { w := write(h); return read(h, w.Value) }, true},
		{"a write under way, late", func(h *History) bool { write(h); return read(h, Base) }, true},
		{"back in time", func(h *History) bool { w := write(h); return read(h, w.Value) && read(h, Base) }, false},
		{"a read that began before the answer", func(h *History) bool {
			w, begun := write(h), h.Now()
			w.Answered(false)
			return h.Read(begun, 0, []uint64{Base}) == nil
		}, true},
		{"two under way, either", func(h *History) bool {
			a := write(h)
			b := write(h)
			a.Answered(false)
			b.Answered(false)
			return read(h, a.Value)
		}, true},
		{"two under way, then the other", func(h *History) bool {
			a, b := write(h), write(h)
			a.Answered(false)
			b.Answered(false)
			return read(h, b.Value)
		}, true},
		{"the first of two", func(h *History) bool { a := done(h); done(h); return read(h, a.Value) }, false},
		{"a torn sector", func(h *History) bool { done(h); return read(h, Torn) }, false},
		{"a sector torn while it is written", func(h *History) bool { write(h); return read(h, Torn) }, true},
		{"a sector torn before it is written", func(h *History) bool {
			begun := h.Now()
			w := done(h)
			return h.Read(begun, 0, []uint64{Torn}) == nil && read(h, w.Value)
		}, true},
		{"a sector torn for good", func(h *History) bool {
			w := write(h)
			ok := read(h, Torn)
			w.Answered(false)
			return ok && read(h, Torn)
		}, false},
		{"a sector torn by a crash", func(h *History) bool { write(h); return crash(h, Torn) }, false},
		{"zeroed", func(h *History) bool { done(h); h.Begin(0, 1, true, false).Answered(false); return read(h, Zero) }, true},
		{"zeroed, and not", func(h *History) bool {
			w := done(h)
			h.Begin(0, 1, true, false).Answered(false)
			return read(h, w.Value)
		}, false},
		{"trimmed, and not", func(h *History) bool {
			w := done(h)
			h.Begin(0, 1, true, true).Answered(false)
			return read(h, w.Value)
		}, true},

		{"lost without a flush", func(h *History) bool { done(h); return crash(h, Base) }, true},
		{"lost after a flush", func(h *History) bool { done(h); h.Flush()(); return crash(h, Base) }, false},
		{"lost with FUA", func(h *History) bool { write(h).Answered(true); return crash(h, Base) }, false},
		{"answered behind the flush", func(h *History) bool { ack := h.Flush(); done(h); ack(); return crash(h, Base) }, true},
		{"flush not acknowledged", func(h *History) bool { done(h); h.Flush(); return crash(h, Base) }, true},
		{"the newer, never flushed", func(h *History) bool { done(h); h.Flush()(); w := write(h); return crash(h, w.Value) }, true},
		{"older than the flushed", func(h *History) bool {
			a := done(h)
			done(h)
			h.Flush()()
			return crash(h, a.Value)
		}, false},
		{"what a crash left stays", func(h *History) bool { w := write(h); return crash(h, Base) && !read(h, w.Value) && read(h, Base) }, true},
	} {
		if got := c.run(NewHistory(1)); got != c.ok {
			t.Errorf("%s: %v, want %v", c.name, got, c.ok)
		}
	}
}
