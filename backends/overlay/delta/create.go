package delta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// headLen is the part of the header that changes in the life of a file, and
// more. It lies in the first sector, so writing it is all or nothing.
const headLen = 104

// Create makes a new file for a disk of cfg.Size bytes, all of it left to the
// base. The file is durable when Create returns. If cfg.Path is taken the
// error is fs.ErrExist, and a crash leaves nothing at cfg.Path.
func Create(ctx context.Context, cfg Config) (*Delta, error) {
	cfg = cfg.defaults()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d, err := create(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("overlay %s: create: %w", cfg.Path, err)
	}
	return d, nil
}

func create(ctx context.Context, cfg Config) (*Delta, error) {
	if cfg.Size < 0 || cfg.Size > MaxSize {
		return nil, fmt.Errorf("a disk of %d bytes, more than %d or less than 0: %w", cfg.Size, int64(MaxSize), fs.ErrInvalid)
	}
	if err := free(cfg); err != nil {
		return nil, err
	}
	temp := cfg.Path + unfinished
	f, err := openNew(ctx, cfg, temp)
	if err != nil {
		return nil, err
	}
	if cfg.Volatile {
		err = cfg.FS.Remove(temp)
	}
	d := newDelta(cfg, f, cfg.Size)
	if err == nil {
		err = d.format()
	}
	if err == nil && !cfg.Volatile {
		err = publish(cfg, f, temp)
	}
	if err != nil {
		_ = f.Close()
		if !cfg.Volatile {
			_ = cfg.FS.Remove(temp)
		}
		return nil, err
	}
	return d, nil
}

// unfinished ends the name of a file while Create makes it.
const unfinished = ".new"

