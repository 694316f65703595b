package ingest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// errFault is what a step that fails says.
var errFault = errors.New("fault")

// A fault says which step of the world fails, and how.
type fault struct {
	step  int  // counted from 1; 0: none
	after bool // it is done, and only the answer is lost
	crash bool // nothing works any more from then on
}

func (f fault) String() string {
	return fmt.Sprintf("step %d, done=%t, crash=%t", f.step, f.after, f.crash)
}

// A world counts the steps that an upload takes outside of its own process,
// and breaks one.
type world struct {
	mu    sync.Mutex
	f     fault
	n     int
	dead  bool
	broke string // which step it was
}

// step does what do does, or fails.
func (w *world) step(name string, do func() error) error {
	w.mu.Lock()
	w.n++
	now := w.n == w.f.step
	if now {
		w.broke = name
		w.dead = w.f.crash
	}
	dead := w.dead && !now
	w.mu.Unlock()
	switch {
	case dead, now && !w.f.after:
		return w.err(name)
	case now:
		if err := do(); err != nil {
			return err
		}
		return w.err(name)
	}
	return do()
}

func (w *world) err(name string) error {
	if name == "kv" {
		return fmt.Errorf("%w: %w", catalog.ErrUnavailable, errFault)
	}
	return fmt.Errorf("%s: %w", name, errFault)
}

// alive tells whether what needs no answer, like Abort, still happens.
func (w *world) alive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.dead
}

// A faultyKV breaks commits.
type faultyKV struct {
	catalog.KV
	w *world
}

func (k *faultyKV) Commit(ctx context.Context, txn catalog.Txn) (rev int64, err error) {
	err = k.w.step("kv", func() error {
		rev, err = k.KV.Commit(ctx, txn)
		return err
	})
	return rev, err
}

// A faultyStore breaks everything else.
type faultyStore struct {
	s backends.Store
	w *world
}

func (s *faultyStore) Open(ctx context.Context, key string) (r block.ReadCloser, err error) {
	err = s.w.step("open", func() error {
		r, err = s.s.Open(ctx, key)
		return err
	})
	return r, err
}

func (s *faultyStore) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	var w backends.Writer
	err := s.w.step("create", func() (err error) {
		w, err = s.s.Create(ctx, key, size)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &faultyWriter{w, s.w}, nil
}

func (s *faultyStore) Delete(ctx context.Context, key string) error {
	return s.w.step("delete", func() error { return s.s.Delete(ctx, key) })
}

func (s *faultyStore) List(ctx context.Context) iter.Seq2[backends.Entry, error] {
	return backends.List(ctx, s.s)
}

type faultyWriter struct {
	bw backends.Writer
	w  *world
}

func (w *faultyWriter) Write(p []byte) (n int, err error) {
	err = w.w.step("write", func() error {
		n, err = w.bw.Write(p)
		return err
	})
	return n, err
}

func (w *faultyWriter) Commit(ctx context.Context) error {
	return w.w.step("commit", func() error { return w.bw.Commit(ctx) })
}

func (w *faultyWriter) Abort() {
	if w.w.alive() {
		w.bw.Abort()
	}
}
