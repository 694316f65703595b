// Package blocktest tests any block.Reader and any block.Device, and measures
// them.
//
// [TestReader] and [TestDevice] are for tests of package testing; each promise
// of the contract is a subtest with a name. [CheckReader] and [CheckDevice] are
// the same and return the first broken promise as an error, for property tests
// and for tests that expect a Reader to be broken.
//
// All choices are made by generators with fixed seeds: a failure repeats.
package blocktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
)

// TestReader tests that r keeps every promise of a block.Reader and holds
// exactly want. Bytes that are Absent read as zeros.
func TestReader(t *testing.T, r block.Reader, want []byte) {
	t.Helper()
	for _, c := range readerChecks() {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			if err := c.run(t.Context(), r, want); err != nil {
				t.Error(err)
			}
		})
	}
}

// CheckReader is TestReader with an error as its answer.
func CheckReader(ctx context.Context, r block.Reader, want []byte) error {
	for _, c := range readerChecks() {
		if err := c.run(ctx, r, want); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// Equal returns an error that names the first difference between r and want.
// It looks at the size, the bytes and whether the extents are true, and is
// cheap beside CheckReader.
func Equal(ctx context.Context, r block.Reader, want []byte) error {
	if err := readSize(ctx, r, want); err != nil {
		return err
	}
	if err := readAll(ctx, r, want); err != nil {
		return err
	}
	return extentsTrue(ctx, r, want)
}

type readerCheck struct {
	name string
	run  func(ctx context.Context, r block.Reader, want []byte) error
}

func readerChecks() []readerCheck {
	return []readerCheck{
		{"size", readSize},
		{"all", readAll},
		{"pieces", readPieces},
		{"edges", readEdges},
		{"bounds", readBounds},
		{"cancelled", readCancelled},
		{"extents", extentsTrue},
		{"extent windows", extentWindows},
		{"extent bounds", extentBounds},
		{"depths", depthsTrue},
		{"depth windows", depthWindows},
		{"prefetch", prefetch},
		{"parallel", readParallel},
		{"io.ReaderAt", readStd},
	}
}

func readSize(_ context.Context, r block.Reader, want []byte) error {
	if got := r.Size(); got != int64(len(want)) {
		return fmt.Errorf("size is %d, want %d", got, len(want))
	}
	return nil
}

func readAll(ctx context.Context, r block.Reader, want []byte) error {
	return readRange(ctx, r, want, 0, int64(len(want)))
}

// readRange reads into the middle of a larger slice, so that a Reader that
// writes past p, or leaves a part of p alone, is found out.
func readRange(ctx context.Context, r block.Reader, want []byte, off, n int64) error {
	const fence = 16
	buf := bytes.Repeat([]byte{0xA5}, int(n)+2*fence)
	p := buf[fence : fence+n]
	if err := r.ReadAt(ctx, p, off); err != nil {
		return fmt.Errorf("ReadAt(%d bytes at %d): %w", n, off, err)
	}
	if err := same(p, want[off:off+n], off); err != nil {
		return fmt.Errorf("ReadAt(%d bytes at %d): %w", n, off, err)
	}
	for i := range fence {
		if buf[i] != 0xA5 || buf[fence+int(n)+i] != 0xA5 {
			return fmt.Errorf("ReadAt(%d bytes at %d) wrote outside its slice", n, off)
		}
	}
	return nil
}

// same says where got, which stands at off, first differs from want.
func same(got, want []byte, off int64) error {
	if bytes.Equal(got, want) {
		return nil
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d is %#02x, want %#02x", off+int64(i), got[i], want[i])
		}
	}
	return nil
}

// readPieces reads at random, with the lengths that find mistakes: below, at
// and above a sector, and across many of them.
func readPieces(ctx context.Context, r block.Reader, want []byte) error {
	rng := rand.New(rand.NewPCG(1, uint64(len(want))))
	for range 200 {
		off, n := pieceOf(rng, int64(len(want)))
		if err := readRange(ctx, r, want, off, n); err != nil {
			return err
		}
	}
	return nil
}

// pieceOf chooses a range inside [0, size), often aligned, often at an end.
func pieceOf(rng *rand.Rand, size int64) (off, n int64) {
	longest := [...]int64{1, 7, 512, 4096, 65536, 300000}
	n = min(size, 1+rng.Int64N(longest[rng.IntN(len(longest))]))
	off = rng.Int64N(size - n + 1)
	switch rng.IntN(4) {
	case 0:
		off = off / 512 * 512
		n = min(size-off, (n+511)/512*512)
	case 1:
		off = size - n
	}
	return off, n
}

// readEdges reads around every power of two, where tables and clusters end.
func readEdges(ctx context.Context, r block.Reader, want []byte) error {
	size := int64(len(want))
	for edge := int64(1); edge <= size; edge *= 2 {
		for _, unit := range [...]int64{edge, size - edge, size / edge * edge} {
			low, high := max(unit-3, 0), min(unit+3, size)
			if err := readRange(ctx, r, want, low, high-low); err != nil {
				return err
			}
		}
	}
	return readRange(ctx, r, want, size, 0)
}

// badRanges are ranges that are not inside a Reader of size bytes.
func badRanges(size int64) []block.Extent {
	return []block.Extent{
		{Off: -1, Len: 1}, {Off: -1, Len: 0}, {Off: math.MinInt64, Len: 2},
		{Off: size, Len: 1}, {Off: size + 1, Len: 0}, {Off: max(size-1, 0), Len: 3},
		{Off: math.MaxInt64, Len: 1}, {Off: math.MaxInt64 - 1, Len: 4},
	}
}

func readBounds(ctx context.Context, r block.Reader, want []byte) error {
	for _, bad := range badRanges(int64(len(want))) {
		err := r.ReadAt(ctx, make([]byte, bad.Len), bad.Off)
		if !errors.Is(err, block.ErrBounds) {
			return fmt.Errorf("ReadAt(%d bytes at %d) = %v, want ErrBounds", bad.Len, bad.Off, err)
		}
	}
	return nil
}

// readCancelled: a Reader need not look at its context, but what it then says
// must be true: the context's error, or all the bytes.
func readCancelled(ctx context.Context, r block.Reader, want []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	p := make([]byte, min(len(want), 4096))
	switch err := r.ReadAt(ctx, p, 0); {
	case err == nil:
		return same(p, want[:len(p)], 0)
	case errors.Is(err, context.Canceled):
		return nil
	default:
		return fmt.Errorf("ReadAt with a cancelled context = %w, want context.Canceled or success", err)
	}
}

func prefetch(ctx context.Context, r block.Reader, want []byte) error {
	// An error says only that it did not help; the bytes stay the same.
	_ = block.Prefetch(ctx, r, 0, int64(len(want)))
	if err := block.Prefetch(ctx, r, int64(len(want)), 1); !errors.Is(err, block.ErrBounds) {
		return fmt.Errorf("prefetch past the end = %v, want ErrBounds", err)
	}
	return readAll(ctx, r, want)
}

// readStd reads r as a library that wants an io.ReaderAt would.
func readStd(ctx context.Context, r block.Reader, want []byte) error {
	std := block.ReaderAt(ctx, r)
	p := make([]byte, 8)
	if n, err := std.ReadAt(p, int64(len(want))); n != 0 || err != io.EOF {
		return fmt.Errorf("read at the end = %d, %v, want 0, EOF", n, err)
	}
	if len(want) < len(p) {
		return nil
	}
	off := int64(len(want) - 5)
	n, err := std.ReadAt(p, off)
	if n != 5 || err != io.EOF {
		return fmt.Errorf("read across the end = %d, %v, want 5, EOF", n, err)
	}
	return same(p[:n], want[off:], off)
}
