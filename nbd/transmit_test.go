package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

func TestReadWrite(t *testing.T) {
	a := serve(t)
	for _, c := range []*nbdtest.Client{a.enter(t, "rw"), a.simple(t, "rw"), a.extended(t, "rw")} {
		for _, n := range []int{1, 511, 512, 4096, 4097, 32 << 10, 32<<10 + 1, 64 << 10, 100_000, 1 << 20, 3 << 20} {
			p := pattern(n, byte(n))
			for _, off := range []uint64{0, 1, 513, diskSize - uint64(n)} {
				for range 3 { // the pace changes the way that requests take
					if err := c.WriteAt(p, off, 0); err != nil {
						t.Fatal(err)
					}
					got, err := c.Read(off, n, 0)
					if err != nil {
						t.Fatal(err)
					}
					mustEqual(t, got, p)
				}
			}
		}
	}
}

func TestReadHoles(t *testing.T) {
	a := serve(t)
	readHoles(t, a, a.enter(t, "rw"))
	a.disk.Discard(t.Context(), 0, diskSize)
	readHoles(t, a, a.extended(t, "rw"))
}

func readHoles(t *testing.T, a *aServer, c *nbdtest.Client) {
	if err := c.WriteAt(pattern(5000, 1), 100_000, 0); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		off   uint64
		n     int
		flags uint16
		holes int
	}{
		{0, 1 << 20, 0, 2}, {0, 1 << 20, nbdtest.DF, 0}, {0, 512, 0, 0}, {0, 64 << 10, 0, 1},
		{777, 200_001, 0, 2}, {1 << 20, 7 << 20, 0, 1}, {100_000, 5000, 0, 0}, {diskSize - 99_999, 99_999, 0, 1},
	} {
		r, err := c.Do(nbdtest.Request{Cmd: nbdtest.CmdRead, Off: tt.off, Len: uint64(tt.n), Flags: tt.flags})
		if err != nil {
			t.Fatal(err)
		}
		if r.Holes != tt.holes {
			t.Errorf("%+v: %d holes in %d chunks", tt, r.Holes, r.Chunks)
		}
		mustEqual(t, r.Data, a.disk.data[tt.off:tt.off+uint64(tt.n)])
	}
	// More pieces than one reply has chunks.
	for off := uint64(2 << 20); off < 3<<20; off += 16 << 10 {
		c.WriteAt(pattern(8<<10, byte(off>>14)), off, 0)
	}
	got, err := c.Read(2<<20, 1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, got, a.disk.data[2<<20:3<<20])
}

func TestStatus(t *testing.T) {
	a := serve(t)
	c, ro, wide := a.enter(t, "rw"), a.enter(t, "ro"), a.extended(t, "rw")
	c.WriteAt(pattern(4096, 1), 1<<20, 0)
	c.Zero(1<<20+8192, 4096, nbdtest.NoHole)
	for _, tt := range []struct {
		off   uint64
		n     uint64
		flags uint16
		rw    string
		ro    string
	}{
		{0, diskSize, 0, "[{1048576 3} {4096 0} {4096 3} {4096 2} {7329280 3}]", "[{1048576 3} {4096 0} {7337472 3}]"},
		{0, diskSize, nbdtest.ReqOne, "[{1048576 3}]", "[{1048576 3}]"},
		{1<<20 + 1, 2, 0, "[{2 0}]", "[{2 0}]"},
		{1<<20 + 100, 4096, 0, "[{3996 0} {100 3}]", "[{3996 0} {100 3}]"},
		{diskSize - 1, 1, 0, "[{1 3}]", "[{1 3}]"},
		{1<<20 + 8192 + 7, 5000, 0, "[{4089 2} {911 3}]", "[{5000 3}]"},
	} {
		for c, want := range map[*nbdtest.Client]string{c: tt.rw, ro: tt.ro, wide: tt.rw} {
			got, err := c.Status(tt.off, tt.n, tt.flags)
			if err != nil || fmt.Sprint(got) != want {
				t.Errorf("%d+%d: got %v, %v, want %s", tt.off, tt.n, got, err, want)
			}
		}
	}
}

