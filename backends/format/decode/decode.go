// Package decode has what the readers of disk image formats share: the error
// of an image that lies, pooled decompressors that stop where a cluster is
// full, and a bounded cache of decoded clusters in which many readers wait
// for one decoding.
//
// Nothing here knows a format, and nothing here can open anything.
package decode

import (
	"errors"
	"fmt"
)

// ErrCorrupt is the error of an image file that contradicts itself or its
// format: an offset outside the file, a table too short, bytes that do not
// decompress.
var ErrCorrupt = errors.New("corrupt image")

// Corrupt returns an error that is ErrCorrupt, with a text in the way of
// fmt.Errorf that says what is wrong.
func Corrupt(text string, args ...any) error {
	return &fault{fmt.Errorf(text, args...), ErrCorrupt}
}

// Unsupported returns an error that is errors.ErrUnsupported: the image may be
// good, but asks for what this program does not do.
func Unsupported(text string, args ...any) error {
	return &fault{fmt.Errorf(text, args...), errors.ErrUnsupported}
}

type fault struct {
	what, kind error
}

func (f *fault) Error() string   { return f.what.Error() + ": " + f.kind.Error() }
func (f *fault) Unwrap() []error { return []error{f.what, f.kind} }
