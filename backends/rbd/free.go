//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Free is syscall.EBUSY while Delete would be: while an object has clones,
// unless those let it wait in the trash, or while somebody has it open.
func (s *Store) Free(ctx context.Context, key string) error {
	return s.with(ctx, "look for clones of", key, func(c *conn, name string) error {
		clones, err := usersOf(c, name)
		switch {
		case errors.Is(explain(err), fs.ErrNotExist):
			return nil
		case err == nil && clones > 0 && !s.cfg.Trash:
			return busy(fmt.Sprintf("%d clones need it", clones))
		}
		return err
	})
}
