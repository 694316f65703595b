package s3

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/backends"
)

// CopyFrom makes an object from one of a Store of the same server and keys,
// inside the server. All others are errors.ErrUnsupported.
func (s *Store) CopyFrom(ctx context.Context, key string, from backends.Store, fromKey string) error {
	return fmt.Errorf("s3: copy %s: %w", key, errors.ErrUnsupported)
}
