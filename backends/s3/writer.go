package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/backends"
)

// Create starts an object. Up to PartSize bytes are kept until Commit sends
// them in one piece. What is longer becomes a multipart upload, whose parts go
// out while more is written.
func (s *Store) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w, err := s.create(ctx, key, size)
	if err != nil {
		return nil, fmt.Errorf("s3: create %s: %w", key, err)
	}
	return w, nil
}

func (s *Store) create(ctx context.Context, key string, size int64) (*writer, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	if size > maxObject {
		return nil, fmt.Errorf("%d bytes are more than an object can have: %w", size, fs.ErrInvalid)
	}
	// Better now than after the upload. Small objects do not ask where the
	// PUT itself will tell.
	if size < 0 || size > s.cfg.PartSize || !s.can.putNone {
		if err := s.vacant(ctx, s.name(key)); err != nil {
			return nil, err
		}
	}
	return s.writer(ctx, key, size), nil
}

func (s *Store) writer(ctx context.Context, key string, size int64) *writer {
	w := &writer{
		outer: ctx, store: s, key: key, name: s.name(key), size: size,
		id: strings.ToLower(rand.Text()), plan: planFor(size, s.cfg.PartSize),
	}
	w.change.L = &w.mu
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// vacant returns nil if there is no object of that name.
func (s *Store) vacant(ctx context.Context, name string) error {
	switch _, err := s.head(ctx, s.writing(), name); {
	case err == nil:
		return taken()
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

// A writer belongs to one goroutine. Its parts go out on goroutines of their
// own, which Commit and Abort wait for.
type writer struct {
	outer  context.Context // Create's, which covers the writes
	ctx    context.Context // outer, ended by the first part that fails
	cancel context.CancelCauseFunc
	store  *Store
	key    string
	name   string
	size   int64 // announced, or -1
	id     string
	plan   plan

	off    int64    // bytes taken
	part   [][]byte // blocks of the part that is being filled
	number int      // of parts that were sent
	upload string   // id of the multipart upload, if there is one
	stray  bool     // there may be another one, whose id was lost on the way
	doubt  bool     // a request went out that may have made the object
	err    error    // of an earlier write: then nothing more is
	ended  bool

	going  sync.WaitGroup
	mu     sync.Mutex
	change sync.Cond // blocks or sent has changed
	blocks int       // in use
	free   [][]byte  // blocks for the next parts
	flying int       // parts on their way
	sent   []minio.CompletePart
}

// Write takes the next bytes. It waits while Parallel parts are on their way.
func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.allowed(int64(len(p)))
	}
	done := 0
	for w.err == nil && done < len(p) {
		var b *[]byte
		if b, w.err = w.room(); w.err == nil {
			n := copy((*b)[len(*b):cap(*b)], p[done:])
			*b = (*b)[:len(*b)+n]
			done, w.off = done+n, w.off+int64(n)
		}
	}
	if w.err != nil {
		return done, fmt.Errorf("s3: write %s: %w", w.key, w.err)
	}
	return done, nil
}

func (w *writer) allowed(n int64) error {
	switch {
	case w.ended:
		return fs.ErrClosed
	case w.size >= 0 && w.off+n > w.size:
		return fmt.Errorf("more than the %d bytes announced: %w", w.size, io.ErrUnexpectedEOF)
	case w.off+n > maxObject:
		return fmt.Errorf("%d bytes are more than an object can have: %w", w.off+n, fs.ErrInvalid)
	}
	return w.stopped()
}

// stopped returns why no more can be written, or nil.
func (w *writer) stopped() error {
	if err := w.outer.Err(); err != nil {
		return err
	}
	return context.Cause(w.ctx)
}

// room returns a block that is not full. A part is sent when the next byte
// comes, so that the last part is there for Commit.
func (w *writer) room() (*[]byte, error) {
	if n := len(w.part); n > 0 && len(w.part[n-1]) < cap(w.part[n-1]) {
		return &w.part[n-1], nil
	}
	if len(w.part) == w.plan.units(w.number+1) {
		if err := w.send(); err != nil {
			return nil, err
		}
	}
	b, err := w.block()
	if err != nil {
		return nil, err
	}
	w.part = append(w.part, b)
	return &w.part[len(w.part)-1], nil
}

// block returns an empty block, when not too many are in use: those of the
// part that is being filled and of Parallel units on their way.
func (w *writer) block() ([]byte, error) {
	unit := w.store.cfg.PartSize
	if w.size >= 0 && w.size <= unit {
		return make([]byte, 0, w.size), nil // all there will be
	}
	limit := w.plan.units(w.number+1) + w.store.cfg.Parallel
	if err := w.await(w.ctx, func() bool { return w.blocks < limit }); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocks++
	if n := len(w.free); n > 0 {
		b := w.free[n-1]
		w.free = w.free[:n-1]
		return b, nil
	}
	return (*w.store.blocks.Get().(*[]byte))[:0], nil
}

// await waits until done, ctx or the upload ends. done is called under mu.
func (w *writer) await(ctx context.Context, done func() bool) error {
	wake := func() { w.mu.Lock(); w.change.Broadcast(); w.mu.Unlock() }
	defer context.AfterFunc(ctx, wake)()
	defer context.AfterFunc(w.ctx, wake)()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if err := errors.Join(ctx.Err(), w.stopped()); err != nil {
			return w.reason(ctx)
		}
		if done() {
			return nil
		}
		w.change.Wait()
	}
}

