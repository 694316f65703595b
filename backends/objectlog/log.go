package objectlog

import (
	"context"
	"errors"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Log is an open overlay. Any number of goroutines may use it at once.
type Log struct{}

// Create makes an empty overlay of cfg.Size bytes. If its head is not empty it
// is fs.ErrExist.
func Create(ctx context.Context, cfg Config) (*Log, error) { return nil, errors.ErrUnsupported }

// Open opens an overlay under a new epoch. If its head is empty it is
// fs.ErrNotExist.
func Open(ctx context.Context, cfg Config) (*Log, error) { return nil, errors.ErrUnsupported }

// Objects returns the keys of all objects that the overlay may have in the
// store, for who deletes it as a whole. Nobody has it open.
func Objects(ctx context.Context, cfg Config) ([]string, error) { return nil, errors.ErrUnsupported }

// Remove deletes what an overlay has on this machine. Nobody has it open.
func Remove(ctx context.Context, cfg Config) error { return errors.ErrUnsupported }

// View opens a snapshot, or with "" the disk as the head in the catalog has
// it, for reading from the store alone. It takes no epoch and disturbs nobody.
func View(ctx context.Context, cfg Config, snapshot string) (block.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}

// Size returns the size of the disk in bytes.
func (l *Log) Size() int64 { return 0 }

// ReadAt reads the disk as it is without a base.
func (l *Log) ReadAt(ctx context.Context, p []byte, off int64) error { return errors.ErrUnsupported }

// ReadOver reads the disk that the Log makes of below.
func (l *Log) ReadOver(ctx context.Context, below block.Reader, p []byte, off int64) error {
	return errors.ErrUnsupported
}

// WriteAt writes to the disk.
func (l *Log) WriteAt(ctx context.Context, p []byte, off int64) error { return errors.ErrUnsupported }

// WriteOver is WriteAt: a log keeps exactly what was written.
func (l *Log) WriteOver(ctx context.Context, below block.Reader, p []byte, off int64) error {
	return errors.ErrUnsupported
}

// Zero makes a range read as zeros.
func (l *Log) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	return errors.ErrUnsupported
}

// ZeroOver makes a range read as zeros, whatever is below.
func (l *Log) ZeroOver(ctx context.Context, below block.Reader, off, n int64, mode block.ZeroMode) error {
	return errors.ErrUnsupported
}

// Discard makes a range read as zeros and frees its space.
func (l *Log) Discard(ctx context.Context, off, n int64) error { return errors.ErrUnsupported }

// Flush returns when all writes that returned before are as durable as
// Config.Durability says.
func (l *Log) Flush(ctx context.Context) error { return errors.ErrUnsupported }

// Drain returns when everything written before is in the store and, if nobody
// wrote meanwhile, the head says that no journal is needed.
func (l *Log) Drain(ctx context.Context) error { return errors.ErrUnsupported }

// Extent tells what is at off.
func (l *Log) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return block.Extent{}, errors.ErrUnsupported
}

// A Snapshot is the disk as it was at one moment.
type Snapshot struct {
	ID      string
	Name    string
	Created time.Time
	Size    int64 // of the disk
}

// Snapshot keeps the disk as it is now under a new id, in the store.
func (l *Log) Snapshot(ctx context.Context, name string) (id string, err error) {
	return "", errors.ErrUnsupported
}

// Snapshots returns the snapshots of the disk, oldest first.
func (l *Log) Snapshots() []Snapshot { return nil }

// DeleteSnapshot deletes a snapshot. One that somebody reads is syscall.EBUSY.
func (l *Log) DeleteSnapshot(ctx context.Context, id string) error { return errors.ErrUnsupported }

// OpenSnapshot opens a snapshot for reading, whatever is written meanwhile.
func (l *Log) OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}

// Usage returns how many bytes of data the disk and its snapshots hold.
func (l *Log) Usage() int64 { return 0 }

// Stats are numbers of a Log at one moment.
type Stats struct {
	Epoch, Sequence int64
	Dirty           bool // the head says that the journal is needed

	Journal, JournalLimit int64         // bytes of disk
	Pending               int64         // bytes of the journal that the store does not have
	PendingAge            time.Duration // of the oldest of these

	Segments   int64 // objects that the disk refers to
	Stored     int64 // bytes of data in these
	Live       int64 // of which the disk uses
	Pinned     int64 // bytes of data that only snapshots hold
	Extents    int   // of the maps in memory
	Checkpoint int64 // number of the last segment that a checkpoint covers

	Uploaded int64 // bytes of segments since Open
	Cleaned  int64 // of which copied by cleaning

	Err   error     // what the store or the catalog last failed with, or nil if they do not fail now
	Since time.Time // since when

	SetAside []string // folders of journals that were not replayed
}

// Stats returns numbers for people and for metrics.
func (l *Log) Stats() Stats { return Stats{} }

// Close stops all work and closes the journal. What was not flushed may be
// lost; what is not in the store stays in the journal.
func (l *Log) Close() error { return errors.ErrUnsupported }
