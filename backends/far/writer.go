package far

import (
	"context"
	"fmt"

	"github.com/seed-478a8fee/platter/backends"
)

// write makes one call to the store in a slot of the writes.
func (s *Store) write(ctx context.Context, e Event, do func() error) error {
	e.Try = 1
	err := s.writes.pay(ctx, e.Bytes)
	if err == nil {
		err = s.enter(ctx, s.writes, &e)
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", s.cfg.Name, e.Op, err)
	}
	defer s.writes.leave()
	return s.call(ctx, e, do)
}

// Create starts an object. The limits hold for each piece that is written.
func (s *Store) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w := &writer{s: s, ctx: ctx}
	err := s.write(ctx, Event{Op: OpCreate}, func() (err error) {
		w.w, err = s.store.Create(ctx, key, size)
		return err
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// A writer is an object on its way to a far store.
type writer struct {
	s   *Store
	ctx context.Context // Create's, which covers the writes
	w   backends.Writer
}

func (w *writer) Write(p []byte) (n int, err error) {
	err = w.s.write(w.ctx, Event{Op: OpWrite, Bytes: int64(len(p))}, func() (err error) {
		n, err = w.w.Write(p)
		return err
	})
	return n, err
}

func (w *writer) Commit(ctx context.Context) error {
	return w.s.write(ctx, Event{Op: OpCommit}, func() error { return w.w.Commit(ctx) })
}

// Abort does not wait for a slot: it frees something.
func (w *writer) Abort() { w.w.Abort() }
