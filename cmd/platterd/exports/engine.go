package exports

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/catalog"
)

// An engine keeps overlays, in its own way and place.
type engine interface {
	// create makes an overlay's empty disk on its image, for a record that
	// says creating.
	create(ctx context.Context, ov catalog.Overlay, img catalog.Image) error

	// open opens it for its one writer. accept lets it take an overlay of which
	// a part is only in the journal of another gateway, and is lost then.
	open(ctx context.Context, ov catalog.Overlay, img catalog.Image, accept bool) (*volume, error)

	// remove frees what create and open made and then deletes the record. What
	// is not there is no error.
	remove(ctx context.Context, ov catalog.Overlay) error

	// stored returns how many bytes an overlay takes that nobody has open; 0
	// if that is not known.
	stored(ctx context.Context, id string) int64

	// resize makes an overlay that nobody has open larger, or says
	// errors.ErrUnsupported.
	resize(ctx context.Context, ov catalog.Overlay, size int64) error
}

// A volume is an open overlay.
type volume struct {
	disk  block.Device // the whole disk, base included
	base  block.Reader // what lies below a snapshot; nil: nothing
	snaps snapshots
	list  func(ctx context.Context) ([]catalog.OverlaySnapshot, error)
	used  func() int64 // bytes stored
	close func() error // flushes as well

	// changes tells where the disk may have changed since a snapshot;
	// fs.ErrNotExist if there is none, also from the Mapper once it is deleted.
	changes func(ctx context.Context, snapshot string) (block.Mapper, error)

	// log tells about the journal of a log; nil: it is none.
	log func() objectlog.Stats

	// flatten copies into the volume what it takes from below; nil: it cannot.
	flatten func(ctx context.Context, progress func(done, total int64)) error
}

// snapshots are the states of a volume that are kept.
type snapshots interface {
	// Snapshot keeps the state of this moment under a name.
	Snapshot(ctx context.Context, name string) (id string, err error)

	// DeleteSnapshot forgets it; fs.ErrNotExist if there is none.
	DeleteSnapshot(ctx context.Context, id string) error

	// OpenSnapshot opens it for reading. What it leaves Absent is the base's.
	OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error)
}

// engines returns where overlays can be kept besides in files.
func (e *Exports) engines() map[string]place {
	out := map[string]place{}
	for name, o := range e.cfg.Overlays {
		switch {
		case o.RBD != nil:
			out[name] = place{name: rbdEngine, engine: clones{e: e, store: name, rbd: o.RBD}, moves: true}
		case o.Objects != nil:
			out[name] = place{name: logEngine, engine: logs{e: e, store: name, objects: o.Objects, durability: o.Durability}, moves: true}
		}
	}
	return out
}

// engineOf returns what keeps an overlay.
func (e *Exports) engineOf(ov catalog.Overlay) (engine, error) {
	if ov.Engine == fileEngine || ov.Engine == "" {
		return e.files, nil
	}
	k, ok := e.places[ov.Store]
	if !ok {
		return nil, fmt.Errorf("overlay %s lies in store %q, which this gateway's configuration lacks", ov.ID, ov.Store)
	}
	if k.name != ov.Engine {
		return nil, fmt.Errorf("overlay %s was made by engine %s, and store %s has engine %s here: set its overlay key back", ov.ID, ov.Engine, ov.Store, k.name)
	}
	return k.engine, nil
}

// placeFor returns the name and the engine for a new overlay. Without a store
// it is that of the default store.
func (e *Exports) placeFor(store string) (place, string, error) {
	if store == "" {
		if _, ok := e.places[e.cfg.DefaultStore]; ok {
			store = e.cfg.DefaultStore
		}
	}
	if k, ok := e.places[store]; ok {
		return k, store, nil
	}
	return place{name: fileEngine, engine: e.files}, store, nil
}

// A place is an engine and its name.
type place struct {
	name   string
	engine engine
	moves  bool // any gateway can open these overlays, each time under a new epoch
}

// removeOverlay removes the data of an overlay and then its record.
func (e *Exports) removeOverlay(ctx context.Context, ov catalog.Overlay) error {
	k, err := e.engineOf(ov)
	if err != nil {
		return err
	}
	return k.remove(ctx, ov)
}

// openVolume opens the disk of an overlay as its one writer.
func (e *Exports) openVolume(ctx context.Context, d *shared, ov catalog.Overlay, accept bool) error {
	k, err := e.engineOf(ov)
	if err != nil {
		return err
	}
	img, err := e.cfg.Catalog.Image(ctx, ov.ImageID)
	if err != nil {
		return fmt.Errorf("the image of overlay %s: %w", ov.ID, err)
	}
	d.vol, err = k.open(ctx, ov, img, accept)
	if err != nil {
		return fmt.Errorf("open overlay %s: %w", ov.ID, err)
	}
	// Whoever owned it last may not have come to write down what it did. To
	// look into a log costs nothing.
	if e.moves(ov) && (ov.Gateway != "" || d.vol.log != nil) {
		if err := e.reconcile(ctx, ov.ID, d.vol); err != nil {
			e.log.WarnContext(ctx, "whether the record of an overlay has all its snapshots could not be found out", "overlay", ov.ID, "err", err)
		}
	}
	return nil
}

// reconcile deletes the snapshots of captures that are over and makes the
// record say which others there are. Nobody else has the volume yet.
func (e *Exports) reconcile(ctx context.Context, id string, v *volume) error {
	snaps, err := ownSnapshots(ctx, v)
	if err != nil {
		return err
	}
	ov, err := e.cfg.Catalog.Overlay(ctx, id)
	if err != nil {
		return err
	}
	return e.agree(ctx, ov, snaps)
}

// giveTime bounds how long it may take to give an overlay back.
const giveTime = 5 * time.Second

// giveBack gives back an overlay that was taken and then could not be opened.
// What somebody left unclean stays ours, so that settle looks after it.
func (e *Exports) giveBack(ctx context.Context, before, taken catalog.Overlay) {
	if before.Gateway != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveTime)
	defer cancel()
	if _, err := e.cfg.Catalog.ReleaseOverlay(ctx, taken.ID, taken.Epoch); err != nil && !errors.Is(err, catalog.ErrFenced) {
		e.log.WarnContext(ctx, "an overlay that could not be opened could not be given back; it is tried again", "overlay", taken.ID, "err", err)
	}
}

// over returns a whole disk as it was at a snapshot.
func (v *volume) over(snap block.Reader) block.Reader {
	if v.base == nil {
		return snap
	}
	return overlay.Over(snap, v.base)
}
