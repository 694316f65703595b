package probe

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/seed-478a8fee/platter/backends/block"
)

// ErrInjected is what every error of Faulty is, besides Fault.Err.
var ErrInjected = errors.New("injected")

// A Fault says which calls fail. A call fails if all that is set applies to
// it; a Fault of nothing fails every call.
type Fault struct {
	// Op is the operation that fails. Default: all.
	Op Op

	// From and To are the range that cannot be touched. Default: all.
	From, To int64

	// Nth lets only the n-th such call fail, counted from 1. Default: all.
	Nth int64

	// After lets the call go down before it fails: what was written is
	// written, but nobody is told.
	After bool

	// Err is the error. Default: syscall.EIO.
	Err error
}

// Faulty returns r, broken in the ways of faults.
func Faulty(r block.Reader, faults ...Fault) block.Reader { return Around(r, faulty(faults)) }

// FaultyDevice is Faulty for a Device.
func FaultyDevice(d block.Device, faults ...Fault) block.Device {
	return AroundDevice(d, faulty(faults))
}

func faulty(faults []Fault) Hook {
	seen := make([]atomic.Int64, len(faults))
	return func(_ context.Context, c *Call, do func() error) error {
		for i, f := range faults {
			if !f.meets(c) {
				continue
			}
			if n := seen[i].Add(1); f.Nth != 0 && f.Nth != n {
				continue
			}
			if f.After {
				_ = do() // the caller is told of the fault instead
			}
			return f.error(c)
		}
		return do()
	}
}

func (f Fault) meets(c *Call) bool {
	if f.Op != "" && f.Op != c.Op {
		return false
	}
	everywhere := f.From == 0 && f.To == 0
	return everywhere || c.Off < f.To && f.From < c.Off+c.N
}

func (f Fault) error(c *Call) error {
	err := f.Err
	if err == nil {
		err = syscall.EIO
	}
	return fmt.Errorf("%v: %w: %w", c, ErrInjected, err)
}
