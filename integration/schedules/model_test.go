package schedules

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-478a8fee/platter/backends/objectlog"
)

// The disk is small, so that writes meet.
const (
	blockSize = 4096
	blocks    = 8
)

// An image says what each block holds: the number of the write that it is
// from, 0 for zeros, and numbers below firstWrite for the base image.
type image [blocks]uint64

const firstWrite = 100

func base() (d image) {
	for i := range d {
		d[i] = uint64(i + 1)
	}
	return d
}

func (d image) apply(w *write) image {
	for i := range w.n {
		d[w.at+i] = w.stamp
	}
	return d
}

// fill makes the bytes of a block.
func fill(p []byte, stamp uint64) {
	for i := 0; i < len(p); i += 512 {
		binary.LittleEndian.PutUint64(p[i:], stamp)
	}
}

// parse is the other way round. A block that is torn is an error.
func parse(p []byte) (d image, err error) {
	for i := range d {
		b := p[i*blockSize : (i+1)*blockSize]
		d[i] = binary.LittleEndian.Uint64(b)
		for k := 512; k < blockSize; k += 512 {
			if got := binary.LittleEndian.Uint64(b[k:]); got != d[i] {
				return d, fmt.Errorf("block %d is torn: %d and %d", i, d[i], got)
			}
		}
	}
	return d, nil
}

// A write is one that a client asked for.
type write struct {
	stamp uint64 // 0: zeros
	at, n int    // blocks
}

// An op is a request of a client.
type op struct {
	s     *session
	cover int   // of a flush: how many writes of the story must be there
	gate  int64 // the newest epoch when the gateway looked for the last time whether it may acknowledge
}

// A session is the use of the disk that a client makes, from open to close.
type session struct {
	l     *life
	epoch int64
	view  image // what it must read
	done  int   // how many writes of the story have returned
	kept  int   // how much of what it wrote to the story is still there
	loss  bool  // somebody accepted that the rest is not
	bad   bool  // something failed
	snaps []string
}

// A model is what clients know about the one overlay.
//
// The story is the order of writes that the disk shows: those of the last one
// who opened it, after those that it found. What a disk shows when it is opened
// must be a beginning of the story that has all that was promised; the rest is
// over and must never be seen again. A promise is a flush that was
// acknowledged, when its gateway looked for the last time whether it may before
// another epoch was taken. Promises of durability "gateway" end where somebody
// accepts a loss. What the store must have (flushes of durability "store", and
// snapshots) does not.
type model struct {
	durability objectlog.Durability
	story      []*write
	need       int // how much of it was promised
	stored     int // how much of it the store must have
	epoch      int64
	since      int64 // the epoch since which nobody else than its holder has had it
	holder     string
	owner      *session // who opened it last
	past       []*session
	loss       bool // somebody accepted a loss, and nobody has seen the disk since
	next       uint64
	snaps      map[string]*snap
}

// A snap is a snapshot.
type snap struct {
	disk    image
	deleted bool // perhaps
}

// take notes a new epoch. With mu held, as all of these.
func (m *model) take(w *world, l *life, gateway string, epoch int64, accept bool) {
	w.note("%s: epoch %d, of %q, loss accepted: %t", l, epoch, gateway, accept)
	if epoch < m.epoch {
		w.fail("epoch %d after %d", epoch, m.epoch)
	}
	if gateway != "" && gateway != m.holder {
		m.since = epoch // journals of epochs before it are over
	}
	m.epoch, m.holder = epoch, gateway
	w.count("epochs")
	if s := m.owner; s != nil && gateway != "" && gateway != s.l.gw.name && !s.l.dead && s.l.gw.c.s == s {
		w.count("epochs taken from a client that has the disk open")
	}
	if gateway == l.gw.name {
		l.epoch = epoch
	}
	if accept {
		m.loss = true
	}
}

