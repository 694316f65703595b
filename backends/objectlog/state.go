package objectlog

import (
	"crypto/sha256"
	"time"
)

const (
	stateMagic   = "PLTRHED1"
	maxTail      = 1024 // segments that the head lists
	maxSnapshots = 256
	maxName      = 255 // bytes of a snapshot's name
	maxPast      = 16  // journals that the head remembers
)

// A state is what is in Head.State.
type state struct {
	size    int64
	journal int64 // epoch of the journal that continues the head
	upto    int64 // position in it up to which the segments have all
	maps    int64 // number of the next checkpoint
	window  int64 // how many segments beyond the last may have been begun
	next    int64 // id of the next snapshot

	last  ref    // the last segment; seq 0 if there is none
	base  mapRef // the checkpoint that tail stands on; number 0 if there is none
	tail  []ref  // the segments after it, in order
	snaps []snapshot
	past  []past // journals before this one, oldest first
}

// A mapRef says which checkpoint is meant and how to check that it is the one.
type mapRef struct {
	number, epoch int64
	seq           int64 // the last segment in it
	length        int64 // bytes
	digest        digest
}

func (r mapRef) key(prefix string) string { return mapKey(prefix, r.epoch, r.number) }

// A snapshot is a checkpoint with a name.
type snapshot struct {
	id      int64
	created int64 // Unix nanoseconds
	size    int64
	m       mapRef
	name    string
}

// past is a journal that some epoch did not continue: what ends at upto or
// before is in the store.
type past struct{ journal, upto int64 }

func (r mapRef) append(p []byte) []byte {
	for _, v := range []int64{r.number, r.epoch, r.seq, r.length} {
		p = le.AppendUint64(p, uint64(v))
	}
	return append(p, r.digest[:]...)
}

func (c *cursor) mapRef() mapRef {
	return mapRef{number: c.i64(), epoch: c.i64(), seq: c.i64(), length: c.i64(), digest: c.digest()}
}

func (s *state) encode() []byte {
	p := append(make([]byte, 0, 512+len(s.tail)*refLen), stateMagic...)
	for _, v := range []int64{s.size, s.journal, s.upto, s.maps, s.window, s.next} {
		p = le.AppendUint64(p, uint64(v))
	}
	p = s.base.append(p)
	p = append(p, b2u(s.last.seq > 0))
	if s.last.seq > 0 {
		p = s.last.append(p)
	}
	p = le.AppendUint16(p, uint16(len(s.tail)))
	for _, r := range s.tail {
		p = r.append(p)
	}
	p = le.AppendUint16(p, uint16(len(s.snaps)))
	for _, n := range s.snaps {
		for _, v := range []int64{n.id, n.created, n.size} {
			p = le.AppendUint64(p, uint64(v))
		}
		p = n.m.append(p)
		p = append(p, byte(len(n.name)))
		p = append(p, n.name...)
	}
	p = append(p, byte(len(s.past)))
	for _, j := range s.past {
		p = le.AppendUint64(p, uint64(j.journal))
		p = le.AppendUint64(p, uint64(j.upto))
	}
	sum := sha256.Sum256(p)
	return append(p, sum[:]...)
}

func b2u(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func decodeState(p []byte) (*state, error) {
	if len(p) > maxState || len(p) < sha256.Size {
		return nil, corrupt("head of %d bytes", len(p))
	}
	body := p[:len(p)-sha256.Size]
	if digest(sha256.Sum256(body)) != digest(p[len(body):]) {
		return nil, corrupt("head: its checksum is wrong")
	}
	c := &cursor{p: body}
	if string(c.bytes(len(stateMagic))) != stateMagic {
		return nil, corrupt("head of an unknown version")
	}
	s := &state{size: c.i64(), journal: c.i64(), upto: c.i64(), maps: c.i64(), window: c.i64(), next: c.i64()}
	s.base = c.mapRef()
	if c.u8() == 1 {
		s.last = c.ref()
	}
	for n := c.u16(); n > 0 && !c.bad; n-- {
		s.tail = append(s.tail, c.ref())
	}
	for n := c.u16(); n > 0 && !c.bad; n-- {
		snap := snapshot{id: c.i64(), created: c.i64(), size: c.i64(), m: c.mapRef()}
		snap.name = string(c.bytes(int(c.u8())))
		s.snaps = append(s.snaps, snap)
	}
	for n := c.u8(); n > 0 && !c.bad; n-- {
		s.past = append(s.past, past{c.i64(), c.i64()})
	}
	if c.bad || len(c.p) > 0 {
		return nil, corrupt("head: its lengths are wrong")
	}
	return s, s.check()
}

// check is an error if the parts of s do not go together.
func (s *state) check() error {
	if s.window < 0 || s.window > 1024 || len(s.tail) > maxTail || s.base.seq > s.last.seq || s.base.number == 0 && s.base.seq != 0 {
		return corrupt("head: the checkpoint is not before the last segment")
	}
	seq := s.base.seq
	for _, r := range s.tail {
		if r.seq != seq+1 {
			return corrupt("head: segment %d after %d", r.seq, seq)
		}
		seq = r.seq
	}
	if seq != s.last.seq || len(s.tail) > 0 && s.tail[len(s.tail)-1] != s.last {
		return corrupt("head: it ends with segment %d, not %d", seq, s.last.seq)
	}
	for i, n := range s.snaps {
		if n.id >= s.next || n.m.number == 0 || n.m.seq > s.last.seq || i > 0 && n.id <= s.snaps[i-1].id {
			return corrupt("head: snapshot %d", n.id)
		}
	}
	return nil
}

// clone returns a copy that shares nothing that changes.
func (s *state) clone() *state {
	c := *s
	c.tail = append([]ref(nil), s.tail...)
	c.snaps = append([]snapshot(nil), s.snaps...)
	c.past = append([]past(nil), s.past...)
	return &c
}

func (n snapshot) public() Snapshot {
	return Snapshot{ID: snapshotID(n.id), Name: n.name, Created: time.Unix(0, n.created), Size: n.size}
}
