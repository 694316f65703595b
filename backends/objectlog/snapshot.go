package objectlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Snapshot is the disk as it was at one moment.
type Snapshot struct {
	ID      string
	Name    string
	Created time.Time
	Size    int64 // of the disk
}

// An ask is somebody who waits for a snapshot of all up to a position.
type ask struct {
	name string
	upto int64
	gone bool // nobody waits any more
	made bool
	snap snapshot
}

// A drop is somebody who waits for the end of a snapshot.
type drop struct {
	id   int64
	made bool
}

func snapshotID(id int64) string { return strconv.FormatInt(id, 10) }

// Snapshots returns the snapshots of the disk, oldest first.
func (l *Log) Snapshots() []Snapshot {
	l.work.Lock()
	defer l.work.Unlock()
	out := make([]Snapshot, 0, len(l.head.snaps))
	for _, s := range l.head.snaps {
		out = append(out, s.public())
	}
	return out
}

// Snapshot keeps the disk as it is now under a new id, in the store. All that
// was written before is in it, and something of what is written meanwhile may
// be. It copies no data, but waits until the store has what the journal has; if
// ctx ends before that, it may be made nevertheless.
func (l *Log) Snapshot(ctx context.Context, name string) (id string, err error) {
	doing := "make snapshot " + strconv.Quote(name)
	if err := l.check(ctx, 0, 0); err != nil {
		return "", err
	}
	if len(name) > maxName {
		return "", l.wrap(doing, fmt.Errorf("its name has %d bytes, %d at most: %w", len(name), maxName, fs.ErrInvalid))
	}
	a := &ask{name: name, upto: l.last()}
	l.work.Lock()
	waiting := len(l.asks)
	if l.job != nil {
		waiting += len(l.job.asks)
	}
	if len(l.head.snaps)+waiting >= maxSnapshots {
		l.work.Unlock()
		return "", l.wrap(doing, fmt.Errorf("it has %d already; delete some: %w", maxSnapshots, fs.ErrInvalid))
	}
	l.asks = append(l.asks, a)
	if l.covered >= a.upto {
		wake(l.commitWake)
	}
	l.work.Unlock()
	if err = l.cover(ctx, a.upto); err == nil {
		wake(l.commitWake)
		err = l.wait(ctx, func() bool { return a.made })
	}
	l.work.Lock()
	defer l.work.Unlock()
	if err != nil && !a.made {
		a.gone = true
		return "", l.wrap(doing, err)
	}
	return snapshotID(a.snap.id), nil
}

// findLive is the snapshot id, unless it is being deleted, with work held.
func (l *Log) findLive(id string) (snapshot, error) {
	for _, s := range l.head.snaps {
		if snapshotID(s.id) == id && !slices.ContainsFunc(l.drops, func(d *drop) bool { return d.id == s.id }) {
			return s, nil
		}
	}
	return snapshot{}, fs.ErrNotExist
}

// DeleteSnapshot deletes a snapshot. One that somebody reads is syscall.EBUSY.
// What only it needed is freed in the background.
func (l *Log) DeleteSnapshot(ctx context.Context, id string) error {
	if err := l.check(ctx, 0, 0); err != nil {
		return err
	}
	return l.wrap("delete snapshot "+id, l.deleteSnapshot(ctx, id))
}

func (l *Log) deleteSnapshot(ctx context.Context, id string) error {
	l.work.Lock()
	s, err := l.findLive(id)
	if err == nil && l.open[s.id] > 0 {
		err = fmt.Errorf("it is being read: %w", syscall.EBUSY)
	}
	if err != nil {
		l.work.Unlock()
		return err
	}
	d := &drop{id: s.id}
	l.drops = append(l.drops, d)
	l.work.Unlock()
	wake(l.commitWake)
	return l.wait(ctx, func() bool { return d.made })
}

