package nbd_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// lull has the client of c wait for each of many large reads, as one does
// that the server then serves without workers.
func lull(t *testing.T, c *nbdtest.Client) {
	t.Helper()
	for range 50 {
		if _, err := c.Read(0, 64<<10, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAloneNoMore has clients that used to wait for each reply ask twice at
// once: what the second request asks for comes while the first one is stuck,
// again and again.
func TestAloneNoMore(t *testing.T) {
	const slow, fast = 1 << 20, 2 << 20
	a := serve(t)
	p := pattern(64<<10, 1)
	a.disk.WriteAt(t.Context(), p, slow) // a hole is told without a read
	release := make(chan bool)
	a.disk.before = func(op string, off, _ int64) error {
		if off == slow && op != "extent" {
			<-release
		}
		return nil
	}
	for name, c := range map[string]*nbdtest.Client{"simple": a.simple(t, "rw"), "structured": a.enter(t, "rw"), "extended": a.extended(t, "rw")} {
		for i := range 5 {
			t.Run(fmt.Sprint(name, i), func(t *testing.T) {
				lull(t, c)
				stuck := nbdtest.Request{Cmd: nbdtest.CmdRead, Off: slow, Len: 64 << 10}
				if i%2 == 1 {
					stuck = nbdtest.Request{Cmd: nbdtest.CmdWrite, Off: slow, Payload: p}
				}
				first, err := c.Begin(stuck)
				if err != nil {
					t.Fatal(err)
				}
				if i > 2 { // the first one has long been begun
					time.Sleep(5 * time.Millisecond)
				}
				for range 3 {
					if err := c.WriteAt(p, fast, 0); err != nil {
						t.Fatal(err)
					}
				}
				release <- true
				if _, err := first(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestAloneAtTheEnd ends connections in all ways while a request of a client
// that waits is stuck.
func TestAloneAtTheEnd(t *testing.T) {
	const slow = 1 << 20
	for name, end := range map[string]func(a *aServer, c *nbdtest.Client, release chan bool){
		"hung up": func(a *aServer, c *nbdtest.Client, release chan bool) {
			c.Close()
			close(release)
		},
		"disconnected": func(a *aServer, c *nbdtest.Client, release chan bool) {
			c.Send(nbdtest.Request{Cmd: nbdtest.CmdDisc})
			close(release)
		},
		"shut down": func(a *aServer, c *nbdtest.Client, release chan bool) {
			time.AfterFunc(10*time.Millisecond, func() { close(release) })
			a.Shutdown(t.Context())
		},
		"handed over": func(a *aServer, c *nbdtest.Client, release chan bool) {
			b := a.successor(t)
			time.AfterFunc(10*time.Millisecond, func() { close(release) })
			b.resume(t, a.suspend(t, 10*time.Second))
			lull(t, c)
		},
	} {
		for _, wait := range []time.Duration{0, 5 * time.Millisecond} { // one is relieved, the other perhaps not
			t.Run(fmt.Sprint(name, " after ", wait), func(t *testing.T) {
				a := serve(t)
				begun, release := make(chan bool), make(chan bool)
				a.disk.before = func(op string, off, _ int64) error {
					if off == slow && op == "read" {
						close(begun)
						<-release
					}
					return nil
				}
				c := a.enter(t, "ro")
				lull(t, c)
				first, err := c.Begin(nbdtest.Request{Cmd: nbdtest.CmdRead, Off: slow, Len: 64 << 10, Flags: nbdtest.DF})
				if err != nil {
					t.Fatal(err)
				}
				<-begun
				time.Sleep(wait)
				end(a, c, release)
				if _, err := first(); name != "hung up" && err != nil {
					t.Error(err)
				}
			})
		}
	}
}
