//go:build integration

package crashes

import (
	"fmt"
	"slices"
	"strings"
)

// A span bounds which requests a state of the disk may have.
type span struct {
	flushed bool  // it has what acknowledged flushes cover
	after   int64 // it has what was acknowledged before this time
	before  int64 // it has nothing that was sent after this time; 0: no bound
}

// prefix looks for the moment of the order of all requests that disk shows: a
// number of requests of each lane, so that whatever was acknowledged before
// one of them was sent is there too.
func (h *history) prefix(disk []uint64, p span) ([]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	states := make([][]bool, lanes) // by lane: after how many requests it looks like that
	cut := make([]int, lanes)
	for i, l := range h.lanes {
		states[i] = h.states(l, disk)
		high := len(l.ops)
		for high > 0 && p.before != 0 && l.ops[high-1].sent > p.before {
			high--
		}
		cut[i] = high
		if err := lower(states[i], &cut[i]); err != nil {
			return nil, fmt.Errorf("lane %d is in no state that it ever was in: %s", i, h.differs(l, disk))
		}
	}
	// What a lane cannot show, those that came after it cannot show either.
	for changed := true; changed; {
		changed = false
		for i, l := range h.lanes {
			for k, other := range h.lanes {
				for cut[i] > 0 && other.settled(l.ops[cut[i]-1].sent) > cut[k] {
					changed = true
					cut[i]--
					if err := lower(states[i], &cut[i]); err != nil {
						return nil, fmt.Errorf("lane %d shows requests that were sent after lane %d had an answer to one that is not there", i, k)
					}
				}
			}
		}
	}
	for i, l := range h.lanes {
		if least := h.least(l, p); cut[i] < least {
			return nil, fmt.Errorf("lane %d shows %d of %d requests, and must show %d: request %+v is lost; %s", i, cut[i], len(l.ops), least, l.ops[cut[i]], h.tell(states, cut, p))
		}
	}
	return cut, nil
}

// tell says where all lanes are.
func (h *history) tell(states [][]bool, cut []int, p span) string {
	var b strings.Builder
	fmt.Fprintf(&b, "it is %d, it was kept at %d; flushes of %v", h.clock, h.kept, h.flushes[max(0, len(h.flushes)-8):])
	for i, l := range h.lanes {
		last := len(l.ops)
		for last > 0 && !states[i][last] {
			last--
		}
		fmt.Fprintf(&b, "\n\tlane %d: %d of %d, looks like %d, least %d", i, cut[i], len(l.ops), last, h.least(l, p))
		if last < len(l.ops) {
			fmt.Fprintf(&b, "; without %+v", l.ops[last])
		}
	}
	return b.String()
}

// least is how many requests of a lane must be there.
func (h *history) least(l *lane, p span) int {
	n := l.settled(p.after)
	if !p.flushed {
		return n
	}
	for _, sent := range h.flushes {
		n = max(n, l.settled(sent))
	}
	for i, o := range l.ops {
		if o.fua && o.acked > 0 {
			n = max(n, i+1)
		}
	}
	return n
}

// lower moves n down to the next state that may be.
func lower(states []bool, n *int) error {
	for ; *n >= 0; *n-- {
		if states[*n] {
			return nil
		}
	}
	return fmt.Errorf("none")
}

// states tells after how many of its requests a lane's sectors look like disk.
func (h *history) states(l *lane, disk []uint64) []bool {
	out := make([]bool, len(l.ops)+1)
	h.replay(l, disk, func(k, wrong int) { out[k] = wrong == 0 })
	return out
}

