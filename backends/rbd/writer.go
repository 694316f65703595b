//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends"
)

const (
	// objectOrder is the size of the RADOS objects of an image: 8 MiB, as
	// glance_store makes them.
	objectOrder = 23
	objectSize  = 1 << objectOrder

	// holeSize is the unit in which zeros are looked for and left out.
	holeSize = 64 << 10

	// uploads is how many RADOS objects of one image are written at once, of
	// each of which there is a copy in memory.
	uploads = 4

	// features are those of rbd's own default: layering for clones, an
	// exclusive lock, and with it a map of objects that makes holes cheap to
	// find.
	features = rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff | rbd.FeatureDeepFlatten
)

// A writer writes a new image. Nobody opens it before it has its snapshot.
type writer struct {
	ctx   context.Context // of Create: it covers the writes
	store *Store
	key   string
	want  int64 // bytes announced, or -1

	c     *conn
	im    *image
	size  int64 // of the image as it is
	done  int64 // bytes taken
	buf   *[]byte
	bufs  sync.Pool // of *[]byte, each for a RADOS object or all there is to come
	group *errgroup.Group
	bad   context.Context // ends when a write of the group has failed
	err   error           // why nothing more is taken
	ended bool
}

var errEnded = errors.New("the writer has ended")

// Create starts an image. Until Commit it has no snapshot, and so is no
// object. Delete frees it if its writer is gone.
func (s *Store) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w := &writer{ctx: ctx, store: s, key: key, want: size, size: max(size, 0)}
	err := s.with(ctx, "create", key, func(c *conn, name string) error {
		if err := createImage(c, name, w.size, objectOrder); err != nil {
			return err
		}
		im, err := c.openImage(name, "", false)
		if err != nil {
			return errors.Join(err, explain(rbd.RemoveImage(c.io, name)))
		}
		s.mu.Lock()
		c.users++
		s.mu.Unlock()
		w.c, w.im = c, im
		return nil
	})
	if err != nil {
		return nil, err
	}
	room := objectSize
	if 0 <= size && size < objectSize {
		room = int(size)
	}
	w.bufs.New = func() any {
		p := make([]byte, 0, room)
		return &p
	}
	w.group, w.bad = errgroup.WithContext(ctx)
	w.group.SetLimit(uploads)
	return w, nil
}

// createImage makes an empty image.
func createImage(c *conn, name string, size int64, order uint64) error {
	o := rbd.NewRbdImageOptions()
	defer o.Destroy()
	err := o.SetUint64(rbd.ImageOptionOrder, order)
	if err == nil {
		err = o.SetUint64(rbd.ImageOptionFeatures, features)
	}
	if err == nil {
		err = rbd.CreateImage(c.io, name, uint64(size), o)
	}
	return explain(err)
}

// Write takes the next bytes. They are with the cluster when Commit says so.
func (w *writer) Write(p []byte) (n int, err error) {
	if err := w.check(); err != nil {
		return 0, err
	}
	if w.want >= 0 && int64(len(p)) > w.want-w.done {
		w.err = fmt.Errorf("more than the %d bytes announced: %w", w.want, io.ErrUnexpectedEOF)
		return 0, w.fail("write")
	}
	for len(p) > 0 {
		if w.buf == nil {
			w.buf = w.bufs.Get().(*[]byte)
			*w.buf = (*w.buf)[:0]
		}
		k := min(len(p), objectSize-len(*w.buf))
		*w.buf = append(*w.buf, p[:k]...)
		p, n, w.done = p[k:], n+k, w.done+int64(k)
		if len(*w.buf) == objectSize {
			if w.err = w.send(); w.err != nil {
				return n, w.fail("write")
			}
		}
	}
	return n, nil
}

// check returns why nothing more is taken, if so.
func (w *writer) check() error {
	if w.ended {
		return fmt.Errorf("rbd: write %s: %w", w.key, errEnded)
	}
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err == nil && w.bad.Err() != nil {
		w.err = w.group.Wait()
	}
	if w.err != nil {
		return w.fail("write")
	}
	return nil
}

func (w *writer) fail(what string) error {
	return fmt.Errorf("rbd: %s %s: %w", what, w.key, w.err)
}

// send hands the buffer to one of the uploads, and waits if all are busy.
func (w *writer) send() error {
	buf := w.buf
	w.buf = nil
	off := w.done - int64(len(*buf))
	if w.done > w.size {
		if err := w.grow(); err != nil {
			return err
		}
	}
	w.group.Go(func() error {
		defer w.bufs.Put(buf)
		return writeRuns(w.bad, w.im, *buf, off)
	})
	return nil
}

// grow makes the image large enough for what has come. It doubles: a resize
// waits for the cluster.
func (w *writer) grow() error {
	size := max(w.done, 2*w.size, 64*objectSize)
	if err := w.im.resize(size); err != nil {
		return err
	}
	w.size = size
	return nil
}

// writeRuns writes what in p is not zero. Where nothing was ever written an
// image reads as zeros.
func writeRuns(ctx context.Context, im *image, p []byte, off int64) error {
	for at := 0; at < len(p); {
		end := at
		for end < len(p) && !isZero(p[end:min(end+holeSize, len(p))]) {
			end = min(end+holeSize, len(p))
		}
		if end == at {
			at = min(at+holeSize, len(p))
			continue
		}
		if err := im.writeAt(ctx, p[at:end], off+int64(at)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// Commit waits for the cluster to have the bytes and makes them an object, by
// the protected snapshot that Glance looks for.
func (w *writer) Commit(ctx context.Context) error {
	if err := w.check(); err != nil {
		return err
	}
	if w.err = ctx.Err(); w.err == nil {
		w.err = w.finish()
	}
	if w.err != nil {
		return w.fail("commit")
	}
	w.ended = true
	err := w.im.close()
	w.store.giveBack(w.c, err)
	if err != nil {
		// The snapshot stands: it is an object, whatever became of our handle.
		w.store.log.Warn("close a new image", "key", w.key, "error", err)
	}
	return nil
}

func (w *writer) finish() error {
	if w.want >= 0 && w.done != w.want {
		return fmt.Errorf("%d bytes of %d announced: %w", w.done, w.want, io.ErrUnexpectedEOF)
	}
	if w.buf != nil {
		if err := w.send(); err != nil {
			return err
		}
	}
	if err := w.group.Wait(); err != nil {
		return err
	}
	if w.size != w.done {
		if err := w.im.resize(w.done); err != nil {
			return err
		}
	}
	return seal(w.im)
}

// seal makes an image an object: all or nothing, unless the cluster is gone.
func seal(im *image) error {
	if err := im.flush(context.Background()); err != nil {
		return err
	}
	if err := im.snapCreate(snapName); err != nil {
		return fmt.Errorf("make the snapshot: %w", err)
	}
	if err := im.snapProtect(snapName); err != nil {
		return errors.Join(fmt.Errorf("protect the snapshot: %w", err), im.snapRemove(snapName))
	}
	return nil
}

// Abort removes the image.
func (w *writer) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	_ = w.group.Wait() // what failed is of no interest any more
	err := w.im.close()
	if e := w.store.scrap(w.c, w.im.name); err == nil {
		err = e
	}
	w.store.giveBack(w.c, err)
	if err != nil {
		w.store.log.Warn("remove an unfinished image; deleting its key will", "key", w.key, "error", err)
	}
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7] != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
