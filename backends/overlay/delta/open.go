package delta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// Open opens a file that Create made. It reads all of its metadata. What a
// crash left too much is freed, and refcounts that do not agree with the
// mapping are made to; a mapping that contradicts itself is refused with an
// error that is format.ErrCorrupt.
func Open(ctx context.Context, cfg Config) (*Delta, error) {
	cfg = cfg.defaults()
	d, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("overlay %s: open: %w", cfg.Path, err)
	}
	return d, nil
}

func open(ctx context.Context, cfg Config) (*Delta, error) {
	f, err := cfg.FS.Open(cfg.Path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	d := newDelta(cfg, f, 0)
	if err = lock(ctx, cfg, f); err == nil {
		err = d.start(ctx)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return d, nil
}

// lock keeps QEMU, and other Deltas, from the file for as long as it is open.
// It waits a moment for who has it: a program that only looks at it, or one
// that was killed and is not quite gone.
func lock(ctx context.Context, cfg Config, f localfs.File) error {
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		err := localfs.LockImage(f)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			cfg.Logger.Debug("overlay file cannot be locked against QEMU", "path", cfg.Path, "err", err)
			return nil
		case err == nil || !errors.Is(err, syscall.EBUSY):
			return err
		case pause > 400*time.Millisecond:
			return fmt.Errorf("it is in use; end that program first, or let it read an NBD export of the gateway instead of the file: %w", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (d *Delta) start(ctx context.Context) error {
	length, err := localfs.Size(d.f)
	if err != nil {
		return err
	}
	if err := d.readHeader(ctx, length); err != nil {
		return err
	}
	a := &audit{d: d, length: length}
	if err := a.all(ctx); err != nil {
		return err
	}
	d.used.Store(a.used())
	return d.repair(a)
}

func (d *Delta) readHeader(ctx context.Context, length int64) error {
	h, err := qcow2.ReadHeader(ctx, block.FromReaderAt(d.f, length))
	if err != nil {
		return err
	}
	if err := h.Check(); err != nil {
		return err
	}
	switch {
	case h.Version != 3 || h.ClusterBits != clusterBits || !h.Extended() || h.RefcountOrder != 4:
		return decode.Unsupported("version %d, clusters of %d bytes, extended L2 %v, refcounts of %d bits; an overlay has version 3, %d bytes, true and 16",
			h.Version, h.ClusterSize(), h.Extended(), 1<<h.RefcountOrder, clusterSize)
	case h.Incompatible&qcow2.CorruptBit != 0:
		return decode.Corrupt("the file is marked as corrupt; see what qemu-img check says of a copy")
	case d.cfg.Size != 0 && sectorUp(d.cfg.Size) != sectorUp(int64(h.Size)):
		return fmt.Errorf("a disk of %d bytes where %d were expected: %w", h.Size, d.cfg.Size, fs.ErrInvalid)
	case h.L1Entries == 0 && h.Size > 0 || h.RefTableClusters == 0:
		return decode.Corrupt("no L1 table or no refcount table")
	}
	if d.size = d.cfg.Size; d.size == 0 {
		d.size = int64(h.Size)
	}
	return d.read(d.header[:], 0)
}

// repair takes over what the audit found, and mends the file where it differs.
func (d *Delta) repair(a *audit) error {
	d.m.active, d.m.l1Dirty = &tree{a.l1}, map[int]struct{}{}
	d.snaps.list, d.snaps.clusters = a.snaps, a.snapClusters
	d.refs.counts, d.refs.length = a.counts, a.length
	l := d.layout()
	d.refs.table, d.refs.entries = l.tableAt, l.tableSize<<clusterBits/8
	log := d.cfg.Logger.With("path", d.cfg.Path)
	for _, r := range a.leaked { // now, as what is mended below may go there
		d.punch(r.Off, r.Len)
	}
	be := binary.BigEndian
	switch {
	case a.stale != "":
		log.Warn("overlay file: metadata does not agree with the mapping, written anew", "why", a.stale)
		if err := d.normalize(); err != nil {
			return err
		}
	case be.Uint64(d.header[88:]) != 0 || be.Uint64(d.header[72:])&qcow2.Dirty != 0:
		if err := d.switchTo(l); err != nil {
			return err
		}
	}
	if a.leaks > 0 {
		log.Info("overlay file: freed what a crash left behind", "clusters", a.leaks)
	}
	if a.leaks == 0 && !d.refs.dirty() {
		return nil
	}
	return d.flush()
}
