package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// ownSnapshot begins the names of snapshots that captures make.
const ownSnapshot = "platter:"

// maxSnapshots bounds what one record has to hold.
const maxSnapshots = 1000

// CreateOverlay makes an overlay: first the record, which holds on to the
// image, then the file.
func (e *Exports) CreateOverlay(ctx context.Context, req platter.OverlayRequest) (catalog.Overlay, error) {
	if req.Store != "" && e.cfg.Stores[req.Store] == nil {
		return catalog.Overlay{}, fmt.Errorf("store %.64q: %w", req.Store, ingest.ErrStore)
	}
	size, err := e.overlaySize(ctx, req)
	if err != nil {
		return catalog.Overlay{}, err
	}
	where, store, err := e.placeFor(req.Store)
	if err != nil {
		return catalog.Overlay{}, err
	}
	id := uuid.NewString()
	defer e.keys.lock(id)()
	ov, err := e.cfg.Catalog.CreateOverlay(ctx, catalog.Overlay{
		ID: id, Name: req.Name, ImageID: req.Image.ID, Owner: req.Owner,
		Gateway: e.cfg.GatewayID, Engine: where.name, Store: store, Size: size, Status: catalog.OverlayCreating,
	})
	if err == nil {
		err = where.engine.create(ctx, ov, req.Image)
	}
	if err == nil {
		ov, err = e.setStatus(ctx, ov.ID, catalog.OverlayAvailable)
	}
	if err != nil {
		return ov, errors.Join(err, e.retract(context.WithoutCancel(ctx), id))
	}
	return ov, nil
}

// retract removes an overlay that was not made well. Only an answer may have
// been lost, so the record may be there, and may say that all is well: it says
// otherwise before the file goes. If that fails too, the next start decides.
func (e *Exports) retract(ctx context.Context, id string) error {
	ov, err := e.setStatus(ctx, id, catalog.OverlayDeleting)
	if err != nil {
		return absent(err)
	}
	return e.removeOverlay(ctx, ov)
}

// overlaySize decides how large an overlay is. It opens the image, so that an
// overlay of one that cannot be read is refused at once.
func (e *Exports) overlaySize(ctx context.Context, req platter.OverlayRequest) (int64, error) {
	if req.Image.Status != catalog.StatusActive {
		return 0, wire.Errorf(409, "The image %s is %s; an overlay needs an active one.", req.Image.ID, req.Image.Status)
	}
	r, err := e.OpenDisk(ctx, req.Image)
	if err != nil {
		return 0, err
	}
	least := r.Size()
	if err := r.Close(); err != nil {
		return 0, err
	}
	size := req.Size
	if size == 0 {
		size = sectors(least)
	}
	switch {
	case size < least:
		return 0, wire.Errorf(400, "The size %d is less than the %d bytes of the image's disk; an overlay can only be larger.", size, least)
	case size > e.cfg.MaxOverlaySize:
		return 0, wire.Errorf(413, "The size %d is over the limit of %d bytes for one overlay.", size, e.cfg.MaxOverlaySize)
	case size == 0:
		return 0, wire.Errorf(400, "The image's disk is empty; give the size of the overlay.")
	}
	return size, nil
}

// sectors rounds up to whole sectors, which is what a guest can use.
func sectors(n int64) int64 { return (n + 511) &^ 511 }

// usable returns the record of an overlay that can be opened here.
func (e *Exports) usable(ctx context.Context, id string) (catalog.Overlay, error) {
	ov, err := e.cfg.Catalog.Overlay(ctx, id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ov, fmt.Errorf("there is no overlay %s: %w", id, fs.ErrNotExist)
	case err != nil:
		return ov, err
	case !e.local(ov) && !e.moves(ov):
		return ov, fmt.Errorf("overlay %s is a file of gateway %s and can be opened only there: %w", id, ov.Gateway, fs.ErrPermission)
	case ov.Status != catalog.OverlayAvailable:
		return ov, fmt.Errorf("overlay %s is %s: %w", id, ov.Status, fs.ErrPermission)
	}
	return ov, nil
}

// local tells whether no other gateway owns an overlay.
func (e *Exports) local(ov catalog.Overlay) bool {
	return ov.Gateway == "" || ov.Gateway == e.cfg.GatewayID
}

