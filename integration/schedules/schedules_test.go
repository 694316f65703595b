package schedules

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "schedules")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	_ = os.RemoveAll(dir) // nothing is in it but empty folders
	os.Exit(code)
}

func prepare(t *testing.T) *original {
	t.Helper()
	o, err := newOriginal()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// number reads how many there are to be from the environment.
func number(t *testing.T, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is no number", name, text)
	}
	return n
}

// count is how many schedules are run.
func count(t *testing.T) int {
	n := 500
	if os.Getenv("PLATTER_SOAK") != "" {
		n = 100_000
	}
	return number(t, "PLATTER_SCHEDULES", n)
}

// all runs n schedules, two at a time, and returns the first that fails.
func all(t *testing.T, n int, settings func(i int) settings) (worst *verdict, seen map[string]int, at settings0) {
	o := prepare(t)
	seen = map[string]int{}
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				mu.Lock()
				stop := worst != nil
				mu.Unlock()
				if i >= n || stop {
					return
				}
				cfg := settings(i)
				v := explore(t, o, cfg)
				mu.Lock()
				for what, n := range v.seen {
					seen[what] += n
				}
				if v.err != nil && worst == nil {
					worst, at = &v, settings0{cfg, i}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return worst, seen, at
}

type settings0 struct {
	settings
	i int
}

// TestSchedules runs schedules that must not break any promise. A seed of one
// that did is run again with PLATTER_SEED.
func TestSchedules(t *testing.T) {
	n, seed := count(t), uint64(number(t, "PLATTER_SEED", 0))
	if seed != 0 {
		n = number(t, "PLATTER_SCHEDULES", 1)
	}
	start := time.Now()
	bad, seen, at := all(t, n, func(i int) settings { return pick(max(seed, 1) + uint64(i)) })
	if bad != nil {
		t.Fatalf("%v: %v\n%s", at.settings, bad.err, bad.story())
	}
	took := time.Since(start)
	t.Logf("%d schedules in %s, %.0f a second", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(&b, "%8d %s\n", seen[what], what)
	}
	t.Logf("seen:\n%s", b.String())
	for _, place := range places {
		if n >= 10_000 && seen["traps at "+place] == 0 {
			t.Errorf("nothing ever happened to a gateway at %q", place)
		}
	}
}

// story is what happened, without the heartbeats.
func (v *verdict) story() string {
	var b strings.Builder
	for _, line := range v.trace {
		if text := line.String(); !strings.HasSuffix(text, " renew: <nil>") && !strings.HasSuffix(text, " get gw: <nil>") {
			b.WriteString(text + "\n")
		}
	}
	return b.String()
}

// TestBugsAreFound plants bugs.
func TestBugsAreFound(t *testing.T) {
	for _, b := range []bug{anyEpoch, neverDirty, openGate, noSync, allGone, noOther, sweeper} {
		bad, _, at := all(t, 2000, func(i int) settings {
			s := pick(uint64(i) + 1)
			s.bug = b
			switch b { // they would be found without, but not soon
			case sweeper:
				s.traps = append(s.traps, trap{step: "list", n: i % 3})
			case noOther:
				s.fine = true
				s.traps = append(s.traps, trap{step: "loaded", n: 1 + i%3, fault: kill})
			}
			return s
		})
		if bad == nil {
			t.Errorf("%s: not found", b)
			continue
		}
		t.Logf("%s: found by schedule %d: %v", b, at.i, bad.err)
	}
}
