package consistency

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

// A broken disk has one of the faults that TestFinds knows.
type broken struct {
	block.Device
	fault string

	mu   sync.Mutex
	rng  *rand.Rand
	late func()
}

func (b *broken) chance(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.IntN(n) == 0
}

func (b *broken) WriteAt(ctx context.Context, p []byte, off int64) error {
	switch {
	case b.fault == "a write is forgotten" && b.chance(20):
		return nil
	case b.fault == "a write is late" && b.chance(20):
		b.mu.Lock()
		before := b.late
		p := append([]byte(nil), p...)
		b.late = func() { _ = b.Device.WriteAt(context.WithoutCancel(ctx), p, off) }
		b.mu.Unlock()
		if before != nil {
			before()
		}
		return nil
	case b.fault == "a write is torn" && len(p) > Sector && b.chance(20):
		return b.Device.WriteAt(ctx, p[:len(p)-Sector/2], off)
	case b.fault == "a write goes astray" && off >= Sector && b.chance(20):
		return b.Device.WriteAt(ctx, p, off-Sector)
	}
	return b.Device.WriteAt(ctx, p, off)
}

func (b *broken) Flush(ctx context.Context) error {
	if b.fault == "a flush does nothing" {
		return nil
	}
	return b.Device.Flush(ctx)
}

// TestFinds wants faults that a disk can have to be found within the games
// that everybody plays.
func TestFinds(t *testing.T) {
	for _, fault := range []string{
		"a write is forgotten", "a write is late", "a write is torn", "a write goes astray", "a flush does nothing",
	} {
		t.Run(fault, func(t *testing.T) {
			for run := range uint64(60) {
				_, wrong := crash(t, newFS(t), NewHistory(sectors), run, true, func(d *delta.Delta) block.Device {
					return &broken{Device: overlaid(d), fault: fault, rng: rand.New(rand.NewPCG(run, 5))}
				})
				if wrong != nil {
					t.Logf("found in run %d: %.200v", run, wrong)
					return
				}
			}
			t.Error("not found")
		})
	}
}
