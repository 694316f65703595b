//go:build integration

package far

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestDamagedCache damages the cache's files under a running gateway and
// between its runs: what is served stays right.
func TestDamagedCache(t *testing.T) {
	v := versity(t)
	name := place(t)
	v.MakeBucket(t, name)
	g := gateway.Start(t, append(gateway.S3Store(v.S3, name), "--mount", "off", "--log-level", "error")...)
	raw, qcow2 := disk(t, 64<<20)
	id := g.Upload(t, "disk", "qcow2", qcow2)
	same(t, g.Export(id), raw, "raw")
	rng := rand.New(rand.NewPCG(3, 4))
	damage := func() {
		err := filepath.WalkDir(filepath.Join(g.Dir, "cache"), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			st, err := e.Info()
			if err != nil || st.Size() == 0 {
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			junk := make([]byte, 5000)
			for i := range junk {
				junk[i] = byte(rng.Uint32())
			}
			for off := rng.Int64N(100_000); off < st.Size(); off += 100_000 + rng.Int64N(400_000) {
				if _, err := f.WriteAt(junk[:1+rng.IntN(len(junk)-1)], off); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	damage()
	same(t, g.Export(id), raw, "raw")
	if n := metric(t, g, "platter_cache_corrupt_total"); n == 0 {
		t.Error("the damage was not noticed")
	}
	g.Stop(t)
	damage()
	g.Run(t)
	same(t, g.Export(id), raw, "raw")
	g.Kill(t)
	if err := os.RemoveAll(filepath.Join(g.Dir, "cache")); err != nil {
		t.Fatal(err)
	}
	g.Run(t)
	same(t, g.Export(id), raw, "raw")
}

// TestFullCacheDisk has the cache on a disk that is full: reads pass through,
// the gateway says so, and caches again when there is room.
func TestFullCacheDisk(t *testing.T) {
	v := versity(t)
	name := place(t)
	v.MakeBucket(t, name)
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=12m"); err != nil {
		t.Fatalf("a small disk for the cache: %v (this test needs root)", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	filler := filepath.Join(small, "filler")
	if err := os.WriteFile(filler, make([]byte, 10<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	g := gateway.Start(t, append(gateway.S3Store(v.S3, name), "--mount", "off", "--log-level", "error",
		"PLATTER_CACHE_DIR="+filepath.Join(small, "cache"), "PLATTER_LIMITS_RESERVE=1MiB")...)
	raw, qcow2 := disk(t, 64<<20)
	id := g.Upload(t, "disk", "qcow2", qcow2)
	for range 2 {
		same(t, g.Export(id), raw, "raw")
	}
	text, status := readyz(t, g)
	if status != 200 || !strings.Contains(text, "ailing: cache") {
		t.Errorf("readyz: %d %s", status, text)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	same(t, g.Export(id), raw, "raw")
}
