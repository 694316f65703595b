package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

func uploadKind() kind[Upload] {
	// Never from memory: an upload's record is read a few times in its life,
	// and being right matters more.
	return kind[Upload]{"upload of image", preUpload, decodeUpload, func(*state, string) (Upload, int64, bool) {
		return Upload{}, 0, false
	}}
}

// name is what the key of an upload's record names it: by the image, or by the
// image and the store.
func (u Upload) name() string {
	if u.Copy {
		return u.Image + "/" + u.Store
	}
	return u.Image
}

// UploadKey returns the key of the object that an attempt to fill an image
// writes, counted from 1: the image's id, which is what Glance's own drivers
// name it, and later that and the upload's id. So no attempt writes where
// another one did, whose object may be removed at any time.
func UploadKey(image, upload string, attempt int) string {
	if attempt <= 1 {
		return image
	}
	return image + "." + upload
}

// BeginUpload moves an image from queued to saving, counts the attempt, and
// notes who fills it. Without a key the upload gets its UploadKey, for the
// attempt that the image returned says. An image that is not queued is a
// StatusError.
func (c *Catalog) BeginUpload(ctx context.Context, u Upload) (Image, error) {
	if u.Gateway == "" {
		u.Gateway = c.cfg.GatewayID
	}
	u.StartedAt = c.now()
	if u.ID == "" || u.Store == "" {
		return Image{}, fmt.Errorf("catalog: upload of image %s without id or store: %w", u.Image, fs.ErrInvalid)
	}
	if m := c.member.Load(); m != nil && u.Gateway == c.cfg.GatewayID {
		u.Lease = m.lease.ID()
	}
	img, err := c.updateImage(withStore(ctx, u.Store), u.Image, func(img *Image) (Txn, error) {
		if img.Status == StatusSaving || !img.Status.CanBecome(StatusSaving) {
			return Txn{}, &StatusError{u.Image, img.Status, StatusSaving}
		}
		img.Status = StatusSaving
		img.Attempts++
		u := u
		if u.Key == "" {
			u.Key = UploadKey(u.Image, u.ID, img.Attempts)
		}
		op, err := put(preUpload+u.Image, u.record())
		return Txn{If: []Cond{{Key: op.Key}}, Then: []Op{op}}, err
	})
	if err != nil {
		return Image{}, fmt.Errorf("catalog: begin upload of image %s: %w", u.Image, err)
	}
	return img, nil
}

