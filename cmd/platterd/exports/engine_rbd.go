package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/catalog"
)

// rbdEngine is the name of overlays that are images of a Ceph pool.
const rbdEngine = "rbd"

// clones keeps overlays as clones in one pool: of the image itself, if that is
// a raw one in the same pool, and else of its parent, the image's disk made
// into an RBD image once for all.
type clones struct {
	e     *Exports
	store string
	rbd   func(ctx context.Context) (*rbd.Store, error)
}

// key is the name of an overlay's image.
func (c clones) key(id string) string { return "platter-overlay-" + id }

// parent returns the object that an overlay of an image is cloned from, if
// there is one already.
func (c clones) parent(ctx context.Context, img catalog.Image) (key string, ok bool, err error) {
	name, err := decoder(img)
	if err != nil {
		return "", false, err
	}
	if name == "" {
		for _, l := range img.Locations {
			if l.Store == c.store {
				return l.Key, true, nil
			}
		}
	}
	p, err := c.e.cfg.Catalog.Parent(ctx, img.ID, c.store)
	if err != nil {
		return "", false, absent(err)
	}
	return p.Key, p.Status == catalog.ParentReady, nil
}

func (c clones) create(ctx context.Context, ov catalog.Overlay, img catalog.Image) error {
	s, err := c.rbd(ctx)
	if err != nil {
		return err
	}
	parent, ready, err := c.parent(ctx, img)
	if err != nil {
		return err
	}
	ov, err = c.e.cfg.Catalog.TakeOverlay(ctx, ov.ID, catalog.Take{Gateway: c.e.cfg.GatewayID})
	if err != nil {
		return err
	}
	if ready {
		_, err = c.e.cfg.Catalog.UpdateOverlay(ctx, ov.ID, func(o *catalog.Overlay) error {
			o.Parent = parent
			return nil
		})
	} else {
		// The first overlays read through to the image, while a parent is
		// made for those that come later.
		parent = ""
		c.e.parents.begin(c, img)
	}
	if err == nil {
		err = s.CreateClone(ctx, rbd.CloneConfig{Key: c.key(ov.ID), Parent: parent, Size: ov.Size})
	}
	if err != nil {
		return fmt.Errorf("make overlay %s in store %s: %w", ov.ID, c.store, err)
	}
	_, err = c.e.cfg.Catalog.ReleaseOverlay(ctx, ov.ID, ov.Epoch)
	return err
}

func (c clones) open(ctx context.Context, ov catalog.Overlay, img catalog.Image, accept bool) (*volume, error) {
	s, err := c.rbd(ctx)
	if err != nil {
		return nil, err
	}
	before := ov
	ov, err = c.e.cfg.Catalog.TakeOverlay(ctx, ov.ID, catalog.Take{Gateway: c.e.cfg.GatewayID, AcceptLoss: accept})
	if err != nil {
		return nil, conflict(err)
	}
	var v *volume
	if ov.Parent != "" {
		v, err = c.openClone(ctx, s, ov)
	} else {
		v, err = c.openBare(ctx, s, ov, img)
	}
	if err != nil {
		c.e.giveBack(ctx, before, ov)
		return nil, err
	}
	return v, nil
}

// openClone opens an overlay whose base is in the cluster as well.
func (c clones) openClone(ctx context.Context, s *rbd.Store, ov catalog.Overlay) (*volume, error) {
	d, err := s.OpenDevice(ctx, c.key(ov.ID), writer(ov))
	if err != nil {
		return nil, err
	}
	return &volume{
		disk: d, snaps: d, changes: d.Changes, used: d.Usage, flatten: d.Flatten,
		list:  listed(d.Snapshots),
		close: func() error { return c.give(ov, d.Flush, d.Close) },
	}, nil
}

