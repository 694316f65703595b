package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// suspend suspends a server, which must take no longer than most.
func (a *aServer) suspend(t testing.TB, most time.Duration) []nbd.Handed {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	start := time.Now()
	handed, err := a.Suspend(ctx)
	if err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > most {
		t.Errorf("Suspend took %v, want at most %v", d, most)
	}
	if n := a.exports.stillOpen(); n != 0 {
		t.Errorf("%d exports are open after Suspend", n)
	}
	return handed
}

// successor returns another server of what a serves.
func (a *aServer) successor(t testing.TB, change ...func(*nbd.Config)) *aServer {
	t.Helper()
	b := serve(t, change...)
	b.disk, b.exports.byName = a.disk, a.exports.byName
	return b
}

// resume has b go on with what was handed over.
func (b *aServer) resume(t testing.TB, handed []nbd.Handed) {
	t.Helper()
	for _, h := range handed {
		if err := b.Resume(t.Context(), h.Conn, h.State); err != nil {
			t.Error(err)
		}
	}
}

// TestHandOver has clients of all kinds do anything at random while one server
// after the other takes them over.
func TestHandOver(t *testing.T) {
	const parts, part, times = 12, diskSize / 12, 8
	a := serve(t)
	a.exports.byName["file"] = nbd.Export{Disk: newFileDisk(t, diskSize), Label: "file"}
	for _, name := range []string{"rw", "file"} {
		t.Run(name, func(t *testing.T) {
			a := a.successor(t)
			clients := []*nbdtest.Client{
				a.enter(t, name), a.simple(t, name), a.extended(t, name), a.enter(t, name), a.simple(t, name), a.extended(t, name),
			}
			over := make(chan bool)
			var all sync.WaitGroup
			for i := range parts {
				all.Go(func() {
					rng, model := rand.New(rand.NewPCG(uint64(i), 7)), make([]byte, part)
					for first := true; ; first = false {
						select {
						case <-over:
							return
						default:
						}
						if first && name == "rw" { // the last run has left something
							clients[i%len(clients)].Zero(uint64(i*part), part, 0)
						}
						if err := play(clients[i%len(clients)], rng, uint64(i*part), model); err != nil {
							t.Errorf("part %d: %v", i, err)
							return
						}
					}
				})
			}
			for range times {
				time.Sleep(30 * time.Millisecond)
				handed := a.suspend(t, 10*time.Second)
				if len(handed) != len(clients) {
					t.Errorf("%d connections are handed over, want %d", len(handed), len(clients))
				}
				a = a.successor(t)
				a.resume(t, handed)
			}
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if !slices.ContainsFunc(a.Conns(), func(info nbd.ConnInfo) bool { return info.Requests < 100 }) {
					break
				}
			}
			close(over)
			all.Wait()
			for _, info := range a.Conns() {
				if info.Export == "" || info.Requests < 100 || info.Headers == "" || !info.Writable || time.Since(info.Since) < times*30*time.Millisecond {
					t.Errorf("%+v", info)
				}
			}
		})
	}
}