// opened begins a session with what the disk shows. Who took too long, so that
// another epoch was taken before he saw the disk, may use what he sees, and
// must not be told that anything lasts.
func (m *model) opened(w *world, l *life, got image) *session {
	if l.epoch != m.epoch {
		w.note("%s opened, too late: %v", l, got)
		w.count("disks opened too late")
		return &session{l: l, epoch: l.epoch, view: got}
	}
	least := m.need
	if m.loss {
		least = m.stored
	}
	p, ok := m.match(got)
	switch {
	case !ok:
		w.fail("%s opens a disk that never was: %v is no beginning of %s", l, got, m.text())
	case p < least:
		w.fail("%s opens a disk without acknowledged writes: %v has %d writes of %s, and %d were promised (%d stored, loss accepted: %t)",
			l, got, p, m.text(), least, m.stored, m.loss)
	}
	for _, old := range l.gw.journals() {
		hex, ok := strings.CutPrefix(old, "journal-")
		if epoch, err := strconv.ParseInt(hex, 16, 64); ok && err == nil && epoch < m.since {
			w.fail("%s opens the disk in epoch %d with a journal of epoch %d, when another gateway has owned it before epoch %d", l, l.epoch, epoch, m.since)
		}
	}
	if p < m.need {
		w.count("losses that were accepted")
	}
	if p < len(m.story) {
		w.count("disks opened without writes that nobody had promised")
	}
	if m.owner != nil && m.owner.l != l && m.owner.l.gw == l.gw && p > 0 {
		w.count("disks opened by a gateway's next life")
	}
	m.story = slices.Clone(m.story[:p])
	m.need = min(m.need, p)
	s := &session{l: l, epoch: l.epoch, view: got, done: p}
	for _, old := range append(m.past, m.owner) {
		if old != nil {
			old.kept, old.loss = min(old.kept, p), old.loss || m.loss
		}
	}
	if m.owner != nil {
		m.past = append(m.past, m.owner)
	}
	m.owner, m.loss = s, false
	w.count("sessions")
	s.kept = 1 << 30
	w.note("%s opened, %d writes: %v", l, p, got)
	return s
}

// match returns the longest beginning of the story that makes the disk d.
func (m *model) match(d image) (n int, ok bool) {
	now := base()
	for i := 0; ; i++ {
		if now == d {
			n, ok = i, true
		}
		if i == len(m.story) {
			return n, ok
		}
		now = now.apply(m.story[i])
	}
}

func (m *model) text() string {
	var b strings.Builder
	for i, w := range m.story {
		fmt.Fprintf(&b, " %d:%d@%d+%d", i+1, w.stamp, w.at, w.n)
	}
	return "[" + strings.TrimSpace(b.String()) + "]"
}

// write notes that a client is about to write.
func (m *model) write(s *session, at, n int, zero bool) *write {
	m.next++
	w := &write{stamp: firstWrite + m.next, at: at, n: n}
	if zero {
		w.stamp = 0
	}
	if m.owner == s {
		m.story = append(m.story, w)
	}
	return w
}

// wrote notes that a write returned.
func (m *model) wrote(w *world, o *op, wr *write) {
	s := o.s
	m.legal(w, o, "write")
	s.view = s.view.apply(wr)
	if m.owner == s {
		s.done = len(m.story)
	} else {
		s.done++
	}
}

// legal fails if a gateway acknowledged something although, when it looked for
// the last time, somebody else had taken the overlay.
func (m *model) legal(w *world, o *op, what string) {
	w.count("acknowledgements")
	if o.gate != o.s.epoch {
		w.fail("%s acknowledged a %s in epoch %d when epoch %d was taken", o.s.l, what, o.s.epoch, o.gate)
	}
}

// flushed notes that a flush returned; sure says that the store has it all.
func (m *model) flushed(w *world, o *op, sure bool) {
	m.promise(w, o.s, o.cover, sure || m.durability == objectlog.Store)
}

func (m *model) promise(w *world, s *session, cover int, sure bool) {
	if cover > s.kept {
		if s.loss && !sure {
			return // they knew
		}
		w.fail("%s acknowledged the first %d writes of epoch %d, and the disk was opened with %d of them", s.l, cover, s.epoch, s.kept)
		return
	}
	m.need = max(m.need, cover)
	if sure {
		m.stored = max(m.stored, cover)
	}
}
