package block

import (
	"context"
	"fmt"
	"iter"
)

// A Kind says where the bytes of an Extent come from. The zero Kind is the
// safe answer.
type Kind uint8

// The three answers for any range of a Reader.
const (
	Data   Kind = iota // here: read them
	Zero               // here, and all zero: no need to read
	Absent             // not here: ask the layer below; read alone, zeros
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Zero:
		return "zero"
	case Absent:
		return "absent"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// An Extent is a run of bytes of one Kind.
type Extent struct {
	Off, Len int64
	Kind     Kind
}

// End returns the offset just past the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// A Mapper is a Reader that can tell which of its bytes are worth reading.
// Callers use ExtentAt, which works for every Reader: one that is no Mapper
// is all Data.
type Mapper interface {
	// Extent describes the run of one Kind that starts at off. It covers at
	// least one byte, may end early, and does not look past off+n. The range
	// is inside [0, Size) and n is at least 1.
	Extent(ctx context.Context, off, n int64) (Extent, error)
}

// ExtentAt describes the run that starts at off and ends at off+n at the
// latest. It covers at least one byte. A Reader that is no Mapper is all Data.
// An empty range, or one outside the Reader, is ErrBounds.
func ExtentAt(ctx context.Context, r Reader, off, n int64) (Extent, error) {
	if n < 1 {
		return Extent{}, fmt.Errorf("extent of %d bytes at %d: %w", n, off, ErrBounds)
	}
	if err := CheckRange(off, n, r.Size()); err != nil {
		return Extent{}, err
	}
	m, ok := r.(Mapper)
	if !ok {
		return Extent{Off: off, Len: n, Kind: Data}, nil
	}
	return m.Extent(ctx, off, n)
}

// Extents yields the extents of [off, off+n) in order, without gaps,
// neighbours of one Kind merged. After an error it ends.
func Extents(ctx context.Context, r Reader, off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		var run Extent
		for end := off + n; off < end; {
			e, err := ExtentAt(ctx, r, off, end-off)
			if err != nil {
				yield(Extent{}, err)
				return
			}
			off = e.End()
			if run.Len > 0 && run.Kind == e.Kind {
				run.Len += e.Len
				continue
			}
			if run.Len > 0 && !yield(run, nil) {
				return
			}
			run = e
		}
		if run.Len > 0 {
			yield(run, nil)
		}
	}
}

// Stored returns how many bytes of r are Data: what a copy of it would take
// if holes were kept.
func Stored(ctx context.Context, r Reader) (int64, error) {
	var sum int64
	for e, err := range Extents(ctx, r, 0, r.Size()) {
		if err != nil {
			return 0, err
		}
		if e.Kind == Data {
			sum += e.Len
		}
	}
	return sum, nil
}
