package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// inBubble runs f in a synctest bubble with a server on pipes.
func inBubble(t *testing.T, cfg nbd.Config, f func(t *testing.T, s *nbd.Server, l *pipes, x *exports)) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemory(diskSize)
		x := &exports{byName: map[string]nbd.Export{"rw": {Disk: disk, Label: "rw"}}}
		cfg.Exports = x
		s, err := nbd.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, l) }()
		f(t, s, l, x)
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		late, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(late); err != nil {
			t.Error(err)
		}
		if n := x.stillOpen(); n != 0 {
			t.Errorf("%d exports were never closed", n)
		}
	})
}

func TestHandshakeTimeout(t *testing.T) {
	inBubble(t, nbd.Config{HandshakeTimeout: time.Minute}, func(t *testing.T, s *nbd.Server, l *pipes, x *exports) {
		silent, slow, good := nbdtest.New(l.dial()), nbdtest.New(l.dial()), nbdtest.New(l.dial())
		for _, c := range []*nbdtest.Client{silent, slow, good} {
			if err := c.Greet(3); err != nil {
				t.Fatal(err)
			}
		}
		// An export that takes its time is not the client's fault.
		x.before = func(context.Context, string) error { time.Sleep(time.Hour); return nil }
		if err := good.Enter("rw"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		slow.Write([]byte("IHAVE"))
		time.Sleep(59 * time.Second)
		slow.Write([]byte("OPT"))
		if err := slow.Ended(); err != nil {
			t.Error(err)
		}
		if err := silent.Ended(); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("took %v", d)
		}
		time.Sleep(24 * time.Hour) // an idle connection stays
		if _, err := good.Read(0, 512, 0); err != nil {
			t.Error(err)
		}
		good.Close()
	})
}

