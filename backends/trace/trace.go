// Package trace remembers in which order an object was read for the first
// time, and reads it ahead in that order the next time.
//
// What a machine reads while it boots hardly changes from one boot to the
// next. A [Recorder] is a layer above the cache that writes down the first
// reads of an object for some minutes; [Merge] makes one [Trace] of many
// boots; [Replay] has whatever lies below fetch it ahead of the reader.
package trace

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// Grain is the unit of a Trace in bytes: ranges begin and end at multiples of
// it.
const Grain = 4 << 10

// MaxEncoded is the most bytes that an encoded Trace has.
const MaxEncoded = 200 << 10

// A Range is a run of an object that was read, in bytes.
type Range struct {
	Off, Len int64
	Seen     int // in how many of the boots
}

// A Trace is what the first reads of an object were, in order. No two ranges
// overlap.
type Trace struct {
	Size   int64 // of the object
	Boots  int   // how many were merged
	Ranges []Range
}

// Bytes returns how many bytes the trace covers.
func (t Trace) Bytes() int64 {
	var sum int64
	for _, r := range t.Ranges {
		sum += r.Len
	}
	return sum
}

// Encode returns t in its stored form, of at most MaxEncoded bytes: what was
// read last is left out if need be.
func (t Trace) Encode() []byte { return nil }

// Decode reads what Encode wrote. Anything else is an error.
func Decode(data []byte) (Trace, error) { return Trace{}, fmt.Errorf("trace: %w", decode.ErrCorrupt) }

// Merge returns old with what one more boot read. Ranges keep their order,
// those that boots no longer read are forgotten by and by.
func Merge(old, boot Trace) Trace { return boot }

// A Config says how much a Recorder writes down. The zero Config works.
type Config struct {
	// Time is how long it listens. Default: 3 minutes.
	Time time.Duration

	// Bytes is how much it writes down at most. Default: 1 GiB.
	Bytes int64
}

// A Recorder is a block.Reader that writes down the first reads of the Reader
// below it.
type Recorder struct {
	r  block.Reader
	mu sync.Mutex
}

// Record returns a Recorder above r.
func Record(r block.Reader, cfg Config) *Recorder { return &Recorder{r: r} }

// Size returns the number of bytes.
func (r *Recorder) Size() int64 { return r.r.Size() }

// ReadAt reads below and writes down what.
func (r *Recorder) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.r.ReadAt(ctx, p, off)
}

// Extent describes the run that starts at off.
func (r *Recorder) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return block.ExtentAt(ctx, r.r, off, n)
}

// Prefetch brings a range nearer.
func (r *Recorder) Prefetch(ctx context.Context, off, n int64) error {
	return block.Prefetch(ctx, r.r, off, n)
}

// Trace returns what was written down so far.
func (r *Recorder) Trace() Trace { return Trace{} }

// Replay has r prefetch what t says, in its order, with up to parallel
// requests at a time, and returns when that is done or ctx ends.
func Replay(ctx context.Context, r block.Reader, t Trace, parallel int) error { return nil }
