//go:build integration

package integration

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed, 1}).Read(b)
	return b
}

// writeChecks is about what changes the disk, within the scratch area.
func writeChecks() []nbdCheck {
	return []nbdCheck{
		{"WRITE and READ", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for i, r := range []ask{{off: 0, n: 512}, {off: 1, n: 1}, {off: 4095, n: 2}, {off: 65536 - 3, n: 70_001}, {off: 300_000, n: 1 << 20}, {off: 7, n: 33_000}} {
				before := p.read(scratch, 2<<20)
				b := noise(int(r.n), byte(i))
				p.write(scratch+r.off, b, []uint16{0, fFUA}[i%2])
				copy(before[r.off:], b)
				if !bytes.Equal(p.read(scratch, 2<<20), before) {
					t.Fatalf("a write of %d bytes at %d changed other bytes than its own", r.n, r.off)
				}
			}
		}},
		{"WRITE with simple replies", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.simple(t)
			b := noise(100_000, 9)
			p.write(scratch+1000, b, 0)
			if !bytes.Equal(p.read(scratch+1000, len(b)), b) {
				t.Error("other bytes than were written")
			}
		}},
		{"WRITE of the last bytes", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			tail := p.read(d.size-5000, 5000)
			p.write(d.size-5000, noise(5000, 3), 0)
			if !bytes.Equal(p.read(d.size-5000, 5000), noise(5000, 3)) {
				t.Error("other bytes than were written")
			}
			p.write(d.size-5000, tail, 0)
		}},
		{"WRITE of 32 MiB", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			b := bytes.Repeat(noise(4096, 5), most/4096)
			p.write(scratch, b, 0)
			if !bytes.Equal(p.read(scratch, most), b) {
				t.Error("other bytes than were written")
			}
			p.works(ask{cmd: cTrim, off: scratch, n: most})
		}},
		{"WRITE of too much", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.begin(ask{cmd: cWrite, off: scratch, payload: make([]byte, most+1)})
			if p.long { // who can say up to 2^64 is not read to the end
				p.closed()
				return
			}
			if a := p.collect(1); len(a) == 1 {
				for _, a := range a {
					if a.errno != eINVAL && a.errno != eOVERFLOW {
						t.Errorf("errno %d", a.errno)
					}
				}
			}
			p.alive()
		}},
		{"WRITE says 4 GiB and ends", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.send(p.head(0, cWrite, 1, scratch, 1<<32-1), make([]byte, 1000))
			half(p)
			p.closed()
		}},
		{"WRITE in pieces", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			q := ask{cmd: cWrite, off: scratch, payload: noise(40_000, 6)}
			b := p.wire(&q)
			for len(b) > 0 {
				n := min(len(b), 1700)
				p.send(b[:n])
				b = b[n:]
				time.Sleep(200 * time.Microsecond)
			}
			for _, a := range p.collect(1) {
				if a.errno != 0 {
					t.Errorf("errno %d", a.errno)
				}
			}
			if !bytes.Equal(p.read(scratch, 40_000), noise(40_000, 6)) {
				t.Error("other bytes than were written")
			}
		}},
		{"WRITE of which half comes is not begun", "rw", func(t *testing.T, d *nbdDoor) {
			for _, n := range []int{8192, 65536, 1 << 20} {
				p := d.open(t)
				p.write(scratch, make([]byte, n), 0)
				q := ask{cmd: cWrite, off: scratch, payload: bytes.Repeat([]byte{1}, n)}
				b := p.wire(&q)
				p.send(b[:len(b)-n/2])
				half(p)
				p.closed()
				if d.multi { // an ephemeral disk is gone
					p = d.open(t)
					if b := p.read(scratch, n); len(bytes.TrimLeft(b, "\x00")) > 0 {
						t.Errorf("of a write of %d bytes that never came whole, some is on the disk", n)
					}
					p.leave()
				}
			}
		}},
		{"refused WRITEs are read away", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			head := p.head(0, cZero, 77, 0, 4096)
			trap := bytes.Repeat(head, 3000)
			for _, n := range []int{len(head), 150 * len(head), len(trap)} {
				p.fails(eINVAL, ask{cmd: cWrite, flags: fDF, off: scratch, payload: trap[:n]})
				p.fails(eNOSPC, ask{cmd: cWrite, off: d.size - 1, payload: trap[:n]})
			}
			d.same(t, 0, p.read(0, 8192))
		}},
		{"TRIM", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.write(scratch, noise(200_000, 7), 0)
			p.works(ask{cmd: cTrim, off: scratch, n: 100_000})
			if !bytes.Equal(p.read(scratch+100_000, 100_000), noise(200_000, 7)[100_000:]) {
				t.Error("TRIM changed what is behind its range")
			}
			p.works(ask{cmd: cTrim, off: scratch + 150_001, n: 3})
			p.works(ask{cmd: cTrim, off: scratch + 1, n: 36<<20 - 2}) // more than the maximum payload
			d.same(t, 1<<20, p.read(1<<20, 1<<20))
			d.same(t, d.size-70_000, p.read(d.size-70_000, 70_000))
		}},
		{"WRITE_ZEROES", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for i, flags := range []uint16{0, fNoHole, fFUA, fNoHole | fFUA} {
				for _, r := range []ask{{off: 0, n: 65536}, {off: 1, n: 1}, {off: 777, n: 100_000}, {off: 4096, n: 4096}} {
					b := noise(200_000, byte(i))
					p.write(scratch, b, 0)
					p.works(ask{cmd: cZero, flags: flags, off: scratch + r.off, n: r.n})
					clear(b[r.off : r.off+r.n])
					if !bytes.Equal(p.read(scratch, len(b)), b) {
						t.Errorf("flags %#x, %d bytes at %d: the disk is otherwise than zero there and unchanged elsewhere", flags, r.n, r.off)
					}
				}
			}
		}},
		{"WRITE_ZEROES over the image's data", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.works(ask{cmd: cZero, off: scratch + 1<<20 + 100, n: 1<<20 - 300})
			if b := p.read(scratch+1<<20+100, 1<<20-300); len(bytes.TrimLeft(b, "\x00")) > 0 {
				t.Error("the image shines through")
			}
		}},
		{"WRITE_ZEROES of 36 MiB", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.write(scratch+5<<20, noise(100_000, 1), 0)
			p.works(ask{cmd: cZero, off: scratch, n: 36 << 20})
			if b := p.read(scratch, most); len(bytes.TrimLeft(b, "\x00")) > 0 {
				t.Error("something is left")
			}
			d.same(t, 1<<20, p.read(1<<20, 1<<20))
		}},
		{"NO_HOLE is no hole", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.works(ask{cmd: cTrim, off: scratch, n: 1 << 20})
			p.works(ask{cmd: cZero, flags: fNoHole, off: scratch, n: 1 << 20})
			for _, e := range p.status(0, scratch, 1<<20) {
				if e.state&1 != 0 {
					t.Errorf("told as a hole: %v", e)
				}
			}
			p.write(scratch+512, noise(512, 1), 0)
		}},
		{"FAST_ZERO is fast or ENOTSUP", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			if p.flags&tFast == 0 {
				p.fails(eINVAL, ask{cmd: cZero, flags: fFast, off: scratch, n: 4096})
				return
			}
			for _, flags := range []uint16{fFast, fFast | fNoHole, fFast | fFUA} {
				for _, r := range []ask{{off: 0, n: 1 << 20}, {off: 100, n: 1000}, {off: 0, n: 36 << 20}} {
					b := noise(1<<20, 8)
					p.write(scratch, b, 0)
					a := p.survives(ask{cmd: cZero, flags: flags, off: scratch + r.off, n: r.n})
					if a.errno == 0 {
						clear(b[r.off:min(r.off+r.n, 1<<20)])
					} else if a.errno != eNOTSUP {
						t.Errorf("flags %#x: errno %d", flags, a.errno)
					}
					if !bytes.Equal(p.read(scratch, len(b)), b) {
						t.Errorf("flags %#x, errno %d, %d bytes: the disk is otherwise", flags, a.errno, r.n)
					}
				}
			}
		}},
		{"a written sector is data", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.works(ask{cmd: cZero, off: scratch, n: 1 << 20})
			p.write(scratch+300_033, []byte{1}, 0)
			at := uint64(scratch)
			for _, e := range p.status(0, scratch, 1<<20) {
				if e.state&2 != 0 && at <= scratch+300_033 && scratch+300_033 < at+e.n {
					t.Errorf("told as zero: %v", e)
				}
				at += e.n
			}
			a := p.works(ask{cmd: cRead, off: scratch, n: 1 << 20})
			if a.data[300_033] != 1 || len(bytes.Trim(a.data, "\x00")) != 1 {
				t.Error("a read does not show it")
			}
		}},
		{"writes in flight, each its own place", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			var asks []ask
			for i := range 60 {
				asks = append(asks, ask{cmd: cWrite, flags: uint16(i % 2), off: scratch + uint64(i)*40_000, payload: noise(40_000, byte(i)), cookie: uint64(i) + 1})
			}
			sent := p.stream(func() {}, asks...)
			for cookie, a := range p.collect(len(asks)) {
				if a.errno != 0 {
					t.Errorf("write %d: errno %d %s", cookie, a.errno, a.text)
				}
			}
			<-sent
			for i := range asks {
				if !bytes.Equal(p.read(asks[i].off, 40_000), asks[i].payload) {
					t.Fatalf("write %d is not on the disk", i)
				}
			}
		}},
	}
}

