package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"

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
	if err := d.start(ctx); err != nil {
		_ = f.Close()
		return nil, err
	}
	return d, nil
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
