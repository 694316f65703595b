package catalog

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/google/uuid"
)

func overlayKind() kind[Overlay] {
	return kind[Overlay]{"overlay", preOverlay, decodeOverlay, func(s *state, id string) (Overlay, int64, bool) {
		o, ok := s.overlays[id]
		return s.shown(o), o.Revision, ok
	}}
}

// shown returns an overlay as readers see it.
func (s *state) shown(o Overlay) Overlay {
	o = o.Clone()
	_, o.Dirty = s.dirty[o.ID]
	return o
}

// CreateOverlay adds an overlay on an image that is active (otherwise
// ErrNoData), which from then on cannot be deleted. Without an id it gets
// one; without a status it is being created. With a gateway, it is taken by
// that in epoch 1, unless it is a file, which is bound to it.
func (c *Catalog) CreateOverlay(ctx context.Context, o Overlay) (Overlay, error) {
	o = o.Clone()
	if o.ID == "" {
		o.ID = uuid.NewString()
	}
	if o.Status == "" {
		o.Status = OverlayCreating
	}
	o.CreatedAt = c.now()
	o.UpdatedAt, o.Dirty = o.CreatedAt, false
	if o.Engine != FileEngine {
		o.Epoch, o.HeldSince = 0, 0
		if o.Gateway != "" {
			o.Epoch = c.nextEpoch(0)
			o.HeldSince = o.Epoch
		}
	}
	err := checkID("overlay", o.ID)
	if err == nil {
		o.Revision, err = change(ctx, c, imageKind(), o.ImageID, func(img Image) (Txn, error) {
			return c.newOverlay(ctx, o, img)
		})
	}
	if err != nil {
		return Overlay{}, fmt.Errorf("catalog: create overlay %s: %w", o.ID, err)
	}
	return o, nil
}

// newOverlay returns the transaction that adds an overlay, with its head.
func (c *Catalog) newOverlay(ctx context.Context, o Overlay, img Image) (Txn, error) {
	if err := img.usable(); err != nil {
		return Txn{}, err
	}
	txn, err := c.newUser(ctx, preOverlay+o.ID, o.record(), mark(refKey(refImage, o.ImageID, userOverlay, o.ID), "", o.CreatedAt))
	if err != nil || o.Engine == FileEngine {
		return txn, err
	}
	if o.Gateway == c.cfg.GatewayID {
		mine, err := c.mine(ctx)
		if err != nil {
			return txn, err
		}
		txn.If = append(txn.If, mine...)
	}
	head, err := OverlayHead{Epoch: o.Epoch}.ops(o.ID, false, c)
	txn.If, txn.Then = append(txn.If, Cond{Key: preHead + o.ID}), append(txn.Then, head...)
	return txn, err
}

// usable refuses an image whose bytes cannot be used now.
func (i Image) usable() error {
	if i.Status != StatusActive {
		return fmt.Errorf("image %s is %s: %w", i.ID, i.Status, ErrNoData)
	}
	return nil
}

// newUser returns the transaction that adds a record together with its
// reference to what it uses.
func (c *Catalog) newUser(ctx context.Context, key string, record any, ref Op) (Txn, error) {
	if _, err := c.kv.Get(ctx, key); err == nil {
		return Txn{}, fmt.Errorf("%s: %w", key, fs.ErrExist)
	}
	op, err := put(key, record)
	return Txn{If: []Cond{{Key: key}}, Then: []Op{op, ref}}, err
}

// Overlay returns an overlay, or fs.ErrNotExist.
func (c *Catalog) Overlay(_ context.Context, id string) (Overlay, error) {
	o, err := get(c, overlayKind(), id)
	if err != nil {
		return Overlay{}, fmt.Errorf("catalog: %w", err)
	}
	return o, nil
}

