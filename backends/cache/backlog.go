package cache

import (
	"runtime"
	"sync"
	"time"
)

// A backlog is what was fetched and waits to be written to the disk. Whoever
// reads has it already, so nobody waits for the disk. But a store can be faster
// than the disk, or than the processor can write down, and then not all can be
// kept: what comes while the backlog is full is only handed on. What was
// fetched in advance is kept all the same, for it would have been fetched in
// vain. Of that there is no more than a read-ahead, which pauses while there is
// much to write, and what holds a slot at the gate until it is written.
type backlog struct {
	writers chan struct{} // an element for each that writes
	limit   int64         // bytes

	mu      sync.Mutex
	bytes   int64
	fetches int
	refused bool // something since the last write
}

const (
	maxBacklog = 64 << 20 // and a 32th of the cache, or what is written pushes out what was just written
	minBacklog = 4 << 20
	maxUnkept  = 1024 // fetches, each a goroutine

	// Once not all can be kept a writer rests so many times as long as a write
	// took: the disk and the processor are then needed by those who read, and
	// the store is no slower than the cache would be.
	restShare = 3
	longRest  = 50 * time.Millisecond
)

// newBacklog lets half of the processors write: what keeping costs is taken
// from those who read. One that waits for the disk must not stop all.
func newBacklog(size int64) *backlog {
	return &backlog{
		writers: make(chan struct{}, min(max(runtime.GOMAXPROCS(0)/2, 2), 8)),
		limit:   min(max(size/32, minBacklog), maxBacklog),
	}
}

// add adds a fetch of n bytes, unless there is no room and it can be done
// without.
func (b *backlog) add(n int, must bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !must && (b.bytes+int64(n) > b.limit || b.fetches >= maxUnkept) {
		b.refused = true
		return false
	}
	b.bytes += int64(n)
	b.fetches++
	return true
}

// write calls f when it is its turn, and takes away what add has added.
func (b *backlog) write(n int, f func()) {
	b.writers <- struct{}{}
	defer func() { <-b.writers }()
	began := time.Now()
	f()
	b.mu.Lock()
	b.bytes -= int64(n)
	b.fetches--
	rest := b.refused
	b.refused = false
	b.mu.Unlock()
	if rest {
		time.Sleep(min(restShare*time.Since(began), longRest))
	}
}

// long tells whether there is so much to write that nothing should be fetched
// in advance without being asked for.
func (b *backlog) long() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes > b.limit/2 || b.fetches > maxUnkept/2
}

// load returns how many bytes are to be written.
func (b *backlog) load() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}
