package decode

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// A Key names one decoded cluster: of which file, and where it begins there.
type Key struct {
	Owner uint64 // from Cache.Owner or Named
	Off   int64
	Extra uint64 // what else tells two clusters at Off apart
}

const shards = 16

// A Cache keeps decoded clusters, the most recently used ones, up to a number
// of bytes. Several images may share it. What it holds never changes, so
// nothing is ever invalidated; buffers are used again once nobody reads them.
type Cache struct {
	pool   *Pool
	owners atomic.Uint64
	shard  [shards]shard
}

type shard struct {
	mu          sync.Mutex
	limit, used int64
	entries     map[Key]*entry
	front       entry // of a ring, most recent first
}

type entry struct {
	key        Key
	buf        []byte
	refs       atomic.Int32 // the cache's own, and one for each who copies out of buf
	done       chan struct{}
	ready      bool
	err        error
	gone       bool
	early      bool // decoded before anybody asked for it
	spent      bool // early, and read whole since: the first to go
	prev, next *entry
}

// NewCache returns a Cache of at most so many bytes, besides what is being
// decoded just now.
func NewCache(bytes int64) *Cache {
	c := &Cache{pool: NewPool()}
	for i := range c.shard {
		s := &c.shard[i]
		s.limit = bytes / shards
		s.entries = make(map[Key]*entry)
		s.front.prev, s.front.next = &s.front, &s.front
	}
	return c
}

// Pool returns the buffers and decompressors that go with the cache.
func (c *Cache) Pool() *Pool { return c.pool }

// Owner returns a number that no other caller got.
func (c *Cache) Owner() uint64 { return c.owners.Add(1) }

// Named returns the number of a file whose name is given to nothing else, so
// that what was decoded of it is found again when it is opened again.
func Named(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(sum[:]) | 1<<63 // Owner does not get there
}

func (c *Cache) of(k Key) *shard {
	h := (uint64(k.Off) ^ k.Extra ^ k.Owner*0xff51afd7ed558ccd) * 0x9e3779b97f4a7c15
	return &c.shard[h>>60]
}

// Get copies bytes of the cluster k, from off on, to p, if it is there.
func (c *Cache) Get(k Key, p []byte, off int) bool {
	s := c.of(k)
	s.mu.Lock()
	e := s.entries[k]
	if e == nil || !e.ready {
		s.mu.Unlock()
		return false
	}
	e.refs.Add(1)
	s.read(e, len(p))
	s.mu.Unlock()
	copy(p, e.buf[off:])
	c.release(e)
	return true
}

// Join is Get that waits, under ctx, for who decodes the cluster just now.
func (c *Cache) Join(ctx context.Context, k Key, p []byte, off int) (bool, error) {
	s := c.of(k)
	s.mu.Lock()
	e := s.entries[k]
	if e == nil {
		s.mu.Unlock()
		return false, nil
	}
	e.refs.Add(1)
	s.read(e, len(p))
	s.mu.Unlock()
	retry, err := c.wait(ctx, e, p, off)
	if retry {
		return false, nil
	}
	return err == nil, err
}

// Has reports whether the cluster k is there, or will be in a moment.
func (c *Cache) Has(k Key) bool {
	s := c.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[k] != nil
}

// Limit returns how many bytes of the clusters that come early the Cache can
// have room for without losing much else, and the largest of them.
func (c *Cache) Limit() (all, each int64) {
	return c.shard[0].limit * shards / 8, c.shard[0].limit / 4
}

// Early decodes the cluster k of n bytes before anybody asks for it, unless it
// is there or somebody is at it. Those who ask meanwhile wait for it; if it
// fails they try for themselves. Once it has been read whole it is the first to
// go: who reads in order does not come again.
func (c *Cache) Early(ctx context.Context, k Key, n int, fill func(context.Context, []byte) error) error {
	s := c.of(k)
	s.mu.Lock()
	if s.entries[k] != nil {
		s.mu.Unlock()
		return nil
	}
	e := &entry{key: k, buf: c.pool.Get(n), done: make(chan struct{}), gone: true, early: true}
	e.refs.Store(2)
	s.entries[k] = e
	s.mu.Unlock()
	return c.work(ctx, s, e, nil, 0, fill)
}

// Fill is Get for a cluster of n bytes that may not be there: one caller
// decodes it with fill, those who come meanwhile wait, each under its own
// context.
func (c *Cache) Fill(ctx context.Context, k Key, n int, p []byte, off int, fill func(context.Context, []byte) error) error {
	s := c.of(k)
	for {
		s.mu.Lock()
		e := s.entries[k]
		if e == nil {
			e = &entry{key: k, buf: c.pool.Get(n), done: make(chan struct{}), gone: true}
			e.refs.Store(2)
			s.entries[k] = e
			s.mu.Unlock()
			return c.work(ctx, s, e, p, off, fill)
		}
		e.refs.Add(1)
		s.read(e, len(p))
		s.mu.Unlock()
		retry, err := c.wait(ctx, e, p, off)
		if !retry {
			return err
		}
	}
}

// wait waits for another caller's decoding of e. It says to try again if that
// caller gave up for reasons of its own.
func (c *Cache) wait(ctx context.Context, e *entry, p []byte, off int) (retry bool, err error) {
	defer c.release(e)
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-e.done:
	}
	if e.err == nil && !e.gone {
		copy(p, e.buf[off:])
	}
	return e.gone, e.err
}

func (c *Cache) work(ctx context.Context, s *shard, e *entry, p []byte, off int, fill func(context.Context, []byte) error) error {
	defer c.release(e)
	defer close(e.done)
	defer c.settle(s, e) // even if fill panics, nobody waits for ever
	e.err = fill(ctx, e.buf)
	e.gone = e.err != nil && (e.early || ctx.Err() != nil)
	if e.err == nil {
		copy(p, e.buf[off:])
	}
	return e.err
}

// settle keeps e if its decoding succeeded and forgets it otherwise.
func (c *Cache) settle(s *shard, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.err != nil || e.gone {
		delete(s.entries, e.key)
		c.release(e)
		return
	}
	e.ready = true
	s.used += int64(len(e.buf))
	e.prev, e.next = e, e
	s.touch(e)
	for s.used > s.limit && s.front.prev != s.front.next {
		old := s.front.prev
		old.prev.next, old.next.prev = old.next, old.prev
		delete(s.entries, old.key)
		s.used -= int64(len(old.buf))
		c.release(old)
	}
}

// read notes that somebody reads n bytes of e. The caller holds the lock.
func (s *shard) read(e *entry, n int) {
	e.spent = e.early && n == len(e.buf)
	if e.ready {
		s.touch(e)
	}
}

// touch moves e to the front, or to the back if it is spent. The caller holds
// the lock.
func (s *shard) touch(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = &s.front, s.front.next
	if e.spent {
		e.prev, e.next = s.front.prev, &s.front
	}
	e.prev.next, e.next.prev = e, e
}

func (c *Cache) release(e *entry) {
	if e.refs.Add(-1) == 0 {
		c.pool.Put(e.buf)
	}
}
