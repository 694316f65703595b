package exports

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/catalog"
)

// TestTwoStores: of an image that two stores have, the one that answers is
// read, whichever comes first in the record.
func TestTwoStores(t *testing.T) {
	away := &flaky{s: mem.New()}
	asked := false
	r := newRig(t, func(cfg *Config) {
		cfg.Stores["away"] = away
		cfg.Fails = func(store string) bool { asked = true; return store == "away" }
	})
	data := noise(diskSize, 1)
	img := r.image("raw", data)
	if err := storetest.Put(t.Context(), away, "copy", -1, make([]byte, diskSize)); err != nil {
		t.Fatal(err)
	}
	away.set(true, true)
	img.Locations = append([]catalog.Location{{Store: "away", Key: "copy", Generation: "g", Size: diskSize}}, img.Locations...)
	d, err := r.e.OpenDisk(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := r.read(d); !asked || !bytes.Equal(got, data) {
		t.Error("it was read in the wrong store")
	}
}

// TestDeletedMeanwhile: bytes that a store lacks are an error of the gateway,
// unless the image was deleted after its record was read.
func TestDeletedMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(diskSize, 1))
	if err := r.store.Delete(t.Context(), img.Locations[0].Key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.OpenDisk(t.Context(), img); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image without bytes: %v", err)
	}
	if _, err := r.cat.DeleteImage(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.OpenDisk(t.Context(), img); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image that is gone: %v", err)
	}
}
