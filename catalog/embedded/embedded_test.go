package embedded_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/catalogtest"
	"github.com/seed-478a8fee/platter/catalog/embedded"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
)

func start(t testing.TB, dir string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKV(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.Close()
	var n atomic.Int64
	catalogtest.Test(t, func(testing.TB) catalog.KV {
		return etcdkv.New(s.Client(), fmt.Sprintf("/test/%d", n.Add(1)))
	})
}

func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 12)) // over the limit of socket paths
	for i := range 3 {
		begun := time.Now()
		s := start(t, dir)
		c, err := catalog.Open(t.Context(), etcdkv.New(s.Client(), "/platter"), catalog.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("ready after %s", time.Since(begun).Round(time.Millisecond))
		if _, err := c.CreateImage(t.Context(), catalog.Image{}); err != nil {
			t.Fatal(err)
		}
		images, err := c.Images(t.Context(), catalog.Query{Viewer: catalog.Viewer{Admin: true}})
		if err != nil || len(images) != i+1 {
			t.Fatalf("start %d: %d images, %v", i, len(images), err)
		}
		c.Close()
		begun = time.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("closed after %s", time.Since(begun).Round(time.Millisecond))
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	defer s.Close()
	_, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
	if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("start in a directory that is used: %v, want one that names the process", err)
	}
}
