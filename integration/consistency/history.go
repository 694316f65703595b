package consistency

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
)

// Sector is how many bytes are written at once, and never torn but for who
// reads them in that moment.
const Sector = 512

// Values that no write has.
const (
	Zero = 0              // of zeroes and trims
	Base = 1              // what was there at first
	Torn = math.MaxUint64 // a sector of two writes
)

// A change is what one request does to one sector.
type change struct {
	value    uint64
	maybe    bool  // it may do nothing: a trim
	begun    int64 // when the request was sent
	answered int64 // when its answer came, or somebody saw it; Never before
	durable  bool  // a flush covers it
}

// Never is later than every time.
const Never = math.MaxInt64

// A History is what was asked of a disk, sector by sector. Its times are
// those of a clock of its own. Any number of goroutines may use it at once.
type History struct {
	mu      sync.Mutex
	clock   int64
	last    uint64     // the newest value
	changes [][]change // by sector; the first is what was there before
}

// NewHistory returns the history of a disk that holds Base in all its sectors.
func NewHistory(sectors int) *History {
	h := &History{last: Base, changes: make([][]change, sectors)}
	for s := range h.changes {
		h.changes[s] = []change{{value: Base, durable: true}}
	}
	return h
}

// A Write is a request that changes sectors, from when it is sent on.
type Write struct {
	h        *History
	from, to int
	Value    uint64
	begun    int64
}

// Begin notes a write that is about to be sent, of a new value or, if zero, of
// zeros. One that may do nothing says so.
func (h *History) Begin(from, to int, zero, maybe bool) *Write {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	w := &Write{h: h, from: from, to: to, begun: h.clock}
	if !zero {
		h.last++
		w.Value = h.last
	}
	for s := from; s < to; s++ {
		h.changes[s] = append(h.changes[s], change{value: w.Value, maybe: maybe, begun: h.clock, answered: Never})
	}
	return w
}

// Answered notes that the write was acknowledged, and whether it is as good
// as flushed.
func (w *Write) Answered(durable bool) {
	h := w.h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	for s := w.from; s < w.to; s++ {
		for i := range h.changes[s] {
			if c := &h.changes[s][i]; c.begun == w.begun {
				c.answered = min(c.answered, h.clock)
				c.durable = c.durable || durable
			}
		}
	}
}

// Flush notes a flush that is about to be sent, on any connection, and
// returns what to call once it is acknowledged.
func (h *History) Flush() (acknowledged func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	sent := h.clock
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for s := range h.changes {
			for i := range h.changes[s] {
				if c := &h.changes[s][i]; c.answered < sent {
					c.durable = true
				}
			}
		}
	}
}

// Now is the time before something that is about to be read.
func (h *History) Now() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// Read checks values that a read, sent after the time begun, has found in the
// sectors from on.
func (h *History) Read(begun int64, from int, values []uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	for i, v := range values {
		if err := h.read(begun, from+i, v); err != nil {
			return err
		}
	}
	return nil
}

// read checks one sector. What was seen once cannot be unseen: who has read a
// write has its answer, in a way.
func (h *History) read(begun int64, s int, v uint64) error {
	list := h.changes[s]
	// A file system lets a read and a write of the same page run side by side,
	// and so a disk in a file, ours or another's, may show half of each.
	if v == Torn && slices.ContainsFunc(list, func(c change) bool { return c.answered > begun }) {
		return nil
	}
	match, found := -1, 0
	for i, c := range list {
		if c.value == v && !replaced(list, c, func(by change) bool { return by.answered < begun }) {
			match, found = i, found+1
		}
	}
	if found == 0 {
		return fmt.Errorf("sector %d, read after %d, shows %s: %s", s, begun, name(v), tell(list))
	}
	if found == 1 {
		list[match].answered = min(list[match].answered, h.clock)
	}
	return nil
}

// Crashed checks what the disk holds after a crash, and begins anew with it.
// Every write that a flush covers is there, unless another came later; of the
// others each may be there or not.
func (h *History) Crashed(values []uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var wrong error
	for s, v := range values {
		list := h.changes[s]
		ok := slices.ContainsFunc(list, func(c change) bool {
			return c.value == v && !replaced(list, c, func(by change) bool { return by.durable })
		})
		if !ok && wrong == nil {
			wrong = fmt.Errorf("sector %d shows %s after the crash: %s", s, name(v), tell(list))
		}
		h.changes[s] = append(h.changes[s][:0], change{value: v, begun: h.clock, answered: h.clock, durable: true})
	}
	return wrong
}

// replaced tells whether a change that happened for sure, as counts says,
// came after c was over.
func replaced(list []change, c change, counts func(change) bool) bool {
	return slices.ContainsFunc(list, func(by change) bool {
		return !by.maybe && by.begun > c.answered && counts(by)
	})
}

func name(v uint64) string {
	switch v {
	case Zero:
		return "zeros"
	case Base:
		return "the base"
	case Torn:
		return "a torn sector"
	}
	return fmt.Sprintf("write %d", v)
}

// tell lists the last changes of a sector.
func tell(list []change) string {
	var b strings.Builder
	for _, c := range list[max(0, len(list)-12):] {
		fmt.Fprintf(&b, " [%s sent %d", name(c.value), c.begun)
		if c.answered != Never {
			fmt.Fprintf(&b, " answered %d", c.answered)
		}
		for word, is := range map[string]bool{" maybe": c.maybe, " durable": c.durable} {
			if is {
				b.WriteString(word)
			}
		}
		b.WriteString("]")
	}
	return b.String()
}

// Stamp fills p, whole sectors, with a value.
func Stamp(p []byte, v uint64) {
	if v == Zero {
		clear(p)
		return
	}
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], v)
	}
}

// Values returns what the sectors of p hold.
func Values(p []byte) []uint64 {
	out := make([]uint64, len(p)/Sector)
	for s := range out {
		out[s] = binary.LittleEndian.Uint64(p[s*Sector:])
		for i := 8; i < Sector; i += 8 {
			if binary.LittleEndian.Uint64(p[s*Sector+i:]) != out[s] {
				out[s] = Torn
			}
		}
	}
	return out
}
