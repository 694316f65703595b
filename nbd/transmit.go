package nbd

import (
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	inlineMax = 32 << 10  // larger reads always go to workers
	writeMax  = 256 << 10 // and larger writes
	batchSize = 256 << 10 // replies gathered before they are sent
)

// transmit serves requests until the client or the server ends it. Requests
// at hand are served without looking at the socket in between.
func (c *conn) transmit() error {
	q := new(request)
	size := c.headers.requestSize()
	for {
		if c.pausing.Load() {
			return errHanded
		}
		if c.draining.Load() {
			return errDrained
		}
		head, err := c.await(size)
		if errors.Is(err, io.EOF) {
			return nil // half closed, perhaps: what is in flight gets its reply
		}
		if err != nil {
			return c.paused(err)
		}
		if c.draining.Load() {
			// It stays unanswered, and the client repeats it on its next
			// connection. An answer would be the end of it: to a guest,
			// ESHUTDOWN is a broken disk.
			return errDrained
		}
		if !q.parse(head, c.headers) {
			return fmt.Errorf("%w: a request began with %#x", errProtocol, be.Uint32(head))
		}
		c.in.skip(size)
		if q.cmd == CmdDisconnect {
			return nil
		}
		if c.headers == headersExtended && q.burden > uint64(c.maxPayload) {
			return fmt.Errorf("%w: %s with a payload of %d bytes; the limit is %d", errProtocol, q.cmd, q.burden, c.maxPayload)
		}
		q.conn, q.contexts, q.came = c, c.everyContext(), c.s.clock()
		if err := c.begin(q); err != nil {
			return err
		}
	}
}

// begin serves q here or hands it over.
func (c *conn) begin(q *request) error {
	if q.burden > 0 && q.cmd == CmdBlockStatus && len(c.contexts) > 0 {
		if over, err := c.filter(q); over || err != nil {
			return err
		}
	}
	if err := c.check(q); err != nil {
		return c.decline(q, err)
	}
	switch {
	case q.flags&cmdFlagFUA != 0:
	case q.cmd == CmdRead && q.n <= inlineMax && c.reads.near():
		return c.inline(q)
	case q.cmd == CmdWrite && q.n <= inlineMax && c.writes.near():
		p, err := c.await(int(q.n))
		if err != nil {
			return c.putBack(q, nil, err)
		}
		q.payload = p
		c.in.skip(int(q.n))
		return c.inline(q)
	}
	return c.handOver(q)
}

// inline serves q at once, its reply behind the others of the batch.
func (c *conn) inline(q *request) error {
	need := headRoom / 2
	if q.cmd == CmdRead {
		need += int(q.n)
	}
	b, err := c.gather(need)
	if err != nil {
		return err
	}
	c.perform(q, b)
	return nil
}

// gather returns the batch, with room for n bytes, once the client has taken
// enough of what was sent before.
func (c *conn) gather(n int) (*buffer, error) {
	if c.batch != nil && c.batch.room() >= n && len(c.batch.data) < batchSize {
		return c.batch, nil
	}
	c.flush()
	if err := c.out.wait(); err != nil {
		return nil, err
	}
	c.batch = c.s.pools.get(batchSize)
	return c.batch, nil
}

// decline refuses q, which was never begun, after reading its payload away.
func (c *conn) decline(q *request, why error) error {
	if q.burden > 0 {
		if uint64(c.in.buffered()) < q.burden {
			c.flush()
		}
		if err := c.discard(q.burden); err != nil {
			return err
		}
	}
	b, err := c.gather(headRoom)
	if err != nil {
		return err
	}
	c.fail(q, b, len(b.data), why)
	c.account(q, errno(why))
	return nil
}

// handOver gives q to a worker, with all that it needs, or does a worker's work
// itself for a client that has nothing else to ask, or where that takes less
// than to wake one. After errRelieved somebody else reads on.
func (c *conn) handOver(q *request) error {
	here := c.next(q) || c.brief(q)
	r := c.s.pools.request()
	*r = *q
	if len(c.slots) == cap(c.slots) || c.in.buffered() < c.headers.requestSize() {
		c.flush() // what is ready need not wait for what we wait for
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	c.working.Add(1)
	if err := c.equip(r); err != nil {
		c.leave(r)
		return err
	}
	c.unanswered.Add(1)
	if here {
		return c.serveAlone(r)
	}
	c.s.crew.do(r)
	return nil
}

// equip gets the memory that r needs, and its payload.
func (c *conn) equip(r *request) error {
	if err := c.out.wait(); err != nil {
		return err
	}
	switch r.cmd {
	case CmdRead:
		r.reply = c.s.pools.get(int(r.n))
		return c.claim(r.reply)
	case CmdWrite:
		r.reply = c.s.pools.get(0)
		r.held = c.s.pools.get(int(r.n))
		if err := c.claim(r.held); err != nil {
			return err
		}
		return c.payload(r)
	case CmdBlockStatus:
		r.reply = c.s.pools.get(c.statusSize(r))
		return c.claim(r.reply)
	default:
		r.reply = c.s.pools.get(0)
		return nil
	}
}

// payload reads the payload of a write. Past what is at hand it goes straight
// from the socket to where it stays.
func (c *conn) payload(r *request) error {
	r.payload = r.held.grow(int(r.n))
	rest := r.payload[c.in.take(r.payload):]
	if len(rest) == 0 {
		return nil
	}
	c.flush()
	defer c.unsent.Store(0)
	grace := true
	for credit := 0; len(rest) > 0; {
		if credit <= 0 { // a byte now and then is no progress
			c.unsent.Store(c.s.clock())
			credit = progress
		}
		n, err := c.in.read(rest[:min(len(rest), batchSize)])
		rest = rest[n:]
		credit -= n
		if n == 0 && err != nil && !c.patient(err, 1) && !c.lenient(err, &grace, payloadGrace) {
			return c.putBack(r, r.payload[:len(r.payload)-len(rest)], err)
		}
	}
	return nil
}

// finish serves r; it is what workers do.
func (c *conn) finish(r *request) {
	c.perform(r, r.reply)
	c.deliver(r)
}

// deliver sends the reply of r, and ends it.
func (c *conn) deliver(r *request) {
	if r.held != nil { // before the reply, which may have to wait for the client
		r.held.release()
		r.held = nil
	}
	reply := r.reply
	r.reply = nil
	c.unanswered.Add(-1)
	c.out.send(reply)
	c.leave(r)
}

// leave ends r's stay with a worker.
func (c *conn) leave(r *request) {
	for _, b := range [...]*buffer{r.held, r.reply} {
		if b != nil {
			b.release()
		}
	}
	*r = request{}
	c.s.pools.requests.Put(r)
	<-c.slots
	c.working.Done()
}

// account counts a request that has been answered. Of one that was refused the
// length is only what the client claims, up to 2^64, and so it is of a flush.
func (c *conn) account(q *request, code Errno) {
	c.requests.Add(1)
	var bytes int64
	if code == 0 && q.cmd != CmdFlush {
		bytes = int64(q.n)
	}
	if code != 0 {
		c.failures.Add(1)
	} else if q.cmd == CmdRead {
		c.bytesRead.Add(int64(q.n))
	} else if q.cmd == CmdWrite {
		c.bytesWritten.Add(int64(q.n))
	}
	if c.meter != nil {
		c.meter.Request(q.cmd, bytes, time.Duration(c.s.clock()-q.came), code)
	}
}
