// Package cache keeps on the local disk what was read from stores that are
// far away.
//
// A [Cache] stands above all far stores of a gateway. A [Reader] of it is one
// object: reads that the cache has are one pread and one digest, reads that it
// lacks go to the far object, once however many wait for them. What is cached
// are the bytes of the object, below any format. An object never changes and
// its id is never used twice, so nothing is ever invalidated.
//
// The cache is disposable. It survives a restart and, because whatever it
// gives out was checked against a digest that is bound to the object and the
// place in it, also a loss of power, a torn file and a disk that lies; what
// does not agree is fetched again. A full or broken disk makes reads slower,
// never wrong and never an error.
//
// DESIGN.md tells what is where on the disk, and why.
package cache

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// A Config says where a Cache is and how large. Dir is required, the zero
// value of every other field is the default it names.
type Config struct {
	// Dir is the cache's folder, made if it is missing. Nobody else uses it.
	Dir string

	// Size is how many bytes of objects are kept. Default: 10 GiB.
	Size int64

	// ReadAhead is the most that is fetched beyond what was asked for when an
	// object is read in order. Default: 8 MiB; negative: nothing.
	ReadAhead int64

	// Parallel is how many fetches may be under way. Default: 32.
	Parallel int

	// NoHedge lets no second fetch run beside one that takes unusually long.
	NoHedge bool

	// FS is the disk. Default: the machine's.
	FS localfs.FS

	// Guard is asked before the cache grows. Default: nobody.
	Guard localfs.Guard

	// Logger hears of trouble with the disk. Default: silence.
	Logger *slog.Logger
}

// A ReaderConfig says what is to be known of one object. The zero ReaderConfig
// works.
type ReaderConfig struct {
	// Store names the place that the object comes from: how long fetches take
	// is judged by others of the same Store.
	Store string

	// Parallel is how many fetches of this object may be under way.
	// Default: 8.
	Parallel int
}

// A Cache keeps parts of far objects on the local disk.
type Cache struct {
	cfg Config
}

// Open opens the cache in cfg.Dir. A folder that cannot be used now is no
// error: the cache reads through until it can. One that another process uses
// is syscall.EBUSY.
func Open(cfg Config) (*Cache, error) {
	if cfg.Dir == "" {
		return nil, fmt.Errorf("cache: no folder is named: %w", fs.ErrInvalid)
	}
	return &Cache{cfg: cfg}, nil
}

// Reader returns the object id of size bytes. far opens it in its store; that
// happens when something is read for the first time that the cache lacks, and
// again after a failure. The caller closes the Reader.
func (c *Cache) Reader(id string, size int64, far func(context.Context) (block.ReadCloser, error), cfg ReaderConfig) (*Reader, error) {
	if id == "" || size < 0 || far == nil {
		return nil, fmt.Errorf("cache: object %q of %d bytes: %w", id, size, fs.ErrInvalid)
	}
	return &Reader{id: id, size: size, open: far}, nil
}

// Size returns the size of the object id in bytes, if the cache has anything
// of it.
func (c *Cache) Size(id string) (int64, bool) { return 0, false }

// Drop forgets the object id, for it was deleted. Readers of it go on.
func (c *Cache) Drop(id string) {}

// Stats tells what the cache has done and how it is.
func (c *Cache) Stats() Stats { return Stats{} }

// List tells about every object of which the cache has something, in the
// order of their ids.
func (c *Cache) List() []Info { return nil }

// Close ends the cache. Readers that are open must have been closed.
func (c *Cache) Close() error { return nil }

// Stats are counters since Open, and the state. Bytes are those of objects.
type Stats struct {
	Size, Used, Pinned int64 // bytes that may be kept, are, and of these are pinned
	Objects            int   // of which something is kept

	Hits, Misses       int64 // reads that the cache had whole, and others
	HitBytes, FarBytes int64 // served from the disk, and fetched from far stores
	AskedBytes         int64 // that readers asked for
	AheadBytes         int64 // of FarBytes, what nobody had asked for yet
	Waits              int64 // reads that waited for a fetch that was under way already
	Fetches, FarErrors int64
	Hedges, HedgesWon  int64
	Corrupt            int64  // pieces of 4 KiB that did not agree with their digest
	Evicted            int64  // bytes
	Skipped            int64  // bytes fetched and not kept, for the disk was full or broken
	Demand, Background int    // fetches that run or wait
	Degraded           string // why nothing is kept at present, or ""
}

// An Info tells about one object.
type Info struct {
	ID           string
	Size         int64 // of the object
	Used, Pinned int64 // bytes of it that are kept, and of these are pinned
	Readers      int
}
