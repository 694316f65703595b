package block

import "context"

// Section returns the n bytes of r that start at off, as a Reader of their
// own. It keeps the extents and depths of r. A range outside r is ErrBounds.
func Section(r Reader, off, n int64) (Reader, error) {
	if err := CheckRange(off, n, r.Size()); err != nil {
		return nil, err
	}
	return &section{r: r, off: off, n: n}, nil
}

type section struct {
	r      Reader
	off, n int64
}

func (s *section) Size() int64 { return s.n }

func (s *section) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := CheckRange(off, int64(len(p)), s.n); err != nil {
		return err
	}
	return s.r.ReadAt(ctx, p, s.off+off)
}

func (s *section) Extent(ctx context.Context, off, n int64) (Extent, error) {
	if err := CheckRange(off, n, s.n); err != nil {
		return Extent{}, err
	}
	e, err := ExtentAt(ctx, s.r, s.off+off, n)
	e.Off -= s.off
	return e, err
}

func (s *section) Depth(ctx context.Context, off, n int64) (int64, int, error) {
	if err := CheckRange(off, n, s.n); err != nil {
		return 0, 0, err
	}
	return DepthAt(ctx, s.r, s.off+off, n)
}

func (s *section) Prefetch(ctx context.Context, off, n int64) error {
	if err := CheckRange(off, n, s.n); err != nil {
		return err
	}
	return Prefetch(ctx, s.r, s.off+off, n)
}

func (s *section) Place(ctx context.Context, off, n int64) (Place, bool) {
	return PlaceAt(ctx, s.r, s.off+off, n)
}
