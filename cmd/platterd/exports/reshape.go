package exports

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// flattenType is the type of a flattening among the tasks.
const flattenType = "flatten"

// Resize makes an overlay that nobody has open larger: first its data, then
// the record.
func (e *Exports) Resize(ctx context.Context, id string, size int64) (catalog.Overlay, error) {
	defer e.keys.lock(id)()
	ov, err := e.here(ctx, id)
	if err != nil {
		return ov, err
	}
	switch { // under the lock: two may ask at once
	case size > e.cfg.MaxOverlaySize:
		return ov, wire.Errorf(413, "The size %d is over the limit of %d bytes for one overlay.", size, e.cfg.MaxOverlaySize)
	case size < ov.Size:
		return ov, wire.Errorf(400, "The size %d is less than the %d bytes that the overlay has; it can only grow.", size, ov.Size)
	case size == ov.Size:
		return ov, nil
	}
	k, err := e.engineOf(ov)
	if err != nil {
		return ov, err
	}
	if err := e.doom(ctx, id); err != nil {
		return ov, err
	}
	defer e.spare(id)
	err = k.resize(ctx, ov, size)
	if errors.Is(err, errors.ErrUnsupported) {
		return ov, wire.Errorf(501, "Overlays that the engine %s keeps cannot be resized; make a larger one, or use a store with the engine object-log or rbd.", ov.Engine)
	}
	if err != nil {
		return ov, fmt.Errorf("resize overlay %s: %w", id, err)
	}
	return e.cfg.Catalog.UpdateOverlay(ctx, id, func(o *catalog.Overlay) error {
		o.Size = size
		return nil
	})
}

// Flatten begins to copy into an overlay what it takes from its image.
func (e *Exports) Flatten(ctx context.Context, req platter.FlattenRequest) (catalog.Task, error) {
	ov, err := e.here(ctx, req.Overlay.ID)
	if err != nil {
		return catalog.Task{}, err
	}
	id := uuid.NewString()
	if err := e.captures.add(id, ov.ID); err != nil {
		return catalog.Task{}, err
	}
	d, err := e.acquireOverlay(ctx, ov)
	if err == nil && d.vol.flatten == nil {
		err = errors.Join(e.release(d), wire.Errorf(501, "Overlays that the engine %s keeps cannot be flattened; capture this one to have an image that stands alone.", ov.Engine))
	}
	var task catalog.Task
	if err == nil {
		task, err = e.cfg.Catalog.CreateTask(ctx, catalog.Task{
			ID: id, Type: flattenType, Status: catalog.TaskProcessing, Owner: req.Owner, RequestID: req.RequestID, UserID: req.UserID,
			Gateway: e.cfg.GatewayID, ImageID: ov.ImageID, Input: map[string]any{"overlay_id": ov.ID}, Progress: catalog.Progress{Total: ov.Size},
		})
		if err != nil {
			err = errors.Join(err, e.release(d))
		}
	}
	if err != nil {
		e.captures.remove(id)
		return catalog.Task{}, err
	}
	go func() { // captures.stop waits for it
		defer e.captures.remove(id)
		ctx, cancel := e.captures.context(context.WithoutCancel(ctx))
		defer cancel()
		e.flatten(ctx, d, task)
	}()
	return task, nil
}

// flatten does what a task says, and writes down how it ended.
func (e *Exports) flatten(ctx context.Context, d *shared, task catalog.Task) {
	var done atomic.Int64
	err := d.vol.flatten(ctx, func(n, _ int64) { done.Store(n) })
	err = errors.Join(err, e.release(d))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	_, again := e.cfg.Catalog.UpdateTask(ctx, task.ID, func(t *catalog.Task) error {
		t.ExpiresAt = e.cfg.Now().Add(e.cfg.TaskLife)
		t.Status, t.Progress.Done = catalog.TaskSuccess, t.Progress.Total
		if err != nil {
			t.Status, t.Progress.Done = catalog.TaskFailure, done.Load()
			t.Message = "The overlay could not be flattened and is as it was: " + err.Error()
		}
		return nil
	})
	if err := errors.Join(err, again); err != nil {
		e.log.ErrorContext(ctx, "an overlay could not be flattened", "overlay", d.key, "task", task.ID, "err", err)
	}
}