// moves tells whether an overlay can be taken from another gateway.
func (e *Exports) moves(ov catalog.Overlay) bool {
	k, ok := e.places[ov.Store]
	return ok && k.moves && k.name == ov.Engine
}

// reach makes sure that this gateway may have an overlay that another one
// owned last: that one must be gone, and if its journal holds what nobody else
// has, accept must say that this may be lost. So it must if this one's own
// journal is gone.
func (e *Exports) reach(ctx context.Context, ov catalog.Overlay, accept bool) error {
	if e.local(ov) && !accept && (!ov.Dirty || e.isOpen(ov.ID)) {
		return nil
	}
	d, err := e.acquire(ctx, ov.ID, func(ctx context.Context, d *shared) error {
		return e.openVolume(ctx, d, ov, accept)
	})
	if err != nil {
		return err
	}
	return e.release(d)
}

// acquireOverlay opens the disk of an overlay, or shares it.
func (e *Exports) acquireOverlay(ctx context.Context, ov catalog.Overlay) (*shared, error) {
	return e.acquire(ctx, ov.ID, func(ctx context.Context, d *shared) error {
		return e.openVolume(ctx, d, ov, false)
	})
}

// acquireEphemeral opens the disk of an ephemeral attachment, or shares it.
func (e *Exports) acquireEphemeral(ctx context.Context, a catalog.Attachment, img catalog.Image) (*shared, error) {
	return e.acquire(ctx, a.ID, func(ctx context.Context, d *shared) (err error) {
		d.vol, err = e.files.openEphemeral(ctx, a.ID, img)
		return err
	})
}

// DeleteOverlay deletes an overlay: the record says so first, then the file
// goes, then the record.
func (e *Exports) DeleteOverlay(ctx context.Context, id string) error {
	defer e.keys.lock(id)()
	ov, err := e.cfg.Catalog.Overlay(ctx, id)
	if err != nil {
		return err
	}
	if !e.local(ov) && !e.moves(ov) {
		return wire.Errorf(409, "Overlay %s is a file of gateway %s and can be deleted only there.", id, ov.Gateway)
	}
	if err := e.doom(ctx, id); err != nil {
		return err
	}
	defer e.spare(id)
	if err := e.unowned(ctx, ov); err != nil {
		return err
	}
	was := ov.Status
	ov, err = e.setStatus(ctx, id, catalog.OverlayDeleting)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	err = e.removeOverlay(ctx, ov)
	var held *catalog.HeldError
	if errors.As(err, &held) { // somebody took it just then
		_, again := e.setStatus(ctx, id, was)
		err = errors.Join(err, again)
	}
	return err
}

// unowned is a HeldError while another gateway that runs has an overlay.
func (e *Exports) unowned(ctx context.Context, ov catalog.Overlay) error {
	if e.local(ov) {
		return nil
	}
	runs, err := e.runs(ctx, ov.Gateway)
	if err == nil && runs {
		err = conflict(&catalog.HeldError{Overlay: ov.ID, Gateway: ov.Gateway})
	}
	return err
}

func (e *Exports) setStatus(ctx context.Context, id string, status catalog.OverlayStatus) (catalog.Overlay, error) {
	return e.cfg.Catalog.UpdateOverlay(ctx, id, func(o *catalog.Overlay) error {
		o.Status = status
		return nil
	})
}

// doom lets nobody open an overlay from then on, until spare. It comes before
// the record says so: a crash must not delete what somebody writes to.
func (e *Exports) doom(ctx context.Context, id string) error {
	var inUse *catalog.InUseError
	err := e.patiently(ctx, func() error {
		stay, leave, err := e.users(ctx, id)
		if err != nil || len(stay) == 0 && e.tryDoom(id) {
			return err
		}
		if len(stay)+len(leave) == 0 {
			leave = append(leave, "a request that is under way")
		}
		inUse = &catalog.InUseError{Kind: "overlay", ID: id, Users: slices.Sorted(slices.Values(append(stay, leave...)))}
		if len(stay) > 0 {
			return inUse
		}
		return &busyError{disk: id}
	})
	var busy *busyError
	if errors.As(err, &busy) {
		return inUse
	}
	return err
}

// tryDoom is doom, if the overlay is not open.
func (e *Exports) tryDoom(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.disks[id] != nil {
		return false
	}
	e.doomed[id] = true
	return true
}

