// Package far stands above a store that is reached through a network, and
// bears with it: it limits how many requests are under way and how many bytes
// pass, tries reads again until a deadline, and knows how the store is.
//
// Reading is tried again because nobody else can: a guest that is told of an
// error remounts its disk read-only. Writing is not, because a Writer knows
// which of its parts may be sent twice, and the catalog what may be deleted
// later.
package far

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

// Config is how a store is treated.
type Config struct {
	// Name is the store's name in errors and logs. Default: "store".
	Name string

	// Parallel is how many reads, and how many writes, may be under way at
	// once. Default: 32.
	Parallel int

	// Bandwidth is how many bytes a second may pass each way. Default: no
	// limit.
	Bandwidth int64

	// Deadline is how long a read or an opening is tried again before it
	// fails. Each try may take a third of it. Long reads get a second more a
	// MiB. Default: 30 s.
	Deadline time.Duration

	// Logger hears when the store fails, when it is back, and of reads that
	// were given up. Default: silence.
	Logger *slog.Logger

	// Observe, if set, hears of every call to the store when it has ended. It
	// must be quick.
	Observe func(Event)
}

// An Op is one of the things that can be asked of a store.
type Op string

// The operations, as they are named in events.
const (
	OpOpen   Op = "open"
	OpRead   Op = "read"
	OpExtent Op = "extent"
	OpCreate Op = "create"
	OpWrite  Op = "write" // a piece handed to a Writer, which may only keep it for now
	OpCommit Op = "commit"
	OpDelete Op = "delete"
	OpCopy   Op = "copy" // inside the stores
	OpCheck  Op = "check"
)

// An Event is one call to the store. A read that is tried three times is three
// events.
type Event struct {
	Op    Op
	Bytes int64         // asked for or handed over, even if it failed
	Wait  time.Duration // until one of the parallel requests had ended
	Took  time.Duration // after that
	Try   int           // from 1
	Err   error
}

// A Store is a store far away. It has all abilities of the one it stands on.
type Store struct {
	store  backends.Store
	cfg    Config
	log    *slog.Logger
	health health
	reads  lane
	writes lane
	gaveUp *rate.Sometimes // keeps the log readable while a store is away
}

// New returns store, treated as cfg says.
func New(store backends.Store, cfg Config) *Store {
	if cfg.Name == "" {
		cfg.Name = "store"
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 32
	}
	if cfg.Deadline <= 0 {
		cfg.Deadline = 30 * time.Second
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("store", cfg.Name)
	return &Store{
		store: store, cfg: cfg, log: log, health: health{log: log},
		reads: newLane(cfg.Parallel, cfg.Bandwidth), writes: newLane(cfg.Parallel, cfg.Bandwidth),
		gaveUp: &rate.Sometimes{First: 3, Interval: 10 * time.Second},
	}
}

// Health tells how the store is. It asks nothing of it.
func (s *Store) Health() Health {
	h := s.health.get()
	h.Reads, h.Writes = len(s.reads.slots), len(s.writes.slots)
	h.Waiting = int(s.reads.waiting.Load() + s.writes.waiting.Load())
	return h
}

// nobody is a key that no object has, to see whether a store answers.
const nobody = "platter-health-check"

// Check asks the store something harmless, so that Health is of now.
func (s *Store) Check(ctx context.Context) error {
	err := s.call(ctx, Event{Op: OpCheck, Try: 1}, func() error {
		short, cancel := context.WithTimeout(ctx, s.cfg.Deadline)
		defer cancel()
		r, err := s.store.Open(short, nobody)
		if err == nil {
			return r.Close()
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Watch checks the store whenever nothing was heard of it for a while, until
// ctx ends. Without it a store that failed and is asked no more would count
// as failing for ever.
func (s *Store) Watch(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if h := s.Health(); !h.OK() || time.Since(h.Success) >= every {
				_ = s.Check(ctx) // Health tells
			}
		}
	}
}

// Open opens an object. It is tried again until the deadline.
func (s *Store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	var r block.ReadCloser
	what := func() string { return "open " + key }
	err := s.retry(ctx, Event{Op: OpOpen}, what, func(ctx context.Context) (err error) {
		r, err = s.store.Open(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &reader{s: s, r: r, key: key}, nil
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.write(ctx, Event{Op: OpDelete}, func() error { return s.store.Delete(ctx, key) })
}

// List yields the objects of the store if it is a Lister.
func (s *Store) List(ctx context.Context) iter.Seq2[backends.Entry, error] {
	return backends.List(ctx, s.store)
}

// Usage tells how full the store is, if it is a Meter.
func (s *Store) Usage(ctx context.Context) (backends.Usage, error) {
	return backends.UsageOf(ctx, s.store)
}

// Free tells whether an object could be deleted now.
func (s *Store) Free(ctx context.Context, key string) error { return backends.Free(ctx, s.store, key) }

// Capabilities tells what the server was found to do.
func (s *Store) Capabilities() []backends.Capability { return backends.Capabilities(s.store) }

// URI says where an object is.
func (s *Store) URI(key string) string { return backends.URI(s.store, key) }

// CopyFrom makes an object from one of another store if the two can do that
// among themselves, whether that one is far or not.
func (s *Store) CopyFrom(ctx context.Context, key string, from backends.Store, fromKey string) error {
	if f, ok := from.(*Store); ok {
		from = f.store
	}
	return s.write(ctx, Event{Op: OpCopy}, func() error { return backends.CopyInside(ctx, s.store, key, from, fromKey) })
}
