package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"golang.org/x/sync/semaphore"
)

const (
	drainGrace  = 100 * time.Millisecond // for requests on their way at Shutdown
	lingerGrace = 250 * time.Millisecond // for the client to read our last words
)

// maxAsked is how many exports a client may have opened before the time that
// they take is the client's own: who asks for ever is not waited for for ever.
const maxAsked = 16

// A conn is one connection, from the greeting to the end.
type conn struct {
	s      *Server
	nc     net.Conn // the socket
	secure *secure  // TLS on it; nil without
	client Client
	known  atomic.Pointer[Client] // what others may see of client
	key    string
	since  time.Time
	ctx    context.Context // ends when the connection does; requests run under it
	cancel context.CancelCauseFunc
	done   chan struct{}

	counted bool        // against the limits of connections; guarded by Server.mu
	asking  atomic.Bool // Exports is at work for it
	asked   int         // how often Exports has opened something for it

	in    input
	out   sender
	batch *buffer // replies made but not yet given to out; the reader's

	// What was negotiated.
	fixed      bool // the client knows options
	noZeroes   bool
	headers    headers
	deadline   time.Time     // of the handshake
	contexts   []metaContext // for block status
	metaExport string        // the export that they were chosen for
	agreed     bool          // the client asked for the block sizes and keeps them
	minBlock   uint32        // what requests must be aligned to
	maxPayload uint32

	label    atomic.Pointer[string]
	name     string       // of the export
	export   Export       // what is open, perhaps only asked about; Disk is nil if nothing is
	dev      block.Device // nil if read-only
	size     int64
	flags    uint16
	meter    Meter
	reads    pace
	writes   pace
	alone    alone
	draining atomic.Bool
	writable atomic.Bool
	portable atomic.Bool // another server could go on with it
	pausing  atomic.Bool // one is to
	handed   *Handed     // what it gets; set before done is closed

	bytes   *semaphore.Weighted // in flight
	slots   chan struct{}       // workers in use
	working sync.WaitGroup
	// unanswered counts what workers have not begun to answer: a client that
	// has seen a reply may be back before its worker has left.
	unanswered atomic.Int32
	holding    atomic.Int64 // bytes in flight
	unread     atomic.Int64 // since when the client does not take a reply; 0 if it does
	unsent     atomic.Int64 // since when the client owes us a payload; 0 if it does not
	troubled   atomic.Bool  // an I/O error has been logged

	requests, bytesRead, bytesWritten, failures atomic.Int64
}

func newConn(ctx context.Context, s *Server, nc net.Conn, id uint64, key string) *conn {
	c := &conn{
		s: s, nc: nc, key: key, since: time.Now(),
		client:     Client{ID: id, Addr: nc.RemoteAddr(), Transport: transport(nc)},
		done:       make(chan struct{}),
		counted:    true,
		maxPayload: uint32(s.cfg.MaxRequest),
		minBlock:   1,
		bytes:      semaphore.NewWeighted(s.cfg.MaxInFlightBytes),
		slots:      make(chan struct{}, s.cfg.MaxWorkers),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	c.publish()
	c.in.start(nc, &s.pools)
	c.out.conn = c
	c.out.idle.L = &c.out.mu
	c.reads.start()
	c.writes.start()
	return c
}

// transport names the kind of socket.
func transport(nc net.Conn) string {
	if _, ok := nc.RemoteAddr().(*net.UnixAddr); ok {
		return "unix"
	}
	return nc.LocalAddr().Network()
}

// publish lets others see who the client is.
func (c *conn) publish() {
	who := c.client
	c.known.Store(&who)
}

// roomy makes the stack of a new goroutine large enough for most of what a
// connection does. It would grow to that anyway, several times and with more on
// it to move: a tenth of what a short connection costs.
//
//go:noinline
func roomy(n uint64) byte {
	var frame [9 << 10]byte
	return frame[n%uint64(len(frame))]
}

// run has the connection served, by talk, and cleans up after it.
func (c *conn) run(talk func() error) {
	roomy(c.client.ID)
	if err := talk(); !errors.Is(err, errRelieved) {
		c.end(err)
	}
}

// end cleans up after a connection that err has ended, or nobody.
func (c *conn) end(err error) {
	defer close(c.done)
	defer c.s.forget(c)
	if errors.Is(err, errHanded) && c.pack() {
		return // with the socket open
	}
	if err == nil { // all is done and sent
		c.closeExport()
		if c.secure != nil {
			c.secure.conn.CloseWrite() // says that this was all
		}
	}
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause
	}
	c.cancel(net.ErrClosed)
	c.nc.Close()
	c.working.Wait()
	c.in.end()
	if c.batch != nil {
		c.batch.release()
	}
	c.closeExport()
	if c.meter != nil {
		c.meter.Closed()
	}
	c.farewell(err)
}

// farewell logs the end of the connection, in one line.
func (c *conn) farewell(err error) {
	if c.label.Load() == nil { // no export was opened, so this can be a flood
		if err != nil && !errors.Is(err, errDrained) && !errors.Is(err, io.EOF) {
			c.s.turnedAway(c.nc.RemoteAddr(), err.Error())
		}
		return
	}
	if !c.s.log.Enabled(c.ctx, slog.LevelWarn) || err == nil && !c.s.log.Enabled(c.ctx, slog.LevelInfo) {
		return
	}
	args := c.attr("requests", c.requests.Load(), "read", c.bytesRead.Load(), "written", c.bytesWritten.Load(),
		"errors", c.failures.Load(), "seconds", time.Since(c.since).Seconds())
	switch {
	case err == nil || errors.Is(err, errDrained):
		c.s.log.Info("nbd: connection closed", args...)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		c.s.log.Info("nbd: client hung up", args...)
	default:
		c.s.log.Warn("nbd: connection ended", append(args, "error", err)...)
	}
}

