//go:build rbd

package rbd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/seed-478a8fee/platter/backends/block"
)

// nameMark begins the name of the metadata in which an overlay keeps the name
// of a snapshot, since those that RBD bears are fewer than people's. The
// snapshot's own name is its ID.
const nameMark = "platter_snapshot."

// maxName is the longest name of a snapshot, in bytes.
const maxName = 255

// Snapshot keeps the state of the disk as it is now, with every write that was
// answered.
func (d *Device) Snapshot(ctx context.Context, name string) (id string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if len(name) > maxName {
		return "", fmt.Errorf("rbd: a snapshot's name of %d bytes, %d at most: %w", len(name), maxName, fs.ErrInvalid)
	}
	if err := d.may("snapshot", 0, 0); err != nil {
		return "", err
	}
	id = "s" + rand.Text()
	if err = d.im.setMark(nameMark+id, name); err == nil {
		if err = d.im.snapCreate(id); err != nil {
			_ = d.im.dropMark(nameMark + id) // it is of no snapshot, and in nobody's way
		}
	}
	if err != nil {
		return "", d.told("snapshot", 0, false, err)
	}
	return id, nil
}

// Snapshots returns the states that are kept, the oldest first.
func (d *Device) Snapshots(ctx context.Context) ([]Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	list, err := d.listSnapshots()
	return list, d.told("list the snapshots of", 0, false, explain(err))
}

func (d *Device) listSnapshots() ([]Snapshot, error) {
	im, err := rbd.OpenImageReadOnly(d.c.io, d.im.name, rbd.NoSnapshot)
	if err != nil {
		return nil, err
	}
	d.c.settle()
	defer im.Close()
	infos, err := im.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, info := range infos {
		kind, err := im.GetSnapNamespaceType(info.Id)
		if err != nil {
			return nil, err
		}
		if kind != rbd.SnapNamespaceTypeUser {
			continue // its removal was cut off: see dropSnapshots
		}
		stamp, err := im.GetSnapTimestamp(info.Id)
		if err != nil {
			return nil, err
		}
		snap := Snapshot{ID: info.Name, Name: info.Name, Created: time.Unix(stamp.Sec, stamp.Nsec), Size: int64(info.Size)}
		name, err := im.GetMetadata(nameMark + info.Name)
		if err == nil {
			snap.Name = name
		} else if !errors.Is(explain(err), fs.ErrNotExist) {
			return nil, err
		}
		list = append(list, snap)
	}
	slices.SortStableFunc(list, func(a, b Snapshot) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// DeleteSnapshot forgets a state; fs.ErrNotExist if there is none. While
// somebody reads it, or a clone needs it, it is syscall.EBUSY.
func (d *Device) DeleteSnapshot(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.may("delete a snapshot of", 0, 0); err != nil {
		return err
	}
	d.snaps.Lock()
	defer d.snaps.Unlock()
	if d.snaps.open[id] > 0 {
		return fmt.Errorf("rbd: delete snapshot %s of overlay %s: %w", id, d.key, busy("it is being read"))
	}
	err := d.im.snapRemove(id)
	if isBusy(err) {
		if err = d.im.snapUnprotect(id); err == nil {
			err = d.im.snapRemove(id)
		}
	}
	if err == nil {
		_ = d.im.dropMark(nameMark + id) // it is of no snapshot, and in nobody's way
		d.touched.addAll()
	}
	return d.told("delete a snapshot of", 0, false, err)
}

// OpenSnapshot opens the whole disk as it was at a snapshot. It must be closed
// before the Device is.
func (d *Device) OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error) {
	r, err := d.openSnapshot(ctx, id, true)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (d *Device) openSnapshot(ctx context.Context, id string, parent bool) (*snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &snapshot{d: d, id: id}
	d.snaps.Lock()
	defer d.snaps.Unlock()
	var err error
	if id == "" {
		err = fs.ErrNotExist
	} else if r.im, err = d.c.openImage(d.im.name, id, true); err == nil {
		if r.size, err = r.im.size(); err != nil {
			_ = r.im.close() // the first error is the one to tell
		}
	}
	if err != nil {
		return nil, d.told("open a snapshot of", 0, false, err)
	}
	r.runs.init(r.im, r.size, parent, !parent)
	d.snaps.open[id]++
	return r, nil
}

// A snapshot is a disk as it was.
type snapshot struct {
	d    *Device
	id   string
	im   *image
	size int64
	runs extents
}

func (r *snapshot) Size() int64 { return r.size }

func (r *snapshot) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), r.size); err != nil {
		return err
	}
	return r.d.told("read a snapshot of", off, false, r.im.readAt(ctx, p, off))
}

// Extent tells by the map of RADOS objects what is a hole. If the parent does
// not count, a hole is Absent.
func (r *snapshot) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return block.Extent{}, err
	}
	e, err := r.runs.at(r.im, off, n)
	if e.Kind == block.Zero && !r.runs.parent {
		e.Kind = block.Absent
	}
	return e, r.d.told("holes of a snapshot of", off, false, err)
}

// Close ends the reading.
func (r *snapshot) Close() error {
	r.d.snaps.Lock()
	defer r.d.snaps.Unlock()
	r.im.mu.RLock()
	open := r.im.h != nil
	r.im.mu.RUnlock()
	if !open {
		return nil
	}
	r.d.snaps.open[r.id]--
	return r.d.told("close a snapshot of", 0, false, r.im.close())
}
