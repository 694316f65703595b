package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Facts are what was found out about bytes while they came by.
type Facts struct {
	Size        int64
	VirtualSize *int64 // nil: unknown
	Checksum    string // MD5 in hex
	HashAlgo    string
	HashValue   string // in hex
}

// differ names the first fact in which an image that has a copy differs, or "".
func (f Facts) differ(img *Image) string {
	switch {
	case len(img.Locations) == 0:
	case img.Size != nil && *img.Size != f.Size:
		return fmt.Sprintf("size: %d bytes came, the image has %d", f.Size, *img.Size)
	case img.Checksum != "" && img.Checksum != f.Checksum:
		return "checksum"
	case img.HashAlgo == f.HashAlgo && img.HashValue != "" && img.HashValue != f.HashValue:
		return "os_hash_value"
	}
	return ""
}

// BeginCopy notes that a copy of an image is brought to a store. The image is
// active, or importing: then it is what fills it. If the store has one, or
// another copy to it is under way, it is fs.ErrExist. The key is as of
// BeginUpload.
func (c *Catalog) BeginCopy(ctx context.Context, u Upload) (Image, error) {
	if u.ID == "" || u.Store == "" {
		return Image{}, fmt.Errorf("catalog: copy of image %s without id or store: %w", u.Image, fs.ErrInvalid)
	}
	if u.Gateway == "" {
		u.Gateway = c.cfg.GatewayID
	}
	u.Copy, u.StartedAt = true, c.now()
	if m := c.member.Load(); m != nil && u.Gateway == c.cfg.GatewayID {
		u.Lease = m.lease.ID()
	}
	img, err := c.updateImage(ctx, u.Image, func(img *Image) (Txn, error) {
		if img.Status != StatusActive && img.Status != StatusImporting {
			return Txn{}, &StatusError{u.Image, img.Status, StatusActive}
		}
		if img.in(u.Store) {
			return Txn{}, fmt.Errorf("store %s has it: %w", u.Store, fs.ErrExist)
		}
		_, seen, err := fresh(ctx, c, uploadKind(), u.name())
		if err == nil {
			return Txn{}, fmt.Errorf("another copy to store %s is under way: %w", u.Store, fs.ErrExist)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Txn{}, err
		}
		img.Attempts++
		u := u
		if u.Key == "" {
			u.Key = UploadKey(u.Image, u.ID, img.Attempts)
		}
		op, err := put(preUpload+u.name(), u.record())
		return Txn{If: []Cond{{Key: op.Key, Revision: seen}}, Then: []Op{op}}, err
	})
	if err != nil {
		return Image{}, fmt.Errorf("catalog: begin copy of image %s: %w", u.Image, err)
	}
	return img, nil
}

// in tells whether a store has a copy of the image.
func (i *Image) in(store string) bool {
	return slices.ContainsFunc(i.Locations, func(l Location) bool { return l.Store == store })
}

// FinishCopy adds the copy at loc to an image. What the image does not know of
// its bytes yet it learns from facts; if they are other bytes it is
// ErrMismatch and nothing is added. If the image is gone, or has no data to
// have a copy of any more, or the copy was given up, it is ErrGone, and the
// object is queued as garbage.
func (c *Catalog) FinishCopy(ctx context.Context, u Upload, loc Location, facts Facts) (Image, error) {
	u.Copy = true
	if loc.Generation == "" {
		loc.Generation = u.ID
	}
	loc.Size = facts.Size
	img, err := c.updateImage(ctx, u.Image, func(img *Image) (Txn, error) {
		if !img.Status.HasData() && img.Status != StatusImporting {
			return Txn{}, &StatusError{u.Image, img.Status, StatusActive}
		}
		over, err := c.endUpload(ctx, u.name(), u.ID)
		if err != nil {
			return over, err
		}
		if what := facts.differ(img); what != "" {
			return over, fmt.Errorf("%w: %s", ErrMismatch, what)
		}
		if len(img.Locations) == 0 {
			img.Size, img.VirtualSize = &facts.Size, clone(facts.VirtualSize)
			img.Checksum, img.HashAlgo, img.HashValue = facts.Checksum, facts.HashAlgo, facts.HashValue
		}
		img.Locations = append(img.Locations, loc)
		return over, nil
	})
	var status *StatusError
	switch {
	case err == nil:
		return img, nil
	case errors.As(err, &status), errors.Is(err, fs.ErrNotExist):
		if img, ok := c.finished(ctx, u.Image, u.ID); ok {
			return img, nil
		}
		err = c.drop(ctx, u.name(), u.ID, loc)
	}
	return Image{}, fmt.Errorf("catalog: finish copy of image %s: %w", u.Image, err)
}

// RemoveLocation takes the copy that a store has away from an active image,
// and queues its object as garbage. If the store has none it is
// fs.ErrNotExist; if there is one copy only, ErrLastCopy; if overlays or
// attachments stand on the image, which may read that very copy, an
// InUseError.
func (c *Catalog) RemoveLocation(ctx context.Context, id, store string) (Image, error) {
	img, err := c.updateImage(ctx, id, func(img *Image) (Txn, error) {
		if img.Status != StatusActive {
			return Txn{}, &StatusError{id, img.Status, StatusActive}
		}
		at := slices.IndexFunc(img.Locations, func(l Location) bool { return l.Store == store })
		switch {
		case len(img.Locations) == 1: // in this store or in another one
			return Txn{}, fmt.Errorf("image %s: %w", id, ErrLastCopy)
		case at < 0:
			return Txn{}, fmt.Errorf("store %s has no copy: %w", store, fs.ErrNotExist)
		}
		free, err := c.unused(ctx, refImage, id)
		if err != nil {
			return Txn{}, err
		}
		img.Locations = slices.Delete(img.Locations, at, at+1)
		return Txn{If: []Cond{free}}, nil
	})
	if err != nil {
		return Image{}, fmt.Errorf("catalog: remove image %s from a store: %w", id, err)
	}
	return img, nil
}

// Requeue takes an image that was to be imported back to queued, without data:
// what stores have of it is queued as garbage. f may change more of it. An
// image in any other status than uploading and importing is a StatusError.
func (c *Catalog) Requeue(ctx context.Context, id string, f func(*Image)) (Image, error) {
	img, err := c.updateImage(ctx, id, func(img *Image) (Txn, error) {
		if img.Status != StatusUploading && img.Status != StatusImporting {
			return Txn{}, &StatusError{id, img.Status, StatusQueued}
		}
		img.Status = StatusQueued
		img.Size, img.VirtualSize, img.Locations = nil, nil, nil
		img.Checksum, img.HashAlgo, img.HashValue = "", "", ""
		if f != nil {
			f(img)
		}
		return Txn{}, nil
	})
	if err != nil {
		return Image{}, fmt.Errorf("catalog: requeue image %s: %w", id, err)
	}
	return img, nil
}
