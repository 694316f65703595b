//go:build integration

package integration

import (
	"bytes"
	"math"
	"testing"
)

// same wants a range of the disk to be as in the image.
func (d *nbdDoor) same(t *testing.T, off uint64, got []byte) {
	t.Helper()
	if want := d.base[off : off+uint64(len(got))]; !bytes.Equal(got, want) {
		t.Errorf("%d bytes at %d are not the image's", len(got), off)
	}
}

// requestChecks is about the form of requests.
func requestChecks() []nbdCheck {
	// each refuses flags on every command.
	each := func(flags map[uint16][]uint16) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for cmd, list := range flags {
				if !d.writable && (cmd == cWrite || cmd == cTrim || cmd == cZero) {
					continue
				}
				for _, f := range list {
					if p.long && f&fPayload != 0 {
						continue // says that a payload follows
					}
					q := ask{cmd: cmd, flags: f, off: 4096, n: 512}
					if cmd == cWrite {
						q.off, q.payload = scratch, make([]byte, 512)
					}
					p.fails(eINVAL, q)
				}
			}
		}
	}
	unknown := []uint16{1 << 5, 1 << 6, 1 << 15, 0xffe0}
	return []nbdCheck{
		{"request magic wrong", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.send(nbdRequest+1, make([]byte, 28))
			p.closed()
		}},
		{"request magic of the other kind of headers", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			other := nbdLongRequest
			if p.long {
				other = nbdRequest
			}
			p.send(other, make([]byte, 28))
			p.closed()
		}},
		{"an option instead of a request", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.option(oInfo, d.export, uint16(0))
			p.closed()
		}},
		{"unknown commands", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, cmd := range []uint16{8, 9, 10, 255, 256, 1 << 15, 65535} {
				p.fails(eINVAL, ask{cmd: cmd, n: 512})
			}
		}},
		{"unknown commands, simple replies", "", func(t *testing.T, d *nbdDoor) {
			p := d.simple(t)
			p.fails(eINVAL, ask{cmd: 9, n: 1 << 31})
		}},
		{"unknown flags", "", each(map[uint16][]uint16{cRead: unknown, cWrite: unknown, cFlush: unknown, cTrim: unknown, cCache: unknown, cZero: unknown, cStatus: unknown})},
		{"flags of other commands", "", each(map[uint16][]uint16{
			cRead: {fNoHole, fReqOne, fFast}, cWrite: {fNoHole, fDF, fReqOne, fFast}, cFlush: {fNoHole, fDF, fReqOne, fFast}, cTrim: {fNoHole, fDF, fReqOne, fFast},
			cCache: {fNoHole, fDF, fReqOne, fFast}, cZero: {fDF, fReqOne}, cStatus: {fNoHole, fDF, fFast},
		})},
		{"DF not agreed", "", func(t *testing.T, d *nbdDoor) { d.simple(t).fails(eINVAL, ask{cmd: cRead, flags: fDF, n: 512}) }},
		{"FUA on commands that read", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, cmd := range []uint16{cRead, cCache, cStatus} {
				p.works(ask{cmd: cmd, flags: fFUA, n: 4096})
			}
			p.works(ask{cmd: cFlush, flags: fFUA})
			p.works(ask{cmd: cRead, flags: fFUA | fDF, n: 4096})
			p.works(ask{cmd: cStatus, flags: fFUA | fReqOne, n: 4096})
		}},
		{"FUA on commands that write", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.write(scratch, bytes.Repeat([]byte{1}, 4096), fFUA)
			p.works(ask{cmd: cTrim, flags: fFUA, off: scratch, n: 4096})
			p.works(ask{cmd: cZero, flags: fFUA, off: scratch, n: 4096})
			p.works(ask{cmd: cZero, flags: fFUA | fNoHole, off: scratch, n: 4096})
		}},
		{"cookies are opaque", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, cookie := range []uint64{1, math.MaxUint64, 1 << 63, 0x6746669867446698, 0x2560951325609513, 1} {
				p.works(ask{cmd: cRead, cookie: cookie, n: 512})
				p.works(ask{cmd: cFlush, cookie: cookie})
				p.fails(eINVAL, ask{cmd: 9, cookie: cookie})
			}
			p.sent[0] = ask{cmd: cRead, n: 512}
			p.send(p.head(0, cRead, 0, 0, 512))
			if _, ok := p.collect(1)[0]; !ok {
				t.Error("cookie 0 did not come back")
			}
		}},
		{"500 requests in one piece", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			var asks []ask
			for i := range 500 {
				asks = append(asks, ask{cmd: []uint16{cRead, cRead, cStatus, cFlush, cCache}[i%5], off: uint64(i) * 512, n: 512, cookie: uint64(i) + 1<<40})
			}
			defer func(sent chan struct{}) { <-sent }(p.stream(func() {}, asks...))
			for cookie, a := range p.collect(500) {
				if i := cookie - 1<<40; a.errno != 0 {
					t.Fatalf("request %d: errno %d %s", i, a.errno, a.text)
				} else if i%5 < 2 {
					d.same(t, i*512, a.data)
				}
			}
		}},
		{"requests byte by byte", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			a, b := ask{cmd: cRead, n: 512}, ask{cmd: cStatus, n: 4096}
			for _, c := range append(p.wire(&a), p.wire(&b)...) {
				p.send([]byte{c})
			}
			p.collect(2)
		}},
		{"half a request, then the end", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			q := ask{cmd: cRead, n: 512}
			p.send(p.wire(&q)[:20])
			half(p)
			p.closed()
		}},
		{"zero lengths", "", func(t *testing.T, d *nbdDoor) {
			for _, p := range []*peer{d.open(t), nil} {
				if p == nil {
					p = d.simple(t)
				}
				for _, off := range []uint64{0, 4096, d.size, d.size + 1, math.MaxUint64} {
					for _, cmd := range []uint16{cRead, cWrite, cTrim, cCache, cZero, cStatus, cFlush} {
						p.survives(ask{cmd: cmd, off: off})
					}
				}
				p.leave()
			}
		}},
		{"FLUSH with a range", "", func(t *testing.T, d *nbdDoor) { d.open(t).survives(ask{cmd: cFlush, off: 1 << 60, n: 1 << 30}) }},
		{"FLUSH", "", func(t *testing.T, d *nbdDoor) { d.open(t).works(ask{cmd: cFlush}) }},
		{"CACHE", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.works(ask{cmd: cCache, off: 1, n: 100_000})
			p.works(ask{cmd: cCache, n: d.size}) // more than the maximum payload
		}},
		{"beyond the end: EINVAL for what reads", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, r := range beyond(d.size) {
				for _, cmd := range []uint16{cRead, cCache, cStatus} {
					p.fails(eINVAL, ask{cmd: cmd, off: r.off, n: r.n})
				}
				p.fails(eINVAL, ask{cmd: cRead, flags: fDF, off: r.off, n: r.n})
				p.fails(eINVAL, ask{cmd: cStatus, flags: fReqOne, off: r.off, n: r.n})
			}
		}},
		{"beyond the end: ENOSPC for what writes", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			tail := p.read(d.size-4096, 4096)
			for _, r := range beyond(d.size) {
				if r.n <= 8192 {
					p.fails(eNOSPC, ask{cmd: cWrite, off: r.off, payload: bytes.Repeat([]byte{9}, int(r.n))})
					p.fails(eNOSPC, ask{cmd: cWrite, flags: fFUA, off: r.off, payload: bytes.Repeat([]byte{9}, int(r.n))})
				}
				p.fails(eNOSPC, ask{cmd: cZero, off: r.off, n: r.n})
				p.fails(eNOSPC, ask{cmd: cZero, flags: fNoHole, off: r.off, n: r.n})
				p.fails(eINVAL, ask{cmd: cTrim, off: r.off, n: r.n})
			}
			if !bytes.Equal(p.read(d.size-4096, 4096), tail) {
				t.Error("a refused request changed the end of the disk")
			}
		}},
		{"read-only: EPERM", "ro", func(t *testing.T, d *nbdDoor) {
			for _, p := range []*peer{d.open(t), nil} {
				if p == nil {
					p = d.simple(t)
				}
				for _, n := range []int{1, 512, 100_000, 2 << 20} {
					p.fails(ePERM, ask{cmd: cWrite, payload: make([]byte, n)})
				}
				p.fails(ePERM, ask{cmd: cWrite, flags: fFUA, payload: make([]byte, 512)})
				p.fails(ePERM, ask{cmd: cTrim, n: 4096})
				p.fails(ePERM, ask{cmd: cZero, n: 4096})
				p.fails(ePERM, ask{cmd: cZero, flags: fNoHole, n: 4096})
			}
		}},
		{"an error has a text", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, q := range []ask{{cmd: cRead, off: d.size, n: 1}, {cmd: 99}, {cmd: cRead, flags: 1 << 9, n: 1}, {cmd: cStatus, off: d.size, n: 1}} {
				if a := p.do(q); a.text == "" || a.simple {
					t.Errorf("command %d: %+v", q.cmd, a)
				}
			}
		}},
		{"simple replies to all", "", func(t *testing.T, d *nbdDoor) {
			p := d.simple(t)
			d.same(t, 0, p.read(0, 100_000))
			p.fails(eINVAL, ask{cmd: cRead, off: d.size, n: 1})
			p.works(ask{cmd: cFlush})
			p.works(ask{cmd: cCache, n: 4096})
		}},
	}
}