// A lateAddr is an address that is made text of only for a line that is
// written: that can take a look at what process has the other end.
type lateAddr struct{ addr net.Addr }

// LogValue returns the text.
func (a lateAddr) LogValue() slog.Value { return slog.StringValue(a.addr.String()) }

// attr returns log attributes that say which connection this is.
func (c *conn) attr(more ...any) []any {
	args := []any{"conn", c.client.ID, "client", lateAddr{c.client.Addr}, "transport", c.client.Transport}
	if l := c.label.Load(); l != nil {
		args = append(args, "export", *l)
	}
	return append(args, more...)
}

// talk negotiates and then serves requests, until one side ends it.
func (c *conn) talk() error {
	c.deadline = c.since
	c.extend(c.s.cfg.HandshakeTimeout)
	proceed, err := c.negotiate()
	if err != nil || !proceed {
		return c.ending(err)
	}
	if c.s.log.Enabled(c.ctx, slog.LevelInfo) {
		c.s.log.Info("nbd: export opened", c.attr("writable", c.dev != nil, "size", c.size)...)
	}
	return c.goOn()
}

// goOn serves requests, until one side ends it.
func (c *conn) goOn() error {
	c.nc.SetDeadline(time.Time{})
	if c.draining.Load() {
		c.wake()
	}
	return c.readOn()
}

// readOn takes up requests until one side ends it.
func (c *conn) readOn() error {
	err := c.transmit()
	if errors.Is(err, errRelieved) {
		return err
	}
	err = c.ending(err)
	if sendErr := c.settle(); err == nil {
		err = sendErr
	}
	if errors.Is(err, errDrained) {
		c.linger()
	}
	return err
}

// ending returns why a connection ends that stopped for err.
func (c *conn) ending(err error) error {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case c.draining.Load() || c.pausing.Load():
		return errDrained
	}
	return errTimeout
}

// extend gives the client so much more time for its handshake.
func (c *conn) extend(d time.Duration) {
	c.deadline = c.deadline.Add(d)
	c.nc.SetDeadline(c.deadline)
	if c.draining.Load() {
		c.wake()
	}
}

// drain begins the end of the connection: requests in flight end, new ones
// are not taken up.
func (c *conn) drain() {
	c.draining.Store(true)
	if c.label.Load() != nil {
		c.nc.SetReadDeadline(time.Now())
		return
	}
	c.wake()
}

// wake ends a read from the client soon.
func (c *conn) wake() { c.nc.SetReadDeadline(time.Now().Add(drainGrace)) }

// cut ends the connection at once, for the reason err.
func (c *conn) cut(err error) {
	c.cancel(err)
	c.nc.Close()
}

// settle waits until all requests are done and all replies are sent.
func (c *conn) settle() error {
	c.flush()
	c.working.Wait()
	return c.out.settle()
}

// linger closes our half and waits a moment for the client to close its own.
// A socket closed with bytes unread takes our last replies with it. The export
// is closed before: who has seen the end of the connection may open it again.
func (c *conn) linger() {
	c.closeExport()
	if c.secure != nil {
		c.secure.conn.CloseWrite()
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(lingerGrace))
	c.in.borrow()
	for n := 0; n < maxSkip; {
		got, err := c.nc.Read(c.in.buf)
		if err != nil {
			return
		}
		n += got
	}
}

// flush gives the replies of the batch to the sender.
func (c *conn) flush() {
	if b := c.batch; b != nil {
		c.batch = nil
		c.out.send(b)
	}
}

// await returns the next n bytes of input, which stay there. It sends what is
// ready before it waits.
func (c *conn) await(n int) ([]byte, error) {
	if c.in.buffered() < n {
		c.flush()
	}
	for {
		p, err := c.in.peek(n)
		if err == nil {
			return p, nil
		}
		if !c.patient(err, 0) {
			return nil, err
		}
	}
}

// patient reports whether to go on reading after err: the read was woken
// because the server is shutting down, but more than own requests are still in
// flight.
func (c *conn) patient(err error, own int) bool {
	if !c.draining.Load() || !errors.Is(err, os.ErrDeadlineExceeded) || len(c.slots) <= own {
		return false
	}
	c.wake()
	return true
}

// info describes the connection.
func (c *conn) info() ConnInfo {
	who := c.known.Load()
	info := ConnInfo{
		Client: *who, Peer: peerName(who.TLS), Since: c.since, InFlight: len(c.slots),
		Requests: c.requests.Load(), Read: c.bytesRead.Load(), Written: c.bytesWritten.Load(), Errors: c.failures.Load(),
	}
	if l := c.label.Load(); l != nil {
		info.Export, info.Headers = *l, c.headers.String() // which changes no more
		info.Writable = c.writable.Load()
	}
	return info
}

// panicked logs a panic in what we serve and makes an error of it: one broken
// image must not take the other disks down.
func (c *conn) panicked(doing string, p any) error {
	c.s.log.Error("nbd: panic while trying to "+doing+"; please report this", c.attr("panic", p, "stack", string(debug.Stack()))...)
	return fmt.Errorf("the server has a bug: it panicked while trying to %s; its log has the details", doing)
}
