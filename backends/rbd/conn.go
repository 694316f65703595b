//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// A conn is one client of the cluster, with an address of its own that can be
// blocklisted.
type conn struct {
	rados *rados.Conn
	io    *rados.IOContext
	queue *queue

	users int  // under Store.mu
	dead  bool // under Store.mu: blocklisted
}

// fenceTime is how long a fenced client stays on the blocklist. One that
// sleeps for longer would be let in again, so it is long; an entry is small,
// and there is one for each takeover.
const fenceTime = 365 * 24 * time.Hour

// dial connects to the cluster and the pool.
func dial(ctx context.Context, cfg Config) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := rados.NewConnWithClusterAndUser(cfg.Cluster, "client."+cfg.User)
	if err != nil {
		return nil, explain(err)
	}
	c := &conn{rados: r}
	if err := c.connect(cfg); err != nil {
		r.Shutdown()
		return nil, explain(err)
	}
	return c, nil
}

func (c *conn) connect(cfg Config) error {
	if err := c.configure(cfg); err != nil {
		return err
	}
	if err := c.rados.Connect(); err != nil {
		return fmt.Errorf("connect as client.%s: %w", cfg.User, explain(err))
	}
	var err error
	if c.io, err = c.rados.OpenIOContext(cfg.Pool); err != nil {
		return fmt.Errorf("open the pool: %w", explain(err))
	}
	c.io.SetNamespace(cfg.Namespace)
	// In a full pool a request shall fail, not wait for space, and what frees
	// space shall work.
	if err := c.io.SetPoolFullTry(); err != nil {
		c.io.Destroy()
		return fmt.Errorf("open the pool: %w", explain(err))
	}
	if c.queue, err = newQueue(cfg.Parallel); err != nil {
		c.io.Destroy()
	}
	return err
}

func (c *conn) configure(cfg Config) (err error) {
	if cfg.Conf != "" {
		err = c.rados.ReadConfigFile(cfg.Conf)
	} else {
		err = c.rados.ReadDefaultConfigFile()
	}
	if err != nil {
		return fmt.Errorf("read the cluster's configuration: %w", explain(err))
	}
	seconds := strconv.Itoa(int((cfg.Timeout + time.Second - 1) / time.Second))
	options := []struct{ name, value string }{
		{"keyring", cfg.Keyring},
		{"client_mount_timeout", seconds},
		{"rados_osd_op_timeout", seconds},
		{"rados_mon_op_timeout", seconds},
		// Errors are told where they are returned; the cluster's
		// configuration may still name a log file.
		{"log_to_stderr", "false"},
		{"err_to_stderr", "false"},
		// A write that has been answered is in the cluster: nothing is held
		// back here that a fenced writer could believe written.
		{"rbd_cache", "false"},
		{"rbd_blocklist_on_break_lock", "true"},
	}
	for _, o := range options {
		if o.value == "" {
			continue
		}
		if err := c.rados.SetConfigOption(o.name, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, explain(err))
		}
	}
	return nil
}

// close ends the connection. Its images are closed already.
func (c *conn) close() {
	c.io.Destroy()
	c.rados.Shutdown()
	c.queue.close()
}

// borrow returns the Store's connection: a new one if the last was fenced.
// Whoever has it gives it back.
func (s *Store) borrow(ctx context.Context) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil || s.cur.dead {
		c, err := dial(ctx, s.cfg)
		if err != nil {
			return nil, err
		}
		s.drop(s.cur)
		c.users = 1 // the Store itself
		s.cur = c
	}
	s.cur.users++
	return s.cur, nil
}

// giveBack ends the use of a connection, and that of all if err says that it
// was fenced.
func (s *Store) giveBack(c *conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, ErrFenced) && !c.dead {
		c.dead = true
		s.log.Error("the cluster has blocklisted this gateway's client; it will connect anew", "pool", s.cfg.Pool)
	}
	s.drop(c)
}

// drop ends one use of a connection.
func (s *Store) drop(c *conn) {
	if c == nil {
		return
	}
	if c.users--; c.users == 0 {
		c.close()
	}
}
