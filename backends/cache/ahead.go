package cache

import (
	"context"
	"slices"
)

// ahead decides what is fetched that nobody asked for yet. All of it is
// guarded by session.mu; places and lengths are in grains, but for credit.
//
// What is fetched ahead is paid for from a credit, in bytes, which grows by a
// quarter of what is asked for and gets back what was fetched ahead once it
// is asked for. So, whatever the readers do, an object is never fetched for
// more than five quarters of what was asked for and the credit that it begins
// with.
type ahead struct {
	limit   int64 // the most that is fetched ahead of a stream
	credit  int64
	streams []stream // the latest first
}

const (
	// spareShare is the part of what is asked for that may be fetched in vain.
	spareShare = 4
	// firstCredit is the credit at the beginning, in bytes.
	firstCredit = 256 << 10
	// maxStreams is how many streams of one object are told apart.
	maxStreams = 16
	// slack is how far from where a stream should go on a read may be to count
	// as its next: many readers ask out of order.
	slack = (256 << 10) / grainSize
	// A stream is in order after so many reads of together so much.
	steadyReads  = 3
	steadyGrains = unitGrains
)

// A stream is reads of which each begins about where the one before ended.
type stream struct {
	next  int64 // where it goes on
	run   int64 // how much of it was read
	reads int
	front int64 // up to where it was fetched ahead
}

func newAhead(limit int64) ahead {
	if limit == 0 {
		return ahead{}
	}
	return ahead{limit: limit / grainSize, credit: firstCredit}
}

// earn adds n bytes to the credit.
func (h *ahead) earn(n int64) { h.credit = min(h.credit+n, h.limit*grainSize) }

// refund gives back what n grains had cost that are now asked for, and what
// asking earns.
func (h *ahead) refund(n int64) { h.earn(n*grainSize + n*grainSize/spareShare) }

// stream returns the stream that the read of [a, b) belongs to, or a new one.
func (h *ahead) stream(a, b int64) *stream {
	i := slices.IndexFunc(h.streams, func(st stream) bool { return a >= st.next-slack && a <= st.next+slack })
	st := stream{next: a}
	if i >= 0 {
		st = h.streams[i]
		h.streams = slices.Delete(h.streams, i, i+1)
	} else if len(h.streams) == maxStreams {
		h.streams = h.streams[:maxStreams-1]
	}
	st.run += max(b-st.next, 0)
	st.next = max(st.next, b)
	st.reads++
	h.streams = slices.Insert(h.streams, 0, st)
	return &h.streams[0]
}

// follow notes that [a, b) is read, and fetches ahead of the stream that it
// belongs to. The window is as long as the stream was so far, up to the limit:
// it doubles. The next piece is fetched when a quarter of it was used. The
// caller holds s.mu.
func (s *session) follow(a, b int64) {
	h := &s.ahead
	st := h.stream(a, b)
	if st.reads < steadyReads || st.run < steadyGrains || s.obj.cache.backlog.long() {
		return
	}
	window := min(st.run, h.limit, h.credit/grainSize)
	from := max(st.front, st.next)
	to := min(st.next+window, s.obj.grains())
	if to-from < max(window/4, partGrains) && to != s.obj.grains() {
		return
	}
	piece := min(max(window/4, unitGrains), fetchGrains/2)
	for from < to {
		lo, hi := s.table.gap(from, to)
		for lo < hi {
			f, next := s.flying(lo)
			if f != nil {
				lo = f.b
				continue
			}
			end := min(hi, next, lo+piece)
			s.prefetch(lo, end)
			lo = end
		}
		from = hi
	}
	st.front = max(st.front, to)
}

// prefetch begins a flight for [a, b) that nobody asked for. It runs for the
// session, not for whoever read last.
func (s *session) prefetch(a, b int64) {
	f := newFlight(a, b, &s.quota, true)
	f.fresh.set(0, int(b-a))
	f.shared.Store(true)
	s.ahead.credit -= (b - a) * grainSize
	s.launch(context.Background(), f)
}

// round lengthens [a, b), which is to be fetched, to whole parts, if the
// credit allows it and it is likely to pay: a fetch of 64 KiB takes hardly
// longer than one of 4 KiB. A short read in a part where nothing was read yet
// says little; the second one says that there will be more. The caller holds
// s.mu.
func (s *session) round(a, b int64) (lo, hi int64) {
	first := a / partGrains * partGrains
	last := min((b+partGrains-1)/partGrains*partGrains, s.obj.grains())
	lo, hi = a, b
	for lo > first && !s.has(lo-1) {
		lo--
	}
	for hi < last && !s.has(hi) {
		hi++
	}
	spare := (hi - lo - (b - a)) * grainSize
	likely := b-a >= partGrains/4 || s.table.any(first, min(first+partGrains, a)) || s.table.any(b, last)
	if !likely || spare > s.ahead.credit || hi-lo > fetchGrains {
		return a, b
	}
	s.ahead.credit -= spare
	return lo, hi
}

// has reports whether a grain is there or being fetched.
func (s *session) has(g int64) bool {
	f, _ := s.flying(g)
	return f != nil || s.table.any(g, g+1)
}

// firstUse notes that grains of a unit that were fetched ahead are read.
func (s *session) firstUse(u *unit, from, to int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := u.fresh.clear(from, to)
	if n == 0 || s.closed {
		return
	}
	s.ahead.refund(n)
	at := u.n * unitGrains
	s.follow(at+int64(from), at+int64(to))
}