func (e *Exports) spare(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.doomed, id)
}

// users names who uses an overlay: those who stay until they are told, and
// those who may be leaving.
func (e *Exports) users(ctx context.Context, id string) (stay, leave []string, err error) {
	list, err := e.cfg.Catalog.Attachments(ctx, catalog.AttachmentQuery{OverlayID: id})
	if err != nil {
		return nil, nil, err
	}
	for _, a := range list {
		stay = append(stay, e.holderOf(a.ID))
	}
	stay = append(stay, e.captures.of(id)...)
	for _, s := range e.matching(func(s *session) bool { return s.disk == id && s.attachment == "" }) {
		leave = append(leave, clientName(s.client))
	}
	return stay, leave, nil
}

func (e *Exports) remove(dir, path string) error {
	if err := e.cfg.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return e.cfg.FS.SyncDir(dir)
}

// stored returns how many bytes a disk takes, open or not.
func (e *Exports) stored(ctx context.Context, id string) int64 {
	if n, open := e.used(id); open {
		return n
	}
	if !plain(id) {
		return 0
	}
	if ov, err := e.cfg.Catalog.Overlay(ctx, id); err == nil {
		k, err := e.engineOf(ov)
		if err != nil {
			return 0
		}
		return k.stored(ctx, id)
	}
	return e.files.stored(ctx, id)
}

// Snapshot keeps the state of an overlay at this moment: first in the file,
// then in the record.
func (e *Exports) Snapshot(ctx context.Context, id, name string) (catalog.OverlaySnapshot, error) {
	var snap catalog.OverlaySnapshot
	ov, err := e.here(ctx, id)
	if err != nil {
		return snap, err
	}
	if strings.HasPrefix(name, ownSnapshot) {
		return snap, wire.Errorf(400, "Names of snapshots that begin with %q are the gateway's own.", ownSnapshot)
	}
	if len(ov.Snapshots) >= maxSnapshots {
		return snap, wire.Errorf(413, "Overlay %s has %d snapshots, which is the limit; delete some.", id, len(ov.Snapshots))
	}
	d, err := e.acquireOverlay(ctx, ov)
	if err != nil {
		return snap, err
	}
	defer e.release(d)
	snap.Name, snap.CreatedAt = name, e.cfg.Now().UTC()
	if snap.ID, err = d.vol.snaps.Snapshot(ctx, name); err != nil {
		return snap, err
	}
	_, err = e.cfg.Catalog.UpdateOverlay(ctx, id, func(o *catalog.Overlay) error {
		o.Snapshots = append(o.Snapshots, snap)
		return nil
	})
	if err != nil {
		ctx = context.WithoutCancel(ctx)
		return snap, errors.Join(err, d.vol.snaps.DeleteSnapshot(ctx, snap.ID), e.forgetSnapshot(ctx, id, snap.ID))
	}
	return snap, nil
}

// forgetSnapshot takes a snapshot out of the record.
func (e *Exports) forgetSnapshot(ctx context.Context, id, snapshot string) error {
	_, err := e.cfg.Catalog.UpdateOverlay(ctx, id, func(o *catalog.Overlay) error {
		o.Snapshots = slices.DeleteFunc(o.Snapshots, func(s catalog.OverlaySnapshot) bool { return s.ID == snapshot })
		return nil
	})
	return err
}

// DeleteSnapshot forgets a snapshot: first the file does, then the record.
func (e *Exports) DeleteSnapshot(ctx context.Context, id, snapshot string) error {
	ov, err := e.here(ctx, id)
	if err != nil {
		return err
	}
	d, err := e.acquireOverlay(ctx, ov)
	if err != nil {
		return err
	}
	defer e.release(d)
	if err := d.vol.snaps.DeleteSnapshot(ctx, snapshot); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return e.forgetSnapshot(ctx, id, snapshot)
}

// here is usable for the HTTP door, where what another gateway has, or what
// is not ready, is a conflict.
func (e *Exports) here(ctx context.Context, id string) (catalog.Overlay, error) {
	ov, err := e.usable(ctx, id)
	if errors.Is(err, fs.ErrPermission) {
		return ov, wire.Errorf(409, "%w", err)
	}
	return ov, err
}
