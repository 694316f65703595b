package nbd

import (
	"io"
	"net"
	"syscall"
)

// inputSize is how much is read at once: many small requests, and the longest
// option.
const inputSize = 64 << 10

// smallInput is what a connection always has room for: many requests, or a
// short write.
const smallInput = 8 << 10

// An input is what a client has sent and nobody has looked at yet. What does
// not fit into the small memory of its own is in memory that it borrows.
type input struct {
	from  io.Reader
	pools *pools
	ahead []byte // comes before what is read from the client
	own   []byte
	held  *buffer
	buf   []byte // the memory of held, or own
	r, w  int    // the bytes are buf[r:w]
	more  bool   // own was too small lately

	// A socket that can say when there is something to read needs no large
	// memory until then.
	raw    syscall.RawConn // nil if it cannot
	look   func(fd uintptr) bool
	glance func(fd uintptr) bool
	got    int
	err    error
}

// start makes the input that of a socket.
func (in *input) start(nc net.Conn, p *pools) {
	in.from, in.pools = nc, p
	in.own = p.input()
	in.buf = in.own
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			in.raw, in.look = raw, in.tryRead
		}
	}
}

// secure makes the input what TLS makes of it.
func (in *input) secure(from io.Reader) { in.from, in.raw = from, nil }

// buffered returns how many bytes are at hand.
func (in *input) buffered() int { return in.w - in.r + len(in.ahead) }

// peek returns the next n bytes, which stay; it waits until they are there.
// n is at most inputSize. The error is io.EOF only if the client ended
// between two things, with nothing at hand.
func (in *input) peek(n int) ([]byte, error) {
	for in.w-in.r < n {
		if err := in.fill(n); err != nil {
			return nil, err
		}
	}
	return in.buf[in.r : in.r+n], nil
}

// fill reads what there is, at least a byte, making room for n in all.
func (in *input) fill(n int) error {
	if in.r == in.w {
		in.giveBack()
		if in.more && in.raw != nil && len(in.ahead) == 0 {
			return in.wait()
		}
	}
	if n > smallInput || in.w == smallInput {
		in.borrow()
	}
	if in.r+n > len(in.buf) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	got, err := in.read(in.buf[in.w:])
	in.w += got
	if got > 0 {
		in.more = in.w >= smallInput
		return nil
	}
	if err == io.EOF && in.w > in.r {
		return io.ErrUnexpectedEOF
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// read reads into p what is ahead or, after that, what the client sends.
func (in *input) read(p []byte) (int, error) {
	if len(in.ahead) > 0 {
		n := copy(p, in.ahead)
		if in.ahead = in.ahead[n:]; len(in.ahead) == 0 {
			in.ahead = nil
		}
		return n, nil
	}
	return in.from.Read(p)
}

// wait waits until there is something to read and reads it, without large
// memory in the meantime.
func (in *input) wait() error {
	if err := in.raw.Read(in.look); err != nil {
		return err
	}
	if in.got > 0 {
		in.w = in.got
		in.more = in.got >= smallInput
		return nil
	}
	if in.err == nil {
		return io.EOF
	}
	return in.err
}

// tryRead reads without waiting, and reports whether there was something.
func (in *input) tryRead(fd uintptr) bool {
	in.borrow()
	for {
		in.got, in.err = syscall.Read(int(fd), in.buf)
		switch in.err { // never wrapped, and this is done for every wait
		case syscall.EINTR:
		case syscall.EAGAIN:
			in.giveBack()
			return false
		default:
			return true
		}
	}
}

// end gives all memory back. Nothing is read any more.
func (in *input) end() {
	in.giveBack()
	in.pools.inputs.Put((*[smallInput]byte)(in.own))
	in.own, in.buf = nil, nil
}

// borrow makes the memory large, keeping what is at hand.
func (in *input) borrow() {
	if in.held == nil {
		in.held = in.pools.get(inputSize)
		in.buf = in.held.data[:inputSize]
		in.r, in.w = 0, copy(in.buf, in.own[in.r:in.w])
	}
}

// giveBack makes the memory small. What is at hand is dropped.
func (in *input) giveBack() {
	if in.held != nil {
		in.held.release()
		in.held, in.buf = nil, in.own
	}
	in.r, in.w = 0, 0
}

// skip drops n bytes that were peeked at.
func (in *input) skip(n int) { in.r += n }

// take moves what is at hand to p and returns how many bytes that were.
func (in *input) take(p []byte) int {
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	k := copy(p[n:], in.ahead)
	if in.ahead = in.ahead[k:]; len(in.ahead) == 0 {
		in.ahead = nil
	}
	return n + k
}

// discard drops the next n bytes, waiting for them, and returns how many of
// them it could not drop.
func (in *input) discard(n uint64) (uint64, error) {
	for n > 0 {
		if in.r == in.w {
			if err := in.fill(1); err != nil {
				return n, err
			}
		}
		step := min(n, uint64(in.w-in.r))
		in.r += int(step)
		n -= step
	}
	return 0, nil
}

// unread makes p, and what is at hand behind it, what comes next.
func (in *input) unread(p []byte) {
	rest := append(in.buf[in.r:in.w:in.w], in.ahead...)
	in.ahead = append(p, rest...)
	in.giveBack()
}