func TestStatusAligned(t *testing.T) {
	a := serve(t)
	c := a.enter(t, "4k")
	a.disk.WriteAt(t.Context(), []byte{1}, 10_000)
	a.disk.WriteAt(t.Context(), []byte{1}, 3<<20)
	got, err := c.Status(0, diskSize/4096*4096, 0)
	if want := "[{8192 3} {4096 0} {3133440 3} {4096 0} {5238784 3}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

// TestErrors asks for everything that is wrong with one request, in both
// kinds of replies, and looks that the server stays in step.
func TestErrors(t *testing.T) {
	const top = 1<<64 - 1
	type q = nbdtest.Request
	data := pattern(512, 3)
	for name, tt := range map[string]struct {
		export string
		q      q
		want   uint32
	}{
		"read past the end":           {"rw", q{Cmd: nbdtest.CmdRead, Off: diskSize - 511, Len: 512}, nbdtest.EINVAL},
		"read at the end":             {"rw", q{Cmd: nbdtest.CmdRead, Off: diskSize, Len: 1}, nbdtest.EINVAL},
		"read over 64 bits":           {"rw", q{Cmd: nbdtest.CmdRead, Off: top - 10, Len: 512}, nbdtest.EINVAL},
		"read at a negative offset":   {"rw", q{Cmd: nbdtest.CmdRead, Off: 1 << 63, Len: 512}, nbdtest.EINVAL},
		"read of 33 MiB":              {"rw", q{Cmd: nbdtest.CmdRead, Len: 33 << 20}, nbdtest.EINVAL},
		"read of 4 GiB":               {"rw", q{Cmd: nbdtest.CmdRead, Len: 1<<32 - 1}, nbdtest.EINVAL},
		"read with NO_HOLE":           {"rw", q{Cmd: nbdtest.CmdRead, Flags: nbdtest.NoHole, Len: 512}, nbdtest.EINVAL},
		"read with FUA":               {"rw", q{Cmd: nbdtest.CmdRead, Flags: nbdtest.FUA, Len: 512}, 0},
		"read of nothing":             {"rw", q{Cmd: nbdtest.CmdRead}, 0},
		"write past the end":          {"rw", q{Cmd: nbdtest.CmdWrite, Off: diskSize - 511, Payload: data}, nbdtest.ENOSPC},
		"write over 64 bits":          {"rw", q{Cmd: nbdtest.CmdWrite, Off: top, Payload: data}, nbdtest.ENOSPC},
		"large write past the end":    {"rw", q{Cmd: nbdtest.CmdWrite, Off: diskSize, Payload: make([]byte, 300_000)}, nbdtest.ENOSPC},
		"write of 33 MiB":             {"rw", q{Cmd: nbdtest.CmdWrite, Payload: make([]byte, 33<<20)}, nbdtest.EINVAL},
		"write to read-only":          {"ro", q{Cmd: nbdtest.CmdWrite, Payload: data}, nbdtest.EPERM},
		"write past read-only":        {"ro", q{Cmd: nbdtest.CmdWrite, Off: top, Payload: data}, nbdtest.EPERM},
		"write with REQ_ONE":          {"rw", q{Cmd: nbdtest.CmdWrite, Flags: nbdtest.ReqOne, Payload: data}, nbdtest.EINVAL},
		"write with unknown flags":    {"rw", q{Cmd: nbdtest.CmdWrite, Flags: 0xff00, Payload: data}, nbdtest.EINVAL},
		"write with FUA":              {"rw", q{Cmd: nbdtest.CmdWrite, Flags: nbdtest.FUA, Payload: data}, 0},
		"write of nothing":            {"rw", q{Cmd: nbdtest.CmdWrite}, 0},
		"flush":                       {"rw", q{Cmd: nbdtest.CmdFlush}, 0},
		"flush with FUA":              {"rw", q{Cmd: nbdtest.CmdFlush, Flags: nbdtest.FUA}, 0},
		"flush of read-only":          {"ro", q{Cmd: nbdtest.CmdFlush}, 0},
		"flush with a range":          {"rw", q{Cmd: nbdtest.CmdFlush, Off: top, Len: 5}, 0},
		"trim":                        {"rw", q{Cmd: nbdtest.CmdTrim, Len: 4096}, 0},
		"trim of all":                 {"rw", q{Cmd: nbdtest.CmdTrim, Len: diskSize}, 0},
		"trim past the end":           {"rw", q{Cmd: nbdtest.CmdTrim, Off: diskSize, Len: 512}, nbdtest.EINVAL},
		"trim of read-only":           {"ro", q{Cmd: nbdtest.CmdTrim, Len: 512}, nbdtest.EPERM},
		"trim with FUA":               {"rw", q{Cmd: nbdtest.CmdTrim, Flags: nbdtest.FUA, Len: 512}, 0},
		"trim with FAST_ZERO":         {"rw", q{Cmd: nbdtest.CmdTrim, Flags: nbdtest.FastZero, Len: 512}, nbdtest.EINVAL},
		"zeroes":                      {"rw", q{Cmd: nbdtest.CmdWriteZeroes, Len: diskSize}, 0},
		"zeroes, NO_HOLE, FUA":        {"rw", q{Cmd: nbdtest.CmdWriteZeroes, Flags: nbdtest.NoHole | nbdtest.FUA, Len: 512}, 0},
		"zeroes, FAST_ZERO":           {"rw", q{Cmd: nbdtest.CmdWriteZeroes, Flags: nbdtest.FastZero, Len: 512}, 0},
		"zeroes, FAST_ZERO, NO_HOLE":  {"rw", q{Cmd: nbdtest.CmdWriteZeroes, Flags: nbdtest.FastZero | nbdtest.NoHole, Len: 512}, 0},
		"zeroes past the end":         {"rw", q{Cmd: nbdtest.CmdWriteZeroes, Off: diskSize - 1, Len: 512}, nbdtest.ENOSPC},
		"zeroes of read-only":         {"ro", q{Cmd: nbdtest.CmdWriteZeroes, Len: 512}, nbdtest.EPERM},
		"zeroes with DF":              {"rw", q{Cmd: nbdtest.CmdWriteZeroes, Flags: nbdtest.DF, Len: 512}, nbdtest.EINVAL},
		"cache":                       {"ro", q{Cmd: nbdtest.CmdCache, Len: diskSize}, 0},
		"cache of nothing":            {"ro", q{Cmd: nbdtest.CmdCache}, 0},
		"cache past the end":          {"ro", q{Cmd: nbdtest.CmdCache, Off: diskSize, Len: 1}, nbdtest.EINVAL},
		"cache with unknown flags":    {"ro", q{Cmd: nbdtest.CmdCache, Flags: 1 << 9, Len: 1}, nbdtest.EINVAL},
		"status past the end":         {"rw", q{Cmd: nbdtest.CmdBlockStatus, Off: diskSize, Len: 1}, nbdtest.EINVAL},
		"status of nothing":           {"rw", q{Cmd: nbdtest.CmdBlockStatus}, nbdtest.EINVAL},
		"status with PAYLOAD_LEN":     {"rw", q{Cmd: nbdtest.CmdBlockStatus, Flags: 1 << 5, Len: 512}, nbdtest.EINVAL},
		"resize":                      {"rw", q{Cmd: 8, Off: 1 << 30}, nbdtest.EINVAL},
		"a command nobody knows":      {"rw", q{Cmd: 1234, Len: 512}, nbdtest.EINVAL},
		"unaligned read":              {"4k", q{Cmd: nbdtest.CmdRead, Off: 512, Len: 4096}, nbdtest.EINVAL},
		"unaligned length":            {"4k", q{Cmd: nbdtest.CmdRead, Len: 512}, nbdtest.EINVAL},
		"unaligned write":             {"4k", q{Cmd: nbdtest.CmdWrite, Payload: data}, nbdtest.EINVAL},
		"the tail of an odd size":     {"4k", q{Cmd: nbdtest.CmdRead, Off: diskSize / 4096 * 4096, Len: diskSize % 4096}, 0},
		"write above the agreed size": {"4k", q{Cmd: nbdtest.CmdWrite, Payload: make([]byte, 2<<20)}, nbdtest.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t)
			clients := []*nbdtest.Client{a.enter(t, tt.export)}
			if tt.export != "4k" && tt.q.Cmd != nbdtest.CmdBlockStatus { // there the sizes were not agreed on
				clients = append(clients, a.simple(t, tt.export))
			}
			if tt.q.Flags&nbdtest.PayloadLen == 0 && len(tt.q.Payload) <= 1<<20 { // TestExtendedPayloads has the others
				clients = append(clients, a.extended(t, tt.export))
			}
			for _, c := range clients {
				_, err := c.Do(tt.q)
				want(t, err, tt.want)
				if err != nil && (c.Structured || c.Extended) && err.(*nbdtest.Error).Text == "" {
					t.Error("an error without a text")
				}
				if _, err := c.Read(0, 4096, 0); err != nil {
					t.Fatalf("out of step: %v", err)
				}
			}
		})
	}
}

