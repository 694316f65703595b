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
// Three sizes occur throughout. A grain, 4 KiB, is what is present or not and
// has a digest. A part, 64 KiB, is what a fetch is rounded to where that is
// likely to pay. A unit, 512 KiB, is what has a place on the disk and is
// evicted. DESIGN.md tells what is where on the disk, and why.
//
// Locks, in the order in which they may be held: session.mu or unit.mu, then
// Cache.mu; gate.mu and those of backlog, health and pace are held alone or last. A
// hit takes none.
package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

const (
	grainSize = 4 << 10
	unitSize  = 512 << 10
	partSize  = 64 << 10

	unitGrains = unitSize / grainSize
	partGrains = partSize / grainSize

	// maxFetch is the most bytes of one fetch.
	maxFetch    = 4 << 20
	fetchGrains = maxFetch / grainSize
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

	// Parallel is how many fetches may be under way, each of at most 4 MiB of
	// memory. Default: 32.
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
	// Store names the place that the object comes from: how long a fetch may
	// take is judged by others from the same Store.
	Store string

	// Parallel is how many fetches of this object may be under way.
	// Default: 16.
	Parallel int
}

// A Cache keeps parts of far objects on the local disk. Any number of
// goroutines may use it at once.
type Cache struct {
	cfg     Config
	log     *slog.Logger
	gate    *gate
	backlog *backlog
	health  health
	loaded  sumRing
	scratch scratch
	buffers buffers
	store   atomic.Pointer[files] // nil while the disk cannot be used
	opened  sync.Mutex            // held to set store

	clock atomic.Int64 // bytes kept so far: the time by which uses are counted
	count counters     // of objects that are no longer in the map, and what belongs to none

	mu      sync.Mutex
	objects map[string]*object
	paces   map[string]*pace
	space   space
	closed  bool
}

// Open opens the cache in cfg.Dir. A folder that cannot be used now is no
// error: the cache reads through until it can. One that another process uses
// is syscall.EBUSY.
func Open(cfg Config) (*Cache, error) {
	if cfg.Dir == "" || cfg.Size < 0 || cfg.Parallel < 0 {
		return nil, fmt.Errorf("cache: no folder is named, or a limit is negative: %w", fs.ErrInvalid)
	}
	cfg.Size = orDefault(cfg.Size, 10<<30)
	cfg.ReadAhead = max(orDefault(cfg.ReadAhead, 8<<20), 0)
	cfg.Parallel = orDefault(cfg.Parallel, 32)
	cfg.FS = orDefault(cfg.FS, localfs.OS())
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		cfg: cfg, log: cfg.Logger, gate: newGate(cfg.Parallel), backlog: newBacklog(cfg.Size),
		objects: make(map[string]*object), paces: make(map[string]*pace),
		space: newSpace(cfg.Size),
	}
	if err := c.reopen(); errors.Is(err, syscall.EBUSY) {
		return nil, err
	} else if err != nil {
		c.trouble(err)
	}
	return c, nil
}

// orDefault returns v, or d if v is zero.
func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// Reader returns the object id of size bytes. far opens it in its store; that
// happens when something is read for the first time that the cache lacks, and
// again after a failure. The caller closes the Reader.
func (c *Cache) Reader(id string, size int64, far func(context.Context) (block.ReadCloser, error), cfg ReaderConfig) (*Reader, error) {
	if id == "" || len(id) > maxID || size < 0 || far == nil {
		return nil, fmt.Errorf("cache: object %q of %d bytes: %w", id, size, fs.ErrInvalid)
	}
	if have, ok := c.Size(id); ok && have != size {
		c.log.Warn("an object has another size than the cache remembers, which forgets it", "object", id, "size", size, "remembered", have)
		c.Drop(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("cache: open object %s: %w", id, fs.ErrClosed)
	}
	o := c.objects[id]
	if o == nil {
		o = newObject(c, id, size)
		c.objects[id] = o
	}
	if o.size != size {
		return nil, fmt.Errorf("cache: object %s is open with %d bytes, not %d: %w", id, o.size, size, fs.ErrInvalid)
	}
	if o.session == nil {
		o.session = newSession(o, far, orDefault(cfg.Parallel, 16), c.pace(cfg.Store))
	}
	o.session.readers++
	return &Reader{s: o.session}, nil
}

// pace returns how long fetches from a store take. The caller holds c.mu.
func (c *Cache) pace(store string) *pace {
	p := c.paces[store]
	if p == nil {
		p = &pace{}
		c.paces[store] = p
	}
	return p
}

// Size returns the size of the object id in bytes, if the cache has anything
// of it.
func (c *Cache) Size(id string) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.objects[id]; o != nil {
		return o.size, true
	}
	return 0, false
}

// Drop forgets the object id, for it was deleted. Readers of it go on, and
// what they read is no longer kept.
func (c *Cache) Drop(id string) {
	c.mu.Lock()
	o := c.objects[id]
	if o == nil {
		c.mu.Unlock()
		return
	}
	o.dropped = true
	var gone []*unit
	for _, u := range o.units {
		gone = append(gone, u)
	}
	for _, u := range gone {
		c.space.remove(u)
	}
	c.mu.Unlock()
	for _, u := range gone {
		c.vacate(u)
	}
	c.mu.Lock()
	c.forget(o)
	c.mu.Unlock()
}

// forget takes an object out of the map of which nothing is kept and that
// nobody reads. The caller holds c.mu.
func (c *Cache) forget(o *object) {
	if len(o.units) == 0 && o.session == nil && c.objects[o.id] == o {
		delete(c.objects, o.id)
		c.count.add(&o.count)
	}
}

// Close ends the cache and keeps what it has for the next Open. Readers must
// have been closed; those that were not are an error.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	var open []string
	for id, o := range c.objects {
		if o.session != nil {
			open = append(open, id)
		}
	}
	c.mu.Unlock()
	if len(open) > 0 {
		slices.Sort(open)
		return fmt.Errorf("cache: objects still open: %s", strings.Join(open, ", "))
	}
	c.opened.Lock()
	defer c.opened.Unlock()
	f := c.store.Swap(nil)
	if f == nil {
		return nil
	}
	if err := errors.Join(c.save(f), f.close()); err != nil {
		return fmt.Errorf("cache: close: %w", err)
	}
	return nil
}
