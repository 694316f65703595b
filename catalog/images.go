package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/google/uuid"
)

func imageKind() kind[Image] {
	return kind[Image]{"image", preImage, decodeImage, func(s *state, id string) (Image, int64, bool) {
		slot, ok := s.images.byID[id]
		if !ok {
			return Image{}, 0, false
		}
		img := s.images.image(slot)
		return img, img.Revision, true
	}}
}

// CreateImage adds an image. Without an id it gets one; without a status it
// is queued; without a visibility it is shared. An id that is or ever was
// taken is fs.ErrExist.
func (c *Catalog) CreateImage(ctx context.Context, img Image) (Image, error) {
	img = img.Clone()
	if img.ID == "" {
		img.ID = uuid.NewString()
	}
	if img.Status == "" {
		img.Status = StatusQueued
	}
	if img.Visibility == "" {
		img.Visibility = VisibilityShared
	}
	if img.CreatedAt.IsZero() {
		img.CreatedAt = c.now()
	}
	if img.UpdatedAt.IsZero() {
		img.UpdatedAt = img.CreatedAt
	}
	if err := img.normalize(); err != nil {
		return Image{}, fmt.Errorf("catalog: create image: %w", err)
	}
	rev, err := create(ctx, c, preImage+img.ID, img.record(), Txn{If: []Cond{{Key: preDead + img.ID}}})
	if errors.Is(err, ErrConflict) {
		return Image{}, fmt.Errorf("catalog: create image %s: the id is taken, ids of deleted images stay taken: %w", img.ID, fs.ErrExist)
	}
	if err != nil {
		return Image{}, fmt.Errorf("catalog: create image %s: %w", img.ID, err)
	}
	img.Revision = rev
	return img, nil
}

// normalize brings an image into the shape in which it is stored, and refuses
// what cannot be.
func (i *Image) normalize() error {
	if err := checkID("image", i.ID); err != nil {
		return err
	}
	if !i.Status.Valid() || i.Status == StatusDeleted {
		return fmt.Errorf("image %s: status %q: %w", i.ID, i.Status, fs.ErrInvalid)
	}
	if !i.Visibility.Valid() {
		return fmt.Errorf("image %s: visibility %q: %w", i.ID, i.Visibility, fs.ErrInvalid)
	}
	i.Tags = tagSet(i.Tags)
	if len(i.Properties) == 0 {
		i.Properties = nil
	}
	if len(i.Locations) == 0 {
		i.Locations = nil
	}
	i.CreatedAt, i.UpdatedAt = moment(i.CreatedAt), moment(i.UpdatedAt)
	return nil
}

// Image returns an image, or fs.ErrNotExist.
func (c *Catalog) Image(_ context.Context, id string) (Image, error) {
	img, err := get(c, imageKind(), id)
	if err != nil {
		return Image{}, fmt.Errorf("catalog: %w", err)
	}
	return img, nil
}

// UpdateImage changes an image by f, which gets a copy and may be called
// several times, on newer copies. An error of f ends it, unchanged. The
// status must move along the table (StatusError); id and created_at do not
// change; updated_at becomes now. The objects of locations that f takes away
// are queued as garbage.
func (c *Catalog) UpdateImage(ctx context.Context, id string, f func(*Image) error) (Image, error) {
	img, err := c.updateImage(ctx, id, func(img *Image) (Txn, error) {
		attempts := img.Attempts
		err := f(img)
		img.Attempts = attempts
		return Txn{}, err
	})
	if err != nil {
		return Image{}, fmt.Errorf("catalog: update image %s: %w", id, err)
	}
	return img, nil
}

