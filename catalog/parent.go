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

// A ParentStatus is where a parent is in its life.
type ParentStatus string

// The statuses of a parent.
const (
	ParentCreating ParentStatus = "creating"
	ParentReady    ParentStatus = "ready"
)

// A Parent is the disk of an image as an object of its own, of which overlays
// in the same store are clones. There is one for each image and store. It goes
// with the image, which stays as long as there are overlays.
type Parent struct {
	Image     string
	Store     string
	Key       string // of the object; each attempt to make it has its own
	Snapshot  string // of the object, which the clones stand on
	Status    ParentStatus
	Gateway   string // which makes it, or made it
	Done      int64  // bytes of Total, while it is made
	Total     int64  // bytes of the disk
	CreatedAt time.Time
	UpdatedAt time.Time
	Revision  int64 // of the record; not stored
}

func parentKind() kind[Parent] {
	return kind[Parent]{"parent", preParent, decodeParent, func(s *state, id string) (Parent, int64, bool) {
		p, ok := s.parents[id]
		return p, p.Revision, ok
	}}
}

// Parent returns the parent of an image in a store, or fs.ErrNotExist.
func (c *Catalog) Parent(_ context.Context, image, store string) (Parent, error) {
	p, err := get(c, parentKind(), parentID(image, store))
	if err != nil {
		return Parent{}, fmt.Errorf("catalog: %w", err)
	}
	return p, nil
}

// Parents returns all parents, of one image or, with "", of all, sorted by
// image and store.
func (c *Catalog) Parents(_ context.Context, image string) ([]Parent, error) {
	var list []Parent
	c.store.read(func(s *state) {
		for _, p := range s.parents {
			if image == "" || p.Image == image {
				list = append(list, p)
			}
		}
	})
	slices.SortFunc(list, func(a, b Parent) int { return strings.Compare(parentID(a.Image, a.Store), parentID(b.Image, b.Store)) })
	return list, nil
}

// ClaimParent asks to make the parent of an image in a store, as the object
// p.Key. Of all that ask, one may: it gets its own claim back. The others get
// that of whoever was first, to wait for or to use, and own is false. A claim
// of a gateway that is gone passes to the next that asks, who makes an object
// of another key; what was made of the first is queued as garbage. Claims of
// an earlier run are this gateway's own to give up: see AbandonParent. An
// image without data is ErrNoData.
func (c *Catalog) ClaimParent(ctx context.Context, p Parent) (claim Parent, own bool, err error) {
	if p.Gateway == "" {
		p.Gateway = c.cfg.GatewayID
	}
	p.Status, p.Snapshot, p.Done = ParentCreating, "", 0
	p.CreatedAt = c.now()
	p.UpdatedAt = p.CreatedAt
	if err = checkID("store", p.Store); err == nil && p.Key == "" {
		err = fmt.Errorf("a parent without a key: %w", fs.ErrInvalid)
	}
	if err == nil {
		var rev int64
		rev, err = change(ctx, c, imageKind(), p.Image, func(img Image) (Txn, error) {
			var txn Txn
			txn, claim, err = c.claim(ctx, p, img)
			return txn, err
		})
		if own = err == nil; own {
			claim = p
			claim.Revision = rev
		}
	}
	if errors.Is(err, errClaimed) {
		// Ours, if only the answer was lost.
		return claim, claim.Key == p.Key && claim.Status == ParentCreating, nil
	}
	if err != nil {
		return Parent{}, false, fmt.Errorf("catalog: claim the parent of image %s in store %s: %w", p.Image, p.Store, err)
	}
	return claim, own, nil
}

// errClaimed says that somebody else has the claim.
var errClaimed = errors.New("claimed by somebody else")

