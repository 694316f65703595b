package cache

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

// A pace is how long fetches from one store take, and what may be spent on
// those that take unusually long.
type pace struct {
	mu      sync.Mutex
	classes [4]times // by size
	credit  int64    // bytes that may be fetched twice
}

// times are the latest durations of fetches of about one size.
type times struct {
	ring  [64]time.Duration
	n     int
	limit time.Duration // what is longer is slow
}

const (
	// minTimes is how many fetches must have been seen before one is called
	// slow.
	minTimes = 20
	// hedgeShare is the part of what is fetched that may be fetched twice.
	hedgeShare = 20
	// hedgeAfter is what no fetch is called slow before.
	hedgeAfter = 2 * time.Millisecond
)

// class is 0 up to 64 KiB, 1 up to 512 KiB, 2 up to 2 MiB.
func class(n int64) int {
	switch {
	case n <= 64<<10:
		return 0
	case n <= 512<<10:
		return 1
	case n <= 2<<20:
		return 2
	}
	return 3
}

// slow returns after how long a fetch of n bytes is slow, or 0 if nobody
// knows.
func (p *pace) slow(n int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.classes[class(n)].limit
}

// took notes how long a fetch of n bytes took.
func (p *pace) took(n int64, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.classes[class(n)]
	t.ring[t.n%len(t.ring)] = d
	t.n++
	p.credit = min(p.credit+n/hedgeShare, 2*maxFetch)
	if t.n >= minTimes && (t.n%8 == 0 || t.n == minTimes) {
		sorted := slices.Clone(t.ring[:min(t.n, len(t.ring))])
		slices.Sort(sorted)
		p95 := sorted[len(sorted)*95/100]
		t.limit = max(p95+p95/8, hedgeAfter) // with something on top, for a store that is always as fast
	}
}

// spend reports whether n bytes may be fetched twice.
func (p *pace) spend(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.credit < n {
		return false
	}
	p.credit -= n
	return true
}

// buffers are what fetches read into, of powers of two from a grain to
// maxFetch.
type buffers struct {
	pools [11]sync.Pool
}

func (b *buffers) get(n int) []byte {
	i := bits.Len(uint(max(n-1, 0)) / grainSize)
	if p, ok := b.pools[i].Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return make([]byte, n, grainSize<<i)
}

func (b *buffers) put(p []byte) {
	p = p[:cap(p)]
	b.pools[bits.Len(uint(len(p)-1)/grainSize)].Put(&p)
}
