package swift

import (
	"context"
	"sync"
)

// Turns lets one at a time have a name. Swift itself does not: two PUTs with
// If-None-Match: * that arrive together are both carried out.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the name is free
}

// try takes a name if nobody has it.
func (t *turns) try(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken[name] != nil {
		return false
	}
	if t.taken == nil {
		t.taken = make(map[string]chan struct{})
	}
	t.taken[name] = make(chan struct{})
	return true
}

// take waits until the name is free and takes it.
func (t *turns) take(ctx context.Context, name string) error {
	for !t.try(name) {
		t.mu.Lock()
		free := t.taken[name]
		t.mu.Unlock()
		if free == nil {
			continue
		}
		select {
		case <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// held tells whether somebody has a name.
func (t *turns) held(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken[name] != nil
}

// give lets go of a name.
func (t *turns) give(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.taken[name])
	delete(t.taken, name)
}
