package journal

import (
	"context"
	"errors"
	"iter"
	"log/slog"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// ErrForeign is the error of a journal that belongs to another overlay or
// another epoch than the one asked for: never to be replayed, to be set aside.
var ErrForeign = errors.New("the journal is of another overlay or epoch")

// ErrTrimmed is the error of ReadAt where the space was given back. Whoever
// looked up the position must look again: the bytes are elsewhere by now.
var ErrTrimmed = errors.New("the journal was trimmed here")

// ErrDamaged is the error of a journal that misses what it held once, by more
// than a loss of power explains.
var ErrDamaged = errors.New("the journal is damaged")

// ErrNewer is the error of a journal written in a format that is not known
// here.
var ErrNewer = errors.New("the journal was written by a newer version")

// A Kind says what a record does to the disk.
type Kind uint8

// The kinds of records. Others than these are refused.
const (
	Write   Kind = 1 // [Off, Off+Len) is Data, Len bytes
	Zero    Kind = 2 // [Off, Off+Len) reads as zeros
	Discard Kind = 3 // [Off, Off+Len) reads as zeros and needs no space
	Mark    Kind = 4 // a point in time that means something to the caller; Data is the caller's
)

// A Record is one change of the disk. Off and Len are bytes of the disk.
type Record struct {
	Kind     Kind
	Off, Len int64
	Data     []byte

	// Pos is where Data begins in the journal, for ReadAt. The journal sets
	// it.
	Pos int64

	// Next is where the record ends, greater than that of any record before.
	// The journal sets it.
	Next int64
}

// Full says what Append does when the journal has reached its limit, or the
// disk its own.
type Full uint8

// What Append does when there is no room.
const (
	Wait Full = iota // for Trim, or until the context ends
	Fail             // with syscall.ENOSPC
)

// A Config says where a journal is and what it may take.
type Config struct {
	FS    localfs.FS    // nil is that of the machine
	Guard localfs.Guard // asked before a file grows; nil lets everything pass
	Dir   string        // the folder of this one journal

	ID    string // of the overlay, at most 255 bytes
	Epoch int64  // of the overlay

	// Limit is how many bytes of disk the journal takes at most. 0 is 1 GiB.
	// It is rounded to whole files, four at least.
	Limit int64

	// FileSize is the size of one file, for a journal that is created.
	// 0 is 64 MiB, or a quarter of Limit if that is less. A record is
	// smaller than a file: see MaxData.
	FileSize int64

	Full Full

	// Apply is told of appended records in the order of their positions, as
	// soon as they can be read and before their Append returns; one call at
	// a time. It must be quick and must not call the journal, but for
	// ReadAt. Data is valid until it returns. nil is nobody.
	Apply func(recs []Record)

	Logger *slog.Logger // nil is silence
}

// Stats are the sizes of a journal at one moment.
type Stats struct {
	Start  int64 // where it was trimmed
	Synced int64 // what is on stable storage ends here
	End    int64 // where the last record ends
	Bytes  int64 // of disk that its files take
	Limit  int64 // of Bytes
}

// Identity says whose journal a folder holds.
type Identity struct {
	ID    string
	Epoch int64
}

// A Journal is an open journal.
type Journal struct{}

// Create makes an empty journal in cfg.Dir, which is made if it is missing. If
// there is a journal already it is fs.ErrExist.
func Create(ctx context.Context, cfg Config) (*Journal, error) { return nil, errors.ErrUnsupported }

// Open opens the journal in cfg.Dir. If there is none it is fs.ErrNotExist; one
// of another overlay or epoch is ErrForeign. What a crash left is read with
// Records, from Start; nothing changes on disk before the first Append or Trim.
func Open(ctx context.Context, cfg Config) (*Journal, error) { return nil, errors.ErrUnsupported }

// OpenOld opens a journal for reading, whosever it is: Append, Sync and Trim
// are errors.ErrUnsupported. cfg.ID and cfg.Epoch are not looked at.
func OpenOld(ctx context.Context, cfg Config) (*Journal, error) { return nil, errors.ErrUnsupported }

// Identify returns whose journal cfg.Dir holds, or fs.ErrNotExist.
func Identify(cfg Config) (Identity, error) { return Identity{}, errors.ErrUnsupported }

// SetAside moves the journal in folder cfg.Dir, which nobody has open, to the
// folder to, a name that is free, and makes that last.
func SetAside(cfg Config, to string) error { return errors.ErrUnsupported }

// Remove deletes the journal in cfg.Dir, which nobody has open, whosever it is.
// To remove nothing is not an error.
func Remove(cfg Config) error { return errors.ErrUnsupported }

// Identity returns whose journal it is.
func (j *Journal) Identity() Identity { return Identity{} }

// MaxData returns how many bytes the Data of one record may have.
func (j *Journal) MaxData() int64 { return 0 }

// Stats returns sizes. Records are between Start and End; if these are equal
// the journal is empty.
func (j *Journal) Stats() Stats { return Stats{} }

// Records yields what was appended and ends behind from, in order, up to the
// end that the journal has now. All checksums are verified. Data is valid
// until the next one. An error ends it.
func (j *Journal) Records(ctx context.Context, from int64) iter.Seq2[Record, error] {
	return func(func(Record, error) bool) {}
}

// Append appends recs, in this order and with none of others between, and sets
// Pos and Next of each. They can be read when it returns, and are certain when
// a later Sync does. After an error a few of them, from the first on, may be
// there. If ctx ends while Append waits for room it gives up.
func (j *Journal) Append(ctx context.Context, recs []Record) error { return errors.ErrUnsupported }

// Sync returns when all records whose Append returned before are on stable
// storage.
func (j *Journal) Sync(ctx context.Context) error { return errors.ErrUnsupported }

// Trim says that records that end at pos or before, which is the Next of some
// record, are not needed any more.
func (j *Journal) Trim(pos int64) error { return errors.ErrUnsupported }

// ReadAt fills p with bytes of payloads that start at pos. Where space was
// given back it is ErrTrimmed.
func (j *Journal) ReadAt(p []byte, pos int64) error { return errors.ErrUnsupported }

// Crowded is signalled, at most once until received, when an Append begins to
// wait for room or has failed for want of it: time to upload and Trim, whatever
// else there was to wait for.
func (j *Journal) Crowded() <-chan struct{} { return nil }

// Err returns why the journal is broken, or nil.
func (j *Journal) Err() error { return nil }

// Close closes the journal. It syncs nothing but how far it was trimmed.
func (j *Journal) Close() error { return nil }
