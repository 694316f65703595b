package disk

import (
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A stack is one built disk.
type stack struct {
	key   string
	text  string        // what it was built from, to find out two Specs of one Key
	users int           // guarded by the Opener
	built chan struct{} // closed once the rest is there

	r      block.Reader
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

func (s *stack) is(spec Spec) bool { return s.text == describe(spec) }

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
