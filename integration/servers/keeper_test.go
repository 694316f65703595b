package servers

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// said is a test that only notes what it is told.
type said struct {
	fatal   string
	cleanup []func()
}

func (t *said) Helper()                   {}
func (t *said) Failed() bool              { return false }
func (t *said) Logf(string, ...any)       {}
func (t *said) Cleanup(f func())          { t.cleanup = append(t.cleanup, f) }
func (t *said) Fatalf(f string, a ...any) { t.fatal = fmt.Sprintf(f, a...); runtime.Goexit() }

// in runs f as a test of its own and returns what it died of.
func in(f func(t TB)) string {
	t, done := &said{}, make(chan struct{})
	go func() { defer close(done); f(t) }()
	<-done
	return t.fatal
}

// TestShare wants one start for all, one failure for all, and what was started
// last to be stopped first.
func TestShare(t *testing.T) {
	var k Keeper
	var log []string
	below := Share(&k, func(t TB) int {
		log = append(log, "below starts")
		t.Cleanup(func() { log = append(log, "below stops") })
		return 1
	})
	above := Share(&k, func(t TB) int {
		n := below(t)
		log = append(log, "above starts")
		t.Cleanup(func() { log = append(log, "above stops") })
		return n + 1
	})
	broken := Share(&k, func(t TB) int {
		log = append(log, "broken starts")
		t.Cleanup(func() { log = append(log, "broken stops") })
		t.Fatalf("it is %s", "broken")
		return 3
	})
	for range 2 {
		if n := above(t); n != 2 {
			t.Errorf("%d", n)
		}
		if died := in(func(t TB) { broken(t) }); died != "it is broken" {
			t.Errorf("died of %q", died)
		}
	}
	k.stop()
	k.stop()
	want := "below starts, above starts, broken starts, broken stops, above stops, below stops"
	if got := strings.Join(log, ", "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestProcess starts something that never serves, and something that ends.
func TestProcess(t *testing.T) {
	dir := t.TempDir()
	never := func() error { return fmt.Errorf("not yet") }
	died := in(func(t TB) {
		launch(t, &Process{Name: "short", line: []string{"sh", "-c", "echo what is wrong; exit 3"}, ready: never}, dir)
	})
	if !strings.Contains(died, "short ended before it was ready") || !strings.Contains(died, "what is wrong") {
		t.Errorf("died of %q", died)
	}
	if died := in(func(t TB) { launch(t, &Process{Name: "none", line: []string{"/nowhere/program"}, ready: never}, dir) }); !strings.Contains(died, "start none") {
		t.Errorf("died of %q", died)
	}
	p := launch(t, &Process{Name: "sleep", line: []string{"sleep", "1000"}, ready: func() error { return nil }}, dir)
	p.Pause(t)
	p.Resume(t)
	p.Pause(t)
	p.Kill(t)
	if p.PID() != 0 {
		t.Error("it lives")
	}
	p.Start(t)
	p.Stop(t)
	p.Stop(t)
}
