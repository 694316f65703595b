package s3

import (
	"context"
	"errors"
	"fmt"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends"
)

// A copying says by how much at once the server copies.
type copying struct {
	whole int64 // at most by one request
	part  int64 // of longer objects
}

// limits are S3's for CopyObject, and one that keeps requests short.
func limits() copying { return copying{whole: 5 << 30, part: 1 << 30} }

// CopyFrom makes an object from one of a Store of the same server and access
// key, inside the server. All others, and servers that were not seen to copy,
// are errors.ErrUnsupported.
func (s *Store) CopyFrom(ctx context.Context, key string, from backends.Store, fromKey string) error {
	src, ok := from.(*Store)
	if !ok || !s.reaches(src) {
		return fmt.Errorf("s3: copy to %s: not inside one server: %w", key, errors.ErrUnsupported)
	}
	if err := s.copyFrom(ctx, key, src, fromKey); err != nil {
		return fmt.Errorf("s3: copy %s to %s: %w", fromKey, key, err)
	}
	return nil
}

// reaches says whether our keys read the other's bucket. Others' might: but
// to try would be to guess from a refusal.
func (s *Store) reaches(from *Store) bool {
	return s.endpoint.Scheme == from.endpoint.Scheme && s.endpoint.Host == from.endpoint.Host && s.cfg.AccessKey == from.cfg.AccessKey
}

func (s *Store) copyFrom(ctx context.Context, key string, src *Store, fromKey string) error {
	if err := errors.Join(backends.CheckKey(key), check(ctx, fromKey)); err != nil {
		return err
	}
	o, err := src.open(ctx, fromKey)
	if err != nil {
		return err
	}
	if o.state.size <= s.copying.whole && !s.can.copy || o.state.size > s.copying.whole && !s.can.copyPart {
		return fmt.Errorf("the server does not copy: %w", errors.ErrUnsupported)
	}
	if err := s.vacant(ctx, s.name(key)); err != nil {
		return err
	}
	w := s.writer(ctx, key, o.state.size)
	defer w.Abort()
	if w.off = o.state.size; w.off <= s.copying.whole {
		err = w.copyWhole(ctx, o)
	} else {
		err = w.copyParts(ctx, o)
	}
	if err != nil {
		return err
	}
	// RGW ignores the condition on the source.
	if now, err := src.head(ctx, src.reading(), o.name); err != nil || now.etag != o.state.etag {
		return errors.Join(fmt.Errorf("%s changed while it was copied", o.name), err)
	}
	w.end()
	return nil
}

// copyWhole has the server copy the object by one request.
func (w *writer) copyWhole(ctx context.Context, o *object) error {
	var etag string
	w.doubt = true
	err := w.store.again(ctx, w.store.writing(), "copy "+o.name, func(ctx context.Context) error {
		// CopyObject has no condition on what it makes.
		if err := w.unlessTaken(ctx, nil, false); err != nil {
			return err
		}
		info, err := w.store.core.Client.CopyObject(ctx, minio.CopyDestOptions{
			Bucket: w.store.cfg.Bucket, Object: w.name,
			ReplaceMetadata: true, UserMetadata: map[string]string{uploadKey: w.id},
			ContentType: "application/octet-stream",
		}, minio.CopySrcOptions{Bucket: o.store.cfg.Bucket, Object: o.name, MatchETag: o.state.etag})
		etag = info.ETag
		return err
	})
	return w.settle(ctx, etag, err)
}

// copyParts has the server copy the object by parts.
func (w *writer) copyParts(ctx context.Context, o *object) error {
	if err := w.begin(""); err != nil {
		return err
	}
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(w.store.cfg.Parallel)
	for off := int64(0); off < o.state.size; off += w.store.copying.part {
		w.number++
		number, n := w.number, min(w.store.copying.part, o.state.size-off)
		g.Go(func() error { return w.copyPart(within, o, number, off, n) })
	}
	if err := g.Wait(); err != nil {
		return w.store.explain(err)
	}
	return w.complete(ctx)
}

func (w *writer) copyPart(ctx context.Context, o *object, number int, off, n int64) error {
	s := w.store
	match := map[string]string{"X-Amz-Copy-Source-If-Match": o.state.etag}
	return s.again(ctx, s.writing(), fmt.Sprintf("copy part %d of %s", number, o.name), func(ctx context.Context) error {
		done, err := s.core.CopyObjectPart(ctx, o.store.cfg.Bucket, o.name, s.cfg.Bucket, w.name, w.upload, number, off, n, match)
		if err == nil && done.ETag == "" { // an answer 200 can hold an error
			err = errors.New("the server told no ETag of the copy")
		}
		if err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sent = append(w.sent, done)
		return nil
	})
}
