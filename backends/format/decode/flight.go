package decode

import (
	"context"
	"sync"
)

// A Flight lets many callers who want the same thing wait for one who gets
// it. The zero Flight is ready.
type Flight[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	done  chan struct{}
	value V
	err   error
	gone  bool // err is only that the one who worked gave up
}

// Do returns what get returns, for one key never twice at a time. The first
// caller works, the others wait, each under its own context; if the first
// gives up because its own context ended, one of the others takes over.
func (f *Flight[K, V]) Do(ctx context.Context, key K, get func(context.Context) (V, error)) (V, error) {
	for {
		f.mu.Lock()
		c, waiting := f.calls[key]
		if !waiting {
			c = f.enter(key)
		}
		f.mu.Unlock()
		if !waiting {
			return f.work(ctx, key, c, get)
		}
		select {
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		case <-c.done:
		}
		if !c.gone {
			return c.value, c.err
		}
	}
}

func (f *Flight[K, V]) enter(key K) *call[V] {
	if f.calls == nil {
		f.calls = make(map[K]*call[V])
	}
	c := &call[V]{done: make(chan struct{}), gone: true}
	f.calls[key] = c
	return c
}

func (f *Flight[K, V]) work(ctx context.Context, key K, c *call[V], get func(context.Context) (V, error)) (V, error) {
	defer func() { // even if get panics, nobody waits for ever
		f.mu.Lock()
		delete(f.calls, key)
		f.mu.Unlock()
		close(c.done)
	}()
	c.value, c.err = get(ctx)
	c.gone = c.err != nil && ctx.Err() != nil
	return c.value, c.err
}
