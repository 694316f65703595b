package delta_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

// BenchmarkFirstWrites measures writes to what was never written, in 1 GiB over
// a base that is full, by so many at once.
func BenchmarkFirstWrites(b *testing.B) {
	const size = 1 << 30
	base := block.FromReaderAt(full(b, size), size)
	for _, c := range []struct{ n, users int64 }{{4 << 10, 1}, {4 << 10, 32}, {64 << 10, 1}, {64 << 10, 8}} {
		b.Run(fmt.Sprintf("%dK/%d", c.n>>10, c.users), func(b *testing.B) {
			b.SetBytes(c.n)
			b.ReportAllocs()
			order := rand.New(rand.NewPCG(1, 1)).Perm(int(size / c.n))
			for done := 0; done < b.N; {
				b.StopTimer()
				d, err := delta.Create(b.Context(), delta.Config{Path: filepath.Join(b.TempDir(), "d"), Size: size, Guard: localfs.NewGuard(b.TempDir(), 1)})
				if err != nil {
					b.Fatal(err)
				}
				o, batch := overlay.New(base, d), order[:min(len(order), b.N-done)]
				b.StartTimer()
				var next atomic.Int64
				var wg sync.WaitGroup
				for range c.users {
					wg.Go(func() {
						p := make([]byte, c.n)
						for {
							i := next.Add(1) - 1
							if i >= int64(len(batch)) {
								return
							}
							if err := o.WriteAt(b.Context(), p, int64(batch[i])*c.n); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				done += len(batch)
				if err := d.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkReadThrough reads 4 KiB at random through an overlay that has half of
// the disk, over a qcow2 image.
func BenchmarkReadThrough(b *testing.B) {
	const size, n = 256 << 20, 4 << 10
	raw := full(b, size)
	file, err := os.Create(filepath.Join(b.TempDir(), "q"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if err := qcow2.Encode(b.Context(), file, block.FromReaderAt(raw, size), qcow2.EncodeOptions{}); err != nil {
		b.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		b.Fatal(err)
	}
	base, err := qcow2.Open(b.Context(), block.FromReaderAt(file, info.Size()))
	if err != nil {
		b.Fatal(err)
	}
	d := open(b, delta.Config{Size: size})
	o := overlay.New(base, d)
	for off := int64(0); off < size; off += 256 << 10 {
		if err := o.WriteAt(b.Context(), make([]byte, 128<<10), off); err != nil {
			b.Fatal(err)
		}
	}
	for name, r := range map[string]block.Reader{"overlay": o, "qcow2": base, "raw": block.FromReaderAt(raw, size)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(n)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				p := make([]byte, n)
				for pb.Next() {
					if err := r.ReadAt(b.Context(), p, rand.Int64N(size/n)*n); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func full(b *testing.B, size int64) *os.File {
	f, err := os.Create(filepath.Join(b.TempDir(), "base"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	p := pattern(1 << 20)
	for off := int64(0); off < size; off += int64(len(p)) {
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	return f
}
