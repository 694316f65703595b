package qcow2

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// counted counts the reads of a file.
type counted struct {
	r     block.Reader
	reads atomic.Int64
}

func (c *counted) Size() int64 { return c.r.Size() }

func (c *counted) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.reads.Add(1)
	return c.r.ReadAt(ctx, p, off)
}

// What was inflated is found again by who opens the same file by name, and by
// nobody else.
func TestClustersOutliveImages(t *testing.T) {
	var m memory
	if err := EncodeCompressed(t.Context(), &m, newSparse(300<<10, 300<<10), EncodeOptions{Compression: "zlib"}); err != nil {
		t.Fatal(err)
	}
	file := fromBytes(m.b)
	clusters := decode.NewCache(16 << 20)
	reads := func(name string) int64 {
		c := &counted{r: file}
		im, err := Config{Clusters: clusters, Name: name}.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		if err := im.ReadAt(t.Context(), p, 0); err != nil { // the tables, too
			t.Fatal(err)
		}
		return c.reads.Load()
	}
	first := reads("a")
	if again := reads("a"); again != first-1 {
		t.Errorf("%d reads at first, %d when opened again; want one less", first, again)
	}
	for _, name := range []string{"b", "", ""} {
		if n := reads(name); n != first {
			t.Errorf("name %q: %d reads, want %d", name, n, first)
		}
	}
}
