package disk

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A stack is one built disk.
type stack struct {
	key   string
	spec  Spec          // what it was built from, to find out two Specs of one Key
	since time.Time     // when that began
	users int           // guarded by the Opener
	built chan struct{} // closed once the rest is there

	failed atomic.Bool // a read has: whoever comes next has it built anew

	r      block.Reader
	near   bool           // it may be kept
	opened []func() error // how to close what was opened, in the order of opening
	err    error
}

func (s *stack) isBuilt() bool {
	select {
	case <-s.built:
		return true
	default:
		return false
	}
}

// close closes what was opened, the last first. A second call does nothing.
func (s *stack) close() error {
	var errs []error
	for i := len(s.opened) - 1; i >= 0; i-- {
		errs = append(errs, s.opened[i]())
	}
	s.opened = nil
	return errors.Join(errs...)
}

// is reports whether the stack was built from spec, or would be the same.
func (s *stack) is(spec Spec) bool {
	for a, b := &s.spec, &spec; ; a, b = a.Base, b.Base {
		if a == nil || b == nil {
			return a == b
		}
		if a.Key != b.Key || a.Object != b.Object || a.Format != b.Format || a.generation() != b.generation() {
			return false
		}
	}
}

// generation names the bytes of a far object; those of a near one have no
// name.
func (spec *Spec) generation() string {
	if spec.Far == nil {
		return ""
	}
	return spec.Far.Generation
}

// describe says in words what a Spec is made of.
func describe(spec Spec) string {
	text := fmt.Sprintf("object %q of format %q", spec.Object, spec.Format)
	if spec.Far != nil {
		text = fmt.Sprintf("generation %q, %s", spec.Far.Generation, text)
	}
	if spec.Base != nil {
		text += fmt.Sprintf(" over %s (%s)", spec.Base.Key, describe(*spec.Base))
	}
	return text
}
