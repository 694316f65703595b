package trace

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Config says how much a Recorder writes down. The zero Config works.
type Config struct {
	// Time is how long it listens. Default: 3 minutes.
	Time time.Duration

	// Bytes is how much it writes down at most. Default: MaxBytes, which is
	// also the most.
	Bytes int64
}

// A Recorder is a block.Reader that writes down the first reads of the Reader
// below it.
type Recorder struct {
	r     block.Reader
	until time.Time
	done  atomic.Bool

	mu     sync.Mutex
	left   int64            // bytes that may still be written down
	seen   map[int64]uint64 // which grains of 64 were
	ranges []Range
}

// maxRanges is about as many as can be encoded.
const maxRanges = 64 << 10

// Record returns a Recorder above r.
func Record(r block.Reader, cfg Config) *Recorder {
	if cfg.Time == 0 {
		cfg.Time = 3 * time.Minute
	}
	if cfg.Bytes == 0 || cfg.Bytes > MaxBytes {
		cfg.Bytes = MaxBytes
	}
	return &Recorder{r: r, until: time.Now().Add(cfg.Time), left: cfg.Bytes, seen: make(map[int64]uint64)}
}

// Size returns the number of bytes.
func (r *Recorder) Size() int64 { return r.r.Size() }

// ReadAt reads below and writes down what.
func (r *Recorder) ReadAt(ctx context.Context, p []byte, off int64) error {
	if !r.done.Load() && block.CheckRange(off, int64(len(p)), r.r.Size()) == nil {
		r.note(off, int64(len(p)))
	}
	return r.r.ReadAt(ctx, p, off)
}

// Extent describes the run that starts at off.
func (r *Recorder) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return block.ExtentAt(ctx, r.r, off, n)
}

// Depth says which layer the bytes at off come from.
func (r *Recorder) Depth(ctx context.Context, off, n int64) (run int64, depth int, err error) {
	return block.DepthAt(ctx, r.r, off, n)
}

// Prefetch brings a range nearer.
func (r *Recorder) Prefetch(ctx context.Context, off, n int64) error {
	return block.Prefetch(ctx, r.r, off, n)
}

// Stop ends the recording.
func (r *Recorder) Stop() { r.done.Store(true) }

// note writes down the grains of a read that were not read before.
func (r *Recorder) note(off, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().After(r.until) || r.left <= 0 || len(r.ranges) >= maxRanges {
		r.done.Store(true)
		return
	}
	end := (off + n + Grain - 1) / Grain
	for g := off / Grain; g < end && r.left > 0; {
		word, in := r.seen[g/64], uint(g%64)
		if word>>in&1 != 0 {
			g++
			continue
		}
		run := min(int64(bits.TrailingZeros64(word>>in)), 64-int64(in), end-g, (r.left+Grain-1)/Grain)
		r.seen[g/64] = word | (^uint64(0)>>(64-uint(run)))<<in
		r.put(g, run)
		g += run
	}
}

// put writes down grains, or lengthens what was written last.
func (r *Recorder) put(g, n int64) {
	next := Range{Off: g * Grain, Len: min(n*Grain, r.r.Size()-g*Grain), Seen: 1}
	r.left -= next.Len
	if last := len(r.ranges) - 1; last >= 0 && r.ranges[last].End() == next.Off {
		r.ranges[last].Len += next.Len
		return
	}
	r.ranges = append(r.ranges, next)
}

// whole is how much may be read of an object, however small it is, without
// looking like a copy of it.
const whole = 64 << 20

// Trace returns what was written down so far. If that is the greater part of
// a large object, somebody made a copy of it: that is no boot, and the Trace
// is empty.
func (r *Recorder) Trace() Trace {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := Trace{Size: r.r.Size(), Boots: 1, Ranges: append([]Range(nil), r.ranges...)}
	if n := t.Bytes(); n > whole && n > t.Size/2 {
		t.Ranges = nil
	}
	return t
}
