//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// collect reads until n requests are answered.
func (p *peer) collect(n int) map[uint64]answer {
	p.t.Helper()
	all, open := map[uint64]answer{}, map[uint64]*answer{}
	for len(all) < n {
		cookie, a := p.next(open)
		if a.done {
			q := p.sent[cookie]
			if q.cmd == cRead && a.errno == 0 && a.covered != int(q.n) {
				p.t.Fatalf("a read of %d bytes is answered with %d", q.n, a.covered)
			}
			all[cookie] = *a
			delete(open, cookie)
			delete(p.sent, cookie)
		}
	}
	if len(open) > 0 {
		p.t.Fatalf("%d replies without an end", len(open))
	}
	return all
}

// next reads a simple reply or a chunk.
func (p *peer) next(open map[uint64]*answer) (uint64, *answer) {
	p.t.Helper()
	switch magic := p.u32(); {
	case magic == nbdLongChunk && p.long:
		return p.chunk(open)
	case magic == nbdSimple && !p.long:
		errno, cookie := p.u32(), p.u64()
		q, ok := p.sent[cookie]
		if !ok {
			p.t.Fatalf("a reply to cookie %#x, which nobody sent", cookie)
		}
		if p.structured && (q.cmd == cRead || q.cmd == cStatus && errno == 0) {
			p.t.Fatalf("a simple reply to command %d", q.cmd)
		}
		a := &answer{errno: errno, simple: true, done: true}
		if q.cmd == cRead && errno == 0 {
			a.data, a.covered = p.bytes(int(q.n)), int(q.n)
		}
		p.known(errno, true)
		return cookie, a
	case magic == nbdChunk && p.structured && !p.long:
		return p.chunk(open)
	default:
		p.t.Fatalf("a reply begins with %#x", magic)
	}
	return 0, nil
}

// chunk reads a chunk behind its magic.
func (p *peer) chunk(open map[uint64]*answer) (uint64, *answer) {
	p.t.Helper()
	flags, kind, cookie := p.u16(), p.u16(), p.u64()
	q, ok := p.sent[cookie]
	var n uint64
	if !p.long {
		n = uint64(p.u32())
	} else if off := p.u64(); off != q.off {
		p.t.Fatalf("a chunk says the request was at %d, and it was at %d", off, q.off)
	} else {
		n = p.u64()
	}
	if !ok || flags > 1 || n > most+8 {
		p.t.Fatalf("chunk of type %d, flags %#x, %d bytes, cookie %#x (ours: %v)", kind, flags, n, cookie, ok)
	}
	a := open[cookie]
	if a == nil {
		a = &answer{}
		open[cookie] = a
	}
	a.done = flags&1 != 0
	body := p.bytes(int(n))
	switch {
	case kind == 0 && n == 0 && a.done:
	case kind == 1 && n > 8 && q.cmd == cRead:
		p.place(q, a, binary.BigEndian.Uint64(body), body[8:])
	case kind == 2 && n == 12 && q.cmd == cRead && q.flags&fDF == 0:
		hole := run{Start: int64(binary.BigEndian.Uint64(body)), Length: int64(binary.BigEndian.Uint32(body[8:]))}
		a.holes = append(a.holes, hole)
		p.place(q, a, uint64(hole.Start), make([]byte, hole.Length))
	case (kind == 5 && !p.long && n%8 == 4 || kind == 6 && p.long && n%16 == 8) && q.cmd == cStatus && n >= 12:
		p.extents(q, a, body)
	case (kind == 1<<15+1 || kind == 1<<15+2) && n >= 6:
		a.errno = binary.BigEndian.Uint32(body)
		text := body[6:]
		if kind == 1<<15+2 {
			text = body[6 : n-8]
		}
		a.text = string(text)
		if int(binary.BigEndian.Uint16(body[4:])) != len(text) || len(text) > 4096 || !utf8.Valid(text) {
			p.t.Fatalf("an error with the text %q", text)
		}
		p.known(a.errno, false)
	default:
		p.t.Fatalf("chunk of type %d with %d bytes to command %d", kind, n, q.cmd)
	}
	return cookie, a
}

// extents takes the body of a chunk about the status of blocks.
func (p *peer) extents(q ask, a *answer, body []byte) {
	p.t.Helper()
	if a.extents != nil {
		p.t.Fatal("one context twice")
	}
	b := body[4:]
	if !p.long {
		for ; len(b) > 0; b = b[8:] {
			a.extents = append(a.extents, extent{uint64(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])})
		}
		p.sane(q, a.extents)
		return
	}
	count := binary.BigEndian.Uint32(b)
	for b = b[4:]; len(b) > 0; b = b[16:] {
		state := binary.BigEndian.Uint64(b[8:])
		if state > 3 {
			p.t.Fatalf("an extent with the flags %#x", state)
		}
		a.extents = append(a.extents, extent{binary.BigEndian.Uint64(b), uint32(state)})
	}
	if int(count) != len(a.extents) {
		p.t.Fatalf("%d extents are announced, and there are %d", count, len(a.extents))
	}
	p.sane(q, a.extents)
}

// place puts a piece of a read where it belongs.
func (p *peer) place(q ask, a *answer, off uint64, b []byte) {
	p.t.Helper()
	if a.data == nil {
		a.data = bytes.Repeat([]byte{0xee}, int(q.n))
	}
	end := q.off + q.n
	if len(b) == 0 || off < q.off || off+uint64(len(b)) > end {
		p.t.Fatalf("chunk of %d bytes at %d in a read of %d at %d", len(b), off, q.n, q.off)
	}
	if at := off + uint64(len(b)); at != end && at%512 != 0 {
		p.t.Fatalf("a chunk ends at %d, within a sector", at)
	}
	copy(a.data[off-q.off:], b)
	a.chunks++
	a.covered += len(b) // more than n if they overlap
}

// sane wants extents to be as the protocol has them.
func (p *peer) sane(q ask, list []extent) {
	p.t.Helper()
	sum, size := uint64(0), p.size
	for i, e := range list {
		if e.n == 0 || e.state > 3 || sum >= q.n || i > 0 && list[i-1].state == e.state {
			p.t.Fatalf("extent %d of %v", i, list)
		}
		sum += e.n
		if at := q.off + sum; at > size || at%512 != 0 && at != size && at != q.off+q.n {
			p.t.Fatalf("extent %d of %v ends at %d of %d", i, list, at, size)
		}
	}
	if q.flags&fReqOne != 0 && (len(list) != 1 || sum > q.n) || len(list) > 1<<20 {
		p.t.Fatalf("REQ_ONE of %d bytes got %v", q.n, list)
	}
}

func (p *peer) known(errno uint32, none bool) {
	p.t.Helper()
	switch errno {
	case ePERM, eIO, eNOMEM, eINVAL, eNOSPC, eOVERFLOW, eNOTSUP, eSHUTDOWN:
	case 0:
		if none {
			return
		}
		fallthrough
	default:
		p.t.Fatalf("errno %d is none of the protocol's", errno)
	}
}