// openNew makes the file at temp. What a crash left there is removed.
func openNew(ctx context.Context, cfg Config, temp string) (localfs.File, error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	f, err := cfg.FS.Open(temp, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := removeUnfinished(cfg.FS, temp); err != nil {
			return nil, err
		}
		f, err = cfg.FS.Open(temp, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, cfg, f); err != nil {
		return nil, errors.Join(err, f.Close(), cfg.FS.Remove(temp))
	}
	return f, nil
}

// Sweep removes from a folder what Create, cut off by a crash, left there. It
// leaves alone what is being made at the moment, if the file system has
// locks; if not, nobody may be calling Create.
func Sweep(fsys localfs.FS, dir string) error {
	if fsys == nil {
		fsys = localfs.OS()
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for unfinished overlay files: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), unfinished) {
			continue
		}
		err := removeUnfinished(fsys, filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, syscall.EBUSY) {
			errs = append(errs, fmt.Errorf("remove an unfinished overlay file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeUnfinished removes a file unless somebody has it open.
func removeUnfinished(fsys localfs.FS, name string) error {
	f, err := fsys.Open(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := localfs.LockImage(f); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := fsys.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// free is fs.ErrExist if there is a file at cfg.Path.
func free(cfg Config) error {
	f, err := cfg.FS.Open(cfg.Path, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil:
		return errors.Join(fs.ErrExist, f.Close())
	}
	return err
}

func publish(cfg Config, f localfs.File, temp string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	err := localfs.RenameNew(cfg.FS, temp, cfg.Path)
	if errors.Is(err, errors.ErrUnsupported) {
		err = cfg.FS.Rename(temp, cfg.Path)
	}
	if err != nil {
		return err
	}
	if err := cfg.FS.SyncDir(filepath.Dir(cfg.Path)); err != nil {
		// Nobody knows whether it will be there after a crash, so it must not
		// be there now.
		return errors.Join(err, cfg.FS.Remove(cfg.Path))
	}
	return nil
}

// format writes header, refcount table, one refcount block and L1 table.
func (d *Delta) format() error {
	h := d.newHeader()
	if _, err := h.Encode(); err != nil { // the table's place comes from it
		return err
	}
	l1At := int64(1+h.RefTableClusters+1) << clusterBits
	end := l1At>>clusterBits + clusters(int64(h.L1Entries)*8)
	h.L1Offset = uint64(l1At)
	head, err := h.Encode()
	if err != nil {
		return err
	}
	if err := d.charge(end << clusterBits); err != nil {
		return err
	}
	d.useHeader(head)
	d.m.active = &tree{make([]uint64, h.L1Entries)}
	d.m.l1Dirty = map[int]struct{}{}
	r := &d.refs
	r.table, r.entries = int64(h.RefTableOffset), int64(h.RefTableClusters)<<clusterBits/8
	block := l1At - clusterSize
	for i := range end {
		r.counts.add(i, 1)
	}
	r.counts[0].at = block
	if err := r.reach(d, end<<clusterBits); err != nil {
		return err
	}
	// Written whole, zeros and all, so that later writes to it need no space.
	b := make([]byte, end<<clusterBits)
	copy(b, head)
	binary.BigEndian.PutUint64(b[clusterSize:], uint64(block))
	if err := d.write(b, 0); err != nil {
		return err
	}
	return r.store(d)
}

func (d *Delta) newHeader() *qcow2.Header {
	h := &qcow2.Header{
		Version: 3, ClusterBits: clusterBits, Size: uint64(sectorUp(d.size)), RefcountOrder: 4,
		L1Entries:    uint32(max((d.size+1<<spanBits-1)>>spanBits, 1)),
		Incompatible: qcow2.ExtendedL2, Backing: d.cfg.Backing,
		// A table of one cluster counts 128 TiB of file: twice the disk, at least.
		RefTableOffset: clusterSize, RefTableClusters: uint32(d.size>>46 + 1),
	}
	if h.Backing != "" {
		h.SetExtension(qcow2.ExtBackingFormat, []byte(d.cfg.BackingFormat))
	}
	return h
}

// sectorUp rounds a size up to whole sectors, as the format's other users
// would cut off what is less.
func sectorUp(n int64) int64 { return (n + 511) &^ 511 }

// clusters returns how many clusters n bytes take.
func clusters(n int64) int64 { return (n + clusterSize - 1) >> clusterBits }

func (d *Delta) useHeader(b []byte) { copy(d.header[:], b) }

// l1At returns where the L1 table is. The header changes only while no flush
// runs.
func (d *Delta) l1At() int64 { return int64(binary.BigEndian.Uint64(d.header[40:])) }

// A layout is what the header says about where the metadata is.
type layout struct {
	l1At       int64
	l1Entries  int
	tableAt    int64
	tableSize  int64 // in clusters
	snapshots  int
	snapshotAt int64
}

func (d *Delta) layout() layout {
	be, h := binary.BigEndian, d.header[:]
	return layout{
		l1At: int64(be.Uint64(h[40:])), l1Entries: int(be.Uint32(h[36:])),
		tableAt: int64(be.Uint64(h[48:])), tableSize: int64(be.Uint32(h[56:])),
		snapshots: int(be.Uint32(h[60:])), snapshotAt: int64(be.Uint64(h[64:])),
	}
}

// switchTo makes l what the file's header says, in one write to one sector,
// and waits for it. All that l points to must be on the disk. A failure leaves
// unknown which of the two the disk has.
func (d *Delta) switchTo(l layout) error {
	be, h := binary.BigEndian, d.header
	be.PutUint32(h[36:], uint32(l.l1Entries))
	be.PutUint64(h[40:], uint64(l.l1At))
	be.PutUint64(h[48:], uint64(l.tableAt))
	be.PutUint32(h[56:], uint32(l.tableSize))
	be.PutUint32(h[60:], uint32(l.snapshots))
	be.PutUint64(h[64:], uint64(l.snapshotAt))
	be.PutUint64(h[72:], be.Uint64(h[72:])&^qcow2.Dirty)
	be.PutUint64(h[88:], 0) // whatever it vouches for, we do not keep up
	err := d.write(h[:], 0)
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		d.breakDown(err)
		return err
	}
	d.header = h
	return nil
}
