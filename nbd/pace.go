package nbd

import (
	"sync/atomic"
	"time"
)

// A pace tells whether small requests are served where they are read, one
// after the other, or handed to workers. Nobody tells us whether the bytes are
// at hand, so what requests took lately must: a request that was slower than
// a handoff is worth adds to a debt, and each fast one pays some back. One
// that waited for a disk or a network is enough to change over at once.
type pace struct{ debt atomic.Int32 }

const (
	fastEnough = 50 * time.Microsecond // a handoff and back costs a few
	debtLimit  = 32                    // from here on, workers
	debtMost   = 64
)

// start makes a new connection's requests go to workers until some were fast.
func (p *pace) start() { p.debt.Store(debtLimit) }

// near reports whether to serve the next request where it was read.
func (p *pace) near() bool { return p.debt.Load() < debtLimit }

// took notes how long a request took.
func (p *pace) took(d time.Duration) {
	debt := p.debt.Load()
	switch {
	case d < fastEnough && debt > 0:
		p.debt.Store(debt - 1) // a lost update is harmless
	case d >= fastEnough:
		p.debt.Store(int32(min(time.Duration(debt)+4*d/fastEnough, debtMost)))
	}
}

// scaled returns what a request of n bytes that took so many nanoseconds says
// of short ones.
func scaled(took int64, n uint64) time.Duration {
	return time.Duration(took) * inlineMax / time.Duration(max(n, inlineMax))
}
