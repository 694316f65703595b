package delta_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

// overlaid is an overlay over nothing.
func overlaid(b *testing.B, size int64) *overlay.Overlay {
	return overlay.New(reader(nil), open(b, delta.Config{Size: size}))
}

func BenchmarkAllocate(b *testing.B) {
	const size = 1 << 40 // never the same place twice
	for _, n := range []int64{4 << 10, 64 << 10, 1 << 20} {
		for name, random := range map[string]bool{"seq": false, "random": true} {
			b.Run(fmt.Sprintf("%s/%dK", name, n>>10), func(b *testing.B) {
				o, p := overlaid(b, size), make([]byte, n)
				b.SetBytes(n)
				b.ReportAllocs()
				rng := rand.New(rand.NewPCG(1, 1))
				for i := int64(0); b.Loop(); i++ {
					off := i * n
					if random { // in 4 GiB
						off = rng.Int64N(4<<30/n) * n
					}
					if err := o.WriteAt(b.Context(), p, off%(8<<30)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSteady(b *testing.B) {
	o := overlaid(b, 256<<20)
	p := make([]byte, 1<<20)
	for off := int64(0); off < o.Size(); off += 1 << 20 {
		if err := o.WriteAt(b.Context(), p, off); err != nil {
			b.Fatal(err)
		}
	}
	blocktest.Benchmark(b, o)
	blocktest.BenchmarkDevice(b, o)
}

// BenchmarkSnapshot measures how long writes wait for a snapshot of a disk of
// so many GiB in use.
func BenchmarkSnapshot(b *testing.B) {
	for _, gib := range []int64{1, 16, 128} {
		b.Run(fmt.Sprintf("%dGiB", gib), func(b *testing.B) {
			o := open(b, delta.Config{Size: gib << 30})
			p := make([]byte, 4096)
			for off := int64(0); off < o.Size(); off += 8 << 20 {
				if err := o.WriteAt(b.Context(), p, off); err != nil {
					b.Fatal(err)
				}
			}
			var worst, remove time.Duration
			for b.Loop() {
				done := make(chan error, 1)
				go func() {
					_, err := o.Snapshot(b.Context(), "s")
					done <- err
				}()
				for running := true; running; {
					begin := time.Now()
					if err := o.WriteAt(b.Context(), p, 0); err != nil {
						b.Fatal(err)
					}
					worst = max(worst, time.Since(begin))
					select {
					case err := <-done:
						running = false
						if err != nil {
							b.Fatal(err)
						}
					default:
					}
				}
				begin := time.Now()
				if err := o.DeleteSnapshot(b.Context(), o.Snapshots()[0].ID); err != nil {
					b.Fatal(err)
				}
				remove = max(remove, time.Since(begin))
			}
			b.ReportMetric(float64(remove.Microseconds())/1000, "delete-ms")
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
		})
	}
}

var _ block.Device = (*overlay.Overlay)(nil)
