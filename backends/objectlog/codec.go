package objectlog

import (
	"encoding/binary"
	"fmt"
)

// All numbers are little-endian.
var le = binary.LittleEndian

// A cursor takes numbers and bytes off a slice. What is missing is zero, and
// makes it bad: callers ask once at the end.
type cursor struct {
	p   []byte
	bad bool
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.p) {
		c.bad, c.p = true, nil
		return nil
	}
	out := c.p[:n:n]
	c.p = c.p[n:]
	return out
}

func (c *cursor) u8() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() int {
	if b := c.bytes(2); b != nil {
		return int(le.Uint16(b))
	}
	return 0
}

func (c *cursor) u32() int64 {
	if b := c.bytes(4); b != nil {
		return int64(le.Uint32(b))
	}
	return 0
}

// i64 is a number that is never negative here; one that is makes it bad.
func (c *cursor) i64() int64 {
	b := c.bytes(8)
	if b == nil {
		return 0
	}
	v := int64(le.Uint64(b))
	if v < 0 {
		c.bad = true
		return 0
	}
	return v
}

func (c *cursor) digest() (d digest) {
	copy(d[:], c.bytes(len(d)))
	return d
}

// A digest is a SHA-256.
type digest [32]byte

// corrupt is an ErrCorrupt that says what is wrong.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrCorrupt)
}
