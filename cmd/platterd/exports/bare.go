package exports

import (
	"context"
	"sync"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// bare are the snapshots of an overlay whose base its store does not know.
// What they lack is the base's, so none may be there when it is let go.
type bare struct {
	s    snapshots
	list func(ctx context.Context) ([]catalog.OverlaySnapshot, error)
	mu   sync.RWMutex // held while the overlay is flattened, shared while a snapshot is made
}

// flatten does that, if there are no snapshots, and lets none be made
// meanwhile.
func (b *bare) flatten(ctx context.Context, do func() error) error {
	if !b.mu.TryLock() {
		return wire.Errorf(409, "The overlay is being flattened, or a snapshot of it is being made; try again when that has ended.")
	}
	defer b.mu.Unlock()
	list, err := b.list(ctx)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return wire.Errorf(409, "The overlay has %d snapshots, which need its image; delete them, or wait for its captures, and flatten it again.", len(list))
	}
	return do()
}

// Snapshot keeps the state of this moment.
func (b *bare) Snapshot(ctx context.Context, name string) (string, error) {
	if !b.mu.TryRLock() {
		return "", wire.Errorf(409, "The overlay is being flattened; try again when that has ended.")
	}
	defer b.mu.RUnlock()
	return b.s.Snapshot(ctx, name)
}

// DeleteSnapshot forgets one.
func (b *bare) DeleteSnapshot(ctx context.Context, id string) error {
	return b.s.DeleteSnapshot(ctx, id)
}

// OpenSnapshot opens one for reading.
func (b *bare) OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error) {
	return b.s.OpenSnapshot(ctx, id)
}