// updateImage is UpdateImage with more in the transaction.
func (c *Catalog) updateImage(ctx context.Context, id string, f func(*Image) (Txn, error)) (Image, error) {
	var out Image
	rev, err := change(ctx, c, imageKind(), id, func(img Image) (Txn, error) {
		old := img
		old.Locations = slices.Clone(img.Locations) // f may delete in place
		txn, err := f(&img)
		if err != nil {
			return txn, err
		}
		img = img.Clone() // f may have kept what it put in
		img.ID, img.CreatedAt, img.UpdatedAt = old.ID, old.CreatedAt, c.after(old.UpdatedAt)
		if !old.Status.CanBecome(img.Status) {
			return txn, &StatusError{id, old.Status, img.Status}
		}
		if err := img.normalize(); err != nil {
			return txn, err
		}
		for _, l := range old.Locations {
			if !slices.ContainsFunc(img.Locations, func(now Location) bool { return now.Store == l.Store && now.Key == l.Key }) {
				txn.Then = append(txn.Then, c.discard(l.Store, l.Key))
			}
		}
		op, err := put(preImage+id, img.record())
		txn.Then = append(txn.Then, op)
		out = img
		return txn, err
	})
	out.Revision = rev
	return out, err
}

// after is now, or just after a time that another gateway's clock has given,
// so that updated_at never goes back.
func (c *Catalog) after(t time.Time) time.Time {
	if now := c.now(); now.After(t) {
		return now
	}
	return t.Add(time.Microsecond)
}

// DeleteImage removes an image, its members, its trace and its parents, keeps its id taken, and
// queues its objects as garbage, all at once. It returns what was removed. A
// protected image is fs.ErrPermission; one that overlays or attachments need
// is an InUseError. An upload into it that is under way will be ErrGone.
func (c *Catalog) DeleteImage(ctx context.Context, id string) (Image, error) {
	var out Image
	rev, err := change(ctx, c, imageKind(), id, func(img Image) (Txn, error) {
		out = img
		if img.Protected {
			return Txn{}, fmt.Errorf("it is protected; remove the protection first: %w", fs.ErrPermission)
		}
		if !img.Status.CanBecome(StatusDeleted) {
			return Txn{}, &StatusError{id, img.Status, StatusDeleted}
		}
		free, err := c.unused(ctx, refImage, id)
		if err != nil {
			return Txn{}, err
		}
		ops := []Op{
			{Key: preImage + id, Delete: true},
			{Key: memberPrefix(id), Delete: true, Prefix: true},
			{Key: preTrace + id, Delete: true},
			mark(preDead+id, "", c.now()),
		}
		for _, l := range img.Locations {
			ops = append(ops, c.discard(l.Store, l.Key))
		}
		return c.dropParents(ctx, id, Txn{If: []Cond{free}, Then: ops})
	})
	if err != nil {
		return Image{}, fmt.Errorf("catalog: delete image %s: %w", id, err)
	}
	out.Status, out.Revision = StatusDeleted, rev
	return out, nil
}

// Images answers a query, in its order.
func (c *Catalog) Images(_ context.Context, q Query) ([]Image, error) {
	var images []Image
	var err error
	c.store.read(func(s *state) { images, err = s.images.images(q) })
	return images, err
}

// CanSee tells whether v may know of img, however it came by the id. Listings
// show less: see Query.
func (c *Catalog) CanSee(v Viewer, img Image) bool {
	var ok bool
	c.store.read(func(s *state) { ok = s.images.mayKnow(v, img.ID, img.Visibility, img.Owner) })
	return ok
}

// Usage is what one owner has.
type Usage struct {
	Images    int   // all of them
	Uploading int   // whose data is on its way
	Bytes     int64 // stored, each copy counted
}

// Usage counts what an owner has, for quotas. The owner "" has the images
// without one.
func (c *Catalog) Usage(_ context.Context, owner string) (Usage, error) {
	var u Usage
	c.store.read(func(s *state) { u = s.images.usage(owner) })
	return u, nil
}

func (c *columns) usage(owner string) Usage {
	var slots []slot
	if owner != "" {
		slots = c.find(fieldOwner, "", owner).appendTo(nil)
	} else {
		slots = appendSlots(nil, c.live)
	}
	var u Usage
	for _, s := range slots {
		r := &c.rows[s]
		if owner == "" && r.owner != 0 {
			continue
		}
		u.Images++
		switch Status(c.syms.text(r.status)) {
		case StatusSaving, StatusUploading, StatusImporting:
			u.Uploading++
		}
		if n := c.numbers[ColumnSize].of[s]; n != null {
			u.Bytes += n * int64(len(r.locations))
		}
	}
	return u
}
