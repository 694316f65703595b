//go:build rbd

package rbd

import (
	"context"
	"fmt"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// headSize is how much of a RADOS object is written where only its existence
// counts: what a bare image has, it has for ever.
const headSize = 4096

// stripes is how many locks the RADOS objects share.
const stripes = 64

// A Delta is an open bare overlay: what was written over a base that the
// caller has. It is an overlay.Delta. Whether it has a RADOS object is what
// tells whether the bytes there are its own; so it takes each one whole, with
// one atomic write, and never gives one back.
type Delta struct {
	d      *Device
	stripe [stripes]sync.Mutex // by object: held to take it from the base
	bufs   sync.Pool           // of []byte, one object each
}

// OpenDelta opens an overlay that was made without a parent as its one writer,
// as OpenDevice does.
func (s *Store) OpenDelta(ctx context.Context, key string, cfg DeviceConfig) (*Delta, error) {
	d, err := s.openDevice(ctx, key, cfg, true)
	if err != nil {
		return nil, err
	}
	t := &Delta{d: d}
	t.bufs.New = func() any {
		p := make([]byte, 1<<d.own.order)
		return &p
	}
	return t, nil
}

// Size returns the size of the disk.
func (t *Delta) Size() int64 { return t.d.size }

// Usage returns how many bytes the overlay has of its own.
func (t *Delta) Usage() int64 { return t.d.Usage() }

// Fenced tells whether another writer has taken over, as far as is known.
func (t *Delta) Fenced() bool { return t.d.Fenced() }

// Unknown tells whether there was a write that the cluster did not answer.
func (t *Delta) Unknown() bool { return t.d.Unknown() }

// Close ends the use of the overlay and lets the next writer have it.
func (t *Delta) Close() error { return t.d.Close() }

// Flush waits for the writes that are still with the cluster.
func (t *Delta) Flush(ctx context.Context) error { return t.d.Flush(ctx) }

// Snapshot keeps the state of the disk as it is now.
func (t *Delta) Snapshot(ctx context.Context, name string) (id string, err error) {
	return t.d.Snapshot(ctx, name)
}

// Snapshots returns the states that are kept, the oldest first.
func (t *Delta) Snapshots(ctx context.Context) ([]Snapshot, error) { return t.d.Snapshots(ctx) }

// DeleteSnapshot forgets a state.
func (t *Delta) DeleteSnapshot(ctx context.Context, id string) error {
	return t.d.DeleteSnapshot(ctx, id)
}

// Changes returns a Mapper that tells what may have changed since a snapshot, as
// that of a Device does. What was taken from the base counts as well.
func (t *Delta) Changes(ctx context.Context, id string) (block.Mapper, error) {
	return t.d.Changes(ctx, id)
}

// OpenSnapshot opens what was written until a snapshot. The rest is Absent. It
// must be closed before the Delta is.
func (t *Delta) OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error) {
	r, err := t.d.openSnapshot(ctx, id, false)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// ReadAt reads what was written, and zeros where nothing was.
func (t *Delta) ReadAt(ctx context.Context, p []byte, off int64) error {
	return t.d.ReadAt(ctx, p, off)
}

// nothing is the base of a disk without one.
type nothing int64

func (n nothing) Size() int64 { return int64(n) }

func (n nothing) ReadAt(_ context.Context, p []byte, _ int64) error {
	clear(p)
	return nil
}

func (n nothing) Extent(_ context.Context, off, length int64) (block.Extent, error) {
	return block.Extent{Off: off, Len: length, Kind: block.Absent}, nil
}

// WriteAt writes as if the base were zeros.
func (t *Delta) WriteAt(ctx context.Context, p []byte, off int64) error {
	return t.WriteOver(ctx, nothing(t.d.size), p, off)
}

// Extent tells what the overlay has of its own, as Data; the rest is Absent.
func (t *Delta) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return block.Extent{}, err
	}
	e, err := t.d.own.at(t.d.im, off, n)
	if e.Kind == block.Zero {
		e.Kind = block.Absent
	}
	return e, t.d.told("extents", off, false, err)
}

// ReadOver reads what was written, and below where nothing was.
func (t *Delta) ReadOver(ctx context.Context, below block.Reader, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), t.d.size); err != nil {
		return err
	}
	for len(p) > 0 {
		e, err := t.Extent(ctx, off, int64(len(p)))
		if err == nil && e.Kind == block.Data {
			err = t.d.ReadAt(ctx, p[:e.Len], off)
		} else if err == nil {
			err = below.ReadAt(ctx, p[:e.Len], off)
		}
		if err != nil {
			return err
		}
		p, off = p[e.Len:], off+e.Len
	}
	return nil
}

// WriteOver stores p in the cluster, with the rest of the RADOS objects that
// are new from below.
func (t *Delta) WriteOver(ctx context.Context, below block.Reader, p []byte, off int64) error {
	if err := t.d.may("write", off, int64(len(p))); err != nil {
		return err
	}
	return t.objects(off, int64(len(p)), func(o, at, n int64) error {
		piece := p[at-off : at-off+n]
		own, err := t.has(at)
		if err != nil {
			return err
		}
		if own {
			return t.d.write(ctx, piece, at)
		}
		return t.take(ctx, below, o, at, n, piece, false)
	})
}