// MoveUpload notes that an upload writes to another key, since the one it had
// turned out to be somebody else's: that object is left alone. If the upload
// has ended, or another one has taken its place, it is ErrGone.
func (c *Catalog) MoveUpload(ctx context.Context, u Upload, key string) error {
	_, err := change(ctx, c, uploadKind(), u.name(), func(now Upload) (Txn, error) {
		if now.ID != u.ID {
			return Txn{}, fs.ErrNotExist
		}
		now.Key = key
		op, err := put(preUpload+u.name(), now.record())
		return Txn{Then: []Op{op}}, err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrGone
	}
	if err != nil {
		return fmt.Errorf("catalog: move upload of image %s: %w", u.Image, err)
	}
	return nil
}

// FinishUpload moves an image from saving to active, with its data at loc. If
// the image was deleted or the upload given up meanwhile it is ErrGone, and
// the object is queued as garbage. To finish again what is finished is fine.
func (c *Catalog) FinishUpload(ctx context.Context, uploadID, imageID string, loc Location, size int64, virtualSize *int64, checksum, algo, hash string) (Image, error) {
	if loc.Generation == "" {
		loc.Generation = uploadID
	}
	loc.Size = size
	img, err := c.updateImage(ctx, imageID, func(img *Image) (Txn, error) {
		if img.Status != StatusSaving {
			return Txn{}, &StatusError{imageID, img.Status, StatusActive}
		}
		over, err := c.endUpload(ctx, imageID, uploadID)
		img.Status, img.Locations = StatusActive, []Location{loc}
		img.Size, img.VirtualSize = &size, clone(virtualSize)
		img.Checksum, img.HashAlgo, img.HashValue = checksum, algo, hash
		return over, err
	})
	var status *StatusError
	switch {
	case err == nil:
		return img, nil
	case errors.As(err, &status), errors.Is(err, fs.ErrNotExist):
		if img, ok := c.finished(ctx, imageID, uploadID); ok {
			return img, nil
		}
		err = c.drop(ctx, imageID, uploadID, loc)
	}
	return Image{}, fmt.Errorf("catalog: finish upload of image %s: %w", imageID, err)
}

// endUpload returns the transaction that ends an upload, or fs.ErrNotExist if
// it is not, or no longer, the one of that name.
func (c *Catalog) endUpload(ctx context.Context, name, uploadID string) (Txn, error) {
	u, seen, err := fresh(ctx, c, uploadKind(), name)
	if err == nil && u.ID != uploadID {
		err = fmt.Errorf("upload %s was replaced by %s: %w", uploadID, u.ID, fs.ErrNotExist)
	}
	key := preUpload + name
	return Txn{If: []Cond{{Key: key, Revision: seen}}, Then: []Op{{Key: key, Delete: true}}}, err
}

// finished tells whether an image has the data of an upload: the answer to
// finishing it may have been lost.
func (c *Catalog) finished(ctx context.Context, imageID, uploadID string) (Image, bool) {
	img, _, err := fresh(ctx, c, imageKind(), imageID)
	if err != nil {
		return Image{}, false
	}
	return img, slices.ContainsFunc(img.Locations, func(l Location) bool { return l.Generation == uploadID })
}

// drop ends an upload that nobody wants any more, and returns ErrGone once
// its object is sure to be collected.
func (c *Catalog) drop(ctx context.Context, name, uploadID string, loc Location) error {
	err := c.retry(ctx, func(int) error {
		txn, err := c.endUpload(ctx, name, uploadID)
		if errors.Is(err, fs.ErrNotExist) {
			txn = Txn{}
		} else if err != nil {
			return err
		}
		txn.Then = append(txn.Then, c.discard(loc.Store, loc.Key))
		_, err = c.commit(ctx, txn)
		return err
	})
	if err != nil {
		return err
	}
	return ErrGone
}

// AbandonUpload gives an upload up: the image is queued again, without data,
// and the object is queued as garbage. If the upload has ended already, or
// another one has taken its place, nothing happens. Of a copy the image stays
// as it is.
func (c *Catalog) AbandonUpload(ctx context.Context, u Upload) error {
	return c.abandon(ctx, u, 0)
}

// AbandonDead gives up the uploads of other gateways whose lease has ended and
// who have not come back for grace, measured here, and returns how many. A
// gateway that has no leases ends its uploads itself.
func (c *Catalog) AbandonDead(ctx context.Context, grace time.Duration) (int, error) {
	uploads, err := c.Uploads(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	var errs []error
	seen := c.absent.round(c.cfg.Clock)
	for _, u := range uploads {
		if u.Lease == 0 || u.Gateway == c.cfg.GatewayID {
			continue
		}
		_, _, err := fresh(ctx, c, gatewayKind(), u.Gateway)
		if err == nil {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			if seen.since(u.Gateway) < grace {
				continue
			}
			// It may still be writing, if it has only lost its way here.
			err = c.abandon(ctx, u, 2*c.leaseTime())
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	seen.end()
	return n, errors.Join(errs...)
}

// abandon is AbandonUpload of an upload whose object must not be removed for a
// while.
func (c *Catalog) abandon(ctx context.Context, u Upload, wait time.Duration) error {
	_, err := change(ctx, c, uploadKind(), u.name(), func(now Upload) (Txn, error) {
		if now.ID != u.ID {
			return Txn{}, fs.ErrNotExist
		}
		txn := Txn{Then: []Op{{Key: preUpload + u.name(), Delete: true}, c.discardLater(now.Store, now.Key, wait)}}
		if u.Copy {
			return txn, nil
		}
		return c.requeue(ctx, u.Image, txn)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("catalog: abandon upload of image %s: %w", u.Image, err)
	}
	return nil
}

// requeue adds to txn that an image goes back from saving to queued, if it is
// still there.
func (c *Catalog) requeue(ctx context.Context, imageID string, txn Txn) (Txn, error) {
	key := preImage + imageID
	img, seen, err := fresh(ctx, c, imageKind(), imageID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return txn, err
	}
	txn.If = append(txn.If, Cond{Key: key, Revision: seen})
	if err != nil || img.Status != StatusSaving {
		return txn, nil
	}
	img.Status, img.UpdatedAt = StatusQueued, c.after(img.UpdatedAt)
	img.Size, img.VirtualSize, img.Locations = nil, nil, nil
	img.Checksum, img.HashAlgo, img.HashValue = "", "", ""
	op, err := put(key, img.record())
	txn.Then = append(txn.Then, op)
	return txn, err
}

// Uploads returns the uploads under way, of all gateways, the oldest first.
func (c *Catalog) Uploads(context.Context) ([]Upload, error) {
	var list []Upload
	c.store.read(func(s *state) {
		for _, u := range s.uploads {
			list = append(list, u)
		}
	})
	slices.SortFunc(list, func(a, b Upload) int {
		if n := a.StartedAt.Compare(b.StartedAt); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// Objects returns the keys of all objects of a store that a record needs, and
// who needs each: "image ID", "upload ID" or "parent of image ID". Those of
// overlays are known to their engines only. It reads the KV itself, so that
// a sweeper may trust it: an object that the store listed before Objects was
// called and that Objects does not have is needed by nobody.
func (c *Catalog) Objects(ctx context.Context, store string) (map[string]string, error) {
	objects := map[string]string{}
	// Uploads first: one that ends in between is found among the images.
	err := eachRecord(ctx, c, uploadKind(), func(u Upload) {
		if u.Store == store {
			objects[u.Key] = "upload " + u.ID
		}
	})
	if err == nil {
		err = eachRecord(ctx, c, imageKind(), func(img Image) {
			for _, l := range img.Locations {
				if l.Store == store {
					objects[l.Key] = "image " + img.ID
				}
			}
		})
	}
	if err == nil {
		err = eachRecord(ctx, c, parentKind(), func(p Parent) {
			if p.Store == store {
				objects[p.Key] = "parent of image " + p.Image
			}
		})
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: objects of store %s: %w", store, err)
	}
	return objects, nil
}

// eachRecord reads all records of one kind from the KV. One that cannot be
// read is an error: nothing may be concluded from its absence.
func eachRecord[T any](ctx context.Context, c *Catalog, k kind[T], f func(T)) error {
	for p, err := range c.kv.List(ctx, k.prefix, "") {
		if err != nil {
			return err
		}
		v, err := k.decode(p)
		if err != nil {
			return err
		}
		f(v)
	}
	return nil
}
