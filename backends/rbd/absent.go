//go:build !rbd

package rbd

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

// errAbsent is the answer of all that needs librbd.
var errAbsent = fmt.Errorf("rbd: this program was built without librbd; install librbd-dev and build with -tags rbd,pacific (the name of the Ceph release whose librbd it is, if that is older than quincy): %w", errors.ErrUnsupported)

// A Store keeps objects as images of a pool. It is a backends.Store, Meter,
// Prober, Locator and Copier. Without the build tag rbd there is none.
type Store struct{}

// Open says that the program was built without librbd.
func Open(_ context.Context, cfg Config) (*Store, error) {
	if _, err := cfg.defaults(); err != nil {
		return nil, err
	}
	return nil, errAbsent
}

// Close disconnects.
func (*Store) Close() error { return errAbsent }

// URI returns the location of an object in Glance's words.
func (*Store) URI(string) string { return "" }

// Open opens an object: an image with a snapshot "snap", at that snapshot.
func (*Store) Open(context.Context, string) (block.ReadCloser, error) { return nil, errAbsent }

// Create starts an image.
func (*Store) Create(context.Context, string, int64) (backends.Writer, error) { return nil, errAbsent }

// Delete removes an object.
func (*Store) Delete(context.Context, string) error { return errAbsent }

// Free tells whether an object could be deleted now.
func (*Store) Free(context.Context, string) error { return errAbsent }

// Usage returns the size of the pool's cluster and what is left of it.
func (*Store) Usage(context.Context) (backends.Usage, error) { return backends.Usage{}, errAbsent }

// Capabilities returns what was found out when the Store was opened.
func (*Store) Capabilities() []backends.Capability { return nil }

// CopyFrom makes an object from one of another Store of this kind.
func (*Store) CopyFrom(context.Context, string, backends.Store, string) error { return errAbsent }

// Materialize makes an object of what src reads as.
func (*Store) Materialize(context.Context, string, block.Reader, func(done int64)) error {
	return errAbsent
}

// CreateClone makes an overlay.
func (*Store) CreateClone(context.Context, CloneConfig) error { return errAbsent }

// Resize changes the size of an overlay that nobody has open.
func (*Store) Resize(context.Context, string, int64) error { return errAbsent }

// Remove removes an overlay with its snapshots.
func (*Store) Remove(context.Context, string) error { return errAbsent }

// Takeover fences whoever has an overlay open.
func (*Store) Takeover(context.Context, string) error { return errAbsent }

// OpenDevice opens an overlay as its one writer.
func (*Store) OpenDevice(context.Context, string, DeviceConfig) (*Device, error) {
	return nil, errAbsent
}

// OpenDelta opens an overlay that was made without a parent.
func (*Store) OpenDelta(context.Context, string, DeviceConfig) (*Delta, error) {
	return nil, errAbsent
}

// A Device is an open overlay. Without the build tag rbd there is none.
type Device struct{}

// Size returns the size of the disk.
func (*Device) Size() int64 { return 0 }

// Fenced tells whether another writer has taken over.
func (*Device) Fenced() bool { return false }

// Unknown tells whether there was a write that the cluster did not answer.
func (*Device) Unknown() bool { return false }

// Usage returns how many bytes the overlay has of its own.
func (*Device) Usage() int64 { return 0 }

// ReadAt reads the disk.
func (*Device) ReadAt(context.Context, []byte, int64) error { return errAbsent }

// WriteAt stores p in the cluster.
func (*Device) WriteAt(context.Context, []byte, int64) error { return errAbsent }

// Flush waits for the writes that are still with the cluster.
func (*Device) Flush(context.Context) error { return errAbsent }

// Zero makes a range read as zeros.
func (*Device) Zero(context.Context, int64, int64, block.ZeroMode) error { return errAbsent }

// Discard frees the space behind a range.
func (*Device) Discard(context.Context, int64, int64) error { return errAbsent }

