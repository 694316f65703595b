package delta

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// A Snapshot is the disk as it was at one moment.
type Snapshot struct {
	ID      string
	Name    string
	Created time.Time
	Size    int64 // of the disk
}

// maxSnapshots leaves room below the limit of refcounts and of QEMU.
const maxSnapshots = 4096

type snapshot struct {
	qcow2.SnapshotEntry
	users int // open readers
}

func (s *snapshot) diskSize(d *Delta) int64 {
	if s.DiskSize == 0 || int64(s.DiskSize) == sectorUp(d.size) {
		return d.size
	}
	return int64(min(s.DiskSize, MaxSize+1))
}

// Snapshots returns the snapshots of the disk, oldest first.
func (d *Delta) Snapshots() []Snapshot {
	d.snaps.Lock()
	defer d.snaps.Unlock()
	out := make([]Snapshot, 0, len(d.snaps.list))
	for _, s := range d.snaps.list {
		out = append(out, Snapshot{s.ID, s.Name, s.Created, s.diskSize(d)})
	}
	return out
}

// Snapshot keeps the disk as it is now under a new id, durably. All that was
// written before is in it. Reads go on meanwhile, writes wait for as long as it
// takes to copy the mapping, 128 KiB for each GiB of the disk in use, but not
// for the disk to have it.
func (d *Delta) Snapshot(ctx context.Context, name string) (id string, err error) {
	if err := d.check(ctx, 0, 0); err != nil {
		return "", err
	}
	err = d.exclusive(ctx, func(release func()) (*rewrite, error) {
		w, made, err := d.withSnapshot(name, release)
		id = made
		return w, err
	})
	if err != nil {
		return "", d.wrap("make snapshot "+strconv.Quote(name), err)
	}
	return id, nil
}

// exclusive runs the rewrite that plan makes. Plan is called while nobody
// writes or flushes, and memory and file agree. After release, which the
// rewrite calls, others may write, but not flush.
func (d *Delta) exclusive(ctx context.Context, plan func(release func()) (*rewrite, error)) error {
	// Most of the waiting is for data, and can be done while writes go on.
	for range 2 {
		if err := d.share(ctx); err != nil {
			return err
		}
	}
	w, err := d.alone(plan)
	if w != nil {
		d.thaw(w)
	}
	return err
}

func (d *Delta) alone(plan func(release func()) (*rewrite, error)) (*rewrite, error) {
	d.gate.Lock()
	release := sync.OnceFunc(d.gate.Unlock)
	defer release()
	if d.closed.Load() {
		return nil, fs.ErrClosed
	}
	d.flushing.Lock()
	defer d.flushing.Unlock()
	if err := d.flushLocked(); err != nil {
		return nil, err
	}
	w, err := plan(release)
	if err != nil {
		return nil, err
	}
	return w, w.run()
}

func (d *Delta) withSnapshot(name string, release func()) (*rewrite, string, error) {
	if len(d.snaps.list) >= maxSnapshots {
		return nil, "", fmt.Errorf("it has %d already; delete some: %w", maxSnapshots, fs.ErrInvalid)
	}
	if len(name) > 255 {
		return nil, "", fmt.Errorf("name of %d bytes, more than 255: %w", len(name), fs.ErrInvalid)
	}
	w := d.newRewrite(true, release)
	s := &snapshot{SnapshotEntry: qcow2.SnapshotEntry{
		ID: d.freeID(), Name: name, L1Offset: uint64(w.layout.l1At), L1Entries: uint32(w.layout.l1Entries),
		Created: time.Now().UTC(), DiskSize: uint64(sectorUp(d.size)), Icount: ^uint64(0),
	}}
	w.snaps = append(w.snaps, s)
	w.need = d.metadata()
	if err := d.charge(w.need); err != nil {
		return nil, "", err
	}
	return w, s.ID, nil
}

