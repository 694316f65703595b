//go:build integration

package far

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/integration/corpus"
	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestCorpus serves images of all kinds from all kinds of stores and compares
// with qemu-img. Each image lies in one store, and with PLATTER_SOAK in all.
func TestCorpus(t *testing.T) {
	gateway.Need(t, "qemu-img", "qemu-io", "cmp")
	all := corpus.Make(t)
	if len(all) < 50 {
		t.Fatalf("only %d images", len(all))
	}
	stores := kinds()
	for i, k := range stores {
		t.Run(k.name, func(t *testing.T) {
			g := start(t, k)
			for n, s := range all {
				if n%len(stores) != i && os.Getenv("PLATTER_SOAK") == "" {
					continue
				}
				t.Run(s.Name, func(t *testing.T) {
					id := g.Upload(t, s.Name, s.Format, s.Path)
					same(t, g.Export(id), s.Path, s.Format)
					dir := filepath.Join(g.Mount, "by-id", id)
					tool(t, "cmp", filepath.Join(dir, "native."+s.Format), s.Path)
					if s.Name != "thin-1t" { // too large to read whole
						tool(t, "qemu-img", "compare", "-f", s.Format, "-F", "raw", s.Path, filepath.Join(dir, "disk.raw"))
					}
				})
			}
		})
	}
}

// A sparse is an upload of zeros with a word here and there.
type sparse struct{ off, size int64 }

const step = 64 << 20 // from word to word

func (s *sparse) Read(p []byte) (int, error) {
	if s.off == s.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.size-s.off))
	clear(p[:n])
	for at := (s.off + step - 1) / step * step; at < s.off+int64(n); at += step {
		copy(p[at-s.off:n], fmt.Sprint(at))
	}
	s.off += int64(n)
	return n, nil
}

// TestLarge brings a large, mostly empty image into stores without saying how
// large it is, and reads it back whole and in part. It has 1 GiB, and with
// PLATTER_SOAK 5 GiB.
func TestLarge(t *testing.T) {
	whole, some := int64(1<<30), map[string]bool{"rbd": true, "s3 versitygw": true, "swift tempauth": true}
	soak := os.Getenv("PLATTER_SOAK") != ""
	if soak {
		whole = 5 << 30
	}
	path := filepath.Join(t.TempDir(), "model")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < whole; at += step {
		if _, err := f.WriteAt([]byte(fmt.Sprint(at)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(whole); err != nil {
		t.Fatal(err)
	}
	sum := digest(t, path, 0, whole)
	each(t, func(t *testing.T, k kind) {
		if !soak && !some[k.name] {
			return
		}
		g := start(t, k, "--mount", "off", "PLATTER_CACHE_SIZE=256MiB")
		id := g.NewImage(t, "large", "raw")
		if err := g.Put(id, &sparse{size: whole}, -1); err != nil {
			t.Fatal(err)
		}
		if got, n := download(t, g, id, ""); n != whole || got != sum {
			t.Errorf("%d bytes came back of %d, or others", n, whole)
		}
		for _, off := range []int64{step - 1, whole - 3} {
			n := min(4096, whole-off)
			if got, m := download(t, g, id, fmt.Sprintf("bytes=%d-%d", off, off+n-1)); m != n || got != digest(t, path, off, n) {
				t.Errorf("the range of %d at %d has %d bytes, or others", n, off, m)
			}
		}
		if used := metric(t, g, "platter_cache_used_bytes"); used > 256<<20 {
			t.Errorf("the cache has %d bytes and may have 256 MiB", used)
		}
	})
}
