package catalog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// batchSize is how many records are decoded at a time while loading.
const batchSize = 512

// load reads the whole KV into a new state.
func (c *Catalog) load(ctx context.Context) (*state, error) {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newState()
	// Batches are decoded by all cores, and applied in the order of keys.
	order := make(chan chan []decoded, 2*runtime.GOMAXPROCS(0))
	failed := make(chan error, 1)
	go func() {
		defer close(order)
		failed <- c.readAll(ctx, s, order)
	}()
	for batch := range order {
		for _, d := range <-batch {
			if d.err != nil {
				c.log.Error("catalog: a record cannot be read and is left out", "key", d.key, "error", d.err)
			}
			s.apply(d)
		}
	}
	if err := <-failed; err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	c.log.Info("catalog: loaded", "images", s.images.len(), "revision", s.rev, "took", time.Since(start).Round(time.Millisecond))
	return s, nil
}

// readAll sends every record of the KV, decoded, in order. The revision of
// the listing lands in s before order is closed.
func (c *Catalog) readAll(ctx context.Context, s *state, order chan<- chan []decoded) error {
	var batch []Pair
	send := func() {
		pairs, done := batch, make(chan []decoded, 1)
		batch = nil
		order <- done
		go func() { done <- decodePairs(pairs) }()
	}
	var rev int64
	for p, err := range c.kv.List(ctx, "", "") {
		if err != nil {
			return err
		}
		rev = p.AsOf
		if !indexed(p.Key) {
			continue
		}
		if batch = append(batch, p); len(batch) == batchSize {
			send()
		}
	}
	send()
	if rev == 0 {
		return errors.New("the database is empty though it was not a moment ago")
	}
	s.rev = rev
	return nil
}

// indexed tells whether the index has the record at key.
func indexed(key string) bool {
	switch kindOf(key) {
	case preDead, preGarbage, preRef, preHold, preHead, preTrace:
		return false
	}
	return true
}

func decodePairs(pairs []Pair) []decoded {
	out := make([]decoded, len(pairs))
	for i, p := range pairs {
		out[i] = decodeEvent(Event{Key: p.Key, Value: p.Value, Revision: p.Revision})
	}
	return out
}

// follow keeps the index up to date until ctx ends. A watch that ends is
// begun again where it ended; one that has missed too much is begun again
// from a new state, and the old one answers until that is there.
func (c *Catalog) follow(ctx context.Context) {
	reload := false
	for wait := newBackoff(); ctx.Err() == nil; wait.sleep(ctx) {
		if reload {
			before := c.store.newest()
			s, err := c.load(ctx)
			if err != nil {
				c.setReady(fmt.Errorf("catalog: %w", err))
				continue
			}
			c.store.swap(s, before)
			reload = false
			wait.reset()
		}
		before := c.store.revision()
		err := c.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.store.revision() > before {
			wait.reset()
		}
		reload = errors.Is(err, ErrCompacted)
		c.log.Info("catalog: the watch ended and is begun again", "error", err, "reload", reload)
	}
}

// watch follows the KV until something ends it. Beside it a heartbeat looks
// whether the KV is there, and whether it still holds the same catalog.
func (c *Catalog) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(c.heartbeat(ctx))
	}()
	err := c.drink(ctx)
	cancel(err)
	<-done
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

// drink brings in what the watch delivers, revision by revision.
func (c *Catalog) drink(ctx context.Context) error {
	var changes []decoded
	for e, err := range c.kv.Watch(ctx, "", c.store.revision()) {
		if err != nil {
			return err
		}
		if d := decodeEvent(e); indexed(e.Key) {
			if d.err != nil {
				c.log.Error("catalog: a record cannot be read and is left out", "key", d.key, "error", d.err)
			}
			changes = append(changes, d)
		}
		if !e.More {
			c.store.follow(changes, e.Revision)
			changes = changes[:0]
		}
	}
	return errors.New("the watch ended by itself")
}

// heartbeat returns when the KV turns out to hold another catalog than the
// index, as after a restore: then everything is read anew.
func (c *Catalog) heartbeat(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Heartbeat)
	defer tick.Stop()
	for {
		p, err := c.kv.Get(ctx, keySchema)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			err = fmt.Errorf("catalog: %w", err)
		}
		c.setReady(err)
		if err == nil && c.replaced(p) {
			return fmt.Errorf("the database was filled anew: %w", ErrCompacted)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// replaced tells whether p, the schema just read, is that of another catalog,
// or of a past that the index is ahead of.
func (c *Catalog) replaced(p Pair) bool {
	r, err := decodeSchema(p)
	if err != nil {
		return false
	}
	same := true
	c.store.read(func(s *state) { same = s.schema == r.Catalog })
	return !same
}

// A backoff spaces out attempts, from milliseconds to seconds.
type backoff struct{ next time.Duration }

const (
	backoffLeast = 5 * time.Millisecond
	backoffMost  = 2 * time.Second
)

func newBackoff() *backoff { return &backoff{backoffLeast} }

func (b *backoff) reset() { b.next = backoffLeast }

func (b *backoff) sleep(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(b.next):
	}
	b.next = min(2*b.next, backoffMost)
}
