package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// ErrContract is the error of a call whose answer breaks a promise of package
// block. The layer below is wrong, not the caller.
var ErrContract = errors.New("broken contract")

// Check returns r and asserts the promises of package block at every call: a
// bad range is ErrBounds and a good one is not, the size stays, extents begin
// where they were asked for and end in time, no read ends with io.EOF, and
// nobody touches a slice after the call has returned. A broken promise is
// ErrContract, with the name of the layer, and is also given to report, if
// there is one.
func Check(r block.Reader, name string, report func(error)) block.Reader {
	return Around(r, newChecker(r, name, report).hook)
}

// CheckDevice is Check for a Device.
func CheckDevice(d block.Device, name string, report func(error)) block.Device {
	return AroundDevice(d, newChecker(d, name, report).hook)
}

type checker struct {
	r      block.Reader
	name   string
	size   int64
	report func(error)

	poison []byte // what a slice is filled with once the call has returned

	mu   sync.Mutex
	lent [8][]byte // the last slices lent to r, poisoned
	next int
}

func newChecker(r block.Reader, name string, report func(error)) *checker {
	return &checker{
		r: r, name: name, size: r.Size(), report: report,
		poison: bytes.Repeat([]byte{0xDB}, maxLent),
	}
}

// maxLent bounds what is kept of one slice.
const maxLent = 64 << 10

func (k *checker) hook(_ context.Context, c *Call, do func() error) error {
	err := k.lend(c, do)
	broken := k.broken(c, err)
	if broken == nil {
		broken = k.touched()
	}
	if broken == nil {
		return err
	}
	broken = fmt.Errorf("%s: %v: %w: %w", k.name, c, ErrContract, broken)
	if k.report != nil {
		k.report(broken)
	}
	return broken
}

// lend gives the layer below a slice of its own instead of the caller's, so
// that one it keeps or writes to later can be told.
func (k *checker) lend(c *Call, do func() error) error {
	if c.P == nil {
		return do()
	}
	mine := c.P
	c.P = bytes.Clone(mine)
	err := do()
	lent := c.P
	c.P = mine
	if c.Op == Read {
		copy(mine, lent)
	} else if !bytes.Equal(lent, mine) {
		return fmt.Errorf("%w: the slice to write was changed", ErrContract)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lent[k.next%len(k.lent)] = lent[:copy(lent, k.poison)]
	k.next++
	return err
}

// touched looks at the slices that were lent.
func (k *checker) touched() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, lent := range k.lent {
		if !bytes.Equal(lent, k.poison[:len(lent)]) {
			k.lent[i] = nil
			return errors.New("a slice was written to after an earlier call had returned")
		}
	}
	return nil
}

func (k *checker) broken(c *Call, err error) error {
	if size := k.r.Size(); size != k.size {
		return fmt.Errorf("the size was %d and is %d", k.size, size)
	}
	bad := c.Op != Flush && block.CheckRange(c.Off, c.N, k.size) != nil || (c.Op == Extent || c.Op == Depth) && c.N < 1
	switch {
	case errors.Is(err, ErrContract):
		return err // of a layer further down, or of lend
	case bad && !errors.Is(err, block.ErrBounds):
		return fmt.Errorf("outside the %d bytes, and the answer is %v", k.size, err)
	case !bad && errors.Is(err, block.ErrBounds):
		return fmt.Errorf("inside the %d bytes, and the answer is %w", k.size, err)
	case err == io.EOF:
		return errors.New("io.EOF, which no call returns")
	case c.Op == Extent && err == nil:
		return extentBroken(c)
	case c.Op == Depth && err == nil && (c.Run < 1 || c.Run > c.N || c.Layer < 0):
		return fmt.Errorf("the answer, %d bytes of layer %d, is none", c.Run, c.Layer)
	}
	return nil
}

func extentBroken(c *Call) error {
	e := c.Extent
	if e.Off != c.Off || e.Len < 1 || e.Len > c.N {
		return fmt.Errorf("the answer %d+%d is no part of it that begins there", e.Off, e.Len)
	}
	if e.Kind > block.Absent {
		return fmt.Errorf("the answer has kind %v", e.Kind)
	}
	return nil
}
