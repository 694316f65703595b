package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// The geometry of every file that we make. See DESIGN.md for why.
const (
	clusterBits = 17
	clusterSize = 1 << clusterBits // 128 KiB
	subBits     = clusterBits - 5
	subSize     = 1 << subBits // 4 KiB
	subCount    = 32
	entrySize   = 16
	tableBits   = clusterBits - 4 // log2 of the entries of an L2 table
	tableLen    = 1 << tableBits
	spanBits    = tableBits + clusterBits // an L2 table maps 1 GiB

	// MaxSize is the largest disk: what an L1 table of QEMU's limit maps.
	MaxSize = (32 << 20 / 8) << spanBits
)

// A Config says where a Delta's file is and what it may take.
type Config struct {
	FS    localfs.FS    // the machine's own if nil
	Guard localfs.Guard // asked before the file grows; nil never refuses
	Path  string        // the file

	// Size is the size of the disk. The file has it rounded up to 512 bytes,
	// which is what Open takes if this is 0; a file of another size it refuses.
	Size int64

	Backing       string // what the header names as the base (for QEMU), or ""
	BackingFormat string // its format; "raw" if empty

	Quota     int64 // bytes that the file may take, or 0 for no limit
	CacheSize int64 // bytes of mapping tables kept in memory; 16 MiB if 0

	// Volatile makes a Delta that nobody will open again: its file has no name
	// once Create returns, and Flush does nothing.
	Volatile bool

	Logger *slog.Logger // nil is silence
}

func (c Config) defaults() Config {
	if c.FS == nil {
		c.FS = localfs.OS()
	}
	if c.CacheSize <= 0 {
		c.CacheSize = 16 << 20
	}
	if c.BackingFormat == "" {
		c.BackingFormat = "raw"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

const stripes = 256

// A Delta is an open qcow2 file that keeps what was written over a base. Any
// number of goroutines may use it at once.
type Delta struct {
	cfg    Config
	f      localfs.File
	size   int64
	header [headLen]byte // as it stands in the file

	gate   sync.RWMutex          // writers share it, a snapshot has it alone
	stripe [stripes]sync.Mutex   // by cluster: held to change its mapping
	grace  grace                 // who may still use a cluster that was dropped
	buffer sync.Pool             // of *[clusterSize]byte
	put    storer                // write, made a value once and not by each write
	broken atomic.Pointer[error] // why nothing more is written
	closed atomic.Bool

	frozen *rewrite   // of which the disk may not have the end; changes with the gate alone
	growth sync.Mutex // held to make an L2 table
	m      mapping
	refs   refcounts
	used   atomic.Int64 // bytes taken, in subclusters of data and clusters of metadata

	flushing sync.Mutex
	next     struct {
		sync.Mutex
		flight *flight
	}
	snaps struct {
		sync.Mutex
		list     []*snapshot
		clusters int64 // of their table
	}
}

func newDelta(cfg Config, f localfs.File, size int64) *Delta {
	d := &Delta{cfg: cfg, f: f, size: size}
	d.put = d.write
	d.buffer.New = func() any { return new([clusterSize]byte) }
	d.m.cache.init(int(cfg.CacheSize / sliceSize))
	return d
}

// Size returns the size of the disk in bytes.
func (d *Delta) Size() int64 { return d.size }

// Usage returns how many bytes the file takes: 4 KiB for each piece of data,
// 128 KiB for each cluster of metadata. Config.Quota is measured with it.
func (d *Delta) Usage() int64 { return max(d.used.Load(), 0) }

// check is what every access begins with.
func (d *Delta) check(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, d.size); err != nil {
		return err
	}
	if d.closed.Load() {
		return d.wrap("use", fs.ErrClosed)
	}
	return ctx.Err()
}

// writable is an error once the file is in a state that only Open can mend.
func (d *Delta) writable() error {
	if err := d.broken.Load(); err != nil {
		return fmt.Errorf("overlay %s takes no more writes until it is opened again, since what the disk holds is uncertain: %w", d.cfg.Path, *err)
	}
	return nil
}

func (d *Delta) breakDown(err error) {
	if d.broken.CompareAndSwap(nil, &err) {
		d.cfg.Logger.Error("overlay file failed, no more writes until it is opened again", "path", d.cfg.Path, "err", err)
	}
}

func (d *Delta) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("overlay %s: %s: %w", d.cfg.Path, doing, err)
}

// read fills p from the file. What is past its end reads as zeros, as the
// last cluster of a file that QEMU wrote may be cut off.
func (d *Delta) read(p []byte, off int64) error {
	n, err := d.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return nil
	}
	return d.wrap(fmt.Sprintf("read file at %d", off), err)
}

func (d *Delta) write(p []byte, off int64) error {
	if _, err := d.f.WriteAt(p, off); err != nil {
		return d.wrap(fmt.Sprintf("write file at %d", off), err)
	}
	return nil
}

// sync waits for the disk. After a failure nobody knows which of the writes
// are on it, and asking again would not tell: the Delta takes no more.
func (d *Delta) sync() error {
	if d.cfg.Volatile {
		return nil
	}
	err := d.f.Sync()
	if err != nil {
		d.breakDown(err)
	}
	return d.wrap("sync", err)
}

// charge asks for n more bytes of the file, release gives them back.
func (d *Delta) charge(n int64) error {
	if n <= 0 {
		return nil
	}
	used := d.used.Add(n)
	if d.cfg.Quota > 0 && used > d.cfg.Quota {
		d.used.Add(-n)
		return fmt.Errorf("overlay %s: its quota of %d bytes is used up; discard, delete snapshots or raise the quota: %w",
			d.cfg.Path, d.cfg.Quota, errNoSpace)
	}
	if d.cfg.Guard != nil {
		if err := d.cfg.Guard.Take(n); err != nil {
			d.used.Add(-n)
			return d.wrap("grow", err)
		}
	}
	return nil
}

// Close flushes, leaves the file as small and as tidy as it can, and closes
// it. Nobody may use the Delta any more; Close waits for writes under way.
func (d *Delta) Close() error {
	d.gate.Lock()
	defer d.gate.Unlock()
	if d.closed.Swap(true) {
		return nil
	}
	err := d.writable()
	if err == nil && !d.cfg.Volatile {
		err = d.settle()
	}
	d.grace.wait()
	return errors.Join(err, d.wrap("close", d.f.Close()))
}

// settle flushes until nothing is left to write, the refcounts of what the
// first flush freed included, and cuts the file behind its last cluster.
func (d *Delta) settle() error {
	for range 3 {
		if err := d.flush(); err != nil {
			return err
		}
		if !d.refs.dirty() {
			break
		}
	}
	if err := d.refs.trim(d); err != nil {
		return err
	}
	return d.sync()
}
