package backends_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// copying is a store that can, or cannot, take objects of others by itself.
type copying struct {
	backends.Store
	err   error
	asked int
}

func (c *copying) CopyFrom(context.Context, string, backends.Store, string) error {
	c.asked++
	return c.err
}

func TestCopy(t *testing.T) {
	want := storetest.Bytes(2, 9<<20+17)
	from := mem.New()
	put(t, from, "a/b", want)
	for name, c := range map[string]struct {
		to      backends.Store
		here    bool // the bytes pass through here
		failure error
	}{
		"through here":                 {to: mem.New(), here: true},
		"inside the stores":            {to: &copying{Store: mem.New()}},
		"stores that do not reach":     {to: &copying{Store: mem.New(), err: errors.ErrUnsupported}, here: true},
		"a copy that failed is failed": {to: &copying{Store: mem.New(), err: fs.ErrExist}, failure: fs.ErrExist},
	} {
		t.Run(name, func(t *testing.T) {
			var last int64
			err := backends.Copy(t.Context(), c.to, "c", from, "a/b", func(done int64) { last = done })
			if !errors.Is(err, c.failure) || (err == nil) != (c.failure == nil) {
				t.Fatalf("got %v, want %v", err, c.failure)
			}
			if c.here != (last == int64(len(want))) {
				t.Errorf("progress ended at %d", last)
			}
			if !c.here {
				return
			}
			r, err := c.to.Open(t.Context(), "c")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got := make([]byte, r.Size())
			if err := r.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("other bytes, or %v", err)
			}
		})
	}
}

func TestCopyOfNothing(t *testing.T) {
	if err := backends.Copy(t.Context(), mem.New(), "a", mem.New(), "b", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func put(t *testing.T, s backends.Store, key string, data []byte) {
	t.Helper()
	w, err := s.Create(t.Context(), key, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}