// beyond is ranges that reach past the end, in every way.
func beyond(size uint64) []ask {
	return []ask{
		{off: size, n: 1}, {off: size - 1, n: 2}, {off: size - 512, n: 513}, {off: size - 4096, n: 8192}, {off: size + 1, n: 1}, {off: size + 1<<40, n: 512},
		{off: 1 << 63, n: 512}, {off: 1<<63 - 1, n: 2}, {off: math.MaxUint64, n: 1}, {off: math.MaxUint64 - 511, n: 512}, {off: math.MaxUint64 - 510, n: 512},
		{off: math.MaxUint64 - 100, n: 4096}, {off: 1<<63 - 512, n: 512}, {off: 1<<64 - 4096, n: 8192},
	}
}

// readChecks is about READ.
func readChecks() []nbdCheck {
	compare := func(flags uint16) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, r := range []ask{{off: 0, n: 1}, {off: 511, n: 2}, {off: 1, n: 4095}, {off: 0, n: 16384}, {off: 777, n: 100_001}, {off: 1<<20 - 5000, n: 300_000},
				{off: 1280<<10 - 20_001, n: 200_003}, {off: 1 << 20, n: 200_000}, {off: d.size - 1, n: 1}, {off: d.size - 70_000, n: 70_000}, {off: 0, n: 1 << 20}} {
				if r.off+r.n > d.size {
					continue
				}
				a := p.works(ask{cmd: cRead, flags: flags, off: r.off, n: r.n})
				d.same(t, r.off, a.data)
				if flags&fDF != 0 && (a.chunks != 1 || len(a.holes) > 0) {
					t.Errorf("DF: %d chunks, holes %v", a.chunks, a.holes)
				}
			}
		}
	}
	return []nbdCheck{
		{"READ", "", compare(0)},
		{"READ with DF", "", compare(fDF)},
		{"READ with FUA", "", compare(fFUA)},
		{"READ simple", "", func(t *testing.T, d *nbdDoor) {
			p := d.simple(t)
			for _, n := range []int{1, 513, 16384, 1 << 20} {
				d.same(t, 3, p.read(3, n))
			}
			d.same(t, d.size-100, p.read(d.size-100, 100))
		}},
		{"READ of the end", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			d.same(t, d.size-1, p.read(d.size-1, 1))
			d.same(t, d.size-40_000, p.read(d.size-40_000, 40_000))
			p.survives(ask{cmd: cRead, off: d.size})
		}},
		{"READ tells holes", "ro", func(t *testing.T, d *nbdDoor) {
			if d.size < 3<<20 {
				return // the native bytes have none
			}
			p := d.open(t)
			a := p.works(ask{cmd: cRead, off: 1 << 20, n: 192 << 10})
			if len(a.holes) == 0 {
				t.Error("a hole of 192 KiB is sent as bytes")
			}
			d.same(t, 1<<20, a.data)
		}},
		{"READ of 32 MiB", "", func(t *testing.T, d *nbdDoor) {
			if d.size < uint64(most) {
				return
			}
			p := d.open(t)
			d.same(t, 0, p.works(ask{cmd: cRead, n: most}).data[:2<<20])
			p.leave()
			p = d.simple(t)
			d.same(t, 0, p.works(ask{cmd: cRead, n: most}).data[:2<<20])
		}},
		{"READ of too much", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, n := range []uint64{most + 1, max(d.size, most+1), 1 << 30, 1<<32 - 1} {
				if a := p.survives(ask{cmd: cRead, n: n}); a.errno != eINVAL && a.errno != eOVERFLOW {
					t.Errorf("%d bytes: errno %d", n, a.errno)
				}
			}
		}},
		{"an error among good reads", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			asks := []ask{{cmd: cRead, n: 65536, cookie: 1}, {cmd: cRead, off: d.size, n: 512, cookie: 2}, {cmd: cRead, off: 512, n: 512, cookie: 3}}
			p.begin(asks...)
			got := p.collect(3)
			if got[1].errno != 0 || got[2].errno != eINVAL || got[3].errno != 0 {
				t.Errorf("%d %d %d", got[1].errno, got[2].errno, got[3].errno)
			}
			d.same(t, 0, got[1].data)
		}},
	}
}