// openBare opens an overlay whose base is the image, wherever that is.
func (c clones) openBare(ctx context.Context, s *rbd.Store, ov catalog.Overlay, img catalog.Image) (*volume, error) {
	base, err := c.e.OpenDisk(ctx, img)
	if err != nil {
		return nil, err
	}
	d, err := s.OpenDelta(ctx, c.key(ov.ID), writer(ov))
	if errors.Is(err, fs.ErrInvalid) { // it was flattened since, and has no base any more
		if err := base.Close(); err != nil {
			return nil, err
		}
		return c.openClone(ctx, s, ov)
	}
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	v := &volume{
		disk: overlay.New(base, d), base: base, changes: d.Changes, used: d.Usage, list: listed(d.Snapshots),
		close: func() error { return errors.Join(c.give(ov, d.Flush, d.Close), base.Close()) },
	}
	b := &bare{s: d, list: v.list}
	v.snaps = b
	v.flatten = func(ctx context.Context, progress func(done, total int64)) error {
		return b.flatten(ctx, func() error { return d.Flatten(ctx, base, progress) })
	}
	return v, nil
}

// writer says who opens an overlay's image. The catalog says that it is ours;
// whoever still holds it, or died with it, is shut out before anything can be
// acknowledged under the new epoch.
func writer(ov catalog.Overlay) rbd.DeviceConfig {
	return rbd.DeviceConfig{Epoch: ov.Epoch, Takeover: true}
}

// give closes an overlay's image and gives the overlay back.
func (c clones) give(ov catalog.Overlay, flush func(context.Context) error, end func() error) error {
	err := errors.Join(flush(context.Background()), end())
	if err == nil {
		_, err = c.e.cfg.Catalog.ReleaseOverlay(context.Background(), ov.ID, ov.Epoch)
	}
	return err
}

// listed lists snapshots in the words of the catalog.
func listed(ask func(context.Context) ([]rbd.Snapshot, error)) func(context.Context) ([]catalog.OverlaySnapshot, error) {
	return func(ctx context.Context) ([]catalog.OverlaySnapshot, error) {
		list, err := ask(ctx)
		var out []catalog.OverlaySnapshot
		for _, s := range list {
			out = append(out, catalog.OverlaySnapshot{ID: s.ID, Name: s.Name, CreatedAt: s.Created})
		}
		return out, err
	}
}

func (c clones) remove(ctx context.Context, ov catalog.Overlay) error {
	// First: what cannot be removed now is ours then, and settle tries again.
	if _, err := c.e.cfg.Catalog.TakeOverlay(ctx, ov.ID, catalog.Take{Gateway: c.e.cfg.GatewayID, AcceptLoss: true}); err != nil {
		return absent(conflict(err))
	}
	s, err := c.rbd(ctx)
	if err != nil {
		return err
	}
	err = s.Remove(ctx, c.key(ov.ID))
	if errors.Is(err, rbd.ErrLocked) {
		if err = s.Takeover(ctx, c.key(ov.ID)); err == nil {
			err = s.Remove(ctx, c.key(ov.ID))
		}
	}
	if absent(err) != nil {
		return fmt.Errorf("delete overlay %s in store %s: %w", ov.ID, c.store, err)
	}
	return absent(c.e.cfg.Catalog.DeleteOverlay(ctx, ov.ID))
}

func (c clones) stored(context.Context, string) int64 { return 0 }

func (c clones) resize(ctx context.Context, ov catalog.Overlay, size int64) error {
	s, err := c.rbd(ctx)
	if err != nil {
		return err
	}
	before := ov
	ov, err = c.e.cfg.Catalog.TakeOverlay(ctx, ov.ID, catalog.Take{Gateway: c.e.cfg.GatewayID})
	if err != nil {
		return conflict(err)
	}
	err = s.Resize(ctx, c.key(ov.ID), size)
	if errors.Is(err, rbd.ErrLocked) { // by one that was killed
		if err = s.Takeover(ctx, c.key(ov.ID)); err == nil {
			err = s.Resize(ctx, c.key(ov.ID), size)
		}
	}
	if err != nil {
		c.e.giveBack(ctx, before, ov)
		return err
	}
	_, err = c.e.cfg.Catalog.ReleaseOverlay(ctx, ov.ID, ov.Epoch)
	return err
}
