package gateway

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TakeOver starts a second process that takes the first one's place, and waits
// until that has ended and this one serves. It returns how long the clients
// waited, as the gateway says.
func (g *Gateway) TakeOver(t testing.TB) time.Duration {
	t.Helper()
	done, old, from := g.done, g.cmd, len(g.Log())
	g.LaunchTakeOver(t)
	select {
	case <-done:
	case <-g.done:
		t.Fatalf("the new process ended (%v) and has not taken over:\n%s", g.cmd.ProcessState, tail(g.Log(), 8<<10))
	case <-time.After(3 * time.Minute):
		t.Fatalf("the old process is still there after three minutes:\n%s", tail(g.Log(), 8<<10))
	}
	if code := old.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("the old process ended with %v:\n%s", old.ProcessState, tail(g.Log(), 8<<10))
	}
	g.WaitReady(t)
	return g.waited(t, from)
}

// waited returns what the gateway has said since about how long its clients
// waited.
func (g *Gateway) waited(t testing.TB, from int) time.Duration {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, rest, ok := strings.Cut(g.Log()[from:], `msg="clients go on"`)
		line, _, whole := strings.Cut(rest, "\n")
		if !ok || !whole {
			if time.Now().After(end) {
				t.Fatalf("the new process does not say that clients go on:\n%s", tail(g.Log(), 8<<10))
			}
			continue
		}
		_, value, _ := strings.Cut(line, "waited=")
		var seconds float64
		if _, err := fmt.Sscan(value, &seconds); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return time.Duration(seconds * float64(time.Second))
	}
}

// LaunchTakeOver starts a second process that asks for the first one's place,
// and does not wait for it. From here on the Gateway is that process; what is
// returned goes back to the first.
func (g *Gateway) LaunchTakeOver(t testing.TB) (back func()) {
	t.Helper()
	cmd, done, flags := g.cmd, g.done, g.flags
	g.flags = append(flags[:len(flags):len(flags)], "--takeover")
	g.Launch(t)
	g.flags = flags
	return func() { g.cmd, g.done = cmd, done }
}

// Process returns the program that runs.
func (g *Gateway) Process() *exec.Cmd { return g.cmd }