// statusChecks is about BLOCK_STATUS.
func statusChecks() []nbdCheck {
	return []nbdCheck{
		{"BLOCK_STATUS without the context", "", func(t *testing.T, d *nbdDoor) {
			p := d.simple(t)
			p.fails(eINVAL, ask{cmd: cStatus, n: 4096})
			p.leave()
			p = d.dial(t).greet(3)
			p.structure()
			p.enter(d.export)
			p.fails(eINVAL, ask{cmd: cStatus, n: 4096})
			p.fails(eINVAL, ask{cmd: cStatus, flags: fReqOne, n: 4096})
		}},
		{"BLOCK_STATUS of all: zeros are a promise", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			zeros := 0
			for at := uint64(0); at < d.size; {
				list := p.status(0, at, d.size-at)
				for _, e := range list {
					if e.state&2 != 0 {
						for n := uint64(0); n < e.n; n += 1 << 20 {
							if b := p.read(at+n, int(min(1<<20, e.n-n))); len(bytes.TrimLeft(b, "\x00")) > 0 {
								t.Fatalf("at %d: zero is told, and it is not", at+n)
							}
						}
						zeros += int(e.n)
					}
					at += e.n
				}
			}
			if d.size > 3<<20 && !d.writable && zeros < 30<<20 {
				t.Errorf("only %d bytes are told as zeros", zeros)
			}
		}},
		{"BLOCK_STATUS of parts", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for _, r := range []ask{{off: 0, n: 1}, {off: 1, n: 1}, {off: 511, n: 513}, {off: 1<<20 - 1, n: 2}, {off: 1<<20 - 1000, n: 300_001}, {off: d.size - 1, n: 1}, {off: d.size - 70_001, n: 70_001}} {
				for _, f := range []uint16{0, fReqOne, fFUA} {
					sum := uint64(0)
					for _, e := range p.status(f, r.off, r.n) {
						sum += e.n
					}
					if sum == 0 || r.n == 1 && sum < 1 {
						t.Errorf("%d bytes at %d: %d are told", r.n, r.off, sum)
					}
				}
			}
		}},
		{"BLOCK_STATUS with REQ_ONE walks the disk", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			one, all := []extent{}, []extent{}
			for at := uint64(0); at < d.size; {
				e := p.status(fReqOne, at, d.size-at)[0]
				one = append(one, e)
				at += e.n
			}
			for at := uint64(0); at < d.size; {
				for _, e := range p.status(0, at, d.size-at) {
					all = append(all, e)
					at += e.n
				}
			}
			if !equalMaps(one, all) {
				t.Errorf("one by one %v, at once %v", one, all)
			}
		}},
		{"BLOCK_STATUS of 4 GiB", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.fails(eINVAL, ask{cmd: cStatus, n: 1<<32 - 1})
			p.fails(eINVAL, ask{cmd: cStatus, flags: fReqOne, n: 1<<32 - 1})
		}},
		{"BLOCK_STATUS and READ agree", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			a := p.works(ask{cmd: cRead, n: 1 << 20})
			at, zero := uint64(0), map[uint64]bool{}
			for _, e := range p.status(0, 0, 1<<20) {
				zero[at] = e.state&2 != 0
				at += e.n
			}
			if len(a.holes) > 0 || zero[0] {
				t.Errorf("holes %v, zeros %v in random data", a.holes, zero)
			}
		}},
	}
}

// equalMaps compares extents, however they are cut.
func equalMaps(a, b []extent) bool {
	merge := func(list []extent) (out []extent) {
		for _, e := range list {
			if n := len(out); n > 0 && out[n-1].state == e.state {
				out[n-1].n += e.n
			} else {
				out = append(out, e)
			}
		}
		return out
	}
	a, b = merge(a), merge(b)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
