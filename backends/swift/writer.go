package swift

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/backends"
)

// Create starts an object. Up to SegmentSize bytes are kept until Commit sends
// them in one piece. What is longer is sent by segments, while more is
// written.
func (s *Store) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w, err := s.create(ctx, key, size)
	if err != nil {
		return nil, fmt.Errorf("swift: create %s: %w", key, err)
	}
	return w, nil
}

func (s *Store) create(ctx context.Context, key string, size int64) (*writer, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	w := &writer{
		store: s, key: key, name: s.name(key), size: size, id: strings.ToLower(rand.Text()),
		segment: max(s.cfg.SegmentSize, (size+maxSegments-1)/maxSegments), slots: make(chan struct{}, s.cfg.Parallel),
	}
	if w.segment > maxObject {
		return nil, fmt.Errorf("%d bytes are more than an object can have: %w", size, fs.ErrInvalid)
	}
	// Better now than after the upload. Small objects ask no second time
	// where the PUT itself will tell.
	if size < 0 || size > w.segment || !s.can.putNone {
		if err := s.vacant(ctx, w.name); err != nil {
			return nil, err
		}
	}
	w.outer = ctx
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w, nil
}

// vacant returns nil if there is no object of that name.
func (s *Store) vacant(ctx context.Context, name string) error {
	switch _, err := s.head(ctx, s.writing(), s.cfg.Container, name); {
	case err == nil:
		return taken()
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return s.explain(err)
	}
}

// A writer belongs to one goroutine. Its segments go out on goroutines of
// their own, which Commit and Abort wait for.
type writer struct {
	outer   context.Context // Create's, which covers the writes
	ctx     context.Context // outer, ended by the first segment that fails
	cancel  context.CancelCauseFunc
	store   *Store
	key     string
	name    string
	size    int64 // announced, or -1
	id      string
	segment int64 // bytes of every segment but the last

	off     int64         // bytes taken
	part    *spool        // that is being filled, or nil
	number  int           // of segments that were handed out to be sent
	slots   chan struct{} // one element for each segment on its way
	claimed bool          // the names of the segments
	doubt   bool          // a request went out that may have made the object
	err     error         // of an earlier write: then nothing more is
	ended   bool

	going sync.WaitGroup
	mu    sync.Mutex
	sent  map[int]string // MD5 of each segment that the server has, by number
}

// Write takes the next bytes. It waits while Parallel segments are on their
// way.
func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.allowed(int64(len(p)))
	}
	done := 0
	for w.err == nil && done < len(p) {
		if w.part != nil && w.part.size == w.segment {
			w.err = w.send()
			continue
		}
		if w.part == nil {
			w.part = newSpool(w.store.cfg.SpoolDir, w.store.cfg.Guard)
		}
		n := int(min(int64(len(p)-done), w.segment-w.part.size))
		if _, w.err = w.part.Write(p[done : done+n]); w.err == nil {
			done, w.off = done+n, w.off+int64(n)
		}
	}
	if w.err != nil {
		return done, fmt.Errorf("swift: write %s: %w", w.key, w.err)
	}
	return done, nil
}

func (w *writer) allowed(n int64) error {
	switch {
	case w.ended:
		return fs.ErrClosed
	case w.size >= 0 && w.off+n > w.size:
		return fmt.Errorf("more than the %d bytes announced: %w", w.size, io.ErrUnexpectedEOF)
	case w.off+n > w.segment*maxSegments:
		return fmt.Errorf("%d bytes are more than an object of segments of %d can have: %w", w.off+n, w.segment, fs.ErrInvalid)
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

// send sends the segment that was filled, when there is a slot.
func (w *writer) send() error {
	if err := w.claim(); err != nil {
		return err
	}
	select {
	case w.slots <- struct{}{}:
	case <-w.ctx.Done():
		return w.stopped()
	}
	w.number++
	number, part := w.number, w.part
	w.part = nil
	w.going.Go(func() {
		defer func() { <-w.slots }()
		defer part.close()
		header := map[string]string{numberHeader: fmt.Sprint(number)}
		err := w.store.put(w.ctx, upload{name: segmentName(w.name, number), id: w.id, header: header, body: part, digest: part.md5()})
		if err != nil {
			w.cancel(fmt.Errorf("segment %d: %w", number, err))
			return
		}
		w.has(number, part.md5())
	})
	return nil
}

// has notes that the server has a segment.
func (w *writer) has(number int, digest string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent == nil {
		w.sent = make(map[int]string)
	}
	w.sent[number] = digest
}

// claim makes sure before the first segment that nobody else sends segments of
// the same names, or has left some.
func (w *writer) claim() error {
	if w.claimed {
		return nil
	}
	s := w.store
	if w.claimed = s.sending.try(w.name); !w.claimed {
		return fmt.Errorf("another upload to this key is under way: %w", fs.ErrExist)
	}
	if s.can.putNone {
		return nil // the PUT will tell
	}
	if err := s.vacant(w.ctx, segmentName(w.name, 1)); err != nil {
		return fmt.Errorf("there are segments of this key: %w", err)
	}
	return nil
}

// Commit sends what is left and makes the object appear.
func (w *writer) Commit(ctx context.Context) error {
	if w.err == nil {
		w.err = w.commit(ctx)
	}
	if w.err != nil {
		return fmt.Errorf("swift: commit %s: %w", w.key, w.err)
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
		if err := w.stopped(); err != nil {
			return err
		}
		return ctx.Err()
	}
	if err == nil {
		w.end()
	}
	return err
}

func (w *writer) finish(ctx context.Context) error {
	if w.number == 0 {
		part := w.part
		if part == nil {
			part = spoolOf(nil)
		}
		return w.make(ctx, upload{body: part, digest: part.md5()})
	}
	if w.part != nil {
		if err := w.send(); err != nil {
			return err
		}
	}
	for range cap(w.slots) { // who has all slots is alone
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := w.stopped(); err != nil {
		return err
	}
	return w.putManifest(ctx)
}

// make puts the object itself.
func (w *writer) make(ctx context.Context, u upload) error {
	u.name, u.id = w.name, w.id
	if err := w.store.making.take(ctx, w.name); err != nil {
		return err
	}
	defer w.store.making.give(w.name)
	if !w.store.can.putNone {
		if err := w.store.vacant(ctx, w.name); err != nil {
			return err
		}
	}
	w.doubt = true
	return w.store.put(ctx, u)
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
	if w.number > 0 || w.doubt {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.outer), abortWithin)
		defer cancel()
		if err := w.undo(ctx); err != nil {
			w.store.cfg.Logger.WarnContext(ctx, "swift: an aborted upload is left in the container until its key is deleted",
				"container", w.store.cfg.Container, "name", w.name, "error", err)
		}
	}
	w.end()
}

// undo removes the object if it appeared after all, and then the segments that
// are certainly this upload's.
func (w *writer) undo(ctx context.Context) error {
	if w.doubt {
		if err := w.store.removeOf(ctx, w.name, w.id); err != nil {
			return err
		}
	}
	return each(w.number, func(i int) error {
		if _, ours := w.sent[i+1]; ours {
			return w.store.remove(ctx, w.store.cfg.Container, segmentName(w.name, i+1))
		}
		return w.store.removeOf(ctx, segmentName(w.name, i+1), w.id)
	})
}

// end lets go of everything.
func (w *writer) end() {
	w.ended = true
	w.cancel(fs.ErrClosed)
	w.going.Wait()
	if w.part != nil {
		w.part.close()
		w.part = nil
	}
	if w.claimed {
		w.store.sending.give(w.name)
		w.claimed = false
	}
}