// Extent tells what is a hole.
func (*Device) Extent(context.Context, int64, int64) (block.Extent, error) {
	return block.Extent{}, errAbsent
}

// Depth tells what is the overlay's own, and what its parent's.
func (*Device) Depth(context.Context, int64, int64) (run int64, depth int, err error) {
	return 0, 0, errAbsent
}

// Snapshot keeps the state of the disk as it is now.
func (*Device) Snapshot(context.Context, string) (id string, err error) { return "", errAbsent }

// Snapshots returns the states that are kept.
func (*Device) Snapshots(context.Context) ([]Snapshot, error) { return nil, errAbsent }

// Changes tells what may have changed since a snapshot.
func (*Device) Changes(context.Context, string) (block.Mapper, error) { return nil, errAbsent }

// DeleteSnapshot forgets a state.
func (*Device) DeleteSnapshot(context.Context, string) error { return errAbsent }

// OpenSnapshot opens the whole disk as it was at a snapshot.
func (*Device) OpenSnapshot(context.Context, string) (block.ReadCloser, error) {
	return nil, errAbsent
}

// Flatten copies into the overlay what it has from its parent.
func (*Device) Flatten(context.Context, func(done, total int64)) error { return errAbsent }

// Close ends the use of the overlay.
func (*Device) Close() error { return errAbsent }

// A Delta is an open bare overlay. Without the build tag rbd there is none.
type Delta struct{}

// Size returns the size of the disk.
func (*Delta) Size() int64 { return 0 }

// Usage returns how many bytes the overlay has of its own.
func (*Delta) Usage() int64 { return 0 }

// Fenced tells whether another writer has taken over.
func (*Delta) Fenced() bool { return false }

// Unknown tells whether there was a write that the cluster did not answer.
func (*Delta) Unknown() bool { return false }

// ReadAt reads what was written, and zeros where nothing was.
func (*Delta) ReadAt(context.Context, []byte, int64) error { return errAbsent }

// WriteAt writes as if the base were zeros.
func (*Delta) WriteAt(context.Context, []byte, int64) error { return errAbsent }

// Flush waits for the writes that are still with the cluster.
func (*Delta) Flush(context.Context) error { return errAbsent }

// Extent tells what the overlay has of its own.
func (*Delta) Extent(context.Context, int64, int64) (block.Extent, error) {
	return block.Extent{}, errAbsent
}

// ReadOver reads what was written, and below where nothing was.
func (*Delta) ReadOver(context.Context, block.Reader, []byte, int64) error { return errAbsent }

// WriteOver stores p in the cluster.
func (*Delta) WriteOver(context.Context, block.Reader, []byte, int64) error { return errAbsent }

// ZeroOver makes a range read as zeros, whatever is below.
func (*Delta) ZeroOver(context.Context, block.Reader, int64, int64, block.ZeroMode) error {
	return errAbsent
}

// Snapshot keeps the state of the disk as it is now.
func (*Delta) Snapshot(context.Context, string) (id string, err error) { return "", errAbsent }

// Snapshots returns the states that are kept.
func (*Delta) Snapshots(context.Context) ([]Snapshot, error) { return nil, errAbsent }

// Changes tells what may have changed since a snapshot.
func (*Delta) Changes(context.Context, string) (block.Mapper, error) { return nil, errAbsent }

// DeleteSnapshot forgets a state.
func (*Delta) DeleteSnapshot(context.Context, string) error { return errAbsent }

// OpenSnapshot opens what was written until a snapshot.
func (*Delta) OpenSnapshot(context.Context, string) (block.ReadCloser, error) {
	return nil, errAbsent
}

// Flatten takes from below what the overlay lacks.
func (*Delta) Flatten(context.Context, block.Reader, func(done, total int64)) error {
	return errAbsent
}

// Close ends the use of the overlay.
func (*Delta) Close() error { return errAbsent }
