package block_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

// disk is a Reader and Mapper that tells where its zeros are, by 100 bytes.
type disk []byte

func (d disk) Size() int64 { return int64(len(d)) }

func (d disk) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.Size()); err != nil {
		return err
	}
	copy(p, d[off:])
	return nil
}

func (d disk) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	end := min(off+n, off/100*100+100)
	e := block.Extent{Off: off, Len: end - off, Kind: block.Zero}
	if slices.ContainsFunc(d[off:end], func(b byte) bool { return b != 0 }) {
		e.Kind = block.Data
	}
	return e, nil
}

// plain is a Device without any ability.
type plain struct {
	mu *sync.Mutex
	d  disk
}

func newPlain(d disk) plain { return plain{new(sync.Mutex), d} }

func (p plain) Size() int64 { return p.d.Size() }

func (p plain) ReadAt(ctx context.Context, b []byte, off int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.d.ReadAt(ctx, b, off)
}

func (p plain) WriteAt(_ context.Context, b []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(b)), p.Size()); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	copy(p.d[off:], b)
	return nil
}

func (p plain) Flush(context.Context) error { return nil }

func content(n int) disk {
	d := make(disk, n)
	for i := range d {
		if i/300%3 != 1 {
			d[i] = byte(i) | 1
		}
	}
	return d
}

func TestCheckRange(t *testing.T) {
	const big = math.MaxInt64
	cases := []struct {
		off, n, size int64
		ok           bool
	}{
		{0, 0, 0, true}, {0, 1, 1, true}, {1, 0, 1, true}, {big, 0, big, true}, {0, big, big, true},
		{-1, 1, 1, false}, {0, -1, 1, false}, {1, 1, 1, false}, {2, 0, 1, false},
		{big, 1, big, false}, {1, big, big, false}, {big, big, big, false}, {math.MinInt64, 1, 1, false},
	}
	for _, c := range cases {
		err := block.CheckRange(c.off, c.n, c.size)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, block.ErrBounds) {
			t.Errorf("CheckRange(%d, %d, %d) = %v, want ok = %v", c.off, c.n, c.size, err, c.ok)
		}
	}
}

func TestSection(t *testing.T) {
	d := content(10_000)
	for _, c := range [][2]int64{{0, 10_000}, {1, 9_999}, {350, 4_000}, {9_999, 1}, {10_000, 0}} {
		s, err := block.Section(d, c[0], c[1])
		if err != nil {
			t.Fatal(err)
		}
		blocktest.TestReader(t, s, d[c[0]:c[0]+c[1]])
	}
	for _, c := range [][2]int64{{0, 10_001}, {-1, 5}, {10_001, 0}, {5, -1}} {
		if _, err := block.Section(d, c[0], c[1]); !errors.Is(err, block.ErrBounds) {
			t.Errorf("Section(%d, %d) = %v, want ErrBounds", c[0], c[1], err)
		}
	}
}

func TestExtents(t *testing.T) {
	d := content(1_000)
	want := []block.Extent{
		{Off: 50, Len: 250, Kind: block.Data}, {Off: 300, Len: 300, Kind: block.Zero}, {Off: 600, Len: 350, Kind: block.Data},
	}
	var got []block.Extent
	for e, err := range block.Extents(t.Context(), d, 50, 900) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Extents = %v, want %v", got, want)
	}
	for e := range block.Extents(t.Context(), d, 50, 900) {
		if e != want[0] {
			t.Errorf("first of Extents = %v", e)
		}
		break
	}
	errs := 0
	for _, err := range block.Extents(t.Context(), d, 50, 951) {
		if err != nil {
			errs++
		}
	}
	if errs != 1 {
		t.Errorf("%d errors of Extents past the end, want 1", errs)
	}
	if n, err := block.Stored(t.Context(), d); n != 700 || err != nil {
		t.Errorf("Stored = %d, %v, want 700", n, err)
	}
	if n, err := block.Stored(t.Context(), newPlain(d)); n != 1_000 || err != nil {
		t.Errorf("Stored of no Mapper = %d, %v, want 1000", n, err)
	}
}

func TestWithoutAbilities(t *testing.T) {
	blocktest.TestDevice(t, newPlain(content(200_001)), content(200_001))
	p := newPlain(content(1_000))
	if err := block.ZeroAt(t.Context(), p, 0, 10, block.ZeroFast); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ZeroFast of no Zeroer = %v", err)
	}
	if !bytes.Equal(p.d, content(1_000)) {
		t.Error("a refused ZeroAt changed bytes")
	}
}

func TestStd(t *testing.T) {
	d := content(5_000)
	std := block.ReaderAt(t.Context(), d)
	if err := iotest.TestReader(io.NewSectionReader(std, 0, d.Size()), d); err != nil {
		t.Error(err)
	}
	blocktest.TestReader(t, block.FromReaderAt(bytes.NewReader(d), d.Size()), d)
	blocktest.TestReader(t, block.FromReaderAt(std, 4_000), d[:4_000])
	long := block.FromReaderAt(bytes.NewReader(d), 6_000)
	if err := long.ReadAt(t.Context(), make([]byte, 10), 4_995); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a read that was cut = %v, want io.ErrUnexpectedEOF", err)
	}
}
