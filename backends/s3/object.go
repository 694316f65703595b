package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync/atomic"
	"syscall"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

// span is the largest range asked for in one GET; a longer read is several at
// once. Amazon advises ranges of 8 to 16 MB.
const span = 16 << 20

// uploadKey is the metadata that names the upload that made an object.
const uploadKey = "Platter-Upload"

// errWrongRange is a 206 with another range, length or object than was asked
// for.
var errWrongRange = errors.New("wrong answer to a request for a range")

// A state is what HEAD tells of an object.
type state struct {
	size   int64
	etag   string
	upload string // the id of the upload that made it, if it is ours
}

// head looks an object up. If there is none the error is fs.ErrNotExist.
func (s *Store) head(ctx context.Context, p patience, name string) (state, error) {
	var st state
	err := s.again(ctx, p, "look up "+name, func(ctx context.Context) error {
		info, err := s.core.StatObject(ctx, s.cfg.Bucket, name, minio.StatObjectOptions{})
		st = state{size: info.Size, etag: info.ETag, upload: info.UserMetadata[uploadKey]}
		return err
	})
	if statusOf(err) == http.StatusNotFound && codeOf(err) != minio.NoSuchBucket {
		return state{}, fmt.Errorf("there is no object %s: %w", name, fs.ErrNotExist)
	}
	return st, s.explain(err)
}

// Open opens an object.
func (s *Store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	o, err := s.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("s3: open %s: %w", key, err)
	}
	return o, nil
}

func (s *Store) open(ctx context.Context, key string) (*object, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	st, err := s.head(ctx, s.reading(), s.name(key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, s.missing(ctx, s.name(key), err)
	case err != nil:
		return nil, err
	case st.etag == "" || st.size < 0:
		return nil, fmt.Errorf("the server tells no ETag or no length of %s: nothing could tell whether it changes", s.name(key))
	}
	return &object{store: s, name: s.name(key), state: st}, nil
}

// missing asks once more for an object that HEAD said is not there: an answer
// to HEAD has no words, and a bucket that is gone looks just the same.
func (s *Store) missing(ctx context.Context, name string, notThere error) error {
	var opts minio.GetObjectOptions
	opts.Set("Range", "bytes=0-0")
	body, _, _, err := s.core.GetObject(ctx, s.cfg.Bucket, name, opts)
	if err == nil {
		body.Close()
	}
	if codeOf(err) == minio.NoSuchBucket {
		return s.explain(err)
	}
	return notThere
}

// An object is an open object.
type object struct {
	store  *Store
	name   string
	state  state
	closed atomic.Bool
}

// Size returns the length in bytes.
func (o *object) Size() int64 { return o.state.size }

// Close ends the use of the object. Reads that are under way go on.
func (o *object) Close() error {
	o.closed.Store(true)
	return nil
}

// ReadAt fills p with the bytes at off. If the object was deleted since it was
// opened the error is fs.ErrNotExist, and if another has its name, ESTALE.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	err := block.CheckRange(off, int64(len(p)), o.state.size)
	if err == nil && o.closed.Load() {
		err = fs.ErrClosed
	}
	if err == nil {
		err = o.readAll(ctx, p, off)
	}
	if err != nil {
		return fmt.Errorf("s3: read %d bytes of %s at %d: %w", len(p), o.name, off, err)
	}
	return nil
}

func (o *object) readAll(ctx context.Context, p []byte, off int64) error {
	if len(p) <= span {
		return o.read(ctx, p, off)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.store.cfg.Parallel)
	for len(p) > 0 {
		piece, at := p[:min(len(p), span)], off
		g.Go(func() error { return o.read(ctx, piece, at) })
		p, off = p[len(piece):], off+int64(len(piece))
	}
	return g.Wait()
}

// read fills p. What broke off is gone on with where it broke.
func (o *object) read(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return ctx.Err()
	}
	err := o.store.again(ctx, o.store.reading(), "read "+o.name, func(ctx context.Context) error {
		n, err := o.get(ctx, p, off)
		p, off = p[n:], off+int64(n)
		if len(p) == 0 {
			return nil
		}
		return err
	})
	switch statusOf(err) {
	case http.StatusNotFound:
		if codeOf(err) != minio.NoSuchBucket {
			return fmt.Errorf("the object is gone since it was opened: %w", fs.ErrNotExist)
		}
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("the object was replaced since it was opened: %w", syscall.ESTALE)
	}
	return o.store.explain(err)
}

// get makes one request and returns how many bytes of p it filled.
func (o *object) get(ctx context.Context, p []byte, off int64) (int, error) {
	last := off + int64(len(p)) - 1
	var opts minio.GetObjectOptions
	opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, last))
	opts.Set("If-Match", `"`+o.state.etag+`"`)
	in, info, header, err := o.store.core.GetObject(ctx, o.store.cfg.Bucket, o.name, opts)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	want := fmt.Sprintf("bytes %d-%d/%d", off, last, o.state.size)
	if got := header.Get("Content-Range"); got != want {
		return 0, fmt.Errorf("%w: range %q instead of %q", errWrongRange, got, want)
	}
	if info.ETag != o.state.etag { // by a server that ignores If-Match
		return 0, fmt.Errorf("the object was replaced since it was opened (ETag %s, was %s): %w", info.ETag, o.state.etag, syscall.ESTALE)
	}
	if info.Size >= 0 && info.Size != int64(len(p)) {
		return 0, fmt.Errorf("%w: %d bytes instead of %d", errWrongRange, info.Size, len(p))
	}
	n, err := io.ReadFull(in, p)
	if err != nil {
		return n, fmt.Errorf("after %d of %d bytes: %w", n, len(p), err)
	}
	if info.Size < 0 { // of a length that nobody announced
		if more, _ := in.Read(make([]byte, 1)); more > 0 {
			return 0, fmt.Errorf("%w: more than %d bytes", errWrongRange, len(p))
		}
	}
	return n, nil
}
