package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// PropertyMigrating marks an image that comes from elsewhere and is not yet
// settled. Its prefix keeps it out of clients' hands.
const PropertyMigrating = "os_glance_migrating"

// Settled is how an image was where it came from.
type Settled struct {
	Status    Status // queued, active or deactivated
	Protected bool
	UpdatedAt time.Time
	Members   []Member // with their times
}

// SettleImage gives an image that came from elsewhere, and whose bytes are
// here, the rest of what it was there, times included. check looks at the image
// first, and its error ends it; the image loses PropertyMigrating. An image whose status is neither the one it had
// nor leads to it at once is a StatusError.
func (c *Catalog) SettleImage(ctx context.Context, id string, s Settled, check func(Image) error) (Image, error) {
	var out Image
	if s.UpdatedAt.IsZero() {
		return out, fmt.Errorf("catalog: settle image %s: without a time: %w", id, fs.ErrInvalid)
	}
	decide := func(img Image) (Txn, error) {
		if err := check(img); err != nil {
			return Txn{}, err
		}
		if img.Status != s.Status && (img.Status != StatusActive || s.Status != StatusDeactivated) {
			return Txn{}, &StatusError{id, img.Status, s.Status}
		}
		img = img.Clone()
		img.Status, img.Protected, img.UpdatedAt = s.Status, s.Protected, s.UpdatedAt
		delete(img.Properties, PropertyMigrating)
		if err := img.normalize(); err != nil {
			return Txn{}, err
		}
		out = img
		op, err := put(preImage+id, img.record())
		return Txn{Then: []Op{op}}, err
	}
	err := error(nil)
	for _, m := range s.Members { // before the image, whose time says that all is done
		m.Image = id
		if err = c.settleMember(ctx, m, check); err != nil {
			break
		}
	}
	if err == nil {
		out.Revision, err = change(ctx, c, imageKind(), id, decide)
	}
	if err != nil {
		return Image{}, fmt.Errorf("catalog: settle image %s: %w", id, err)
	}
	return out, nil
}

// settleMember writes a member as it is.
func (c *Catalog) settleMember(ctx context.Context, m Member, check func(Image) error) error {
	if err := m.check(); err != nil {
		return err
	}
	m.CreatedAt, m.UpdatedAt = moment(m.CreatedAt), moment(m.UpdatedAt)
	_, err := change(ctx, c, imageKind(), m.Image, func(img Image) (Txn, error) {
		if err := check(img); err != nil {
			return Txn{}, err
		}
		key := memberKey(m.Image, m.Project)
		old, seen, err := fresh(ctx, c, memberKind(), m.Image+"/"+m.Project)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Txn{}, err
		}
		txn := Txn{If: []Cond{{Key: key, Revision: seen}}}
		if old.Revision = 0; err == nil && old == m {
			return txn, nil
		}
		op, err := put(key, m.record())
		txn.Then = []Op{op}
		return txn, err
	})
	return err
}
