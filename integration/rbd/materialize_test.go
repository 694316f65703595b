//go:build integration

package rbd_test

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

func openObject(t testing.TB, s *rbd.Store, key string) block.Reader {
	t.Helper()
	r, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, r) })
	return r
}

// failing is a Reader that fails past a limit.
type failing struct {
	r     block.Reader
	limit int64
	err   error
}

func (f failing) Size() int64 { return f.r.Size() }

func (f failing) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off+int64(len(p)) > f.limit {
		return f.err
	}
	return f.r.ReadAt(ctx, p, off)
}

func TestMaterialize(t *testing.T) {
	ctx := t.Context()
	c := ceph(t)
	cfg := config(t, c)
	s := open(t, cfg)
	data := sparse(50<<20 + 1)
	if err := storetest.Put(ctx, s, "src", -1, data); err != nil {
		t.Fatal(err)
	}
	src := openObject(t, s, "src")
	broken := errors.New("broken")
	if err := s.Materialize(ctx, "m", failing{src, 30 << 20, broken}, nil); !errors.Is(err, broken) {
		t.Errorf("Materialize of a broken reader = %v", err)
	}
	if _, err := s.Open(ctx, "m"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open after that = %v, want fs.ErrNotExist", err)
	}
	// What a crash left is begun anew.
	c.Command(t, "rbd", "--pool", cfg.Pool, "--namespace", cfg.Namespace, "create", "--size", "1M", "m")
	last := int64(0)
	progress := func(done int64) {
		if done <= last || done > src.Size() {
			t.Errorf("progress from %d to %d", last, done)
		}
		last = done
	}
	if err := s.Materialize(ctx, "m", src, progress); err != nil {
		t.Fatal(err)
	}
	if last != src.Size() {
		t.Errorf("progress ended at %d", last)
	}
	if err := storetest.Want(ctx, s, "m", data); err != nil {
		t.Error(err)
	}
	if err := s.Materialize(ctx, "m", src, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Materialize of a taken key = %v, want fs.ErrExist", err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Materialize(short, "n", src, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Materialize with a cancelled context = %v", err)
	}
	other := open(t, config(t, c))
	if err := backends.Copy(ctx, other, "copy", s, "m", nil); err != nil {
		t.Fatal(err)
	}
	if err := storetest.Want(ctx, other, "copy", data); err != nil {
		t.Error(err)
	}
}