// metadata is how many bytes the active tables take.
func (d *Delta) metadata() int64 {
	n := clusters(int64(len(d.m.active.l1)) * 8)
	for _, e := range d.m.active.l1 {
		if e != 0 {
			n++
		}
	}
	return n << clusterBits
}

// freeID returns the next number, as QEMU counts.
func (d *Delta) freeID() string {
	top := 0
	for _, s := range d.snaps.list {
		if n, err := strconv.Atoi(s.ID); err == nil {
			top = max(top, n)
		}
	}
	return strconv.Itoa(top + 1)
}

// findLive returns the snapshot with an id, unless it is being deleted. The
// caller holds snaps.
func (d *Delta) findLive(id string) (*snapshot, error) {
	for _, s := range d.snaps.list {
		if s.ID != id {
			continue
		}
		if s.users < 0 {
			return nil, fmt.Errorf("overlay %s: snapshot %s is being deleted: %w", d.cfg.Path, id, fs.ErrNotExist)
		}
		return s, nil
	}
	return nil, fmt.Errorf("overlay %s: snapshot %s: %w", d.cfg.Path, id, fs.ErrNotExist)
}

// DeleteSnapshot forgets a snapshot and frees what only it had. One that is
// open is syscall.EBUSY.
func (d *Delta) DeleteSnapshot(ctx context.Context, id string) error {
	if err := d.check(ctx, 0, 0); err != nil {
		return err
	}
	s, err := d.claimSnapshot(id)
	if err != nil {
		return err
	}
	err = d.exclusive(ctx, func(release func()) (*rewrite, error) {
		w := d.newRewrite(false, release)
		w.snaps = slices.DeleteFunc(w.snaps, func(x *snapshot) bool { return x == s })
		return w, w.dropTree(s)
	})
	if err != nil {
		d.snaps.Lock()
		s.users = 0
		d.snaps.Unlock()
	}
	return d.wrap("delete snapshot "+id, err)
}

// claimSnapshot lets nobody open a snapshot any more.
func (d *Delta) claimSnapshot(id string) (*snapshot, error) {
	d.snaps.Lock()
	defer d.snaps.Unlock()
	s, err := d.findLive(id)
	if err != nil {
		return nil, err
	}
	if s.users > 0 {
		return nil, fmt.Errorf("overlay %s: snapshot %s has %d readers; close them first: %w", d.cfg.Path, id, s.users, syscall.EBUSY)
	}
	s.users = -1
	return s, nil
}

// OpenSnapshot opens a snapshot for reading. What it does not have is
// block.Absent, and reads as zeros. It is to be closed before the Delta.
func (d *Delta) OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error) {
	if err := d.check(ctx, 0, 0); err != nil {
		return nil, err
	}
	d.snaps.Lock()
	defer d.snaps.Unlock()
	s, err := d.findLive(id)
	if err != nil {
		return nil, err
	}
	l1, err := d.readL1(int64(s.L1Offset), int(s.L1Entries))
	if err != nil {
		return nil, err
	}
	s.users++
	return &reader{d: d, s: s, tree: &tree{l1}, size: s.diskSize(d)}, nil
}

// A reader reads a snapshot. Its tables never change until it is closed.
type reader struct {
	d    *Delta
	s    *snapshot
	tree *tree
	size int64

	mu     sync.RWMutex // shared by reads, so that Close waits for them
	closed bool
}

func (r *reader) Size() int64 { return r.size }

func (r *reader) check(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, r.size); err != nil {
		return err
	}
	if r.closed {
		return r.d.wrap("read snapshot "+r.s.ID, fs.ErrClosed)
	}
	return r.d.check(ctx, 0, 0)
}

func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.check(ctx, off, int64(len(p))); err != nil {
		return err
	}
	return r.d.readTree(ctx, r.tree, nil, p, off)
}

func (r *reader) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.check(ctx, off, n); err != nil {
		return block.Extent{}, err
	}
	return r.d.extent(r.tree, off, n)
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.d.snaps.Lock()
	r.s.users--
	r.d.snaps.Unlock()
	return nil
}
