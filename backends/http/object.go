package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

// span is the largest range asked for in one GET; a longer read is several at
// once.
const span = 8 << 20

// open asks for the first byte, by which a server shows whether it gives
// ranges. HEAD is refused by some, and says too little on others.
func (s *Store) open(ctx context.Context, u *url.URL) (r block.ReadCloser, err error) {
	err = s.again(ctx, "open "+u.Redacted(), func() error {
		r, err = s.look(ctx, u)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Store) look(ctx context.Context, u *url.URL) (block.ReadCloser, error) {
	// A spool goes on for longer than the call that wants it first.
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	resp, at, err := s.get(long, u, map[string]string{"Range": "bytes=0-0"})
	if err != nil {
		cancel()
		return nil, err
	}
	end := func() { resp.Body.Close(); cancel() }
	v := versionOf(resp.Header)
	switch resp.StatusCode {
	case http.StatusOK:
		if !stop() {
			end()
			return nil, ctx.Err()
		}
		return s.spool(ctx, u, download{resp: resp, version: v, end: end})
	case http.StatusRequestedRangeNotSatisfiable:
		end()
		if resp.Header.Get("Content-Range") == "bytes */0" {
			return &object{store: s, origin: u}, nil // the empty object has no first byte
		}
		return nil, fmt.Errorf("%w: it has no first byte", errRange)
	}
	end()
	_, _, size, err := contentRange(resp.Header)
	switch {
	case err != nil:
		return nil, err
	case size < 0 || !v.known():
		// Nobody knows how long it is, or could tell whether it changes.
		return s.spool(ctx, u, download{version: v, end: func() {}})
	}
	o := &object{store: s, origin: u, size: size, version: v}
	o.last.Store(at)
	return o, nil
}

// contentRange reads the header Content-Range, with size -1 if that is "*".
func contentRange(h http.Header) (first, last, size int64, err error) {
	text := h.Get("Content-Range")
	fail := fmt.Errorf("%w: its range is %q", errRange, text)
	rest, ok := strings.CutPrefix(text, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, fail
	}
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if total == "*" {
		size = -1
	} else if size, err = strconv.ParseInt(total, 10, 64); err != nil || size <= last {
		return 0, 0, 0, fail
	}
	if err1 != nil || err2 != nil || first < 0 || last < first {
		return 0, 0, 0, fail
	}
	return first, last, size, nil
}

// An object is an open object of a server that gives ranges.
type object struct {
	store   *Store
	origin  *url.URL
	last    atomic.Pointer[url.URL] // where redirects led
	size    int64
	version version
	closed  atomic.Bool
}

// Size returns the length in bytes.
func (o *object) Size() int64 { return o.size }

// Close ends the use of the object. Reads that are under way go on.
func (o *object) Close() error {
	o.closed.Store(true)
	return nil
}

// ReadAt fills p with the bytes at off. If the object is another one than was
// opened, the error is syscall.ESTALE, and if it is gone, fs.ErrNotExist.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	err := block.CheckRange(off, int64(len(p)), o.size)
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
		return fmt.Errorf("http: read %d bytes of %s at %d: %w", len(p), o.origin.Redacted(), off, err)
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
	return o.store.again(ctx, "read "+o.origin.Redacted(), func() error {
		n, err := o.fetch(ctx, p, off)
		p, off = p[n:], off+int64(n)
		if len(p) == 0 && n > 0 {
			return nil
		}
		return err
	})
}

// fetch makes one request and returns how many bytes of p it filled.
func (o *object) fetch(ctx context.Context, p []byte, off int64) (int, error) {
	last := off + int64(len(p)) - 1
	header := map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", off, last)}
	if c := o.version.condition(); c != "" {
		header["If-Range"] = c
	}
	at := o.last.Load()
	resp, to, err := o.store.get(ctx, at, header)
	if _, refused := errors.AsType[*statusError](err); refused && *at != *o.origin && !passing(err) {
		// Where a redirect led may have been meant for a while only.
		resp, to, err = o.store.get(ctx, o.origin, header)
	}
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if err := o.matches(resp, off, last); err != nil {
		return 0, err
	}
	o.last.Store(to)
	n, err := io.ReadFull(resp.Body, p)
	if err != nil {
		return n, fmt.Errorf("after %d of %d bytes: %w", n, len(p), err)
	}
	if more, _ := resp.Body.Read(make([]byte, 1)); more > 0 { // of a length that nobody announced
		return 0, fmt.Errorf("%w: more than %d bytes", errRange, len(p))
	}
	return n, nil
}

// matches returns an error unless the answer is what was asked for.
func (o *object) matches(resp *http.Response, first, last int64) error {
	if v := versionOf(resp.Header); !o.version.same(v) {
		return fmt.Errorf("the object was replaced since it was opened (%s, was %s): %w", v, o.version, syscall.ESTALE)
	}
	if resp.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("%w: %s instead of a part", errRange, resp.Status)
	}
	a, b, size, err := contentRange(resp.Header)
	switch {
	case err != nil:
		return err
	case size >= 0 && size != o.size:
		return fmt.Errorf("the object has %d bytes and had %d when it was opened: %w", size, o.size, syscall.ESTALE)
	case a != first || b != last || resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
		return fmt.Errorf("%w: %d bytes of range %q instead of %d-%d", errRange, resp.ContentLength, resp.Header.Get("Content-Range"), first, last)
	}
	return nil
}

// String shows a version in errors.
func (v version) String() string {
	if v.etag != "" {
		return "ETag " + v.etag
	}
	return "of " + v.modified
}