// TestHandOverWithinRequests hands a connection over in the middle of
// requests of all kinds.
func TestHandOverWithinRequests(t *testing.T) {
	disk, big := newMemory(40<<20), pattern(32<<20, 5)
	for name, tt := range map[string]struct {
		q   nbdtest.Request
		cut []int // how much of it is sent at first
	}{
		"a write of 32 MiB":    {nbdtest.Request{Cmd: nbdtest.CmdWrite, Off: 1 << 20, Payload: big}, []int{70_000, 31 << 20}},
		"a write of 4 KiB":     {nbdtest.Request{Cmd: nbdtest.CmdWrite, Off: 512, Payload: big[:4096]}, []int{27, 28, 32, 4000}},
		"a read":               {nbdtest.Request{Cmd: nbdtest.CmdRead, Off: 512, Len: 70_000}, []int{1, 27}},
		"a status of contexts": {nbdtest.Request{Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.PayloadLen, Payload: nbdtest.StatusFilter(4096, 2, 1)}, []int{32, 41}},
	} {
		for _, extended := range []bool{false, true} {
			for _, cut := range tt.cut {
				if !extended && tt.q.Cmd == nbdtest.CmdBlockStatus {
					continue
				}
				t.Run(fmt.Sprintf("%s, %d bytes, extended %v", name, cut, extended), func(t *testing.T) {
					a := serve(t)
					clear(disk.data)
					a.disk = disk
					a.exports.byName["rw"] = nbd.Export{Disk: disk}
					c, q := a.dial(t), tt.q
					q.Cookie = 77
					var p []byte
					if extended {
						c.EnterExtended("rw")
						if q.Cmd == nbdtest.CmdWrite {
							q.Flags |= nbdtest.PayloadLen
						}
						p = q.AppendExtended(nil)
					} else {
						c.Enter("rw")
						p = q.Append(nil)
					}
					for range 100 { // from here on writes are served where they are read
						c.WriteAt([]byte{0}, 0, 0)
					}
					if err := c.Write(p[:cut]); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Millisecond)
					handed := a.suspend(t, 15*time.Second) // it waits for no client that long
					if len(handed) != 1 {
						t.Fatalf("%d connections are handed over", len(handed))
					}
					b := a.successor(t)
					b.resume(t, handed)
					if err := c.Write(p[cut:]); err != nil {
						t.Fatal(err)
					}
					for last := false; !last; {
						k, err := c.Receive(func(cookie uint64) (nbdtest.Request, bool) { return q, cookie == q.Cookie })
						if err != nil || k.Errno != 0 {
							t.Fatalf("%+v, %v", k, err)
						}
						last = k.Last
					}
					if q.Cmd == nbdtest.CmdWrite {
						mustEqual(t, a.disk.data[q.Off:int(q.Off)+len(q.Payload)], q.Payload)
					}
					if _, err := c.Read(0, 4096, 0); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestHandOverWaits looks that what was asked for is done by the server that
// was asked, flushed, and answered.
func TestHandOverWaits(t *testing.T) {
	a := serve(t)
	a.disk.before = func(op string, off, n int64) error {
		if op == "write" {
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	}
	c := a.extended(t, "rw")
	var waits []func() (nbdtest.Reply, error)
	for i := range 5 {
		wait, err := c.Begin(nbdtest.Request{Cmd: nbdtest.CmdWrite, Off: uint64(i) << 20, Payload: pattern(100_000, byte(i))})
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, wait)
	}
	for a.Conns()[0].InFlight < 5 {
		time.Sleep(time.Millisecond)
	}
	handed := a.suspend(t, 10*time.Second)
	for _, wait := range waits { // before anybody goes on
		if _, err := wait(); err != nil {
			t.Error(err)
		}
	}
	if n := a.disk.flushes.Load(); n == 0 {
		t.Error("the disk was not flushed")
	}
	b := a.successor(t)
	b.resume(t, handed)
	if got, err := c.Read(4<<20, 100_000, 0); err != nil || !bytes.Equal(got, pattern(100_000, 4)) {
		t.Errorf("wrong bytes, or %v", err)
	}
	if info := b.Conns()[0]; info.Requests != 6 || info.Written != 500_000 || info.Read != 100_000 {
		t.Errorf("%+v", info)
	}
}

// TestHandOverOfOthers has connections that cannot be handed over.
func TestHandOverOfOthers(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS = ca.Server(t, tls.NoClientCert) })
	a.exports.byName["gone"] = nbd.Export{Disk: a.disk, Transient: true}
	secure, talking, transient, plain := a.dial(t), a.dial(t), a.enter(t, "gone"), a.enter(t, "ro")
	if err := secure.StartTLS(ca.Client(t, "")); err != nil {
		t.Fatal(err)
	}
	if err := secure.Enter("rw"); err != nil {
		t.Fatal(err)
	}
	if _, err := talking.Info("rw"); err != nil {
		t.Fatal(err)
	}
	deaf, refused := a.simple(t, "4k"), a.enter(t, "rw")
	for range 20 {
		deaf.Send(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 4 << 20})
	}
	refused.Write((&nbdtest.Request{Cmd: nbdtest.CmdWrite, Len: 33 << 20}).Append(nil)) // and never sends it
	time.Sleep(20 * time.Millisecond)
	handed := a.suspend(t, 15*time.Second)
	if len(handed) != 1 {
		t.Fatalf("%d connections are handed over, want one", len(handed))
	}
	for name, c := range map[string]*nbdtest.Client{"TLS": secure, "handshake": talking, "transient": transient, "refused": refused} {
		if err := c.Ended(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := a.successor(t)
	b.resume(t, handed)
	if _, err := plain.Read(0, 4096, 0); err != nil {
		t.Error(err)
	}
}

// TestHandOverInTime has a disk that does not answer: the others are handed
// over all the same, and an error says that something was cut off.
func TestHandOverInTime(t *testing.T) {
	a := serve(t)
	started := make(chan bool, 1)
	a.exports.byName["stuck"] = nbd.Export{Disk: stuck{a.disk, started}}
	bad, good := a.enter(t, "stuck"), a.enter(t, "rw")
	wait, _ := bad.Begin(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 512})
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for a.exports.stillOpen() > 1 { // the good one's is closed when all else is done
			time.Sleep(time.Millisecond)
		}
		time.Sleep(300 * time.Millisecond)
		cancel()
	}()
	handed, err := a.Suspend(ctx)
	if !errors.Is(err, context.Canceled) || len(handed) != 1 {
		t.Fatalf("%d connections, %v", len(handed), err)
	}
	if _, err := wait(); err == nil {
		t.Error("the read succeeded")
	}
	b := a.successor(t)
	b.resume(t, handed)
	if _, err := good.Read(0, 4096, 0); err != nil {
		t.Error(err)
	}
}

// TestHandOverOfContexts looks that contexts keep their ids.
func TestHandOverOfContexts(t *testing.T) {
	a := serveContexts(t)
	c := a.extended(t, "layers")
	q := nbdtest.Request{Cmd: nbdtest.CmdBlockStatus, Len: 4 << 20}
	first, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	handed := a.suspend(t, 10*time.Second)
	b := a.successor(t)
	e := b.exports.byName["layers"]
	e.Bitmaps = append([]nbd.Bitmap{{Name: "sunday", Changed: changes{}}}, e.Bitmaps...) // moves the others
	b.exports.byName["layers"] = e
	b.resume(t, handed)
	again, err := c.Do(q)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("after: %v, %v\nbefore: %v", again, err, first)
	}
}

// TestResumeRefuses has states and exports that do not fit.
func TestResumeRefuses(t *testing.T) {
	a := serve(t)
	c := a.extended(t, "rw")
	c.Write(make([]byte, 7))
	time.Sleep(5 * time.Millisecond)
	h := a.suspend(t, 10*time.Second)[0]
	b := a.successor(t)
	refused := func(what string, state []byte) {
		t.Helper()
		mine, theirs := net.Pipe()
		if err := b.Resume(t.Context(), mine, state); err == nil {
			t.Errorf("%s is taken", what)
		}
		theirs.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := theirs.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is left open: %v", what, err)
		}
	}
	for i := range h.State {
		bad := bytes.Clone(h.State)
		bad[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("a state with bit %d of byte %d flipped", i%8, i), bad)
		refused(fmt.Sprintf("a state of %d bytes", i), h.State[:i])
	}
	refused("a state and more", append(bytes.Clone(h.State), 0))
	refused("another program's state", []byte("NBDSTAT2 but not ours, and long enough for all of it to be looked at"))
	good := b.exports.byName["rw"]
	for what, change := range map[string]func(e *nbd.Export){
		"an export that is gone":        func(e *nbd.Export) { e.Disk = nil },
		"an export of another size":     func(e *nbd.Export) { e.Disk = newMemory(diskSize + 512) },
		"an export that is read-only":   func(e *nbd.Export) { e.Disk = readOnly{a.disk} },
		"an export without multi-conn":  func(e *nbd.Export) { e.MultiConn = false },
		"an export of other blocks":     func(e *nbd.Export) { e.MinBlock = 4096 },
		"an export of smaller requests": func(e *nbd.Export) { e.MaxBlock = 1 << 20 },
		"a disk that was transient":     func(e *nbd.Export) { e.Transient = true },
	} {
		e := good
		change(&e)
		b.exports.byName["rw"] = e
		refused(what, h.State)
	}
	delete(b.exports.byName, "rw")
	refused("an export of no such name", h.State)
	b.exports.byName["rw"] = good
	small := a.successor(t, func(cfg *nbd.Config) { cfg.MaxRequest = 1 << 20 })
	b, small = small, b
	refused("a client that may send more", h.State)
	b = small
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	mine, theirs := net.Pipe()
	if err := b.Resume(ended, mine, h.State); err == nil {
		t.Error("a context that has ended is not heeded")
	}
	theirs.Close()
	if n := b.exports.stillOpen() + len(b.Conns()); n != 0 {
		t.Errorf("%d exports and connections are left of what was refused", n)
	}
	b.resume(t, []nbd.Handed{h}) // which is good after all
	c.Write((&nbdtest.Request{}).AppendExtended(nil))
	if err := c.Ended(); err != nil { // 7 zeros are no request
		t.Error(err)
	}
	b.Shutdown(t.Context())
	refused("a connection at shutdown", h.State)
}