// has tells whether the RADOS object that off is in is the overlay's own.
func (t *Delta) has(off int64) (bool, error) {
	own, err := t.d.own.knows(t.d.im, off)
	return own, t.d.told("extents", off, false, err)
}

// objects calls f for the part of a range in each RADOS object.
func (t *Delta) objects(off, n int64, f func(object, off, n int64) error) error {
	size := int64(1) << t.d.own.order
	for n > 0 {
		k := min(n, size-off%size)
		if err := f(off/size, off, k); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// take makes an object the overlay's own: bytes of below, with piece (zeros if
// nil) at [off, off+n). One write of librbd into one RADOS object is atomic.
// Somebody may have taken it meanwhile; then only piece is written.
func (t *Delta) take(ctx context.Context, below block.Reader, object, off, n int64, piece []byte, whole bool) error {
	lock := &t.stripe[object%stripes]
	lock.Lock()
	defer lock.Unlock()
	size := int64(1) << t.d.own.order
	start := object * size
	if t.d.own.has(object) {
		if piece == nil {
			return t.clear(ctx, off, n, whole)
		}
		return t.d.write(ctx, piece, off)
	}
	p := t.bufs.Get().(*[]byte)
	defer t.bufs.Put(p)
	buf := (*p)[:min(size, t.d.size-start)]
	if err := readParts(ctx, below, buf[:off-start], start); err != nil {
		return err
	}
	if err := readParts(ctx, below, buf[off+n-start:], off+n); err != nil {
		return err
	}
	if piece == nil {
		clear(buf[off-start : off-start+n])
	} else {
		copy(buf[off-start:], piece)
	}
	if !whole {
		buf = buf[:dataEnd(buf)]
	}
	if err := t.d.write(ctx, buf, start); err != nil {
		return err
	}
	t.d.mark(start, 1)
	return nil
}

// readParts reads below without asking for its holes. Past its end there are
// zeros.
func readParts(ctx context.Context, below block.Reader, p []byte, off int64) error {
	rest := max(min(below.Size()-off, int64(len(p))), 0)
	clear(p[rest:])
	if rest == 0 {
		return nil
	}
	for e, err := range block.Extents(ctx, below, off, rest) {
		if err != nil {
			return err
		}
		part := p[e.Off-off : e.End()-off]
		if e.Kind != block.Data {
			clear(part)
		} else if err := below.ReadAt(ctx, part, e.Off); err != nil {
			return err
		}
	}
	return nil
}

// dataEnd returns how much of an object must be written: the zeros at its end
// it reads as anyway.
func dataEnd(p []byte) int {
	end := len(p)
	for end > headSize && isZero(p[max(end-headSize, 0):end]) {
		end -= headSize
	}
	return end
}

// ZeroOver makes a range read as zeros, whatever is below.
func (t *Delta) ZeroOver(ctx context.Context, below block.Reader, off, n int64, mode block.ZeroMode) error {
	if err := t.d.may("zero", off, n); err != nil {
		return err
	}
	if err := block.RefuseSlow(mode); err != nil {
		return err
	}
	thick := mode == block.ZeroAllocated
	return t.objects(off, n, func(o, off, n int64) error {
		if own, err := t.has(off); err != nil {
			return err
		} else if own {
			return t.clear(ctx, off, n, thick)
		}
		if !thick {
			if zero, err := isHole(ctx, below, off, n); zero || err != nil {
				return err
			}
		}
		return t.take(ctx, below, o, off, n, nil, thick)
	})
}

// isHole tells whether below says of a range that it has no data there.
func isHole(ctx context.Context, below block.Reader, off, n int64) (bool, error) {
	n = min(n, below.Size()-off)
	for n > 0 {
		e, err := block.ExtentAt(ctx, below, off, n)
		if err != nil || e.Kind == block.Data {
			return false, err
		}
		off, n = off+e.Len, n-e.Len
	}
	return true, nil
}

// clear zeroes a part of an object that is the overlay's own. To zero all of
// it would remove it, and the base would shine through: its head is written.
func (t *Delta) clear(ctx context.Context, off, n int64, thick bool) error {
	if !thick && off%(1<<t.d.own.order) == 0 {
		head := min(n, headSize)
		if err := t.d.write(ctx, make([]byte, head), off); err != nil {
			return err
		}
		off, n = off+head, n-head
	}
	if n == 0 {
		return nil
	}
	defer t.d.touched.add(off, n)
	return t.d.told("zero", off, true, t.d.im.zero(ctx, off, n, thick))
}

// Flatten takes from below what the overlay lacks, and then lies over nothing:
// it is for OpenDevice from then on. Progress, which may be nil, hears how many
// bytes of the disk are done.
func (t *Delta) Flatten(ctx context.Context, below block.Reader, progress func(done, total int64)) error {
	if err := t.d.may("flatten", 0, 0); err != nil {
		return err
	}
	err := t.objects(0, t.d.size, func(o, off, n int64) error {
		if progress != nil {
			progress(off, t.d.size)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if own, err := t.has(off); own || err != nil {
			return err
		}
		if zero, err := isHole(ctx, below, off, n); zero || err != nil {
			return err
		}
		return t.take(ctx, below, o, off, 0, nil, false)
	})
	if err == nil {
		err = t.d.told("flatten", 0, false, t.d.im.dropMark(bareMark))
	}
	if err != nil {
		return fmt.Errorf("rbd: flatten overlay %s: %w", t.d.key, err)
	}
	return nil
}
