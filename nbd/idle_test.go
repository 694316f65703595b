package nbd_test

import (
	"net"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inUse returns the bytes that live objects and stacks take.
func inUse() int64 {
	for range 3 { // what lies in pools lives for two collections
		runtime.GC()
	}
	debug.FreeOSMemory()
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() + samples[1].Value.Uint64())
}

// TestIdleConnections measures what a connection costs that has been busy and
// is idle now, and what its export costs, both ends of the socket included.
func TestIdleConnections(t *testing.T) {
	const most, number = 32 << 10, 500
	a := serve(t)
	for kind, enter := range map[string]func(name string) net.Conn{
		"simple":     func(name string) net.Conn { c := a.simple(t, name); c.Read(0, 4096, 0); return c.Conn },
		"structured": func(name string) net.Conn { c := a.enter(t, name); c.Read(0, 4096, 0); return c.Conn },
		"extended": func(name string) net.Conn {
			c := a.extended(t, name)
			c.Read(0, 1<<20, 0)
			c.WriteAt(make([]byte, 1<<20), 0, 0)
			c.Status(0, diskSize, 0)
			return c.Conn
		},
		"in the handshake": func(string) net.Conn { return a.dial(t).Conn },
	} {
		t.Run(kind, func(t *testing.T) {
			first := enter("rw") // what is made once
			conns := make([]net.Conn, 0, number)
			before := inUse()
			for range number {
				conns = append(conns, enter("rw"))
			}
			if each := (inUse() - before) / number; each > most {
				t.Errorf("%d bytes each", each)
			} else {
				t.Logf("%d bytes each", each)
			}
			for _, c := range append(conns, first) {
				c.Close()
			}
			for len(a.Conns()) > 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// TestKeepAlive looks that the kernel is told to notice dead clients.
func TestKeepAlive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	spy := &spyListener{Listener: l, accepted: make(chan *net.TCPConn, 1)}
	a := serve(t)
	served := make(chan error, 1)
	go func() { served <- a.Serve(t.Context(), spy) }()
	c := dialTCP(t, l.Addr().String())
	if _, err := c.Go("ro"); err != nil {
		t.Fatal(err)
	}
	raw, err := (<-spy.accepted).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		value := func(level, option int) int {
			n, err := unix.GetsockoptInt(int(fd), level, option)
			if err != nil {
				t.Error(err)
			}
			return n
		}
		probing := value(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) + value(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)*value(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		if on := value(unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 1 || probing != 120 {
			t.Errorf("keep-alive is %d, and takes %d s", on, probing)
		}
		if ms := value(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); ms != 120_000 {
			t.Errorf("data may wait %d ms for its acknowledgement", ms)
		}
	})
	c.Close()
	l.Close()
	<-served
}

// A spyListener lets a test see the sockets that a server accepts.
type spyListener struct {
	net.Listener
	accepted chan *net.TCPConn
}

func (l *spyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(*net.TCPConn); ok {
		l.accepted <- t
	}
	return c, err
}
