//go:build integration

package crashes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"

	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

const (
	sector    = 512               // bytes
	diskSize  = 24 << 20          // bytes of every disk here
	sectors   = diskSize / sector //
	block     = 64 << 10 / sector // sectors: what most lanes write within
	wide      = 1 << 20 / sector  // sectors on each side of an object's boundary that the last lane has
	boundary1 = 4 << 20 / sector  // of segments
	boundary2 = 8 << 20 / sector  // of an RBD image's objects
	lanes     = 6                 // writers at a time
	baseStamp = 2                 // of what the image beneath holds
)

// A value says what a sector holds: the number of the write whose stamp is all
// over it, or one of these.
const (
	valueGarbage = 0 // nothing that anybody wrote
	valueZero    = 1
)

// stamp fills p, whole sectors from the one called first, with write v.
func stamp(p []byte, v uint64, first int64) {
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], v)
		binary.LittleEndian.PutUint64(p[i+8:], uint64(first)<<16+uint64(i))
	}
}

// decode tells what sector number s holds.
func decode(p []byte, s int64) uint64 {
	v := binary.LittleEndian.Uint64(p)
	if v == 0 {
		for _, b := range p {
			if b != 0 {
				return valueGarbage
			}
		}
		return valueZero
	}
	first := binary.LittleEndian.Uint64(p[8:])
	for i := 0; i < len(p); i += 16 {
		if binary.LittleEndian.Uint64(p[i:]) != v || binary.LittleEndian.Uint64(p[i+8:]) != first+uint64(i) {
			return valueGarbage
		}
	}
	// It counts from the first sector of its write, wherever that is.
	if at := first >> 16; at > uint64(s) || (uint64(s)-at)*sector != first&0xffff {
		// Writes are shorter than 64 KiB in their stamp's counter.
		return valueGarbage
	}
	return v
}

type opKind byte

const (
	opWrite opKind = iota
	opZero
	opTrim
)

// An op is a request that changes the disk. Times are numbers of events.
type op struct {
	kind  opKind
	at, n int64 // sectors
	value uint64
	fua   bool
	sent  int64
	acked int64 // 0: never
}

// A lane is a writer with sectors of its own and one request at a time, so
// that all its requests are in order.
type lane struct {
	number int
	ops    []op
}

// settled is how many of a lane's requests were acknowledged before time t.
func (l *lane) settled(t int64) int {
	return sort.Search(len(l.ops), func(i int) bool { return l.ops[i].acked == 0 || l.ops[i].acked >= t })
}

// A history is what was asked of a disk since it was known to hold base.
type history struct {
	// exact says that a trimmed range reads as zeros; else as it likes.
	exact bool

	mu      sync.Mutex
	base    []uint64 // value of each sector
	now     []uint64 // what it reads as while nothing crashes; valueGarbage if that is open
	lanes   []*lane
	flushes []int64 // when those were sent that were acknowledged
	quiet   bool    // nobody flushes
	clock   int64
	kept    int64  // when the last crash was looked at that lost nothing
	number  uint64 // of the next write
	failed  error  // of a request that the gateway answered with an error
	writes  int
	flushed int
}

func newHistory(base []uint64, exact bool) *history {
	h := &history{exact: exact, base: base, now: append([]uint64(nil), base...), number: baseStamp + 1}
	for i := range lanes {
		h.lanes = append(h.lanes, &lane{number: i})
	}
	return h
}

// next returns the history of a disk that holds disk now, and on which no number
// of a write is used again.
func (h *history) next(disk []uint64) *history {
	n := newHistory(disk, h.exact)
	n.number, n.writes, n.flushed = h.number, h.writes, h.flushed
	return n
}

// clone returns a history that goes on by itself. Nothing may be under way.
func (h *history) clone() *history {
	n := h.next(h.base)
	n.now, n.flushes = slices.Clone(h.now), slices.Clone(h.flushes)
	n.clock, n.kept = h.clock, h.kept
	for i, l := range h.lanes {
		n.lanes[i].ops = slices.Clone(l.ops)
	}
	return n
}

// calm has all lanes write without flushes, or no longer so. Nothing may be
// under way.
func (h *history) calm(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.quiet = on
}

func (h *history) isCalm() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quiet
}

// owner is the lane that a sector belongs to.
func owner(s int64) int {
	for _, b := range []int64{boundary1, boundary2} {
		if s >= b-wide && s < b+wide {
			return lanes - 1
		}
	}
	return int(s / block % (lanes - 1))
}

// pick chooses a range of a lane.
func pick(rng *rand.Rand, number int) (at, n int64) {
	if number == lanes-1 {
		from := []int64{boundary1, boundary2}[rng.IntN(2)] - wide
		n = 1 + rng.Int64N(127)
		if rng.IntN(3) == 0 { // across the boundary
			return from + wide - rng.Int64N(n+1), n
		}
		return from + rng.Int64N(2*wide-n+1), n
	}
	for {
		b := rng.Int64N(sectors/block/(lanes-1))*(lanes-1) + int64(number)
		if owner(b*block) != number || owner(b*block+block-1) != number {
			continue
		}
		if rng.IntN(3) > 0 { // as a file system does
			n = 8 << rng.IntN(3)
			return b*block + rng.Int64N(block/n)*n, n
		}
		n = 1 + rng.Int64N(64)
		return b*block + rng.Int64N(block-n+1), n
	}
}

