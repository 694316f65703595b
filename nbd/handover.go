package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

const (
	payloadGrace = 100 * time.Millisecond // for a payload that is on its way at Suspend
	discardGrace = 2 * time.Second        // for one that is not wanted
)

// A Handed is a live connection that another Server can go on with.
type Handed struct {
	// Conn is the socket. Nothing is to be read from it or written to it.
	Conn net.Conn

	// State is for Resume. It has the export's name, which may be a secret,
	// and what was read from the client but not yet taken up: up to the
	// Server's MaxRequest.
	State []byte
}

// Suspend ends the server like Shutdown, except that connections without TLS
// that have an export open which is not Transient are not closed: what they
// have asked for is done, flushed and answered, their exports are closed, and
// they are returned for Resume in another Server, where their clients find
// nothing missing, done twice or out of order. All others are closed softly.
// When ctx ends first, those that were not ready are cut off, and the error
// is ctx's; the others are returned all the same.
func (s *Server) Suspend(ctx context.Context) ([]Handed, error) {
	conns := s.close()
	for _, c := range conns {
		if c.portable.Load() {
			c.pause()
		} else {
			c.drain()
		}
	}
	err := s.await(ctx, conns)
	var handed []Handed
	for _, c := range conns {
		select {
		case <-c.done:
			if c.handed != nil {
				handed = append(handed, *c.handed)
			}
		default: // cut off, but a request that does not heed its context goes on
		}
	}
	if err != nil {
		return handed, fmt.Errorf("nbd: suspend: requests were still in flight: %w", err)
	}
	return handed, nil
}

// Resume goes on with a connection that another Server has suspended: it opens
// the export of the same name, serves, and returns. The connection counts for
// MaxConns, but is not refused for it. If the export cannot be opened, has
// another size or other abilities than the client was told, or state was not
// made by Suspend, nc is closed and the error says why.
func (s *Server) Resume(ctx context.Context, nc net.Conn, state []byte) error {
	err := s.resume(ctx, nc, state)
	if err != nil {
		nc.Close()
		return fmt.Errorf("nbd: resume a connection: %w", err)
	}
	return nil
}

func (s *Server) resume(ctx context.Context, nc net.Conn, state []byte) error {
	st, err := parseState(state)
	if err != nil {
		return err
	}
	watchPeer(nc)
	s.mu.Lock()
	if s.closed.Load() {
		s.mu.Unlock()
		return errDrained
	}
	c := s.add(ctx, nc, clientKey(nc.RemoteAddr()))
	c.since = st.since
	c.asking.Store(true) // so that it does not give way to others
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.cut(ctx.Err()) })
	err = c.restore(st)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.cut(err)
		c.closeExport()
		if c.meter != nil {
			c.meter.Closed()
		}
		s.forget(c)
		close(c.done)
		return err
	}
	s.log.Info("nbd: connection taken over", c.attr("writable", c.dev != nil, "size", c.size, "unread", c.in.buffered())...)
	go c.run(c.goOn) // ends before c.done closes, which Shutdown and Kick wait for
	return nil
}

// restore makes c what the connection was when st was made.
func (c *conn) restore(st *connState) error {
	if st.maxPayload > uint32(c.s.cfg.MaxRequest) {
		return fmt.Errorf("its client may send %d bytes at once, and the limit here is %d; raise MaxRequest", st.maxPayload, c.s.cfg.MaxRequest)
	}
	if len(st.unread) > c.s.cfg.MaxRequest+2*inputSize {
		return fmt.Errorf("%d bytes were read and not taken up; the limit is %d", len(st.unread), c.s.cfg.MaxRequest+2*inputSize)
	}
	if err := c.open(st.name); err != nil {
		return fmt.Errorf("open the export: %w", err)
	}
	least, _, most, _ := c.export.sizes(st.maxPayload)
	c.headers, c.contexts, c.metaExport = st.headers, st.contexts, st.name
	c.fixed, c.agreed, c.minBlock, c.maxPayload = true, st.agreed, st.minBlock, st.maxPayload
	flags := c.transmissionFlags(false)
	switch {
	case c.export.Disk.Size() != st.size:
		return fmt.Errorf("the export has %d bytes now, and its client knows of %d", c.export.Disk.Size(), st.size)
	case flags != st.flags:
		return fmt.Errorf("the export has the flags %#x now, and its client knows of %#x", flags, st.flags)
	case st.agreed && (least > st.minBlock || most < st.maxPayload):
		return fmt.Errorf("the export has block sizes from %d to %d now, and its client agreed to %d to %d", least, most, st.minBlock, st.maxPayload)
	case c.export.Transient:
		return errors.New("the disk of the export was gone with the connection")
	}
	c.requests.Store(st.requests)
	c.bytesRead.Store(st.read)
	c.bytesWritten.Store(st.written)
	c.failures.Store(st.failures)
	c.in.ahead = st.unread
	c.enter()
	return nil
}

// pause brings the connection to a point between two requests, where another
// server can go on.
func (c *conn) pause() {
	c.pausing.Store(true)
	c.nc.SetReadDeadline(time.Now())
}

// paused returns errHanded for the error of a read that pause has ended.
func (c *conn) paused(err error) error {
	if c.pausing.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return errHanded
	}
	return err
}

// putBack is paused in the middle of a request: it puts its header back in
// front of what was not read yet, with the part of its payload that has come.
func (c *conn) putBack(q *request, payload []byte, err error) error {
	if err = c.paused(err); errors.Is(err, errHanded) {
		p := make([]byte, c.headers.requestSize(), c.headers.requestSize()+len(payload)+c.in.buffered())
		q.put(p, c.headers)
		c.in.unread(append(p, payload...))
	}
	return err
}

// lenient gives the client once so much more time to send, when pause has
// ended a read.
func (c *conn) lenient(err error, once *bool, more time.Duration) bool {
	if !*once || !errors.Is(c.paused(err), errHanded) {
		return false
	}
	*once = false
	c.nc.SetReadDeadline(time.Now().Add(more))
	return true
}

// discard reads n bytes away.
func (c *conn) discard(n uint64) error {
	grace := true
	for {
		left, err := c.in.discard(n)
		if err == nil || !c.lenient(err, &grace, discardGrace) {
			return err
		}
		n = left
	}
}

// pack makes c.handed of a connection that has paused, and reports whether
// that was possible. All that the client was told is on stable storage then.
func (c *conn) pack() bool {
	if c.dev != nil {
		if err := c.flushDisk(); err != nil {
			c.s.log.Error("nbd: a connection is not handed over, because flushing its disk failed", c.attr("error", err)...)
			return false
		}
	}
	label := c.attr("requests", c.requests.Load(), "unread", c.in.buffered())
	if c.closeExport() != nil || context.Cause(c.ctx) != nil {
		return false
	}
	c.handed = &Handed{Conn: c.nc, State: c.state()}
	c.in.giveBack()
	c.nc.SetDeadline(time.Time{})
	c.cancel(errHanded)
	if c.meter != nil {
		c.meter.Closed()
	}
	c.s.log.Info("nbd: connection handed over", label...)
	return true
}

// flushDisk flushes the disk of the open export. A panic there is an error.
func (c *conn) flushDisk() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked("flush a disk", p)
		}
	}()
	return c.dev.Flush(c.ctx)
}
