package nbd_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// look opens an export and leaves at once, n times.
func (a *aServer) look(t testing.TB, n int) {
	t.Helper()
	for range n {
		c, err := nbdtest.Open("unix", a.socket, "ro")
		if err != nil {
			t.Error(err)
			return
		}
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// TestShortConnections: after many short connections in a row, one that stays
// holds up neither those that come after it nor the end of the server.
func TestShortConnections(t *testing.T) {
	for name, stay := range map[string]func(a *aServer) *nbdtest.Client{
		"silent": func(a *aServer) *nbdtest.Client { return a.dial(t) },
		"open":   func(a *aServer) *nbdtest.Client { return a.enter(t, "rw") },
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t)
			var staying []*nbdtest.Client
			for range 20 {
				a.look(t, 20)
				staying = append(staying, stay(a))
			}
			a.look(t, 1)
			for i, c := range staying {
				if name == "silent" {
					if err := c.Enter("rw"); err != nil {
						t.Fatalf("connection %d: %v", i, err)
					}
				}
				if err := c.WriteAt([]byte("here"), uint64(i)*512, 0); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
			a.look(t, 20)
			if n := len(a.Conns()); n < len(staying) {
				t.Errorf("%d connections, want %d", n, len(staying))
			}
		})
	}
}

// TestShortConnectionsAtOnce has several clients look at an export over and
// over, while others stay a while.
func TestShortConnectionsAtOnce(t *testing.T) {
	a := serve(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 30 {
				a.look(t, 10)
				if i == 0 {
					c, err := nbdtest.Open("unix", a.socket, "rw")
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(3 * time.Millisecond)
					if _, err := c.Read(0, 512, 0); err != nil {
						t.Error(err)
					}
					c.Close()
				}
			}
		})
	}
	wg.Wait()
}

// TestShortConnectionsEnd: Serve returns when its context ends, whoever is
// being served where the accepting was done.
func TestShortConnectionsEnd(t *testing.T) {
	a := serve(t)
	for range 20 {
		l, err := net.Listen("unix", a.socket+"2")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- a.Serve(ctx, l) }()
		other := &aServer{Server: a.Server, socket: a.socket + "2"}
		other.look(t, 20)
		c, err := nbdtest.Open("unix", other.socket, "ro")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if _, err := c.Read(0, 512, 0); err != nil {
			t.Errorf("the connection did not outlive its listener: %v", err)
		}
		c.Close()
	}
}

// BenchmarkConnect opens an export and leaves, one connection after the other.
func BenchmarkConnect(b *testing.B) {
	a := serve(b)
	b.ReportAllocs()
	for b.Loop() {
		a.look(b, 1)
	}
}
