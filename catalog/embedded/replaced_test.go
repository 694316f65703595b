package embedded_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/catalogtest"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
)

// TestReplaced takes etcd's data away under a running catalog, and puts an
// older backup in its place: the revisions begin anew, and the catalog must
// not wait for the ones that it knew.
func TestReplaced(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := start(t, dir)
	client, err := etcdkv.Dial(etcdkv.Config{Endpoints: []string{s.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	kv := etcdkv.New(client, "/platter")
	c := catalogtest.Start(t, kv, catalog.Config{})
	kept, err := c.CreateImage(ctx, catalog.Image{})
	if err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	if err := c.Backup(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	var lost catalog.Image
	for range 20 {
		if lost, err = c.CreateImage(ctx, catalog.Image{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	defer s.Close()
	if _, err := c.CreateImage(ctx, catalog.Image{}); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("a write into an emptied database: %v, want ErrUnavailable", err)
	}
	within(t, "Ready says that the catalog is gone", func() bool { return c.Ready() != nil })
	if _, err := c.Image(ctx, lost.ID); err != nil {
		t.Errorf("a read while the catalog is gone: %v", err)
	}
	if err := catalog.Restore(ctx, kv, &backup); err != nil {
		t.Fatal(err)
	}
	within(t, "reads are those of the backup", func() bool {
		_, errKept := c.Image(ctx, kept.ID)
		_, errLost := c.Image(ctx, lost.ID)
		return errKept == nil && errors.Is(errLost, fs.ErrNotExist) && c.Ready() == nil
	})
	again, err := c.CreateImage(ctx, catalog.Image{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Image(ctx, again.ID); err != nil {
		t.Errorf("a read of what was written after: %v", err)
	}
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 2 minutes: %s", what)
		}
	}
}
