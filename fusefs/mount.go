package fusefs

import (
	"context"
	"errors"
	"log/slog"
)

// ErrNoFUSE says that this machine, container or user cannot mount FUSE file
// systems. The error that wraps it says what is missing and what to do.
var ErrNoFUSE = errors.New("FUSE is not available")

// A Config says what to mount where. Dir and Library are required.
type Config struct {
	// Dir is the directory to mount on. It is created if it is missing and
	// must be empty. A mount that a crashed gateway left there is taken over.
	Dir     string
	Library Library

	// AllowOther lets users other than the one who mounts read the tree.
	AllowOther bool

	// Gateway and Revision are shown in .platter/status; Revision is asked
	// at each reading and may be nil.
	Gateway  string
	Revision func() int64

	// Logger takes what goes wrong behind the kernel's back. Nil is silence.
	Logger *slog.Logger
}

// A Tree is a mounted tree of images.
type Tree struct {
	cfg Config
}

// Mount mounts the tree and returns once it can be used. ctx covers the
// mounting only; the tree stays until Close. The error is ErrNoFUSE where
// FUSE cannot be used at all.
func Mount(ctx context.Context, cfg Config) (*Tree, error) {
	return nil, errors.ErrUnsupported
}

// Changed makes the kernel forget what it knows of the record of an image and
// of its names: names are those it has and had, as far as they are known.
func (t *Tree) Changed(ctx context.Context, id string, names ...string) {}

// Removed makes an image vanish at once. Files that are open go on.
func (t *Tree) Removed(ctx context.Context, id string, names ...string) {}

// Close unmounts the tree and waits until it has stopped. Nothing is left,
// even where somebody still has a file open.
func (t *Tree) Close() error { return nil }