// TestNotAgreed looks that who did not ask for block sizes need not keep them.
func TestNotAgreed(t *testing.T) {
	a := serve(t)
	c := a.simple(t, "4k")
	if err := c.WriteAt(pattern(2<<20, 1), 1, 0); err != nil {
		t.Error(err)
	}
	_, err := c.Do(nbdtest.Request{Cmd: nbdtest.CmdRead, Flags: nbdtest.DF, Len: 512})
	want(t, err, nbdtest.EINVAL) // DF was not offered
}

// TestDiskErrors looks that what a disk says reaches the client, and only that
// client's request.
func TestDiskErrors(t *testing.T) {
	a := serve(t)
	var fail error
	a.disk.before = func(op string, off, n int64) error {
		if off == 1<<20 {
			if fail == errPanic {
				panic("a bug in a layer")
			}
			return fail
		}
		return nil
	}
	clients := []*nbdtest.Client{a.enter(t, "rw"), a.simple(t, "rw"), a.extended(t, "rw")}
	for _, tt := range []struct {
		err  error
		want uint32
	}{
		{syscall.ENOSPC, nbdtest.ENOSPC}, {syscall.EDQUOT, nbdtest.ENOSPC}, {fs.ErrPermission, nbdtest.EPERM},
		{errors.New("bad sector"), nbdtest.EIO}, {errors.ErrUnsupported, nbdtest.EINVAL}, {errPanic, nbdtest.EIO},
	} {
		fail = tt.err
		for _, c := range clients {
			for _, n := range []int{512, 1 << 20} {
				_, err := c.Read(1<<20, n, 0)
				want(t, err, tt.want)
				want(t, c.WriteAt(make([]byte, n), 1<<20, 0), tt.want)
			}
			want(t, c.Zero(1<<20, 512, 0), tt.want)
			want(t, c.Trim(1<<20, 512, 0), tt.want)
			if _, err := c.Read(0, 512, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	fail = errors.ErrUnsupported
	want(t, clients[0].Zero(1<<20, 512, nbdtest.FastZero), nbdtest.ENOTSUP)
	// In the middle of a read nothing of it is promised any more.
	clients[0].WriteAt(pattern(8192, 1), 1<<20-8192, 0)
	clients[0].Trim(0, 1<<19, 0)
	fail = errors.New("bad sector")
	_, err := clients[0].Read(1<<20-8192-4096*8, 1<<19, 0)
	_ = err // data and holes around may succeed or fail, but the client found it in order
}

var errPanic = errors.New("panic")

func TestFlushAndFUA(t *testing.T) {
	a := serve(t)
	c := a.enter(t, "rw")
	for i, do := range []func() error{
		c.Flush,
		func() error { return c.WriteAt([]byte{1}, 0, nbdtest.FUA) },
		func() error { return c.Zero(0, 1, nbdtest.FUA) },
		func() error { return c.Trim(0, 1, nbdtest.FUA) },
	} {
		before := a.disk.flushes.Load()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if a.disk.flushes.Load() != before+1 {
			t.Errorf("case %d did not flush", i)
		}
	}
}

// TestManyInFlight has hundreds of requests in flight, some of them slow, and
// looks that each gets its own answer.
func TestManyInFlight(t *testing.T) {
	a := serve(t)
	for i := range a.disk.data {
		a.disk.data[i] = byte(i / 4096)
	}
	a.disk.mark(0, diskSize, 0)
	a.disk.before = func(op string, off, n int64) error {
		if off%7 == 0 {
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	for _, c := range []*nbdtest.Client{a.enter(t, "rw"), a.simple(t, "rw"), a.extended(t, "rw")} {
		var all sync.WaitGroup
		for range 300 {
			all.Go(func() {
				off := uint64(rand.IntN(diskSize - 70000))
				n := rand.IntN(70000)
				got, err := c.Read(off, n, 0)
				if err != nil || !bytes.Equal(got, a.disk.data[off:off+uint64(n)]) {
					t.Errorf("%d+%d: wrong bytes, or %v", off, n, err)
				}
			})
		}
		all.Wait()
	}
}

// TestDisconnectFinishes looks that what is in flight at DISC, or when the
// client closes its half, is done and answered.
func TestDisconnectFinishes(t *testing.T) {
	for name, end := range map[string]func(c *nbdtest.Client){
		"disc":       func(c *nbdtest.Client) { c.Send(nbdtest.Request{Cmd: nbdtest.CmdDisc}) },
		"half close": func(c *nbdtest.Client) { c.Conn.(interface{ CloseWrite() error }).CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t)
			a.disk.before = func(op string, off, n int64) error { time.Sleep(20 * time.Millisecond); return nil }
			c := a.simple(t, "rw")
			p := pattern(100_000, 9)
			for i := range 8 {
				c.Send(nbdtest.Request{Cmd: nbdtest.CmdWrite, Cookie: uint64(i), Off: uint64(i * 100_000), Payload: p})
			}
			end(c)
			for range 8 {
				if _, err := c.Receive(func(uint64) (nbdtest.Request, bool) { return nbdtest.Request{Cmd: nbdtest.CmdWrite}, true }); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Ended(); err != nil {
				t.Error(err)
			}
			got := make([]byte, len(p)) // not from data: the race detector does not see that writev is before a read
			if err := a.disk.ReadAt(t.Context(), got, 7*100_000); err != nil {
				t.Fatal(err)
			}
			mustEqual(t, got, p)
		})
	}
}

func TestBadRequestMagic(t *testing.T) {
	a := serve(t)
	c := a.simple(t, "rw")
	c.Write(make([]byte, 28))
	if err := c.Ended(); err != nil {
		t.Error(err)
	}
	a.alive(t)
}

// TestVanish looks that clients which go away at any point leave nothing.
func TestVanish(t *testing.T) {
	a := serve(t)
	a.disk.before = func(string, int64, int64) error { time.Sleep(time.Millisecond); return nil }
	for i := range 30 {
		c := a.simple(t, "rw")
		for range i {
			c.Send(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 1 << 20})
		}
		c.Write((&nbdtest.Request{Cmd: nbdtest.CmdWrite, Payload: make([]byte, 1<<20)}).Append(nil)[:28+i*1000])
		c.Close()
	}
	for deadline := time.Now().Add(time.Minute); len(a.Conns()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left", len(a.Conns()))
		}
	}
	if n := a.exports.stillOpen(); n != 0 {
		t.Errorf("%d exports are left open", n)
	}
	a.disk.before = nil
	a.alive(t)
}