// OpenSnapshot opens a snapshot for reading, whatever is written meanwhile.
func (l *Log) OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error) {
	if err := l.check(ctx, 0, 0); err != nil {
		return nil, err
	}
	l.work.Lock()
	s, err := l.findLive(id)
	if err == nil {
		l.open[s.id]++
	}
	l.work.Unlock()
	if err != nil {
		return nil, l.wrap("open snapshot "+id, err)
	}
	done := func() {
		l.work.Lock()
		defer l.work.Unlock()
		l.open[s.id]--
	}
	d, err := loadMap(ctx, l.cfg.Store, l.cfg.Prefix, l.src.id, s.m)
	if err != nil {
		done()
		return nil, l.wrap("open snapshot "+id, err)
	}
	return &view{disk: d, src: l.src, name: fmt.Sprintf("snapshot %s of overlay %s", id, l.cfg.ID), done: done}, nil
}

// A view is a disk that does not change.
type view struct {
	disk   *disk
	src    *source
	name   string
	done   func()
	closed atomic.Bool
}

func (v *view) Size() int64 { return v.disk.size }

func (v *view) check(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, v.disk.size); err != nil {
		return err
	}
	if v.closed.Load() {
		return fmt.Errorf("%s: %w", v.name, fs.ErrClosed)
	}
	return ctx.Err()
}

func (v *view) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.check(ctx, off, int64(len(p))); err != nil {
		return err
	}
	var array [some]place
	for len(p) > 0 {
		found := places(array[:0], off, int64(len(p)), v.disk.place)
		v.src.ahead(found)
		for _, f := range found {
			if f.kind != inSegment {
				clear(p[:f.n])
			} else if err := v.src.read(ctx, f.seg, p[:f.n], f.at); err != nil {
				return fmt.Errorf("%s: read at %d: %w", v.name, f.off, err)
			}
			p, off = p[f.n:], off+f.n
		}
	}
	return nil
}

func (v *view) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := v.check(ctx, off, n); err != nil {
		return block.Extent{}, err
	}
	return extentOf(off, n, v.disk.place), nil
}

func (v *view) Close() error {
	if v.closed.Swap(true) {
		return fmt.Errorf("%s: close: %w", v.name, fs.ErrClosed)
	}
	v.done()
	return nil
}

// View opens a snapshot, or with "" the disk as the head in the catalog has
// it, for reading from the store alone. It takes no epoch and disturbs nobody;
// for as long as nobody deletes what it reads, which for the head is a while
// and for a snapshot is until the snapshot is deleted. Of cfg it needs ID,
// Store, Prefix and Heads.
func View(ctx context.Context, cfg Config, snapshot string) (block.ReadCloser, error) {
	src := newSource(cfg.Store, cfg.Prefix, cfg.ID, or(cfg.ReadCache, defaultCache))
	d, err := look(ctx, cfg, src, snapshot)
	if err != nil {
		src.close()
		return nil, fmt.Errorf("overlay %s: view %s: %w", cfg.ID, snapshot, err)
	}
	return &view{disk: d, src: src, name: "view of overlay " + cfg.ID, done: src.close}, nil
}

func look(ctx context.Context, cfg Config, src *source, snapshot string) (*disk, error) {
	h, err := cfg.Heads.Load(ctx)
	if err != nil {
		return nil, err
	}
	if len(h.State) == 0 {
		return nil, fs.ErrNotExist
	}
	s, err := decodeState(h.State)
	if err != nil {
		return nil, err
	}
	if snapshot == "" {
		return loadDisk(ctx, src, s)
	}
	for _, n := range s.snaps {
		if snapshotID(n.id) == snapshot {
			return loadMap(ctx, cfg.Store, cfg.Prefix, src.id, n.m)
		}
	}
	return nil, fs.ErrNotExist
}

// storeMap stores a checkpoint. It is false when the log ended.
func (l *Log) storeMap(r mapRef, d *disk) bool {
	return l.store(r.key(l.cfg.Prefix), r.length, func(w io.Writer) error {
		return encodeMap(w, l.src.id, r, d)
	}, func(ctx context.Context, o block.Reader) (bool, error) {
		if o.Size() != r.length {
			return false, nil
		}
		_, err := decodeMap(ctx, o, l.src.id, r)
		if errors.Is(err, ErrCorrupt) {
			return false, nil
		}
		return err == nil, err
	})
}
