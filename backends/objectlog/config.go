package objectlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
)

// ErrFenced is the error of a log whose epoch is over: somebody else took the
// overlay. What it acknowledged after the last head of its epoch is not in the
// overlay, and it acknowledges nothing more.
var ErrFenced = errors.New("the overlay was taken over by a newer epoch")

// ErrCorrupt is the error of an object or a head that is not what was written.
var ErrCorrupt = errors.New("corrupt object log")

// A LossError says that the journal which held acknowledged writes that the
// store does not have is not here. See Config.AcceptLoss.
type LossError struct {
	Journal int64 // its epoch
}

// Error tells what is missing.
func (e *LossError) Error() string {
	return fmt.Sprintf("the journal of epoch %d is not here, and may hold acknowledged writes that the store has not; "+
		"open the overlay on the gateway that has it, or accept the loss", e.Journal)
}

// A Durability says when a flush returns.
type Durability uint8

// The durabilities.
const (
	// Gateway: when the journal is on this machine's stable storage. After
	// loss of the machine the disk is as it was at some earlier moment.
	Gateway Durability = iota
	// Store: when the store and the catalog have everything.
	Store
)

// A Head is where a log ends, as the catalog keeps it.
type Head struct {
	Epoch    int64 // of whom committed it
	Sequence int64 // number of the last segment, 0 if there is none

	// Dirty says that a journal may hold acknowledged writes that are not in
	// the store.
	Dirty bool

	// State is what the log needs besides, 200 KiB at most. It is empty in
	// an overlay that is new.
	State []byte

	// Garbage are keys of objects that nobody needs once this head is
	// committed, 64 at most. They are queued in the same transaction, and
	// deleted when nobody can be reading them any more. Some may never have
	// existed. Load returns none.
	Garbage []string
}

// Heads keeps the head of one overlay in the catalog.
type Heads interface {
	// Load returns the head as it is now, from the catalog itself and not
	// from a copy that may be old.
	Load(ctx context.Context) (Head, error)

	// Commit replaces the head, if h.Epoch is still the overlay's epoch, else
	// ErrFenced. To commit the head that is there already is a success: the
	// answer of the first time was lost. Any other error leaves open whether
	// it happened, and Commit is called again with the same head.
	Commit(ctx context.Context, h Head) error
}

// A Config says where a log is and what it may take.
type Config struct {
	ID     string         // of the overlay
	Store  backends.Store // where its objects are
	Prefix string         // of their keys, such as "platter/overlays/ID/"
	Heads  Heads

	// Epoch is the caller's: greater than any before, taken for this one
	// Create or Open and never used again, whether that succeeded or not.
	Epoch int64

	// HeldSince is the epoch since which nobody else has owned the overlay. A
	// journal of an epoch before it is never replayed, even if whoever came in
	// between has committed nothing. 0: it is not known, and the head decides.
	HeldSince int64

	// Size is the size of the disk. Open takes the one that it has if this is
	// 0, and else changes it.
	Size int64

	Dir   string        // folder of the journal, of this overlay alone
	FS    localfs.FS    // the machine's own if nil
	Guard localfs.Guard // asked before the journal grows; nil never refuses

	Durability Durability

	JournalLimit int64        // bytes of disk that the journal takes; 1 GiB if 0
	Full         journal.Full // what a write does when the journal is full

	// Quota is how many bytes of data the disk and its snapshots may hold
	// together, or 0 for no limit. Beyond, writes are syscall.ENOSPC.
	Quota int64

	SegmentSize int64         // bytes of data in a segment; 4 MiB if 0, 16 MiB at most
	MaxAge      time.Duration // how long a write waits for its segment to fill; 5 s if 0
	Parallel    int           // uploads at a time; 4 if 0
	ReadCache   int64         // bytes of segments kept in memory; 32 MiB if 0
	Retry       time.Duration // pause after a first failure of the store or the catalog; 200 ms if 0

	// AcceptLoss opens the overlay as the store has it even though the
	// journal that goes with it is not here. Else that is a LossError.
	AcceptLoss bool

	// Gate is called before a write or a flush is acknowledged. It waits
	// while it is in doubt whether the overlay is still ours. nil never waits.
	Gate func(ctx context.Context) error

	// Steps is called before and after everything that others can see; see
	// the constants. An error of it ends the log as a crash would. nil is
	// nobody.
	Steps func(ctx context.Context, step string) error

	Now    func() time.Time // time.Now if nil
	Logger *slog.Logger     // nil is silence
}

const (
	defaultSegment = 4 << 20
	defaultCache   = 32 << 20
	maxSegment     = 16 << 20
	maxState       = 200 << 10
	maxGarbage     = 64
)

func (c Config) defaults() (Config, error) {
	if c.FS == nil {
		c.FS = localfs.OS()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.SegmentSize = or(c.SegmentSize, defaultSegment)
	c.JournalLimit = or(c.JournalLimit, 1<<30)
	c.MaxAge = or(c.MaxAge, 5*time.Second)
	c.Parallel = or(c.Parallel, 4)
	c.ReadCache = or(c.ReadCache, defaultCache)
	c.Retry = or(c.Retry, 200*time.Millisecond)
	switch {
	case c.ID == "" || c.Store == nil || c.Heads == nil || c.Dir == "":
		return c, fmt.Errorf("an ID, a Store, Heads and a Dir are needed: %w", fs.ErrInvalid)
	case c.Size < 0 || c.Epoch <= 0 || c.SegmentSize < 0 || c.SegmentSize > maxSegment || c.Parallel < 0 || c.Parallel > 64:
		return c, fmt.Errorf("size %d, epoch %d, segments of %d bytes, %d uploads: %w", c.Size, c.Epoch, c.SegmentSize, c.Parallel, fs.ErrInvalid)
	}
	if err := backends.CheckKey(segmentKey(c.Prefix, 1, 1)); err != nil {
		return c, err
	}
	return c, nil
}

// or is v, or def where v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// segmentKey is the key of a segment. The epoch in it makes it one that nobody
// else writes to.
func segmentKey(prefix string, epoch, seq int64) string {
	return fmt.Sprintf("%s%08x-%010x", prefix, epoch, seq)
}

// mapKey is the key of a checkpoint.
func mapKey(prefix string, epoch, number int64) string {
	return fmt.Sprintf("%s%08x-%010x.map", prefix, epoch, number)
}
