package nbd

import (
	"context"
	"time"
)

// smallShare is how many bytes a connection may always hold, even when the
// memory of all is used up. So clients that hoard cannot stop others. It is
// two requests of 256 KiB: the next often comes before the last is freed.
const smallShare = 2 * (256<<10 + headRoom)

// progress is how much a client must take or send within StallTimeout to
// count as alive when others wait for memory.
const progress = 1 << 20

// claim takes n bytes in flight, waiting for them, and notes them in b, whose
// release gives them back. It fails only when the connection ends.
func (c *conn) claim(b *buffer) error {
	n := int64(cap(b.data))
	if err := c.bytes.Acquire(c.ctx, n); err != nil {
		return err
	}
	holding := c.holding.Add(n)
	whole := c.s.memory.TryAcquire(n)
	if !whole && holding > smallShare {
		if err := c.s.wait(c.ctx, n); err != nil {
			c.repay(n, false)
			return err
		}
		whole = true
	}
	b.owner, b.held, b.whole = c, n, whole
	return nil
}

// repay gives back n bytes.
func (c *conn) repay(n int64, whole bool) {
	if whole {
		c.s.memory.Release(n)
	}
	c.holding.Add(-n)
	c.bytes.Release(n)
}

// wait takes n bytes of the memory of all connections, and cuts off clients
// that sit on it.
func (s *Server) wait(ctx context.Context, n int64) error {
	for ctx.Err() == nil {
		soon, cancel := context.WithTimeout(ctx, max(s.cfg.StallTimeout/8, time.Millisecond))
		err := s.memory.Acquire(soon, n)
		cancel()
		if err == nil {
			return nil
		}
		s.cutStalled(s.cfg.StallTimeout, 1)
	}
	return ctx.Err()
}

// cutStalled cuts off the connections that hold at least so much memory and
// have not moved for so long.
func (s *Server) cutStalled(patience time.Duration, held int64) {
	limit := s.clock() - int64(patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		unread, unsent := c.unread.Load(), c.unsent.Load()
		if c.holding.Load() >= held && (unread != 0 && unread < limit || unsent != 0 && unsent < limit) {
			c.cut(errStalled)
		}
	}
}
