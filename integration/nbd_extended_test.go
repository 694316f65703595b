//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

// extendedChecks is about what extended headers add: lengths of 64 bits,
// payloads that are announced, and the status of chosen contexts.
func extendedChecks() []nbdCheck {
	filter := func(n uint64, ids ...uint32) []byte {
		b := pack(n)
		for _, id := range ids {
			b = pack(b, id)
		}
		return b
	}
	// both enters with the two contexts that every export has.
	both := func(t *testing.T, d *nbdDoor) (p *peer, base, depth uint32) {
		t.Helper()
		p = d.dial(t).greet(3)
		p.lengthen()
		ids := p.setMeta(d.export, "base:allocation", "qemu:allocation-depth")
		if len(ids) != 2 || ids["base:allocation"] == ids["qemu:allocation-depth"] {
			t.Fatalf("contexts %v", ids)
		}
		p.enter(d.export)
		return p, ids["base:allocation"], ids["qemu:allocation-depth"]
	}
	return []nbdCheck{
		{"extended: transmission flags", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			if must := uint16(tHas | tDF | tPayload); p.flags&must != must {
				t.Errorf("flags %#b", p.flags)
			}
		}},
		{"extended: a payload where none belongs", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			trap := bytes.Repeat(p.head(0, cFlush, 77, 0, 0), 2000)
			for _, cmd := range []uint16{cRead, cFlush, cTrim, cCache, cZero, 99} {
				for _, n := range []int{1, 32, len(trap)} {
					p.begin(ask{cmd: cmd, flags: fPayload, n: uint64(n), payload: trap[:n]})
					for _, a := range p.collect(1) {
						if a.errno != eINVAL && a.errno != ePERM {
							t.Errorf("command %d with %d bytes of payload: errno %d", cmd, n, a.errno)
						}
					}
					p.alive()
				}
			}
		}},
		{"extended: a payload that is too long", "", func(t *testing.T, d *nbdDoor) {
			for _, n := range []uint64{most + 1, 1 << 32, 1 << 40, 1 << 63, math.MaxUint64} {
				for _, cmd := range []uint16{cWrite, cRead, cStatus, 99} {
					p := d.open(t)
					p.send(p.head(fPayload, cmd, 1, 0, n), make([]byte, 100))
					p.closed()
				}
			}
		}},
		{"extended: WRITE without PAYLOAD_LEN, as QEMU sends it", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, n := range []int{4096, 200_000} {
				p.sent[5] = ask{cmd: cWrite, off: scratch, n: uint64(n)}
				p.send(nbdLongRequest, uint16(0), uint16(cWrite), uint64(5), uint64(scratch), uint64(n), noise(n, 4))
				if a := p.collect(1)[5]; (a.errno == 0) != d.writable || a.errno != 0 && a.errno != ePERM {
					t.Errorf("errno %d", a.errno)
				}
				if got := p.read(scratch, n); d.writable && !bytes.Equal(got, noise(n, 4)) {
					t.Error("other bytes than were written")
				}
			}
		}},
		{"extended: lengths to 2^64", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, n := range []uint64{d.size + 1, 1 << 32, 1<<32 + 512, 1 << 40, 1 << 63, math.MaxUint64 - 4095, math.MaxUint64} {
				for _, off := range []uint64{0, 512, d.size - 1, 1 << 63, math.MaxUint64} {
					for _, cmd := range []uint16{cRead, cCache, cStatus} {
						p.fails(eINVAL, ask{cmd: cmd, off: off, n: n})
					}
					if d.writable {
						p.fails(eINVAL, ask{cmd: cTrim, off: off, n: n})
						p.fails(eNOSPC, ask{cmd: cZero, off: off, n: n})
						p.fails(eNOSPC, ask{cmd: cZero, flags: fFast, off: off, n: n})
					}
				}
			}
			d.same(t, 0, p.read(0, 65536))
		}},
		{"extended: the whole disk in one status", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			sum := uint64(0)
			for _, e := range p.status(0, 0, d.size) {
				sum += e.n
			}
			if sum != d.size {
				t.Errorf("%d of %d bytes are told", sum, d.size)
			}
		}},
		{"extended: status of chosen contexts", "", func(t *testing.T, d *nbdDoor) {
			p, base, depth := both(t, d)
			for _, ids := range [][]uint32{{base}, {depth}, {depth, base}} {
				b := filter(1<<20, ids...)
				p.send(p.head(fPayload, cStatus, 9, 0, uint64(len(b))), b)
				left := map[uint32]bool{}
				for _, id := range ids {
					left[id] = true
				}
				for done := false; !done; {
					id, last := p.longStatus(9)
					if id != 0 && !left[id] {
						t.Fatalf("context %d, and %v were asked for", id, ids)
					}
					delete(left, id)
					done = last
				}
				if len(left) > 0 {
					t.Errorf("of %v these are missing: %v", ids, left)
				}
				p.alive()
			}
		}},
		{"extended: status whose payload lies", "", func(t *testing.T, d *nbdDoor) {
			p, base, depth := both(t, d)
			for name, b := range map[string][]byte{
				"nothing": {}, "half a length": {0, 0, 0, 0}, "no context": filter(4096), "half a context": append(filter(4096, base), 0, 0), "a context twice": filter(4096, base, base),
				"a context that is none": filter(4096, base, 77), "all of 2^64": filter(math.MaxUint64, base), "past the end": filter(d.size+1, depth), "no bytes": filter(0, base),
				"4096 contexts": filter(4096, make([]uint32, 4096)...),
			} {
				a := p.do(ask{cmd: cStatus, flags: fPayload, n: uint64(len(b)), payload: b})
				if a.errno != eINVAL {
					t.Errorf("%s: errno %d", name, a.errno)
				}
				p.alive()
			}
		}},
	}
}

// longStatus reads one chunk of the answer to a request for the status of one
// or more contexts, and returns which it is about; 0: about none.
func (p *peer) longStatus(cookie uint64) (id uint32, last bool) {
	p.t.Helper()
	magic, flags, kind, c, off, n := p.u32(), p.u16(), p.u16(), p.u64(), p.u64(), p.u64()
	if magic != nbdLongChunk || c != cookie || off != 0 || n > 1<<20 || kind != 6 && (kind != 0 || n != 0) {
		p.t.Fatalf("chunk %#x of type %d, cookie %d, offset %d, %d bytes", magic, kind, c, off, n)
	}
	body := p.bytes(int(n))
	if kind == 0 {
		return 0, flags&1 != 0
	}
	if n < 24 || n%16 != 8 || uint64(binary.BigEndian.Uint32(body[4:])) != n/16 {
		p.t.Fatalf("a status of %d bytes: %x", n, body)
	}
	return binary.BigEndian.Uint32(body), flags&1 != 0
}
