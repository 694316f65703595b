package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// keeper is a store in which others stand on objects.
type keeper struct {
	*mem.Store
	free error
}

func (k *keeper) Free(context.Context, string) error { return k.free }

// TestDeletable: what a store says that others need is not deleted; that it
// does not answer hinders nobody, and what the catalog knows it says itself.
func TestDeletable(t *testing.T) {
	k := &keeper{Store: mem.New()}
	fails := false
	b := newBench(t, memkv.New(), k.Store, nil, func(cfg *Config) {
		cfg.Stores = map[string]backends.Store{"mem": k}
		cfg.Fails = func(string) bool { return fails }
	})
	b.image("raw")
	if err := b.in.Put(t.Context(), imageID, bytes.NewReader([]byte("data")), 4, ""); err != nil {
		t.Fatal(err)
	}
	img, err := b.cat.Image(t.Context(), imageID)
	if err != nil {
		t.Fatal(err)
	}
	busy := fmt.Errorf("2 clones need it: %w", syscall.EBUSY)
	for _, tt := range []struct {
		free  error
		fails bool
		want  error
	}{{nil, false, nil}, {errors.New("nobody answers"), false, nil}, {busy, true, nil}, {busy, false, ErrInUse}} {
		k.free, fails = tt.free, tt.fails
		if err := b.in.Deletable(t.Context(), img); !errors.Is(err, tt.want) {
			t.Errorf("%v: %v, want %v", tt.free, err, tt.want)
		}
	}
	if _, err := b.cat.CreateOverlay(t.Context(), catalog.Overlay{ImageID: imageID, Gateway: "gw", Engine: "rbd", Store: "mem", Size: 512}); err != nil {
		t.Fatal(err)
	}
	if err := b.in.Deletable(t.Context(), img); err != nil {
		t.Errorf("under an overlay, which the catalog names: %v", err)
	}
}
