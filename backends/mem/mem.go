// Package mem keeps objects in memory.
//
// It is the Store that the rest of the code is tested on, so it keeps every
// promise that the others keep, those about full stores and about holes too.
package mem

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

// A Store keeps objects in memory. It is a backends.Store, Lister and Meter.
type Store struct {
	limit int64 // bytes, 0 is no limit

	mu      sync.Mutex
	used    int64 // bytes of objects and of writers that have not ended
	objects map[string]object
}

// An object never changes once it is in the map, so readers need no lock.
type object struct {
	data     []byte
	modified time.Time
}

// New returns an empty Store.
func New() *Store { return NewLimited(0) }

// NewLimited returns an empty Store that is full at limit bytes; 0 is never.
func NewLimited(limit int64) *Store {
	return &Store{limit: limit, objects: make(map[string]object)}
}

// Open opens an object.
func (s *Store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	if err := check(ctx, "open", key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return nil, fmt.Errorf("mem: open %s: %w", key, fs.ErrNotExist)
	}
	return &reader{data: o.data}, nil
}

// Create starts an object.
func (s *Store) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if err := check(ctx, "create", key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.objects[key]; taken {
		return nil, fmt.Errorf("mem: create %s: %w", key, fs.ErrExist)
	}
	return &writer{ctx: ctx, store: s, key: key, size: size}, nil
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= int64(len(s.objects[key].data))
	delete(s.objects, key)
	return nil
}

// List yields the objects there were when it began. What a crash leaves
// unfinished in memory is nothing.
func (s *Store) List(ctx context.Context) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		s.mu.Lock()
		objects := maps.Clone(s.objects)
		s.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if err := ctx.Err(); err != nil {
				yield(backends.Entry{}, err)
				return
			}
			o := objects[key]
			e := backends.Entry{Key: key, Size: int64(len(o.data)), Modified: o.modified}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Usage returns the limit and what is left of it, or zeros without a limit.
func (s *Store) Usage(context.Context) (backends.Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == 0 {
		return backends.Usage{}, nil
	}
	return backends.Usage{Total: s.limit, Free: s.limit - s.used}, nil
}

func check(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mem: %s %s: %w", op, key, err)
	}
	if err := backends.CheckKey(key); err != nil {
		return fmt.Errorf("mem: %s: %w", op, err)
	}
	return nil
}

// take counts n more bytes.
func (s *Store) take(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 && n > s.limit-s.used {
		return syscall.ENOSPC
	}
	s.used += n
	return nil
}

// A writer belongs to one goroutine; only its end touches the store.
type writer struct {
	ctx   context.Context // Create's, which covers the writes
	store *Store
	key   string
	size  int64
	data  []byte
	ended bool
}

func (w *writer) Write(p []byte) (int, error) {
	if w.ended {
		return 0, fmt.Errorf("mem: write %s: %w", w.key, fs.ErrClosed)
	}
	if err := w.ctx.Err(); err != nil {
		return 0, fmt.Errorf("mem: write %s: %w", w.key, err)
	}
	if w.size >= 0 && int64(len(w.data)+len(p)) > w.size {
		return 0, fmt.Errorf("mem: write %s: more than the %d bytes announced: %w", w.key, w.size, io.ErrUnexpectedEOF)
	}
	if err := w.store.take(int64(len(p))); err != nil {
		return 0, fmt.Errorf("mem: write %s: %w", w.key, err)
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

func (w *writer) Commit(ctx context.Context) error {
	if err := w.commit(ctx); err != nil {
		return fmt.Errorf("mem: commit %s: %w", w.key, err)
	}
	return nil
}

func (w *writer) commit(ctx context.Context) error {
	if w.ended {
		return fs.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.size >= 0 && int64(len(w.data)) != w.size {
		return fmt.Errorf("%d bytes written, %d announced: %w", len(w.data), w.size, io.ErrUnexpectedEOF)
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if _, taken := w.store.objects[w.key]; taken {
		return fs.ErrExist
	}
	w.store.objects[w.key] = object{data: w.data, modified: time.Now()}
	w.ended = true
	return nil
}

func (w *writer) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.used -= int64(len(w.data))
	w.data = nil
}
