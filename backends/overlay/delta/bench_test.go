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

// BenchmarkSnapshot measures how long writes wait for a snapshot, and for its
// deletion, of a disk of so many GiB in use.
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
			var create, remove time.Duration
			for b.Loop() {
				create = max(create, worstWrite(b, o, p, func() error {
					_, err := o.Snapshot(b.Context(), "s")
					return err
				}))
				remove = max(remove, worstWrite(b, o, p, func() error {
					return o.DeleteSnapshot(b.Context(), o.Snapshots()[0].ID)
				}))
			}
			b.ReportMetric(float64(remove.Microseconds())/1000, "delete-ms")
			b.ReportMetric(float64(create.Microseconds())/1000, "make-ms")
		})
	}
}

// worstWrite returns how long the slowest write took that met f.
func worstWrite(b *testing.B, o block.Device, p []byte, f func() error) (worst time.Duration) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	for {
		begin := time.Now()
		if err := o.WriteAt(b.Context(), p, 0); err != nil {
			b.Fatal(err)
		}
		worst = max(worst, time.Since(begin))
		select {
		case err := <-done:
			if err != nil {
				b.Fatal(err)
			}
			return worst
		default:
		}
	}
}

var _ block.Device = (*overlay.Overlay)(nil)
