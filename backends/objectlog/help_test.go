package objectlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/mem"
)

// soak is n, and many times n for a soak test: PLATTER_SOAK=1.
func soak(n int) int {
	if os.Getenv("PLATTER_SOAK") != "" {
		return n * 40
	}
	return n
}

var errFlaky = errors.New("injected")

// A catalog is Heads in memory. What is garbage is deleted from the store at
// once: nothing that is needed may be among it.
type catalog struct {
	store backends.Store

	mu      sync.Mutex
	epoch   int64
	head    Head
	last    Head
	commits int
	garbage []string
	fault   func() (before, after bool) // fail a commit before, or after it is done
}

// take takes a new epoch.
func (c *catalog) take() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	return c.epoch
}

func (c *catalog) now() Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head
}

func (c *catalog) Load(ctx context.Context) (Head, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.head
	h.State = slices.Clone(h.State)
	return h, ctx.Err()
}

func (c *catalog) Commit(ctx context.Context, h Head) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	var before, after bool
	if c.fault != nil {
		before, after = c.fault()
	}
	if before {
		return errFlaky
	}
	if err := c.commit(h); err != nil {
		return err
	}
	if after {
		return errFlaky
	}
	return nil
}

func (c *catalog) commit(h Head) error {
	switch {
	case h.Epoch != c.epoch:
		return fmt.Errorf("epoch %d, now %d: %w", h.Epoch, c.epoch, ErrFenced)
	case len(h.State) > maxState || len(h.Garbage) > maxGarbage:
		return fmt.Errorf("state of %d bytes, %d keys", len(h.State), len(h.Garbage))
	case h.Epoch == c.last.Epoch && bytes.Equal(h.State, c.last.State) && h.Dirty == c.last.Dirty && slices.Equal(h.Garbage, c.last.Garbage):
		return nil // again
	}
	h.State = slices.Clone(h.State)
	c.last, c.head = h, h
	c.head.Garbage = nil
	c.commits++
	c.garbage = append(c.garbage, h.Garbage...)
	for _, key := range h.Garbage {
		if err := c.store.Delete(context.Background(), key); err != nil {
			return err
		}
	}
	return nil
}

// flaky is a store that fails in all the ways in which a store can.
type flaky struct {
	store backends.Store
	mu    sync.Mutex
	rng   *rand.Rand
	bad   int // percent
	away  bool
}

func (f *flaky) set(bad int, away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad, f.away = bad, away
}

func (f *flaky) fails() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away || f.bad > 0 && f.rng.IntN(100) < f.bad
}

func (f *flaky) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	return f.store.Open(ctx, key)
}

func (f *flaky) Delete(ctx context.Context, key string) error { return f.store.Delete(ctx, key) }

func (f *flaky) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if f.fails() {
		return nil, errFlaky
	}
	w, err := f.store.Create(ctx, key, size)
	if err != nil {
		return nil, err
	}
	return &flakyWriter{f, w}, nil
}

type flakyWriter struct {
	f *flaky
	w backends.Writer
}

func (w *flakyWriter) Write(p []byte) (int, error) {
	if w.f.fails() {
		return 0, errFlaky
	}
	return w.w.Write(p)
}

func (w *flakyWriter) Commit(ctx context.Context) error {
	if w.f.fails() {
		return errFlaky
	}
	err := w.w.Commit(ctx)
	if err == nil && w.f.fails() {
		return errFlaky // it is there, and nobody is told
	}
	return err
}

func (w *flakyWriter) Abort() { w.w.Abort() }

// A rig is all that stands around a log.
type rig struct {
	fs    *crashfs.FS
	mem   *mem.Store
	store *flaky
	heads *catalog
	cfg   Config
}

func newRig(t testing.TB, size int64) *rig {
	t.Helper()
	r := &rig{fs: newFS(t), mem: mem.New()}
	r.store = &flaky{store: r.mem, rng: rand.New(rand.NewPCG(1, 2))}
	r.heads = &catalog{store: r.mem}
	r.cfg = Config{
		ID: "11111111-2222-3333-4444-555555555555", Store: r.store, Prefix: "o/1/", Heads: r.heads, Size: size, Dir: "d/1",
		SegmentSize: 64 << 10, MaxAge: 2 * time.Millisecond, Retry: 100 * time.Microsecond, JournalLimit: 1 << 20,
	}
	return r
}

func newFS(t testing.TB) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
	err := localfs.MkdirAll(fsys, "d/1")
	if err == nil {
		err = fsys.SyncDir("/")
	}
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

// config is a Config with a new epoch.
func (r *rig) config() Config {
	cfg := r.cfg
	cfg.FS = r.fs
	cfg.Epoch = r.heads.take()
	return cfg
}

func (r *rig) create(t testing.TB) *Log {
	t.Helper()
	l, err := Create(context.Background(), r.config())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (r *rig) open(t testing.TB) *Log {
	t.Helper()
	l, err := Open(context.Background(), r.config())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// leaks is an error if the store has an object that neither the head refers to
// nor garbage has, or not one that the head refers to.
func (r *rig) leaks(ctx context.Context) error {
	want, err := Objects(ctx, Config{ID: r.cfg.ID, Store: r.mem, Prefix: r.cfg.Prefix, Heads: r.heads})
	if err != nil {
		return err
	}
	for e, err := range r.mem.List(ctx) {
		if err != nil {
			return err
		}
		if !slices.Contains(want, e.Key) {
			return fmt.Errorf("object %s leaked", e.Key)
		}
	}
	return nil
}

func content(t testing.TB, r block.Reader) []byte {
	t.Helper()
	p := make([]byte, r.Size())
	if err := r.ReadAt(context.Background(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func same(ctx context.Context, r block.Reader, want []byte) error {
	got := make([]byte, len(want))
	if err := r.ReadAt(ctx, got, 0); err != nil {
		return err
	}
	if i := diff(got, want); i >= 0 {
		return fmt.Errorf("byte %d is %d, want %d", i, got[i], want[i])
	}
	for e, err := range block.Extents(ctx, r, 0, r.Size()) {
		if err != nil {
			return err
		}
		if e.Kind != block.Data && len(bytes.Trim(want[e.Off:e.End()], "\x00")) > 0 {
			return fmt.Errorf("extent %+v has data", e)
		}
	}
	return nil
}

func diff(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// until waits for something that happens in the background.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
	}
}
