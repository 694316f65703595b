package disk_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/backends/trace"
)

// traces keeps traces in memory.
type traces struct {
	mu    sync.Mutex
	data  map[string][]byte
	fails error
}

func (s *traces) Load(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return nil, s.fails
	}
	if data, ok := s.data[key]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (s *traces) Store(_ context.Context, key string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return s.fails
	}
	if s.data == nil {
		s.data = make(map[string][]byte)
	}
	s.data[key] = bytes.Clone(data)
	return nil
}

func (s *traces) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func (s *traces) get(t testing.TB, key string) trace.Trace {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data[key] == nil {
		return trace.Trace{}
	}
	tr, err := trace.Decode(s.data[key])
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func newCache(t testing.TB, cfg cache.Config) *cache.Cache {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir, cfg.FS = "/cache", crashfs.New()
	}
	c, err := cache.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func farOpener(t testing.TB, s *store, cfg disk.Config) *disk.Opener {
	t.Helper()
	cfg.Check, cfg.Logger = true, slog.New(slog.NewTextHandler(t.Output(), nil))
	o := disk.New(cfg)
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d objects are still open", n)
		}
	})
	return o
}

// TestFar: an object that is far is read through the cache, and once it is
// there its store is not asked for anything.
func TestFar(t *testing.T) {
	data := storetest.Bytes(1, 3_000_320)
	s := newStore(t, map[string][]byte{"raw": data, "q": asQcow2(t, data)})
	o := farOpener(t, s, disk.Config{Cache: newCache(t, cache.Config{})})
	specs := []disk.Spec{
		{Key: "1", Store: s, Object: "raw", Far: &disk.Far{Generation: "g1", Size: int64(len(data))}},
		{Key: "2", Store: s, Object: "q", Format: "qcow2", Far: &disk.Far{Generation: "g2", Size: -1}},
	}
	for _, spec := range specs {
		t.Run(spec.Object, func(t *testing.T) {
			v := open(t, o, spec)
			blocktest.TestReader(t, v, data)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			before := s.opened.Load()
			v = open(t, o, spec)
			if err := blocktest.Equal(t.Context(), v, data); err != nil {
				t.Error(err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if n := s.opened.Load() - before; n != 0 {
				t.Errorf("the store was asked %d times for what the cache has", n)
			}
		})
	}
	open(t, o, specs[0])
	other := specs[0]
	other.Far = &disk.Far{Generation: "g3", Size: int64(len(data))}
	for _, spec := range []disk.Spec{
		other,
		{Key: "1", Store: s, Object: "raw"},
		{Key: "3", Store: s, Object: "raw", Far: &disk.Far{}},
	} {
		if _, err := o.Open(t.Context(), spec); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Open(%+v) = %v", spec, err)
		}
	}
	gone := disk.Spec{Key: "4", Store: s, Object: "none", Format: "qcow2", Far: &disk.Far{Generation: "g4", Size: 1 << 20}}
	if _, err := o.Open(t.Context(), gone); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no longer") {
		t.Errorf("Open of what the store lost = %v", err)
	}
}

// TestNearAsBefore: without a cache, a far object is read as a near one.
func TestNearAsBefore(t *testing.T) {
	data := storetest.Bytes(1, 300_000)
	s := newStore(t, map[string][]byte{"raw": data})
	o := newOpener(t, s)
	v := open(t, o, disk.Spec{Key: "1", Store: s, Object: "raw", Far: &disk.Far{Generation: "g", Size: 300_000, Trace: "t"}})
	blocktest.TestReader(t, v, data)
}

// TestPin: what was pinned when the image came in is there when it is opened.
func TestPin(t *testing.T) {
	data := storetest.Bytes(2, 8<<20)
	s := newStore(t, map[string][]byte{"q": asQcow2(t, data), "raw": data})
	c := newCache(t, cache.Config{})
	o := farOpener(t, s, disk.Config{Cache: c})
	spec := disk.Spec{Key: "q", Store: s, Object: "q", Format: "qcow2", Far: &disk.Far{Generation: "g", Size: -1}}
	if err := o.Pin(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.Pinned == 0 || st.Pinned > 1<<20 || st.Pinned != st.FarBytes {
		t.Errorf("%+v", st)
	}
	before := s.opened.Load()
	v := open(t, o, spec)
	if _, err := block.Stored(t.Context(), v); err != nil {
		t.Error(err)
	}
	if n := s.opened.Load() - before; n != 0 {
		t.Errorf("opening and mapping a pinned image asked the store %d times", n)
	}
	for _, none := range []disk.Spec{
		{Key: "raw", Store: s, Object: "raw", Far: &disk.Far{Generation: "r", Size: 8 << 20}},
		{Key: "q", Store: s, Object: "q", Format: "qcow2"},
	} {
		if err := o.Pin(t.Context(), none); err != nil {
			t.Error(err)
		}
	}
	if err := o.Pin(t.Context(), disk.Spec{Key: "x", Store: s, Object: "raw", Format: "qcow2", Far: &disk.Far{Generation: "r", Size: 8 << 20}}); err == nil {
		t.Error("pinned an image that is none")
	}
}