// begin notes a request before it is sent.
func (h *history) begin(l *lane, o op) *op {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.kind == opWrite {
		o.value = h.number
		h.number++
		h.writes++
	} else {
		o.value = valueZero
	}
	h.clock++
	o.sent = h.clock
	l.ops = append(l.ops, o)
	return &l.ops[len(l.ops)-1]
}

// acknowledged notes the answer to a lane's last request.
func (h *history) acknowledged(l *lane) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	o := &l.ops[len(l.ops)-1]
	o.acked = h.clock
	for s := o.at; s < o.at+o.n; s++ {
		h.now[s] = h.result(*o)
	}
}

// result is what a request leaves in its sectors; valueGarbage if that is
// anybody's guess.
func (h *history) result(o op) uint64 {
	if o.kind == opTrim && !h.exact {
		return valueGarbage
	}
	return o.value
}

// tick returns the time.
func (h *history) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// flush flushes and notes it if it was acknowledged.
func (h *history) flush(c *nbdtest.Client) error {
	sent := h.tick()
	if err := c.Flush(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flushes = append(h.flushes, sent)
	h.flushed++
	return nil
}

// work writes as one lane until the connection breaks or stop is closed.
func (h *history) work(c *nbdtest.Client, l *lane, rng *rand.Rand, stop <-chan struct{}) {
	var buf [block * sector]byte
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := h.step(c, l, rng, buf[:]); err != nil {
			h.fail(err)
			return
		}
	}
}

// fail notes an error that is an answer. A broken connection is none.
func (h *history) fail(err error) {
	var answer *nbdtest.Error
	if errors.As(err, &answer) || errors.Is(err, errWrong) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.failed = errors.Join(h.failed, err)
	}
}

var errWrong = errors.New("wrong bytes")

func (h *history) step(c *nbdtest.Client, l *lane, rng *rand.Rand, buf []byte) error {
	o := op{}
	o.at, o.n = pick(rng, l.number)
	flags := uint16(0)
	if o.fua = rng.IntN(24) == 0 && !h.isCalm(); o.fua {
		flags = nbdtest.FUA
	}
	off, size := uint64(o.at)*sector, uint64(o.n)*sector
	var err error
	switch k := rng.IntN(32); {
	case k < 2:
		return h.read(c, o.at, o.n)
	case k < 4:
		o.kind = opZero
		h.begin(l, o)
		err = c.Zero(off, size, flags|uint16(rng.IntN(2))*nbdtest.NoHole)
	case k < 6:
		o.kind = opTrim
		if h.exact { // of each end less than 4 KiB stays
			to := (o.at + o.n) &^ 7
			o.at = (o.at + 7) &^ 7
			o.n = max(to-o.at, 0)
		}
		h.begin(l, o)
		err = c.Trim(off, size, flags)
	default:
		noted := h.begin(l, o)
		stamp(buf[:size], noted.value, o.at)
		err = c.WriteAt(buf[:size], off, flags)
	}
	if err != nil {
		return fmt.Errorf("lane %d: %w", l.number, err)
	}
	h.acknowledged(l)
	if rng.IntN(24) == 0 && !h.isCalm() {
		return h.flush(c)
	}
	return nil
}

// read compares sectors of one lane, in which nothing is under way.
func (h *history) read(c *nbdtest.Client, at, n int64) error {
	h.mu.Lock()
	want := append([]uint64(nil), h.now[at:at+n]...)
	h.mu.Unlock()
	data, err := c.Read(uint64(at)*sector, int(n)*sector, 0)
	if err != nil {
		return err
	}
	for i, v := range want {
		s := at + int64(i)
		if got := decode(data[i*sector:][:sector], s); got != v && v != valueGarbage {
			return fmt.Errorf("sector %d reads as %s and not as %s, before any crash: %w", s, name(got), name(v), errWrong)
		}
	}
	return nil
}

// readDisk reads a whole disk.
func readDisk(c *nbdtest.Client) ([]uint64, error) {
	disk := make([]uint64, sectors)
	const piece = 1 << 20
	for off := int64(0); off < diskSize; off += piece {
		data, err := c.Read(uint64(off), piece, 0)
		if err != nil {
			return nil, fmt.Errorf("read at %d: %w", off, err)
		}
		for i := int64(0); i < piece/sector; i++ {
			disk[off/sector+i] = decode(data[i*sector:][:sector], off/sector+i)
		}
	}
	return disk, nil
}

// name says what a value means.
func name(v uint64) string {
	switch v {
	case valueGarbage:
		return "bytes that nobody wrote"
	case valueZero:
		return "zeros"
	case baseStamp:
		return "the image"
	}
	return fmt.Sprintf("write %d", v)
}
