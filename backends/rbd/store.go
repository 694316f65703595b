//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

// A Store keeps objects as images of a pool. It is a backends.Store, Meter,
// Prober, Locator and Copier.
type Store struct {
	cfg  Config
	log  *slog.Logger
	fsid string
	caps []backends.Capability

	mu      sync.Mutex
	cur     *conn
	readers map[string]int // by name of the image, who has it open here
}

// Open connects to the cluster and looks what it can do.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.defaults()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: cfg.Logger, readers: make(map[string]int)}
	c, err := s.borrow(ctx)
	if err != nil {
		return nil, fmt.Errorf("rbd: open pool %s: %w", cfg.Pool, err)
	}
	defer s.giveBack(c, nil)
	if s.fsid, err = c.rados.GetFSID(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("rbd: open pool %s: %w", cfg.Pool, explain(err))
	}
	if err := s.probe(ctx, c); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("rbd: try what pool %s can do: %w", cfg.Pool, err)
	}
	s.purge(c)
	return s, nil
}

// Close disconnects. Whoever has an object open goes on reading it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(s.cur)
	s.cur = nil
	return nil
}

// URI returns the location of an object in Glance's words.
func (s *Store) URI(key string) string { return uri(s.fsid, s.cfg, key) }

// with calls f with a connection and the name of the image at key, and wraps
// its error once.
func (s *Store) with(ctx context.Context, what, key string, f func(c *conn, name string) error) error {
	name, err := imageName(key)
	if err != nil {
		return fmt.Errorf("rbd: %s: %w", what, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("rbd: %s %s: %w", what, key, err)
	}
	c, err := s.borrow(ctx)
	if err == nil {
		err = explain(f(c, name))
		s.giveBack(c, err)
	}
	if err != nil {
		return fmt.Errorf("rbd: %s %s: %w", what, key, err)
	}
	return nil
}

// Open opens an object: an image with a snapshot "snap", at that snapshot.
func (s *Store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	o := &object{store: s, key: key}
	err := s.with(ctx, "open", key, func(c *conn, name string) error {
		s.reading(name, 1)
		err := o.open(ctx, c, name)
		if err != nil {
			s.reading(name, -1)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// reading counts who has an image open here, and returns how many they are.
func (s *Store) reading(name string, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[name] += n
	left := s.readers[name]
	if left == 0 {
		delete(s.readers, name)
	}
	return left
}

// Usage returns the size of the pool's cluster and what is left of it, as far
// as the pool can tell; a cluster without a manager daemon knows neither.
func (s *Store) Usage(ctx context.Context) (u backends.Usage, err error) {
	if err := ctx.Err(); err != nil {
		return u, err
	}
	c, err := s.borrow(ctx)
	if err != nil {
		return u, fmt.Errorf("rbd: usage of pool %s: %w", s.cfg.Pool, err)
	}
	stat, err := c.rados.GetClusterStats()
	err = explain(err)
	s.giveBack(c, err)
	if err != nil {
		return u, fmt.Errorf("rbd: usage of pool %s: %w", s.cfg.Pool, err)
	}
	return backends.Usage{Total: int64(stat.Kb) << 10, Free: min(int64(stat.Kb_avail), int64(stat.Kb)) << 10}, nil
}

// busy makes syscall.EBUSY say who is in the way.
func busy(who string) error { return fmt.Errorf("%s: %w", who, syscall.EBUSY) }

// isBusy tells whether an error is that something is in use.
func isBusy(err error) bool { return errors.Is(explain(err), syscall.EBUSY) }
