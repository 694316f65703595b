package probe

import (
	"context"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Pace says how slow a layer is. Calls wait side by side, not in a queue.
type Pace struct {
	// Delay is what every call costs.
	Delay time.Duration

	// Rate is how many bytes a second one read or write gets. Default: no
	// limit.
	Rate int64
}

// Slow returns r, as far away as pace says.
func Slow(r block.Reader, pace Pace) block.Reader { return Around(r, pace.hook) }

// SlowDevice is Slow for a Device.
func SlowDevice(d block.Device, pace Pace) block.Device { return AroundDevice(d, pace.hook) }

func (p Pace) hook(ctx context.Context, c *Call, do func() error) error {
	wait := p.Delay
	if p.Rate > 0 && c.P != nil {
		wait += time.Duration(float64(c.N) / float64(p.Rate) * float64(time.Second))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return do()
	}
}
