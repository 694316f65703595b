package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"sync"

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
	// 0 is 16 MiB, or a quarter of Limit if that is less. A record is
	// smaller than a file: see MaxData.
	FileSize int64

	Full Full // what Append does when there is no room

	// Salvage has Open take what comes before the damage of a journal that
	// is ErrDamaged, and lose the rest.
	Salvage bool

	// Since is up to where the caller has all records elsewhere: files that
	// end there or before are not read by Open. Records and ReadAt have them.
	Since int64

	// Found is told by Open of the records that it has read, in order: all
	// that end behind Since, and perhaps some before. Data is valid until it
	// returns. An error ends Open. nil is nobody.
	Found func(Record) error

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
//
// Locks are taken in this order: writing, trimming, mu. No lock but writing and
// trimming is held over a system call.
type Journal struct {
	cfg      Config
	state    *state
	log      *slog.Logger
	readOnly bool
	crowded  chan struct{}
	requests sync.Pool // of *request

	// writing is held by who writes records, begins a file or says up to
	// where a Sync goes. It guards buf, places and applied.
	writing sync.Mutex
	buf     []byte
	places  []place
	applied []Record

	// trimming is held by who writes down how far the journal is trimmed
	// and gives files back.
	trimming sync.Mutex
	slots    slots

	mu      sync.Mutex
	files   []*file // in order; what is appended goes to the last
	free    []*file // trimmed, to be used again
	held    int64   // bytes of those that are trimmed but still have readers
	trimmed []int64 // numbers of files that an earlier life trimmed and left
	stale   []int64 // numbers of files that a crash left behind the end

	start   int64 // trimmed up to here
	synced  int64 // on stable storage up to here
	written int64 // the last record ends here
	tail    int64 // the next one goes here, if the last file has room

	queue   []*request
	leading bool          // somebody writes, and calls the next one in the queue
	room    chan struct{} // closed when there may be more room
	syncing chan struct{} // closed when the Sync that runs is done; nil if none runs
	broken  error
	closed  bool
}

// Identity returns whose journal it is.
func (j *Journal) Identity() Identity { return j.state.Identity }

// MaxData returns how many bytes the Data of one record may have.
func (j *Journal) MaxData() int64 {
	return min(j.state.fileSize-pageSize-recHead-recAlign, math.MaxInt32)
}

// Stats returns sizes. Records are between Start and End; if these are equal
// the journal is empty.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Stats{
		Start: j.start, Synced: max(j.synced, j.start), End: j.written,
		Bytes: j.bytes(), Limit: j.cfg.Limit,
	}
}

// Crowded is signalled, at most once until received, when an Append begins to
// wait for room or has failed for want of it: time to upload and Trim, whatever
// else there was to wait for.
func (j *Journal) Crowded() <-chan struct{} { return j.crowded }

// Err returns why the journal is broken, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// usable returns why nothing can be changed any more, or nil. It needs j.mu.
func (j *Journal) usable() error {
	if j.broken == nil && j.closed {
		return fmt.Errorf("journal %s: %w", j.cfg.Dir, fs.ErrClosed)
	}
	return j.broken
}

// Close closes the journal. It syncs nothing but how far it was trimmed. An
// Append that waits for room fails.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.makeRoom()
	running := j.syncing
	j.mu.Unlock()
	if running != nil {
		<-running
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	j.trimming.Lock()
	defer j.trimming.Unlock()
	var err error
	if !j.readOnly && j.Err() == nil {
		err = j.note(j.Stats().Start, true)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range append(j.files, j.free...) {
		err = errors.Join(err, f.f.Close())
	}
	j.files, j.free = nil, nil
	return errors.Join(err, j.slots.f.Close())
}
