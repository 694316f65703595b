package ingest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// A dated commit is one of the catalog, with the moment of the disk at which
// it was durable.
type dated struct {
	at  int
	txn catalog.Txn
}

// A datedKV remembers what was committed when.
type datedKV struct {
	catalog.KV
	disk *crashfs.FS

	mu  sync.Mutex
	log []dated
}

func (k *datedKV) Commit(ctx context.Context, txn catalog.Txn) (int64, error) {
	rev, err := k.KV.Commit(ctx, txn)
	if err == nil {
		k.mu.Lock()
		k.log = append(k.log, dated{k.disk.Len(), txn})
		k.mu.Unlock()
	}
	return rev, err
}

// until is the catalog as it was at a moment of the disk.
func (k *datedKV) until(t *testing.T, moment int) *memkv.KV {
	t.Helper()
	kv := memkv.New()
	for _, c := range k.log {
		if c.at > moment {
			break
		}
		if _, err := kv.Commit(t.Context(), c.txn); err != nil {
			t.Fatal(err)
		}
	}
	return kv
}

// TestPowerLoss uploads two images and deletes one, loses power at random
// moments, in every way that the disk may lose it, and starts again: an image
// that the catalog calls active has all its bytes, and nothing else is left.
func TestPowerLoss(t *testing.T) {
	disk := crashfs.New()
	kv := &datedKV{KV: memkv.New(), disk: disk}
	in, cat, _ := onDisk(t, kv, disk)
	data := map[string][]byte{}
	for i, size := range []int{70_000, 3*chunkSize + 100} {
		img, err := cat.CreateImage(t.Context(), catalog.Image{DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared})
		if err != nil {
			t.Fatal(err)
		}
		data[img.ID] = noise(size)
		if err := in.Put(t.Context(), img.ID, bytes.NewReader(data[img.ID]), int64(size), ""); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := cat.DeleteImage(t.Context(), img.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[int]int{}
	for moment, after := range disk.Crashes(rng, 200) {
		seen[afterPowerLoss(t, moment, kv.until(t, moment), after, data)]++
	}
	for moment, after := range disk.CrashesNow(rng, 20) {
		if n := afterPowerLoss(t, moment, kv.until(t, moment), after, data); n != 1 {
			t.Errorf("at the end %d images are active, want 1", n)
		}
	}
	if seen[0] == 0 || seen[1] == 0 {
		t.Errorf("the moments do not cover an upload: active images, how often: %v", seen)
	}
}

func onDisk(t *testing.T, kv catalog.KV, disk *crashfs.FS) (*Ingest, *catalog.Catalog, *file.Store) {
	t.Helper()
	cat, err := catalog.Open(t.Context(), kv, catalog.Config{GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	store, err := file.Open(file.Config{Dir: "/images", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	in, err := New(Config{
		Catalog: cat, Stores: map[string]backends.Store{"file": store}, GatewayID: "gw", Grace: time.Nanosecond,
		Now: func() time.Time { return time.Now().Add(time.Hour) }, // whatever is left is old
	})
	if err != nil {
		t.Fatal(err)
	}
	return in, cat, store
}

func afterPowerLoss(t *testing.T, moment int, kv catalog.KV, disk *crashfs.FS, data map[string][]byte) (active int) {
	t.Helper()
	in, cat, store := onDisk(t, kv, disk)
	if err := in.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	images, err := cat.Images(t.Context(), catalog.Query{Viewer: catalog.Viewer{Admin: true}, Visibility: catalog.VisibilityAll})
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		if img.Status != catalog.StatusActive {
			if img.Status != catalog.StatusQueued || len(img.Locations) > 0 {
				t.Errorf("moment %d: image %s is %s", moment, img.ID, img.Status)
			}
			continue
		}
		active++
		r, err := in.Open(t.Context(), img)
		if err != nil {
			t.Errorf("moment %d: %v", moment, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(block.ReaderAt(t.Context(), r), 0, r.Size()))
		if err != nil || !bytes.Equal(got, data[img.ID]) {
			t.Errorf("moment %d: an active image has other bytes (%d of %d, %v)", moment, len(got), len(data[img.ID]), err)
		}
		r.Close()
	}
	left := 0
	for e, err := range store.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		left++
		if e.Partial {
			t.Errorf("moment %d: %s is left unfinished", moment, e.Key)
		}
	}
	if left != active {
		t.Errorf("moment %d: %d objects for %d active images", moment, left, active)
	}
	return active
}