// TestHandshakeCannotBeStretched has a client that never stops asking.
func TestHandshakeCannotBeStretched(t *testing.T) {
	inBubble(t, nbd.Config{HandshakeTimeout: time.Minute}, func(t *testing.T, s *nbd.Server, l *pipes, x *exports) {
		x.byName["other"] = x.byName["rw"]
		c := nbdtest.New(l.dial())
		c.Greet(3)
		start := time.Now()
		for i := 0; ; i++ {
			if _, err := c.Info([]string{"rw", "other"}[i%2]); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d > 62*time.Second {
			t.Errorf("it could ask for %v", d)
		}
	})
}

// TestAskingForEver has a client that fills its handshake with exports that
// take their time to open.
func TestAskingForEver(t *testing.T) {
	inBubble(t, nbd.Config{HandshakeTimeout: time.Minute}, func(t *testing.T, s *nbd.Server, l *pipes, x *exports) {
		x.byName["other"] = x.byName["rw"]
		x.before = func(context.Context, string) error { time.Sleep(10 * time.Second); return nil }
		c := nbdtest.New(l.dial())
		c.Greet(3)
		start := time.Now()
		for i := 0; ; i++ {
			if _, err := c.Info([]string{"rw", "other"}[i%2]); err != nil {
				break
			}
		}
		if d := time.Since(start); d < 200*time.Second || d > 300*time.Second {
			t.Errorf("it could ask for %v", d)
		}
	})
}

// TestShutdownSoftly looks that requests in flight end, new ones are neither
// done nor answered, and then it is over.
func TestShutdownSoftly(t *testing.T) {
	a := serve(t)
	release := make(chan struct{})
	a.disk.before = func(op string, off, n int64) error {
		if op == "write" && off == 4096 {
			<-release
		}
		return nil
	}
	busy, idle, talking := a.enter(t, "rw"), a.enter(t, "ro"), a.dial(t)
	wait, err := busy.Begin(nbdtest.Request{Cmd: nbdtest.CmdWrite, Off: 4096, Payload: pattern(64<<10, 1)})
	if err != nil {
		t.Fatal(err)
	}
	for a.Conns()[0].InFlight == 0 {
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() { done <- a.Shutdown(context.Background()) }()
	for range 5 { // until it is under way for sure
		time.Sleep(10 * time.Millisecond)
	}
	late, err := busy.Begin(nbdtest.Request{Cmd: nbdtest.CmdWrite, Off: 0, Payload: pattern(512, 2)})
	if err != nil {
		t.Error(err)
	}
	if _, err := idle.Read(0, 512, 0); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a new request gets %v", err)
	}
	_, err = talking.Go("ro")
	if e, ok := errors.AsType[*nbdtest.OptError](err); ok && e.Type != nbdtest.RepErrShutdown || err == nil {
		t.Errorf("an option got %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("shut down with a request in flight: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(release)
	if _, err := wait(); err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if _, err := late(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a request that came too late: %v", err)
	}
	if bytes.Equal(a.disk.data[:512], pattern(512, 2)) {
		t.Error("a request that came too late was done")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	mustEqual(t, a.disk.data[4096:4096+64<<10], pattern(64<<10, 1))
	if _, err := nbdtest.Dial("unix", a.socket); err == nil {
		t.Error("newcomers are still served")
	}
}

// TestShutdownOfTheDeaf has a client that takes no replies, like a machine that
// is paused: a shutdown does not wait for it for long, and is no failure.
func TestShutdownOfTheDeaf(t *testing.T) {
	a := serve(t)
	a.disk.mark(0, diskSize, 0)
	deaf := a.simple(t, "rw")
	for range 20 {
		if err := deaf.Send(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 1 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	if err := a.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

// TestShutdownHard looks that Shutdown ends when its time is up.
func TestShutdownHard(t *testing.T) {
	inBubble(t, nbd.Config{}, func(t *testing.T, s *nbd.Server, l *pipes, x *exports) {
		started := make(chan bool)
		e := x.byName["rw"]
		e.Disk = stuck{e.Disk.(*memory), started}
		x.byName["rw"] = e
		c := nbdtest.New(l.dial())
		c.Greet(3)
		if err := c.Enter("rw"); err != nil {
			t.Fatal(err)
		}
		wait, _ := c.Begin(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 512})
		<-started
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := wait(); err == nil {
			t.Error("the read succeeded")
		}
	})
}

// stuck is a disk whose reads wait for their context.
type stuck struct {
	d       *memory
	started chan bool
}

func (s stuck) Size() int64 { return s.d.Size() }
func (s stuck) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.started <- true
	<-ctx.Done()
	return ctx.Err()
}

func TestKick(t *testing.T) {
	a := serve(t)
	started := make(chan bool, 1)
	a.exports.byName["stuck"] = nbd.Export{Disk: stuck{a.disk, started}, Label: "stuck"}
	one, two := a.enter(t, "stuck"), a.enter(t, "ro")
	wait, _ := one.Begin(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 512})
	<-started
	infos := a.Conns()
	if len(infos) != 2 || infos[0].Export != "stuck" || infos[1].Export != "ro" || infos[0].InFlight != 1 || infos[0].Client.Transport != "unix" {
		t.Errorf("got %+v", infos)
	}
	if n := a.Kick(func(i nbd.ConnInfo) bool { return i.Export == "stuck" }); n != 1 {
		t.Errorf("kicked %d", n)
	}
	if _, err := wait(); err == nil {
		t.Error("the read succeeded")
	}
	if _, err := two.Read(0, 512, 0); err != nil {
		t.Errorf("the other client: %v", err)
	}
}

func TestConnectionLimits(t *testing.T) {
	a := serve(t, func(cfg *nbd.Config) { cfg.MaxConns, cfg.MaxConnsPerClient = 3, 2 })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- a.Serve(ctx, l) }()
	var open []*nbdtest.Client
	for i := range 4 {
		c, err := nbdtest.Open("tcp", l.Addr().String(), "ro")
		if (err == nil) != (i < 2) {
			t.Errorf("connection %d from one address: %v", i, err)
		}
		if err == nil {
			open = append(open, c)
		} else if c != nil {
			c.Close()
		}
	}
	a.enter(t, "ro")
	if _, err := nbdtest.Dial("unix", a.socket); err == nil {
		t.Error("a fourth connection is served")
	}
	if got := a.Conns()[0].Client.Transport; got != "tcp" {
		t.Errorf("transport %q", got)
	}
	for _, c := range open {
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	for len(a.Conns()) > 1 {
		time.Sleep(time.Millisecond)
	}
	a.alive(t)
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestSilenceGivesWay has clients that connect and say nothing: they lock
// nobody out, and nobody who has an export open is cut off for others.
func TestSilenceGivesWay(t *testing.T) {
	a := serve(t, func(cfg *nbd.Config) { cfg.MaxConns, cfg.MaxConnsPerClient = 4, 2 })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- a.Serve(ctx, l) }()
	good, tcp := a.enter(t, "rw"), l.Addr().String()
	for i := range 50 {
		network, addr := "unix", a.socket
		if i%2 == 0 {
			network, addr = "tcp", tcp
		}
		silent, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		c, err := nbdtest.Open(network, addr, "ro")
		if err != nil {
			t.Fatalf("client %d is locked out: %v", i, err)
		}
		if n := len(a.Conns()); n > 8 {
			t.Fatalf("%d connections", n)
		}
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if _, err := good.Read(0, 512, 0); err != nil {
		t.Errorf("a client with an export was cut off: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestTrickle has clients that send a byte now and then of payloads that hold
// all the memory.
func TestTrickle(t *testing.T) {
	a := serve(t, func(cfg *nbd.Config) {
		cfg.MaxRequest, cfg.MaxInFlightBytes, cfg.MaxInFlightTotal = 1<<20, 4<<20, 8<<20
		cfg.StallTimeout = time.Second
	})
	for range 12 {
		w := a.simple(t, "rw")
		w.Write((&nbdtest.Request{Cmd: nbdtest.CmdWrite, Len: 1 << 20}).Append(nil))
		go func() {
			for w.Write([]byte{0}) == nil {
				time.Sleep(20 * time.Millisecond)
			}
		}()
	}
	time.Sleep(20 * time.Millisecond)
	c := a.enter(t, "rw")
	c.Conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(0, 1<<20, 0); err != nil {
		t.Fatalf("a large request is never served: %v", err)
	}
}

// TestSlowReader has a client that asks and never reads, and looks that
// others feel nothing.
func TestSlowReader(t *testing.T) {
	a := serve(t)
	a.disk.mark(0, diskSize, 0)
	for _, n := range []uint64{512, 32 << 10, 1 << 20} {
		c := a.simple(t, "rw")
		var sent atomic.Int64
		go func() {
			for range 20_000 {
				if c.Send(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: n}) != nil {
					return
				}
				sent.Add(1)
			}
		}()
		time.Sleep(50 * time.Millisecond)
		other := a.enter(t, "rw")
		start := time.Now()
		for range 100 {
			if _, err := other.Read(0, 512, 0); err != nil {
				t.Fatal(err)
			}
			if err := other.WriteAt(make([]byte, 100_000), 1<<20, 0); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("reads of %d bytes not taken: others took %v", n, d)
		}
		if n := sent.Load(); n == 20_000 {
			t.Error("the server took every request of a client that does not read")
		}
		c.Close()
	}
}

// TestHoarders has clients that use up the memory of all, and looks that
// small requests go on, and large ones once the hoarders are cut off.
func TestHoarders(t *testing.T) {
	c := amongHoarders(t, time.Hour) // who waits for their end waits in vain
	for range 20 {
		if _, err := c.Read(0, 64<<10, 0); err != nil {
			t.Fatal("a small request: ", err)
		}
		if err := c.WriteAt(make([]byte, 64<<10), 0, 0); err != nil {
			t.Fatal("a small request: ", err)
		}
	}
	c = amongHoarders(t, time.Second)
	if _, err := c.Read(0, 1<<20, 0); err != nil {
		t.Fatal("a large request: ", err)
	}
}

// amongHoarders returns a client of a server whose memory others have taken.
func amongHoarders(t *testing.T, stall time.Duration) *nbdtest.Client {
	a := serve(t, func(cfg *nbd.Config) {
		cfg.MaxRequest, cfg.MaxInFlightBytes, cfg.MaxInFlightTotal = 1<<20, 4<<20, 8<<20
		cfg.StallTimeout = stall
	})
	a.disk.mark(0, diskSize, 0)
	for range 4 {
		c := a.simple(t, "rw") // takes nothing
		for range 16 {
			c.Send(nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 1 << 20})
		}
		w := a.simple(t, "rw") // promises what it does not send
		w.Write((&nbdtest.Request{Cmd: nbdtest.CmdWrite, Len: 1 << 20}).Append(nil))
	}
	time.Sleep(20 * time.Millisecond)
	c := a.enter(t, "rw")
	c.Conn.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// TestConfig looks at limits that cannot be.
func TestConfig(t *testing.T) {
	for _, cfg := range []nbd.Config{
		{}, {Exports: &exports{}, MaxRequest: -1}, {Exports: &exports{}, MaxRequest: 2 << 30}, {Exports: &exports{}, MaxWorkers: -1},
	} {
		if _, err := nbd.New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

// TestMeter looks that requests are counted.
func TestMeter(t *testing.T) {
	m := &meter{}
	a := serve(t, func(cfg *nbd.Config) { cfg.Observer = m })
	c := a.extended(t, "rw")
	c.WriteAt(make([]byte, 512), 0, 0)
	c.Read(0, 1024, 0)
	c.Trim(diskSize, 1<<63, 0)                                        // what a client claims is not counted
	c.Do(nbdtest.Request{Cmd: nbdtest.CmdFlush, Len: math.MaxUint64}) // and here it means nothing
	if err := c.Disconnect(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for !m.closed.Load() {
		time.Sleep(time.Millisecond)
	}
	if m.label != "rw" || m.requests.Load() != 4 || m.bytes.Load() != 512+1024 || m.errors.Load() != 1 {
		t.Errorf("got %q, %d requests, %d bytes, %d errors", m.label, m.requests.Load(), m.bytes.Load(), m.errors.Load())
	}
}

type meter struct {
	label                   string
	requests, bytes, errors atomic.Int64
	closed                  atomic.Bool
}

func (m *meter) Connected(info nbd.ConnInfo) nbd.Meter { m.label = info.Export; return m }
func (m *meter) Closed()                               { m.closed.Store(true) }
func (m *meter) Request(cmd nbd.Command, n int64, took time.Duration, errno nbd.Errno) {
	m.requests.Add(1)
	m.bytes.Add(n)
	if errno != 0 {
		m.errors.Add(1)
	}
}
