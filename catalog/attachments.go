package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/google/uuid"
)

func attachmentKind() kind[Attachment] {
	return kind[Attachment]{"attachment", preAttach, decodeAttachment, func(s *state, id string) (Attachment, int64, bool) {
		a, ok := s.attachments[id]
		return a, a.Revision, ok
	}}
}

// CreateAttachment adds an attachment to an image, read-only or ephemeral, or
// to an overlay, read-only or for writing. What it is attached to cannot be
// deleted while it is there. An overlay has one attachment for writing; a
// second one is a HeldError, and so is one of any kind at a gateway while
// another gateway owns the overlay. Without an id it gets one.
func (c *Catalog) CreateAttachment(ctx context.Context, a Attachment) (Attachment, error) {
	if a.ID == "" {
		a.ID = uuid.NewString()
	}
	a.CreatedAt, a.LastUsed, a.ExpiresAt = c.now(), moment(a.LastUsed), moment(a.ExpiresAt)
	err := a.check()
	if err == nil && a.ImageID != "" {
		a.Revision, err = change(ctx, c, imageKind(), a.ImageID, func(img Image) (Txn, error) {
			if err := img.usable(); err != nil {
				return Txn{}, err
			}
			return c.newUser(ctx, preAttach+a.ID, a.record(), mark(a.refKey(), "", a.CreatedAt))
		})
	} else if err == nil {
		a.Revision, err = change(ctx, c, overlayKind(), a.OverlayID, func(o Overlay) (Txn, error) {
			return c.attachOverlay(ctx, a, o)
		})
	}
	if err != nil {
		return Attachment{}, fmt.Errorf("catalog: create attachment %s: %w", a.ID, err)
	}
	return a, nil
}

func (a Attachment) check() error {
	onImage := a.ImageID != "" && a.OverlayID == "" && (a.Mode == AttachRO || a.Mode == AttachEphemeral)
	onOverlay := a.OverlayID != "" && a.ImageID == "" && (a.Mode == AttachRO || a.Mode == AttachRW)
	if !onImage && !onOverlay {
		return fmt.Errorf("mode %q on image %q, overlay %q: an image is attached ro or ephemeral, an overlay ro or rw: %w", a.Mode, a.ImageID, a.OverlayID, fs.ErrInvalid)
	}
	return checkID("attachment", a.ID)
}

// refKey is the key of the attachment's reference to what it is attached to.
func (a Attachment) refKey() string {
	if a.ImageID != "" {
		return refKey(refImage, a.ImageID, userAttach, a.ID)
	}
	return refKey(refOverlay, a.OverlayID, userAttach, a.ID)
}

func (c *Catalog) attachOverlay(ctx context.Context, a Attachment, o Overlay) (Txn, error) {
	if o.Status != OverlayAvailable {
		return Txn{}, fmt.Errorf("overlay %s is %s: %w", o.ID, o.Status, ErrNoData)
	}
	// The transaction holds only if the record is still this one. So a gateway
	// that was asleep while another took the overlay hears of it here, if it
	// has not before.
	if a.Gateway != "" && o.Gateway != "" && o.Gateway != a.Gateway {
		return Txn{}, &HeldError{Overlay: o.ID, Gateway: o.Gateway}
	}
	txn, err := c.newUser(ctx, preAttach+a.ID, a.record(), mark(a.refKey(), "", a.CreatedAt))
	if err != nil || a.Mode != AttachRW {
		return txn, err
	}
	key := preHold + o.ID
	p, err := c.kv.Get(ctx, key)
	switch {
	case err == nil:
		var held markRecord
		if err := decode(p, &held, &held.V); err != nil {
			return txn, err
		}
		return txn, &HeldError{Overlay: o.ID, Holder: held.By}
	case !errors.Is(err, fs.ErrNotExist):
		return txn, err
	}
	txn.If = append(txn.If, Cond{Key: key})
	txn.Then = append(txn.Then, mark(key, a.ID, a.CreatedAt))
	return txn, nil
}

// Attachment returns an attachment, or fs.ErrNotExist.
func (c *Catalog) Attachment(_ context.Context, id string) (Attachment, error) {
	a, err := get(c, attachmentKind(), id)
	if err != nil {
		return Attachment{}, fmt.Errorf("catalog: %w", err)
	}
	return a, nil
}

// AttachmentByToken returns the attachment whose token has this hash, or
// fs.ErrNotExist.
func (c *Catalog) AttachmentByToken(_ context.Context, hash string) (Attachment, error) {
	var a Attachment
	var ok bool
	c.store.read(func(s *state) { a, ok = s.attachments[s.byToken[hash]] })
	if !ok || hash == "" {
		return Attachment{}, fmt.Errorf("catalog: attachment of that token: %w", fs.ErrNotExist)
	}
	return a, nil
}

// Attachments answers a query, the oldest first.
func (c *Catalog) Attachments(_ context.Context, q AttachmentQuery) ([]Attachment, error) {
	var list []Attachment
	c.store.read(func(s *state) {
		for _, a := range s.attachments {
			if q.matches(a) {
				list = append(list, a)
			}
		}
	})
	slices.SortFunc(list, func(a, b Attachment) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

func (q AttachmentQuery) matches(a Attachment) bool {
	return (q.Owner == nil || a.Owner == *q.Owner) && (q.ImageID == "" || a.ImageID == q.ImageID) &&
		(q.OverlayID == "" || a.OverlayID == q.OverlayID) && (q.Gateway == "" || a.Gateway == q.Gateway)
}

// UpdateAttachment changes an attachment by f, which may be called several
// times. What it is attached to, its mode, id and created_at do not change.
func (c *Catalog) UpdateAttachment(ctx context.Context, id string, f func(*Attachment) error) (Attachment, error) {
	var out Attachment
	rev, err := change(ctx, c, attachmentKind(), id, func(a Attachment) (Txn, error) {
		old := a
		if err := f(&a); err != nil {
			return Txn{}, err
		}
		a.ID, a.ImageID, a.OverlayID, a.Mode, a.CreatedAt = old.ID, old.ImageID, old.OverlayID, old.Mode, old.CreatedAt
		a.LastUsed, a.ExpiresAt = moment(a.LastUsed), moment(a.ExpiresAt)
		out = a
		op, err := put(preAttach+id, a.record())
		return Txn{Then: []Op{op}}, err
	})
	if err != nil {
		return Attachment{}, fmt.Errorf("catalog: update attachment %s: %w", id, err)
	}
	out.Revision = rev
	return out, nil
}

// DeleteAttachment removes an attachment, and with it its hold on what it is
// attached to.
func (c *Catalog) DeleteAttachment(ctx context.Context, id string) error {
	_, err := change(ctx, c, attachmentKind(), id, func(a Attachment) (Txn, error) {
		ops := []Op{{Key: preAttach + id, Delete: true}, {Key: a.refKey(), Delete: true}}
		if a.Mode == AttachRW {
			ops = append(ops, Op{Key: preHold + a.OverlayID, Delete: true})
		}
		return Txn{Then: ops}, nil
	})
	if err != nil {
		return fmt.Errorf("catalog: delete attachment %s: %w", id, err)
	}
	return nil
}