// reason returns why the upload ended: a context, or the part that failed.
func (w *writer) reason(ctx context.Context) error {
	if err := w.stopped(); err != nil {
		return err
	}
	return ctx.Err()
}

// Commit sends what is left and makes the object appear.
func (w *writer) Commit(ctx context.Context) error {
	if w.err == nil {
		w.err = w.commit(ctx)
	}
	if w.err != nil {
		return fmt.Errorf("s3: commit %s: %w", w.key, w.err)
	}
	return nil
}

func (w *writer) commit(ctx context.Context) error {
	switch {
	case w.ended:
		return fs.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case w.size >= 0 && w.off != w.size:
		return fmt.Errorf("%d bytes written, %d announced: %w", w.off, w.size, io.ErrUnexpectedEOF)
	}
	if err := w.stopped(); err != nil {
		return err
	}
	// The writes' context ends this as well.
	both, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ctx, func() { cancel(w.stopped()) })()
	err := w.finish(both)
	if err != nil && both.Err() != nil {
		return w.reason(ctx)
	}
	if err == nil {
		w.end()
	}
	return err
}

func (w *writer) finish(ctx context.Context) error {
	if w.upload == "" && len(w.part) <= 1 {
		return w.putWhole(ctx)
	}
	if err := w.send(); err != nil {
		return err
	}
	if err := w.await(ctx, func() bool { return w.flying == 0 }); err != nil {
		return err
	}
	return w.complete(ctx)
}

// abortWithin is how long Abort tries to free what was sent. What it cannot
// free, Delete does.
const abortWithin = 10 * time.Second

// Abort throws away what was written.
func (w *writer) Abort() {
	if w.ended {
		return
	}
	w.cancel(fs.ErrClosed)
	w.going.Wait()
	if w.upload != "" || w.stray || w.doubt {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.outer), abortWithin)
		defer cancel()
		if err := w.undo(ctx); err != nil {
			w.store.cfg.Logger.WarnContext(ctx, "s3: an aborted upload is left in the bucket until its key is deleted",
				"bucket", w.store.cfg.Bucket, "name", w.name, "error", err)
		}
	}
	w.end()
}

// undo removes the object if it appeared after all, and the parts.
func (w *writer) undo(ctx context.Context) error {
	var gone, freed error
	if w.doubt {
		st, err := w.store.head(ctx, w.store.reading(), w.name)
		switch {
		case err == nil && st.upload == w.id:
			gone = w.store.remove(ctx, w.name)
		case !errors.Is(err, fs.ErrNotExist):
			gone = err
		}
	}
	if w.upload != "" {
		freed = w.store.abort(ctx, w.name, w.upload)
	}
	if w.stray && w.store.can.listUploads {
		freed = errors.Join(freed, w.store.abortAll(ctx, w.name))
	}
	return errors.Join(gone, freed)
}

// end lets go of everything.
func (w *writer) end() {
	w.ended = true
	w.cancel(fs.ErrClosed)
	w.going.Wait()
	for _, b := range append(w.part, w.free...) {
		if int64(cap(b)) == w.store.cfg.PartSize {
			w.store.blocks.Put(&b)
		}
	}
	w.part, w.free = nil, nil
}

// inOrder returns the parts by number.
func (w *writer) inOrder() []minio.CompletePart {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(slices.Values(w.sent), func(a, b minio.CompletePart) int { return a.PartNumber - b.PartNumber })
}
