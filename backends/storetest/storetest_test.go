package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// broken is a right store, but for its hooks.
type broken struct {
	s      *mem.Store
	open   func(s *mem.Store, key string) (block.ReadCloser, error)
	create func(ctx context.Context, s *mem.Store, key string, size int64) (backends.Writer, error)
	list   func(e backends.Entry) backends.Entry
	delete func(s *mem.Store, key string) error
}

func (b broken) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	if b.open != nil {
		return b.open(b.s, key)
	}
	return b.s.Open(ctx, key)
}

func (b broken) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if b.create != nil {
		return b.create(ctx, b.s, key, size)
	}
	return b.s.Create(ctx, key, size)
}

func (b broken) Delete(ctx context.Context, key string) error {
	if b.delete != nil {
		return b.delete(b.s, key)
	}
	return b.s.Delete(ctx, key)
}

func (b broken) List(ctx context.Context) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		for e, err := range b.s.List(ctx) {
			if b.list != nil {
				e = b.list(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// keeper is a Writer that commits even when it is aborted.
type keeper struct{ w backends.Writer }

func (k keeper) Write(p []byte) (int, error)      { return k.w.Write(p) }
func (k keeper) Commit(ctx context.Context) error { return k.w.Commit(ctx) }
func (k keeper) Abort()                           { _ = k.w.Commit(context.Background()) }

// lossy is a Writer that loses the last byte of long writes.
type lossy struct{ w backends.Writer }

func (l lossy) Write(p []byte) (int, error) {
	n, err := l.w.Write(p[:min(len(p), 50_000)])
	return max(n, len(p)), err
}
func (l lossy) Commit(ctx context.Context) error { return l.w.Commit(ctx) }
func (l lossy) Abort()                           { l.w.Abort() }

// TestBroken tests the suite: each of these breaks one promise.
func TestBroken(t *testing.T) {
	ctx := t.Context()
	cases := map[string]struct {
		b    broken
		want string
	}{
		"other error": {broken{open: func(s *mem.Store, key string) (block.ReadCloser, error) {
			r, err := s.Open(ctx, key)
			if err != nil {
				return nil, io.EOF
			}
			return r, nil
		}}, "does not exist"},
		"any size": {broken{create: func(ctx context.Context, s *mem.Store, key string, _ int64) (backends.Writer, error) {
			return s.Create(ctx, key, -1)
		}}, "wrong size"},
		"replaces": {broken{create: func(ctx context.Context, s *mem.Store, key string, size int64) (backends.Writer, error) {
			_ = s.Delete(ctx, key)
			return s.Create(ctx, key, size)
		}}, "taken"},
		"no abort": {broken{create: func(ctx context.Context, s *mem.Store, key string, size int64) (backends.Writer, error) {
			w, err := s.Create(ctx, key, size)
			return keeper{w}, err
		}}, "abort"},
		"loses bytes": {broken{create: func(ctx context.Context, s *mem.Store, key string, _ int64) (backends.Writer, error) {
			w, err := s.Create(ctx, key, -1)
			return lossy{w}, err
		}}, "round trip"},
		"deaf to its context": {broken{create: func(_ context.Context, s *mem.Store, key string, size int64) (backends.Writer, error) {
			return s.Create(ctx, key, size)
		}}, "cancelled"},
		"lists other sizes": {broken{list: func(e backends.Entry) backends.Entry {
			e.Size++
			return e
		}}, "list"},
		"keeps": {broken{delete: func(*mem.Store, string) error { return nil }}, "delete"},
		"hates nothing": {broken{delete: func(s *mem.Store, key string) error {
			if _, err := s.Open(ctx, key); err != nil {
				return err
			}
			return s.Delete(ctx, key)
		}}, "not there"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := storetest.Check(ctx, func() backends.Store {
				c.b.s = mem.New()
				return c.b
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Check = %v, want an error about %q", err, c.want)
			}
		})
	}
}

func TestGood(t *testing.T) {
	storetest.Test(t, func(*testing.T) backends.Store { return broken{s: mem.New()} })
}

// remote is a store behind a network: it lists nothing, and what is deleted is
// gone for its readers too.
type remote struct{ s *mem.Store }

func (r remote) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	o, err := r.s.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	return remoteObject{r, key, o}, nil
}

func (r remote) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	return r.s.Create(ctx, key, size)
}

func (r remote) Delete(ctx context.Context, key string) error { return r.s.Delete(ctx, key) }

type remoteObject struct {
	r   remote
	key string
	o   block.ReadCloser
}

func (o remoteObject) Size() int64  { return o.o.Size() }
func (o remoteObject) Close() error { return o.o.Close() }
func (o remoteObject) ReadAt(ctx context.Context, p []byte, off int64) error {
	now, err := o.r.s.Open(ctx, o.key)
	if err != nil {
		return err
	}
	defer now.Close()
	got := make([]byte, len(p))
	if err := errors.Join(o.o.ReadAt(ctx, p, off), now.ReadAt(ctx, got, off)); err != nil || bytes.Equal(p, got) {
		return err
	}
	return syscall.ESTALE
}

func TestFar(t *testing.T) {
	storetest.Far(t, func(*testing.T) backends.Store { return remote{mem.New()} })
}
