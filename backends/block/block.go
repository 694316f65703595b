// Package block defines the one shape that every layer of Platter has: a
// fixed number of bytes that can be read at any offset.
//
// An object in a store, the cached object, the virtual disk inside a qcow2
// file, that disk with an image beneath it, the whole with a writable overlay
// on top: each is a [Reader]. A layer takes a Reader and is a Reader. What can
// be written is a [Device]; to be read-only is not to be a Device.
//
// Everything beyond reading and writing is an optional ability, in the way of
// package io/fs: an interface of one method, and a function of the package
// ([ExtentAt], [DepthAt], [PlaceAt], [ZeroAt], [Discard], [Prefetch]) that uses the method if there
// is one and otherwise does what is slower but right. Callers use the
// functions and never assert the interfaces, so a layer that does not know of
// an ability is slower, never wrong.
//
// All offsets and lengths are in bytes.
package block

import (
	"context"
	"errors"
	"fmt"
)

// ErrBounds is the error of an access that is not inside [0, Size).
var ErrBounds = errors.New("outside the device")

// A Reader is a fixed number of bytes that can be read at any offset.
// Any number of goroutines may use it at once.
type Reader interface {
	// ReadAt fills p with the bytes that start at off. It fills all of p or
	// returns an error: there are no short reads and there is no io.EOF.
	// A range that is not inside [0, Size) is ErrBounds. ReadAt must not
	// keep p.
	ReadAt(ctx context.Context, p []byte, off int64) error

	// Size returns the number of bytes. It never changes.
	Size() int64
}

// A ReadCloser is a Reader that somebody must close. Whoever opened it
// closes it; a layer never closes what it was given.
type ReadCloser interface {
	Reader
	Close() error
}

// A Device is a Reader that can be written. To be read-only is not to be
// a Device.
type Device interface {
	Reader

	// WriteAt stores p at off. After an error the range holds old bytes,
	// new bytes or both. WriteAt must not keep p. A full disk or quota is
	// syscall.ENOSPC.
	WriteAt(ctx context.Context, p []byte, off int64) error

	// Flush returns when every write that returned before the call would
	// survive a loss of power. Zeroing and discarding are writes.
	Flush(ctx context.Context) error
}

// CheckRange returns nil if [off, off+n) lies inside a device of size bytes,
// and otherwise an error that is ErrBounds. It cannot overflow.
func CheckRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("range %d+%d of %d bytes: %w", off, n, size, ErrBounds)
	}
	return nil
}
