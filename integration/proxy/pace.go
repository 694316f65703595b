package proxy

import (
	"net/http"
	"sync"
	"time"
)

// A pace spreads bytes over time. The zero value knows no limit.
type pace struct {
	mu   sync.Mutex
	rate float64   // bytes a second; 0 is no limit
	next time.Time // when all bytes so far have passed
}

// slack is how much time may be made up for. Sleeps are longer than asked for;
// without it, small writes would never reach the rate.
const slack = 20 * time.Millisecond

func (p *pace) set(bytesPerSecond int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate, p.next = float64(max(0, bytesPerSecond)), time.Time{}
}

// reserve returns how long the caller has to wait until n bytes have passed.
func (p *pace) reserve(n int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return 0
	}
	now := time.Now()
	if earliest := now.Add(-slack); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	return p.next.Sub(now)
}

// wait lets n bytes pass; it says false if the client has gone or the proxy has
// ended before.
func (p *pace) wait(r *http.Request, done <-chan struct{}, n int64) bool {
	d := p.reserve(n)
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-done:
	}
	return false
}
