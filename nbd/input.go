package nbd

import (
	"io"
)

// inputSize is how much is read at once: many small requests, and the longest
// option.
const inputSize = 64 << 10

// An input is what a client has sent and nobody has looked at yet.
type input struct {
	from io.Reader
	buf  []byte
	r, w int // the bytes are buf[r:w]
}

// buffered returns how many bytes are at hand.
func (in *input) buffered() int { return in.w - in.r }

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
		in.r, in.w = 0, 0
	} else if in.r+n > len(in.buf) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	got, err := in.from.Read(in.buf[in.w:])
	in.w += got
	if got > 0 {
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

// skip drops n bytes that are at hand.
func (in *input) skip(n int) { in.r += n }

// take moves what is at hand to p and returns how many bytes that were.
func (in *input) take(p []byte) int {
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	return n
}

// discard drops the next n bytes, waiting for them.
func (in *input) discard(n int64) error {
	for n > 0 {
		if in.buffered() == 0 {
			if err := in.fill(1); err != nil {
				return err
			}
		}
		step := min(n, int64(in.buffered()))
		in.r += int(step)
		n -= step
	}
	return nil
}