// replay tells how many sectors of a lane differ from disk after each of its
// requests. Where writes have no order that is promised, one that is under way
// may be there in part.
func (h *history) replay(l *lane, disk []uint64, see func(k, wrong int)) {
	now := slices.Clone(h.base)
	other := func(s int64) int {
		if now[s] == disk[s] || now[s] == valueGarbage {
			return 0
		}
		return 1
	}
	wrong := 0
	for s := range int64(sectors) {
		if owner(s) == l.number {
			wrong += other(s)
		}
	}
	torn := func(k int) (wrong int) {
		if h.exact || k == len(l.ops) {
			return 0
		}
		o := l.ops[k]
		for s := o.at; s < o.at+o.n; s++ {
			if other(s) > 0 && (disk[s] == o.value || o.kind == opTrim) {
				wrong++
			}
		}
		return wrong
	}
	see(0, wrong-torn(0))
	for i, o := range l.ops {
		for s := o.at; s < o.at+o.n; s++ {
			wrong -= other(s)
			now[s] = h.result(o)
			wrong += other(s)
		}
		see(i+1, wrong-torn(i+1))
	}
}

// differs tells what is wrong with a lane in the state that fits best.
func (h *history) differs(l *lane, disk []uint64) string {
	best, fewest := 0, sectors
	h.replay(l, disk, func(k, wrong int) {
		if wrong <= fewest {
			best, fewest = k, wrong
		}
	})
	now := slices.Clone(h.base)
	for _, o := range l.ops[:best] {
		for s := o.at; s < o.at+o.n; s++ {
			now[s] = h.result(o)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d sectors differ after %d of %d requests;", fewest, best, len(l.ops))
	shown := 0
	for s := int64(0); s < sectors && shown < 6; s++ {
		if owner(s) != l.number || now[s] == disk[s] || now[s] == valueGarbage {
			continue
		}
		shown++
		fmt.Fprintf(&b, "\n\tsector %d holds %s, not %s; it was given", s, name(disk[s]), name(now[s]))
		for i, o := range l.ops {
			if s >= o.at && s < o.at+o.n {
				fmt.Fprintf(&b, " #%d(%s kind %d, %d+%d, acked %v)", i, name(o.value), o.kind, o.at, o.n, o.acked > 0)
			}
		}
	}
	return b.String()
}

// each looks at every sector alone: it has what a flush covers, or anything
// that it was given since.
func (h *history) each(disk []uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	may := make([][]uint64, sectors)
	for _, l := range h.lanes {
		covered := 0
		for _, sent := range h.flushes {
			covered = max(covered, l.settled(sent))
		}
		for i, o := range l.ops {
			sure := i < covered || o.fua && o.acked > 0
			for s := o.at; s < o.at+o.n; s++ {
				if may[s] == nil {
					may[s] = []uint64{h.base[s]}
				}
				switch {
				case o.kind == opTrim && !h.exact: // it may do nothing, too
					may[s] = append(may[s], valueZero)
				case sure:
					may[s] = append(may[s][:0], o.value)
				default:
					may[s] = append(may[s], o.value)
				}
			}
		}
	}
	var wrong []string
	count := 0
	for s, got := range disk {
		want := may[s]
		if want == nil {
			want = []uint64{h.base[s]}
		}
		if !slices.Contains(want, got) {
			if count++; len(wrong) < 6 {
				wrong = append(wrong, fmt.Sprintf("sector %d of lane %d holds %s; it may hold %d", s, owner(int64(s)), name(got), want))
			}
		}
	}
	if count > 0 {
		return fmt.Errorf("%d sectors are wrong:\n\t%s", count, strings.Join(wrong, "\n\t"))
	}
	return nil
}

// rebase takes disk for what is there, for good.
func (h *history) rebase(disk []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base, h.now = disk, slices.Clone(disk)
	h.flushes = nil
	for _, l := range h.lanes {
		l.ops = nil
	}
}

// keep takes disk for what is there for now: a machine that is lost later may
// go back behind it. What is not in cut never happened.
func (h *history) keep(disk []uint64, cut []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = slices.Clone(disk)
	h.kept = h.clock
	for i, l := range h.lanes {
		l.ops = l.ops[:cut[i]]
		h.clock++
		for k := range l.ops { // whatever is seen is there before what comes now
			if l.ops[k].acked == 0 {
				l.ops[k].acked, l.ops[k].fua = h.clock, false
			}
		}
	}
}