// Overlays answers a query, the oldest first.
func (c *Catalog) Overlays(_ context.Context, q OverlayQuery) ([]Overlay, error) {
	var list []Overlay
	c.store.read(func(s *state) {
		for _, o := range s.overlays {
			if q.matches(o) {
				list = append(list, s.shown(o))
			}
		}
	})
	slices.SortFunc(list, func(a, b Overlay) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

func (q OverlayQuery) matches(o Overlay) bool {
	return (q.Owner == nil || o.Owner == *q.Owner) && (q.ImageID == "" || o.ImageID == q.ImageID) &&
		(q.Gateway == "" || o.Gateway == q.Gateway) && (q.Name == "" || o.Name == q.Name)
}

// UpdateOverlay changes an overlay by f, which may be called several times.
// Id, image, engine, store, created_at, owner and epoch (see TakeOverlay) do
// not change; updated_at becomes now. The size can only grow (otherwise
// fs.ErrInvalid), while no attachment needs the overlay (an InUseError).
func (c *Catalog) UpdateOverlay(ctx context.Context, id string, f func(*Overlay) error) (Overlay, error) {
	out, err := c.changeOverlay(ctx, id, func(o *Overlay) (Txn, error) {
		old := *o
		if err := f(o); err != nil {
			return Txn{}, err
		}
		o.Engine, o.Store, o.Gateway, o.Epoch, o.HeldSince = old.Engine, old.Store, old.Gateway, old.Epoch, old.HeldSince
		switch {
		case o.Size == old.Size:
			return Txn{}, nil
		case o.Size < old.Size:
			return Txn{}, fmt.Errorf("from %d to %d bytes: a disk can only grow: %w", old.Size, o.Size, fs.ErrInvalid)
		}
		free, err := c.unused(ctx, refOverlay, id)
		return Txn{If: []Cond{free}}, err
	})
	if err != nil {
		return Overlay{}, fmt.Errorf("catalog: update overlay %s: %w", id, err)
	}
	return out, nil
}

// changeOverlay changes an overlay by f, with more in the transaction.
func (c *Catalog) changeOverlay(ctx context.Context, id string, f func(*Overlay) (Txn, error)) (Overlay, error) {
	var out Overlay
	rev, err := change(ctx, c, overlayKind(), id, func(o Overlay) (Txn, error) {
		old := o
		txn, err := f(&o)
		if err != nil {
			return txn, err
		}
		o = o.Clone()
		o.ID, o.ImageID, o.CreatedAt, o.UpdatedAt = old.ID, old.ImageID, old.CreatedAt, c.after(old.UpdatedAt)
		o.Dirty = old.Dirty
		out = o
		op, err := put(preOverlay+id, o.record())
		txn.Then = append(txn.Then, op)
		return txn, err
	})
	out.Revision = rev
	return out, err
}

// DeleteOverlay removes an overlay that no attachment needs (otherwise an
// InUseError), and with it its head and the hold on its image, and queues the
// objects that only it needed as garbage: Store and Key of each, as CommitHead
// does. Who wants to free the overlay's data first sets its status to
// deleting, after which nothing can attach to it; with more than MaxGarbage
// objects that is required, since those are queued in several transactions,
// of which the last one removes the record.
func (c *Catalog) DeleteOverlay(ctx context.Context, id string, garbage ...Garbage) error {
	for len(garbage) > MaxGarbage {
		if err := c.discardOf(ctx, id, garbage[:MaxGarbage]); err != nil {
			return fmt.Errorf("catalog: delete overlay %s: %w", id, err)
		}
		garbage = garbage[MaxGarbage:]
	}
	_, err := change(ctx, c, overlayKind(), id, func(o Overlay) (Txn, error) {
		free, err := c.unused(ctx, refOverlay, id)
		if err != nil {
			return Txn{}, err
		}
		ops, err := c.discardAll(garbage, 2*c.leaseTime())
		ops = append(ops,
			Op{Key: preOverlay + id, Delete: true}, Op{Key: preHead + id, Delete: true}, Op{Key: preDirty + id, Delete: true},
			Op{Key: refKey(refImage, o.ImageID, userOverlay, id), Delete: true})
		return Txn{If: []Cond{free}, Then: ops}, err
	})
	if err != nil {
		return fmt.Errorf("catalog: delete overlay %s: %w", id, err)
	}
	return nil
}

// discardOf queues objects of an overlay that is being deleted.
func (c *Catalog) discardOf(ctx context.Context, id string, garbage []Garbage) error {
	_, err := change(ctx, c, overlayKind(), id, func(o Overlay) (Txn, error) {
		if o.Status != OverlayDeleting {
			return Txn{}, fmt.Errorf("it is %s, not %s: %w", o.Status, OverlayDeleting, fs.ErrInvalid)
		}
		ops, err := c.discardAll(garbage, 2*c.leaseTime())
		return Txn{Then: ops}, err
	})
	return err
}
