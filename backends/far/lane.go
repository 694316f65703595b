package far

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// A lane is one direction to or from a store, with its limits.
type lane struct {
	slots   chan struct{} // one element for each request that is under way
	bytes   *rate.Limiter // nil is no limit
	waiting *atomic.Int64 // calls that wait for either
}

func newLane(parallel int, bandwidth int64) lane {
	l := lane{slots: make(chan struct{}, parallel), waiting: new(atomic.Int64)}
	if bandwidth > 0 {
		// A tenth of a second at once: short enough not to be seen in a
		// graph, long enough for whole units of a cache.
		l.bytes = rate.NewLimiter(rate.Limit(bandwidth), int(max(bandwidth/10, 64<<10)))
	}
	return l
}

// pay waits until n bytes may pass. A store that is asked for more than it may
// give is slow and does not fail, so there is no deadline but the caller's.
func (l lane) pay(ctx context.Context, n int64) error {
	if l.bytes == nil {
		return nil
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	for n > 0 {
		piece := min(n, int64(l.bytes.Burst()))
		if err := l.bytes.WaitN(ctx, int(piece)); err != nil {
			if ctx.Err() == nil { // it would come, but too late
				err = fmt.Errorf("%w (%v)", context.DeadlineExceeded, err)
			}
			return fmt.Errorf("wait for bandwidth: %w", err)
		}
		n -= piece
	}
	return nil
}

// enter waits for a slot, which leave gives back. Every now and then it asks
// patient whether to go on waiting.
func (l lane) enter(ctx context.Context, every time.Duration, patient func() error) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case l.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for one of %d requests to end: %w", cap(l.slots), context.Cause(ctx))
		case <-ticker.C:
			if err := patient(); err != nil {
				return err
			}
		}
	}
}

func (l lane) leave() { <-l.slots }
