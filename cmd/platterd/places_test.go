package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/far"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// distant is a far store as openStores makes one.
func distant(name string, open func(ctx context.Context) (backends.Store, error)) *place {
	p := &place{name: name, cfg: config.Store{Type: "s3", Timeout: config.Duration(30 * time.Second)}}
	p.late = newLate(name, open, slog.New(slog.DiscardHandler))
	p.far = far.New(p.late, far.Config{Name: "store " + name})
	p.store = p.far
	return p
}

// TestStores tells of a store that is well, of one that is away and of one that
// hangs, without waiting for it.
func TestStores(t *testing.T) { synctest.Test(t, testStores) }

func testStores(t *testing.T) {
	ps := &places{byName: "away", stores: []*place{
		distant("away", func(context.Context) (backends.Store, error) {
			return nil, errors.New("nobody listens")
		}),
		distant("hangs", func(ctx context.Context) (backends.Store, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		{name: "near", cfg: config.Store{Type: "file"}, store: mem.NewLimited(1 << 20)},
		distant("well", func(context.Context) (backends.Store, error) { return mem.NewLimited(1 << 20), nil }),
	}}
	defer ps.close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	list := ps.Stores(ctx)
	if ctx.Err() == nil {
		t.Error("the one that hangs was not asked")
	}
	var got []string
	for _, s := range list {
		got = append(got, s.Name+" "+map[bool]string{true: "ok", false: "failing"}[s.Health.OK])
		if full := s.Usage == (backends.Usage{}); s.Health.OK == full {
			t.Errorf("%s: usage %+v", s.Name, s.Usage)
		}
	}
	if text := strings.Join(got, ", "); text != "away failing, hangs failing, near ok, well ok" {
		t.Error(text)
	}
	if !strings.Contains(list[0].Health.Message, "nobody listens") || !strings.Contains(list[1].Health.Message, "not answered") {
		t.Errorf("messages: %q, %q", list[0].Health.Message, list[1].Health.Message)
	}
	if err := ps.ready(); err == nil || !strings.Contains(err.Error(), "away") {
		t.Errorf("ready: %v", err)
	}
	if n := len(ps.ailing()); n != 2 {
		t.Errorf("ailing: %q", ps.ailing())
	}
}

// TestTidy: what the catalog does not have any more goes from the cache; what
// is in use, or known, stays.
func TestTidy(t *testing.T) {
	cat, err := catalog.Open(t.Context(), memkv.New(), catalog.Config{GatewayID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	c, err := cache.Open(cache.Config{Dir: t.TempDir(), Size: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := mem.New()
	near := &nearStore{name: "cold", far: s, cache: c}
	const overlay = "0d7f5f6c-7e0b-4b0a-9d53-1b1c5b0f7a11"
	read := func(key string) block.ReadCloser {
		t.Helper()
		w, err := near.Create(t.Context(), key, 4)
		if err == nil {
			_, err = w.Write([]byte("data"))
		}
		if err == nil {
			err = w.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := near.Open(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if err := r.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, []byte("data")) {
			t.Errorf("%s reads %q, %v", key, got, err)
		}
		return r
	}
	if err := read("platter/overlays/" + overlay + "/1").Close(); err != nil {
		t.Fatal(err)
	}
	open := read("platter/overlays/" + overlay + "/2")
	ps := &places{cache: c, catalog: cat}
	if err := ps.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := c.List(); len(list) != 1 || !strings.HasSuffix(list[0].ID, "/2") {
		t.Errorf("left: %+v", list)
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	key := "platter/overlays/" + overlay + "/2"
	if err := near.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Open(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted: %v", err)
	}
	if list := c.List(); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
}
