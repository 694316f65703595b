package trace

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

const (
	// Ranges that are read at about the same time are fetched in the order of
	// their places, so that neighbours become one fetch. About the same time
	// is so many bytes: few at the beginning, when the reader is close behind.
	firstBatch = 256 << 10
	lastBatch  = 4 << 20

	// maxPiece is the most of one fetch.
	maxPiece = 1 << 20

	// maxFailures is how many fetches may fail before it is given up.
	maxFailures = 8
)

// Replay has r prefetch what t says was read in every second boot, in its order, with up to parallel
// requests at a time (default 16), and returns when that is done, when it
// keeps failing, or when ctx ends. A t of another size is errors.ErrUnsupported.
func Replay(ctx context.Context, r block.Reader, t Trace, parallel int) error {
	if t.Size != r.Size() {
		return errors.ErrUnsupported
	}
	if parallel <= 0 {
		parallel = 16
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	g.SetLimit(parallel)
	var failures atomic.Int32
	batch := int64(firstBatch)
	often := slices.DeleteFunc(slices.Clone(t.Ranges), func(r Range) bool { return r.Seen*replay < t.Boots })
	for rest := often; len(rest) > 0 && ctx.Err() == nil; batch = min(2*batch, lastBatch) {
		var pieces []Range
		pieces, rest = next(rest, batch)
		for _, p := range pieces {
			if ctx.Err() != nil {
				break
			}
			g.Go(func() error {
				err := block.Prefetch(ctx, r, p.Off, p.Len)
				if err != nil && (failures.Add(1) >= maxFailures || errors.Is(err, fs.ErrClosed)) {
					cancel(err)
				}
				return nil
			})
		}
	}
	err := g.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// next takes ranges of about so many bytes off a trace, and returns them as
// pieces, neighbours joined, in the order of their places.
func next(ranges []Range, bytes int64) (pieces, rest []Range) {
	n := 0
	for ; n < len(ranges) && bytes > 0; n++ {
		bytes -= ranges[n].Len
	}
	for _, r := range byOffset(ranges[:n]) {
		if last := len(pieces) - 1; last >= 0 && pieces[last].End() == r.Off && pieces[last].Len < maxPiece {
			more := min(r.Len, maxPiece-pieces[last].Len)
			pieces[last].Len += more
			r.Off, r.Len = r.Off+more, r.Len-more
		}
		for r.Len > 0 {
			p := Range{Off: r.Off, Len: min(r.Len, maxPiece)}
			pieces = append(pieces, p)
			r.Off, r.Len = p.End(), r.Len-p.Len
		}
	}
	return pieces, ranges[n:]
}
