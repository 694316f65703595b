package fusefs

import (
	"context"
	"errors"
	"io/fs"
)

// Missed makes the tree true again after changes that nobody can tell any
// more: every image that the kernel knows is looked up once.
func (t *Tree) Missed(ctx context.Context) {
	for id := range t.byID.Children() {
		if _, err := t.cfg.Library.Image(ctx, id); errors.Is(err, fs.ErrNotExist) {
			t.Removed(ctx, id)
		} else {
			t.Changed(ctx, id)
		}
	}
}
