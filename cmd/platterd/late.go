package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

// reopenEvery is how often a store that could not be opened is tried again.
const reopenEvery = 5 * time.Second

// openWithin bounds one try to open a store.
const openWithin = 30 * time.Second

// errNotYet is how it is with a store whose opening has begun and not ended.
var errNotYet = errors.New("it has not answered yet")

// A lateStore is a store that may be away when the gateway starts. Until it
// could be opened everything fails with the reason; the other stores go on.
// Whoever asks for it waits no longer than they like, and the opening, which
// is for all, goes on.
type lateStore struct {
	name string
	open func(ctx context.Context) (backends.Store, error)
	log  *slog.Logger

	life context.Context // of the tries
	end  context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex
	store  backends.Store // nil: not yet
	err    error          // why
	tried  time.Time
	trying chan struct{} // closed when the try that is under way has ended; nil: there is none
	closed bool
}

func newLate(name string, open func(ctx context.Context) (backends.Store, error), log *slog.Logger) *lateStore {
	l := &lateStore{name: name, open: open, log: log}
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// get returns the store, and tries to open it if nobody did of late.
func (l *lateStore) get(ctx context.Context) (backends.Store, error) {
	for {
		s, trying, err := l.begin()
		if trying == nil {
			return s, err
		}
		select {
		case <-trying:
		case <-ctx.Done():
			return nil, fmt.Errorf("store %s cannot be opened: %w: %w", l.name, errNotYet, ctx.Err())
		}
	}
}

// begin returns what is known, or begins a try and returns what says that it
// has ended.
func (l *lateStore) begin() (backends.Store, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, done, err := l.known(); done {
		return s, nil, err
	}
	if l.trying == nil {
		l.trying = make(chan struct{})
		l.work.Go(l.try)
	}
	return nil, l.trying, nil
}

// known returns what is known without trying, with mu held.
func (l *lateStore) known() (s backends.Store, done bool, err error) {
	switch {
	case l.store != nil:
		return l.store, true, nil
	case l.closed:
		return nil, true, fmt.Errorf("store %s: %w", l.name, fs.ErrClosed)
	case l.trying == nil && !l.tried.IsZero() && time.Since(l.tried) < reopenEvery:
		return nil, true, fmt.Errorf("store %s cannot be opened: %w", l.name, l.err)
	}
	return nil, false, nil
}

// try tries once.
func (l *lateStore) try() {
	ctx, cancel := context.WithTimeout(l.life, openWithin)
	defer cancel()
	s, err := l.open(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.tried.IsZero()
	l.store, l.err, l.tried = s, err, time.Now()
	close(l.trying)
	l.trying = nil
	switch {
	case l.closed:
	case err != nil && first:
		l.log.Error("a store cannot be opened; it is tried again, and the others are served", "store", l.name, "err", err)
	case err == nil && !first:
		l.log.Info("a store could be opened at last", "store", l.name)
	}
}

// now returns the store, if it is there.
func (l *lateStore) now() backends.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store
}

// state returns why the store could not be opened, or nil.
func (l *lateStore) state() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.store != nil:
		return nil
	case l.err == nil && l.trying != nil:
		return errNotYet
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

// close gives up opening, and closes a store that must be.
func (l *lateStore) close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end()
	l.work.Wait()
	if c, ok := l.now().(io.Closer); ok {
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

// Free tells whether an object could be deleted now.
func (l *lateStore) Free(ctx context.Context, key string) error {
	s, err := l.get(ctx)
	if err != nil {
		return err
	}
	return backends.Free(ctx, s, key)
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
	s := l.now()
	if s == nil {
		return nil
	}
	return backends.Capabilities(s)
}

// URI says where an object is.
func (l *lateStore) URI(key string) string {
	s := l.now()
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
