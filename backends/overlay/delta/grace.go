package delta

import (
	"sync"
	"sync/atomic"
	"time"
)

// A grace tells when everybody who might still use something has gone. Users
// pass in and out without a lock; wait returns when all who were in when it
// was called are out, and those who come meanwhile do not hold it up.
type grace struct {
	turn atomic.Uint32
	in   [2]atomic.Int64
	mu   sync.Mutex // one waiter at a time
}

func (g *grace) enter() uint32 {
	for {
		t := g.turn.Load() & 1
		g.in[t].Add(1)
		// Whoever turned between the two lines did not see us: try again.
		if g.turn.Load()&1 == t {
			return t
		}
		g.in[t].Add(-1)
	}
}

func (g *grace) leave(t uint32) { g.in[t].Add(-1) }

func (g *grace) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := (g.turn.Add(1) - 1) & 1
	for pause := 5 * time.Microsecond; g.in[old].Load() != 0; pause = min(2*pause, time.Millisecond) {
		time.Sleep(pause)
	}
}
