package swift

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

// span is the largest range asked for in one GET; a longer read is several at
// once.
const span = 8 << 20

// Open opens an object.
func (s *Store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	o, err := s.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("swift: open %s: %w", key, err)
	}
	return o, nil
}

func (s *Store) open(ctx context.Context, key string) (*object, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	o := &object{store: s, name: s.name(key)}
	var err error
	if o.state, err = s.head(ctx, s.reading(), s.cfg.Container, o.name); err != nil {
		return nil, s.missing(ctx, err)
	}
	if o.state.size < 0 || o.state.etag == "" && o.state.segment == 0 {
		return nil, fmt.Errorf("the server tells no ETag or no length of %s: nothing could tell whether it changes", o.name)
	}
	if err := s.survey(ctx, o); err != nil {
		return nil, s.missing(ctx, err)
	}
	return o, nil
}

// missing looks, after the answer that an object is not there, whether there
// is the container: the answers are the same.
func (s *Store) missing(ctx context.Context, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return s.explain(err)
	}
	_, gone := s.ask(ctx, s.reading(), request{method: http.MethodHead, container: s.cfg.Container})
	if statusOf(gone) == http.StatusNotFound {
		return fmt.Errorf("there is no container %s any more: create it, or correct container", s.cfg.Container)
	}
	return err
}

// An object is an open object.
type object struct {
	store    *Store
	name     string
	state    state
	segments []segment // nil if state tells where they are
	closed   atomic.Bool
}

// Size returns the length in bytes.
func (o *object) Size() int64 { return o.state.size }

// Close ends the use of the object. Reads that are under way go on.
func (o *object) Close() error {
	o.closed.Store(true)
	return nil
}

// ReadAt fills p with the bytes at off. If the object was deleted or replaced
// since it was opened, the error is fs.ErrNotExist or syscall.ESTALE.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	err := block.CheckRange(off, int64(len(p)), o.state.size)
	if err == nil && o.closed.Load() {
		err = fs.ErrClosed
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && len(p) > 0 {
		err = o.readAll(ctx, p, off)
	}
	if err != nil {
		return fmt.Errorf("swift: read %d bytes of %s at %d: %w", len(p), o.name, off, err)
	}
	return nil
}

// readAll reads by pieces that lie in one segment each.
func (o *object) readAll(ctx context.Context, p []byte, off int64) error {
	seg := o.find(off)
	if n := int64(len(p)); n <= span && off+n <= seg.off+seg.len {
		return o.read(ctx, seg, p, off-seg.off)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.store.cfg.Parallel)
	for len(p) > 0 {
		seg := o.find(off)
		piece, at := p[:min(int64(len(p)), span, seg.off+seg.len-off)], off-seg.off
		g.Go(func() error { return o.read(ctx, seg, piece, at) })
		p, off = p[len(piece):], off+int64(len(piece))
	}
	return g.Wait()
}

// read fills p with the bytes of a segment at off. What broke off is gone on
// with where it broke.
func (o *object) read(ctx context.Context, seg segment, p []byte, off int64) error {
	err := o.store.again(ctx, o.store.reading(), "read "+seg.name, func(ctx context.Context) error {
		n, err := o.store.get(ctx, seg, p, off)
		p, off = p[n:], off+int64(n)
		return err
	})
	switch statusOf(err) {
	case http.StatusNotFound:
		return fmt.Errorf("%s is gone since the object was opened: %w", seg.name, fs.ErrNotExist)
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		return replaced(seg)
	}
	return o.store.explain(err)
}

func replaced(seg segment) error {
	return fmt.Errorf("%s was replaced since the object was opened: %w", seg.name, syscall.ESTALE)
}

// get makes one request and returns how many bytes of p it filled.
func (s *Store) get(ctx context.Context, seg segment, p []byte, off int64) (int, error) {
	first := seg.from + off
	last := first + int64(len(p)) - 1
	r := request{method: http.MethodGet, container: seg.container, name: seg.name,
		header: map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", first, last)}}
	if seg.etag != "" && s.can.getMatch {
		r.header["If-Match"] = `"` + seg.etag + `"`
	}
	resp, err := s.send(ctx, r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if err := seg.matches(resp, first, last); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(resp.Body, p)
	if err != nil {
		return n, fmt.Errorf("after %d of %d bytes: %w", n, len(p), err)
	}
	if more, _ := resp.Body.Read(make([]byte, 1)); more > 0 { // of a length that nobody announced
		return 0, fmt.Errorf("%w: more than %d bytes", errWrongRange, len(p))
	}
	if err := whole(resp, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// matches returns an error unless the answer is what was asked for.
func (seg segment) matches(resp *http.Response, first, last int64) error {
	if resp.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("%w: %s instead of a part", errWrongRange, resp.Status)
	}
	var a, b, total int64
	got := resp.Header.Get("Content-Range")
	if n, err := fmt.Sscanf(got, "bytes %d-%d/%d", &a, &b, &total); n != 3 || err != nil || a != first || b != last && b != total-1 {
		return fmt.Errorf("%w: range %q instead of %d-%d", errWrongRange, got, first, last)
	}
	if seg.total >= 0 && total != seg.total || seg.etag != "" && etag(resp.Header) != seg.etag ||
		seg.upload != "" && resp.Header.Get(uploadHeader) != seg.upload {
		return replaced(seg)
	}
	if n := resp.ContentLength; b != last || n >= 0 && n != last-first+1 {
		return fmt.Errorf("%w: %d bytes of range %q", errWrongRange, n, got)
	}
	return nil
}

// whole checks the digest of an object that was read in one piece.
func whole(resp *http.Response, p []byte) error {
	want := etag(resp.Header)
	if resp.Header.Get("Content-Range") != fmt.Sprintf("bytes 0-%d/%d", len(p)-1, len(p)) || len(want) != 2*md5.Size ||
		resp.Header.Get(staticHeader) != "" || resp.Header.Get(manifestHeader) != "" {
		return nil // a part has no digest, and that of a manifest is of another kind
	}
	if sum := md5.Sum(p); hex.EncodeToString(sum[:]) != want {
		return fmt.Errorf("the bytes have MD5 %x and not %s: %w", sum, want, errDigest)
	}
	return nil
}
