package block

import (
	"context"
	"io"
)

// ReaderAt returns r as an io.ReaderAt, for libraries that want one. Reads
// run under ctx. A read that reaches past the end is cut there with io.EOF.
func ReaderAt(ctx context.Context, r Reader) io.ReaderAt {
	return stdReaderAt{ctx, r}
}

type stdReaderAt struct {
	ctx context.Context // the io.ReaderAt has no other way to carry it
	r   Reader
}

func (s stdReaderAt) ReadAt(p []byte, off int64) (int, error) {
	rest := s.r.Size() - off
	if off < 0 || rest <= 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), rest))
	if err := s.r.ReadAt(s.ctx, p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// FromReaderAt returns the first size bytes of r as a Reader. A read that r
// cuts short is io.ErrUnexpectedEOF.
func FromReaderAt(r io.ReaderAt, size int64) Reader {
	return fromReaderAt{r, size}
}

type fromReaderAt struct {
	r    io.ReaderAt
	size int64
}

func (f fromReaderAt) Size() int64 { return f.size }

func (f fromReaderAt) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := CheckRange(off, int64(len(p)), f.size); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := f.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
