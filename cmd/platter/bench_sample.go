package main

import (
	"context"
	"math/bits"
	"time"
)

// A sample is what a measurement found.
type sample struct {
	count int64
	bytes int64
	took  time.Duration
	slots [64 << histBits]int64 // of durations in nanoseconds, each 1/16 wide
}

const histBits = 4

// add counts a duration.
func (s *sample) add(d time.Duration) {
	n := uint64(max(d, 0))
	if n >= 1<<histBits {
		shift := bits.Len64(n) - histBits - 1
		n = uint64(shift+1)<<histBits + n>>shift&(1<<histBits-1)
	}
	s.slots[n]++
}

// quantile returns the duration that the share q of all did not reach, to
// 1/16 of itself.
func (s *sample) quantile(q float64) time.Duration {
	left := int64(q * float64(s.count))
	for i, n := range s.slots {
		if left -= n; left < 0 {
			if i < 1<<histBits {
				return time.Duration(i)
			}
			shift := i>>histBits - 1
			low := (1<<histBits + i&(1<<histBits-1)) << shift
			return time.Duration(low + 1<<shift/2)
		}
	}
	return 0
}

// repeat does something again and again for as long as it takes, and at least
// once.
func repeat(ctx context.Context, long time.Duration, do func() (int, error)) (sample, error) {
	var s sample
	begun := time.Now()
	for last := begun; ; {
		n, err := do()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return s, err
		}
		now := time.Now()
		s.add(now.Sub(last))
		s.count++
		s.bytes += int64(n)
		last, s.took = now, now.Sub(begun)
		if s.took >= long {
			return s, nil
		}
	}
}
