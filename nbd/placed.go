package nbd

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/backends/block"
)

const (
	// placedFrom is the length from which on a read of bytes that lie in a
	// file is left to the kernel. Shorter ones go out many at a time.
	placedFrom = 64 << 10

	errPlacedText = "the file that holds these bytes could not be read; the server's log says why"
)

// A placed is the part of a reply that lies in a file: the kernel puts it on
// the socket, and it is copied once instead of twice. It comes behind the
// first bytes of its buffer's data; of what is left there, good bytes come
// behind it if all went well, and otherwise those after them.
type placed struct {
	block.Place
	head, good int
}

// place makes b the reply of q without its bytes, if these lie in a file, and
// reports whether that was possible.
func (c *conn) place(q *request, b *buffer) bool {
	off, n := int64(q.off), int64(q.n)
	if n < placedFrom || c.secure != nil || c.in.raw == nil || len(b.data) > 0 {
		return false
	}
	if c.headers != headersSimple && !q.has(cmdFlagDF) { // holes are told, not sent
		e, err := block.ExtentAt(c.ctx, c.export.Disk, off, n)
		if err != nil || e.Kind != block.Data || e.Len < n {
			return false
		}
	}
	at, ok := block.PlaceAt(c.ctx, c.export.Disk, off, n)
	if !ok {
		return false
	}
	b.placed.Place = at
	if c.headers == headersSimple {
		q.addSimple(b, 0, 0)
		b.placed.head = len(b.data)
		return true
	}
	size := c.headers.chunkSize()
	p := b.grow(size + 8)
	q.putChunk(p, c.headers, 0, chunkOffsetData, 8+int(n)) // not the last one: it may yet fail
	be.PutUint64(p[size:], q.off)
	b.placed.head = len(b.data)
	q.addChunk(b, c.headers, chunkDone, chunkNone, 0)
	b.placed.good = len(b.data) - b.placed.head
	q.addError(b, c.headers, EIO, errPlacedText)
	return true
}

// A kernelSender has the kernel send parts of files. It keeps what it asks of the
// two descriptors as functions, so that asking allocates nothing.
type kernelSender struct {
	in, out int
	part    block.Place
	n       int
	err     error
	from    func(fd uintptr)
	ready   func(fd uintptr) bool
}

func (k *kernelSender) start() {
	k.from = func(fd uintptr) { k.in = int(fd); k.send() }
	k.ready = func(fd uintptr) bool {
		k.out = int(fd)
		if err := k.control(); err != nil {
			k.err = err
		}
		return !errors.Is(k.err, syscall.EAGAIN)
	}
}

// control calls send with the descriptor of the file, which stays open
// meanwhile.
func (k *kernelSender) control() error {
	raw, err := k.part.File.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(k.from)
}

func (k *kernelSender) send() {
	for {
		off := k.part.Off
		k.n, k.err = unix.Sendfile(k.out, k.in, &off, int(min(k.part.Len, progress)))
		if !errors.Is(k.err, syscall.EINTR) {
			return
		}
	}
}

// writePlaced writes b, whose bytes lie in a file in part.
func (s *sender) writePlaced(b *buffer) error {
	c, p := s.conn, &b.placed
	c.unread.Store(c.s.clock())
	if _, err := c.nc.Write(b.data[:p.head]); err != nil {
		return err
	}
	tail := b.data[p.head:][:p.good]
	if err := s.sendPlaced(p); err != nil {
		var failed *placeError
		if !errors.As(err, &failed) {
			return err
		}
		c.failures.Add(1)
		if !c.troubled.Swap(true) {
			c.s.log.Error("nbd: a read failed while its reply was sent; further errors on this connection are only counted", c.attr("error", err)...)
		}
		if p.good == 0 { // a simple reply has said that all is well
			return err
		}
		if err := s.writeZeros(p.Len); err != nil {
			return err
		}
		tail = b.data[p.head+p.good:]
	}
	if len(tail) == 0 {
		return nil
	}
	_, err := c.nc.Write(tail)
	return err
}

// A placeError is what is wrong with a file, not with the client.
type placeError struct{ err error }

// Error says what is wrong.
func (e *placeError) Error() string { return fmt.Sprintf("send bytes of a file: %v", e.err) }

// sendPlaced sends the bytes of p; those that it could not are left in it.
func (s *sender) sendPlaced(p *placed) error {
	k := &s.kernel
	if k.ready == nil {
		k.start()
	}
	defer func() { k.part = block.Place{} }()
	for p.Len > 0 {
		s.conn.unread.Store(s.conn.s.clock())
		k.part, k.n, k.err = p.Place, 0, nil
		if err := s.conn.in.raw.Write(k.ready); err != nil {
			return err
		}
		switch {
		case k.err == nil && k.n > 0:
			p.Off += int64(k.n)
			p.Len -= int64(k.n)
		case k.err == nil:
			return &placeError{io.ErrUnexpectedEOF}
		case errors.Is(k.err, syscall.EPIPE) || errors.Is(k.err, syscall.ECONNRESET):
			return k.err
		default:
			return &placeError{k.err}
		}
	}
	return nil
}

// writeZeros writes n zeros, in place of what could not be read.
func (s *sender) writeZeros(n int64) error {
	zeros := make([]byte, min(n, batchSize))
	for n > 0 {
		s.conn.unread.Store(s.conn.s.clock())
		k, err := s.conn.nc.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}