// endChecks is about how connections end.
func endChecks() []nbdCheck {
	asks := func(d *nbdDoor) []ask {
		var list []ask
		for i := range 40 {
			q := ask{cmd: cRead, off: uint64(i) * 20_000, n: 20_000, cookie: uint64(i) + 1}
			if d.writable && i%2 == 0 {
				q = ask{cmd: cWrite, off: scratch + uint64(i)*20_000, payload: noise(20_000, byte(i)), cookie: uint64(i) + 1}
			}
			list = append(list, q)
		}
		return list
	}
	// inFlight sends many requests, then ends the connection, and wants all
	// answered and done.
	inFlight := func(end func(p *peer)) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			list := asks(d)
			sent := p.stream(func() { end(p) }, list...)
			got := p.collect(len(list))
			<-sent
			p.closed()
			for cookie, a := range got {
				if a.errno != 0 {
					t.Errorf("request %d: errno %d %s", cookie, a.errno, a.text)
				}
			}
			if !d.writable || !d.multi && !d.exclusive {
				return
			}
			p = d.open(t)
			for _, q := range list {
				if q.cmd == cWrite && !bytes.Equal(p.read(q.off, len(q.payload)), q.payload) {
					t.Fatalf("write %d was in flight and is lost", q.cookie)
				}
			}
		}
	}
	disc := func(p *peer) { p.send(p.head(0, cDisc, 0, 0, 0)) }
	return []nbdCheck{
		{"DISC", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			disc(p)
			p.closed()
		}},
		{"DISC with flags and a range", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.send(p.head(0xffff, cDisc, 5, 1<<60, 1<<30))
			p.closed()
		}},
		{"DISC with requests in flight", "", inFlight(disc)},
		{"half-close with requests in flight", "", inFlight(func(p *peer) { half(p) })},
		{"half-close", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.alive()
			half(p)
			p.closed()
		}},
		{"half-close in the handshake", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.inStep()
			half(p)
			p.closed()
		}},
		{"what comes behind DISC is not done", "rw", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			p.write(scratch, make([]byte, 512), 0)
			p.send(p.head(0, cDisc, 0, 0, 0), p.head(0, cWrite, 1, scratch, 512), bytes.Repeat([]byte{1}, 512))
			p.closed()
			if d.multi {
				if b := d.open(t).read(scratch, 512); len(bytes.TrimLeft(b, "\x00")) > 0 {
					t.Error("it was")
				}
			}
		}},
		{"after the end it can be opened at once", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			for range 5 {
				disc(p)
				p.closed()
				p = d.connect(t).full(d.export, d.long) // not d.open, which has patience
			}
			p.alive()
		}},
	}
}