// claim returns the transaction that claims a parent or, with errClaimed, the
// claim that holds.
func (c *Catalog) claim(ctx context.Context, p Parent, img Image) (txn Txn, first Parent, err error) {
	if err := img.usable(); err != nil {
		return txn, first, err
	}
	key := parentKey(p.Image, p.Store)
	first, seen, err := fresh(ctx, c, parentKind(), parentID(p.Image, p.Store))
	txn.If = []Cond{{Key: key, Revision: seen}}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return txn, first, err
	case first.Status == ParentReady || first.Gateway == p.Gateway:
		return txn, first, errClaimed
	default:
		free, err := c.gone(ctx, "", first.Gateway)
		var held *HeldError
		if errors.As(err, &held) {
			err = errClaimed
		}
		if err != nil {
			return txn, first, err
		}
		txn.If = append(txn.If, free)
		txn.Then = append(txn.Then, c.discardLater(first.Store, first.Key, 2*c.leaseTime()))
	}
	// The image is written as it is, so that who deletes it at the same time
	// notices the new parent.
	same, err := put(preImage+img.ID, img.record())
	if err != nil {
		return txn, first, err
	}
	op, err := put(key, p.record())
	txn.Then = append(txn.Then, same, op)
	return txn, first, err
}

// UpdateParent notes how far a claim has come, and with a snapshot that it is
// ready. A claim that has passed to somebody else, or whose image was deleted,
// is ErrGone; its object is queued as garbage.
func (c *Catalog) UpdateParent(ctx context.Context, claim Parent) (Parent, error) {
	out, err := c.ofClaim(ctx, claim, func(p Parent) (Parent, Txn, error) {
		if p.Status == ParentReady {
			return p, Txn{}, nil
		}
		p.Done, p.Total, p.Snapshot = claim.Done, claim.Total, claim.Snapshot
		p.UpdatedAt = c.after(p.UpdatedAt)
		if p.Snapshot != "" {
			p.Status = ParentReady
		}
		op, err := put(parentKey(p.Image, p.Store), p.record())
		return p, Txn{Then: []Op{op}}, err
	})
	if err != nil {
		return Parent{}, fmt.Errorf("catalog: update the parent of image %s in store %s: %w", claim.Image, claim.Store, err)
	}
	return out, nil
}

// AbandonParent gives a claim up: its object is queued as garbage, and the
// next who asks may make another. A claim that is none any more is fine.
func (c *Catalog) AbandonParent(ctx context.Context, claim Parent) error {
	_, err := c.ofClaim(ctx, claim, func(p Parent) (Parent, Txn, error) {
		if p.Status == ParentReady {
			return p, Txn{}, fmt.Errorf("it is ready: %w", fs.ErrInvalid)
		}
		return p, Txn{Then: []Op{{Key: parentKey(p.Image, p.Store), Delete: true}, c.discard(p.Store, p.Key)}}, nil
	})
	if err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("catalog: give up the parent of image %s in store %s: %w", claim.Image, claim.Store, err)
	}
	return nil
}

// ofClaim changes the record of a claim that holds. Of one that does not, the
// object is queued as garbage, and it is ErrGone.
func (c *Catalog) ofClaim(ctx context.Context, claim Parent, f func(Parent) (Parent, Txn, error)) (Parent, error) {
	var out Parent
	rev, err := change(ctx, c, parentKind(), parentID(claim.Image, claim.Store), func(p Parent) (Txn, error) {
		if p.Key != claim.Key {
			return Txn{}, ErrGone
		}
		var txn Txn
		var err error
		out, txn, err = f(p)
		return txn, err
	})
	if errors.Is(err, ErrGone) || errors.Is(err, fs.ErrNotExist) {
		if err := c.QueueGarbage(ctx, claim.Store, claim.Key); err != nil {
			return out, err
		}
		return out, ErrGone
	}
	out.Revision = rev
	return out, err
}

// dropParents adds to txn that the parents of an image go with it. Nothing
// uses them then: overlays refer to the image.
func (c *Catalog) dropParents(ctx context.Context, image string, txn Txn) (Txn, error) {
	for pair, err := range c.kv.List(ctx, parentPrefix(image), "") {
		if err != nil {
			return txn, err
		}
		p, err := decodeParent(pair)
		if err != nil {
			return txn, err
		}
		wait := time.Duration(0)
		if p.Status != ParentReady {
			wait = 2 * c.leaseTime() // who makes it has not heard yet
		}
		txn.If = append(txn.If, Cond{Key: pair.Key, Revision: pair.Revision})
		txn.Then = append(txn.Then, Op{Key: pair.Key, Delete: true}, c.discardLater(p.Store, p.Key, wait))
	}
	return txn, nil
}
