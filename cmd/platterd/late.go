package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

// reopenEvery is how often a store that could not be opened is tried again.
const reopenEvery = 5 * time.Second

// A lateStore is a store that may be away when the gateway starts. Until it
// could be opened everything fails with the reason; the other stores go on.
type lateStore struct {
	name string
	open func(ctx context.Context) (backends.Store, error)
	log  *slog.Logger

	mu    sync.Mutex
	store backends.Store // nil: not yet
	err   error          // why
	tried time.Time
	busy  chan struct{} // held while trying
}

func newLate(name string, open func(ctx context.Context) (backends.Store, error), log *slog.Logger) *lateStore {
	return &lateStore{name: name, open: open, log: log, busy: make(chan struct{}, 1)}
}

// get returns the store, and tries to open it if nobody did of late.
func (l *lateStore) get(ctx context.Context) (backends.Store, error) {
	if s, done, err := l.now(); done {
		return s, err
	}
	select {
	case l.busy <- struct{}{}:
		defer func() { <-l.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s, done, err := l.now(); done { // by who was waited for
		return s, err
	}
	s, err := l.open(ctx)
	l.mu.Lock()
	first := l.tried.IsZero()
	l.store, l.err, l.tried = s, err, time.Now()
	l.mu.Unlock()
	switch {
	case err != nil && first:
		l.log.ErrorContext(ctx, "a store cannot be opened; it is tried again, and the others are served", "store", l.name, "err", err)
	case err == nil && !first:
		l.log.InfoContext(ctx, "a store could be opened at last", "store", l.name)
	}
	if err != nil {
		return nil, fmt.Errorf("store %s cannot be opened: %w", l.name, err)
	}
	return s, nil
}

// now returns what is known without trying.
func (l *lateStore) now() (s backends.Store, done bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
		return l.store, true, nil
	}
	if !l.tried.IsZero() && time.Since(l.tried) < reopenEvery {
		return nil, true, fmt.Errorf("store %s cannot be opened: %w", l.name, l.err)
	}
	return nil, false, nil
}

// state returns why the store could not be opened, or nil.
func (l *lateStore) state() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
		return nil
	}
	return l.err
}

// run tries until the store is open or ctx ends.
func (l *lateStore) run(ctx context.Context) error {
	for {
		if _, err := l.get(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenEvery):
		}
	}
}

// close closes a store that must be.
func (l *lateStore) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.store.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Open opens an object.
func (l *lateStore) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	s, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx, key)
}

// Create starts an object.
func (l *lateStore) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	s, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return s.Create(ctx, key, size)
}

// Delete removes an object.
func (l *lateStore) Delete(ctx context.Context, key string) error {
	s, err := l.get(ctx)
	if err != nil {
		return err
	}
	return s.Delete(ctx, key)
}

// List yields the objects of a store that can list.
func (l *lateStore) List(ctx context.Context) iter.Seq2[backends.Entry, error] {
	s, err := l.get(ctx)
	if err != nil {
		return func(yield func(backends.Entry, error) bool) { yield(backends.Entry{}, err) }
	}
	return backends.List(ctx, s)
}

// Usage tells how full a store is that can tell.
func (l *lateStore) Usage(ctx context.Context) (backends.Usage, error) {
	s, err := l.get(ctx)
	if err != nil {
		return backends.Usage{}, err
	}
	return backends.UsageOf(ctx, s)
}

// Capabilities tells what the server was found to do.
func (l *lateStore) Capabilities() []backends.Capability {
	s, _, _ := l.now()
	if s == nil {
		return nil
	}
	return backends.Capabilities(s)
}

// URI says where an object is.
func (l *lateStore) URI(key string) string {
	s, _, _ := l.now()
	if s == nil {
		return ""
	}
	return backends.URI(s, key)
}

// CopyFrom copies inside the stores.
func (l *lateStore) CopyFrom(ctx context.Context, key string, from backends.Store, fromKey string) error {
	s, err := l.get(ctx)
	if err != nil {
		return err
	}
	if other, ok := from.(*lateStore); ok {
		if from, err = other.get(ctx); err != nil {
			return err
		}
	}
	return backends.CopyInside(ctx, s, key, from, fromKey)
}
