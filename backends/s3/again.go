package s3

import (
	"context"
	"math/rand/v2"
	"time"
)

// Patience is how often and how long a request is tried.
type patience struct {
	tries  int           // at most; 0 is without limit
	within time.Duration // no new try after this; 0 is without limit
}

// reading is the patience of reads, which somebody waits for.
func (s *Store) reading() patience { return patience{tries: 4} }

// writing is the patience of writes, which ride out the restart of a server.
func (s *Store) writing() patience { return patience{within: s.cfg.Retry} }

// Delays between tries, in units of a Store's pace, which is firstDelay. They
// double from one such unit on.
const (
	firstDelay = 50 * time.Millisecond
	lastDelay  = 40
	slowDelay  = 10 // at least, for a server that asked us to slow down
)

// delay returns how long to wait before the next try, half of it by chance so
// that many clients do not come back at once.
func (s *Store) delay(try int, err error) time.Duration {
	d := min(s.pace<<min(try, 10), lastDelay*s.pace)
	if slowDown(err) {
		d = max(d, slowDelay*s.pace)
	}
	return d/2 + rand.N(d/2+1)
}

// again calls f until it succeeds, fails for good, or patience or ctx end. The
// error is f's last one; where ctx ended, ctx's.
func (s *Store) again(ctx context.Context, p patience, what string, f func(ctx context.Context) error) error {
	began := time.Now()
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d := s.delay(try, err)
		over := p.tries > 0 && try+1 >= p.tries || p.within > 0 && time.Since(began)+d > p.within
		if over || !passing(err) {
			return err
		}
		s.cfg.Logger.WarnContext(ctx, "s3: trying again", "what", what, "bucket", s.cfg.Bucket, "after", d, "error", err)
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
