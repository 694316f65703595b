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
		return o.Clone(), o.Revision, ok
	}}
}

// CreateOverlay adds an overlay on an image that is active (otherwise
// ErrNoData), which from then on cannot be deleted. Without an id it gets
// one; without a status it is being created.
func (c *Catalog) CreateOverlay(ctx context.Context, o Overlay) (Overlay, error) {
	o = o.Clone()
	if o.ID == "" {
		o.ID = uuid.NewString()
	}
	if o.Status == "" {
		o.Status = OverlayCreating
	}
	o.CreatedAt = c.now()
	o.UpdatedAt = o.CreatedAt
	err := checkID("overlay", o.ID)
	if err == nil {
		o.Revision, err = change(ctx, c, imageKind(), o.ImageID, func(img Image) (Txn, error) {
			if err := img.usable(); err != nil {
				return Txn{}, err
			}
			return c.newUser(ctx, preOverlay+o.ID, o.record(), mark(refKey(refImage, o.ImageID, userOverlay, o.ID), "", o.CreatedAt))
		})
	}
	if err != nil {
		return Overlay{}, fmt.Errorf("catalog: create overlay %s: %w", o.ID, err)
	}
	return o, nil
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
				list = append(list, o.Clone())
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
// Id, image and created_at do not change; updated_at becomes now.
func (c *Catalog) UpdateOverlay(ctx context.Context, id string, f func(*Overlay) error) (Overlay, error) {
	var out Overlay
	rev, err := change(ctx, c, overlayKind(), id, func(o Overlay) (Txn, error) {
		old := o
		if err := f(&o); err != nil {
			return Txn{}, err
		}
		o = o.Clone()
		o.ID, o.ImageID, o.CreatedAt, o.UpdatedAt = old.ID, old.ImageID, old.CreatedAt, c.after(old.UpdatedAt)
		out = o
		op, err := put(preOverlay+id, o.record())
		return Txn{Then: []Op{op}}, err
	})
	if err != nil {
		return Overlay{}, fmt.Errorf("catalog: update overlay %s: %w", id, err)
	}
	out.Revision = rev
	return out, nil
}

// DeleteOverlay removes an overlay that no attachment needs (otherwise an
// InUseError), and with it the hold on its image. Who wants to free the
// overlay's data first sets its status to deleting, after which nothing can
// attach to it.
func (c *Catalog) DeleteOverlay(ctx context.Context, id string) error {
	_, err := change(ctx, c, overlayKind(), id, func(o Overlay) (Txn, error) {
		free, err := c.unused(ctx, refOverlay, id)
		return Txn{If: []Cond{free}, Then: []Op{
			{Key: preOverlay + id, Delete: true},
			{Key: refKey(refImage, o.ImageID, userOverlay, id), Delete: true},
		}}, err
	})
	if err != nil {
		return fmt.Errorf("catalog: delete overlay %s: %w", id, err)
	}
	return nil
}
