package exports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// taskType is the type of a capture among the tasks.
const taskType = "capture"

// captures are the captures of this process.
type captures struct {
	slots chan struct{} // held while copying
	quit  chan struct{} // closed when all must stop

	mu      sync.Mutex
	limit   int
	stopped bool
	running map[string]string // task → overlay
	wg      sync.WaitGroup
}

func (c *captures) init(parallel, pending int) {
	c.quit = make(chan struct{})
	c.slots = make(chan struct{}, parallel)
	c.limit = parallel + pending
	c.running = map[string]string{}
}

// add counts a capture, or says why there can be none.
func (c *captures) add(task, overlay string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errClosed
	}
	if len(c.running) >= c.limit {
		return wire.Errorf(503, "There are %d captures under way, which is the limit; try again when one has ended.",
			len(c.running)).With("Retry-After", "30")
	}
	c.running[task] = overlay
	c.wg.Add(1)
	return nil
}

func (c *captures) remove(task string) {
	c.mu.Lock()
	delete(c.running, task)
	c.mu.Unlock()
	c.wg.Done()
}

// of names the captures of an overlay.
func (c *captures) of(overlay string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for task, ov := range c.running {
		if ov == overlay {
			names = append(names, "capture "+task+" (which ends when its image is deleted)")
		}
	}
	return names
}

// context returns a context that ends when captures must stop.
func (c *captures) context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	done := make(chan struct{})
	c.wg.Go(func() {
		select {
		case <-c.quit:
			cancel()
		case <-done:
		}
	})
	return ctx, func() { cancel(); close(done) }
}

// stop ends all captures and waits for them.
func (c *captures) stop() {
	c.mu.Lock()
	if !c.stopped {
		c.stopped = true
		close(c.quit)
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// A capture is one overlay on its way to become an image.
type capture struct {
	e        *Exports
	id       string // of the task
	req      platter.CaptureRequest
	task     catalog.Task
	image    catalog.Image
	disk     *shared
	snapshot string
	progress progress
}

// Capture notes what is to be done, takes the snapshot, and lets the copying
// go on behind the task that it returns.
func (e *Exports) Capture(ctx context.Context, req platter.CaptureRequest) (catalog.Task, error) {
	if req.Store != "" && e.cfg.Stores[req.Store] == nil {
		return catalog.Task{}, fmt.Errorf("store %.64q: %w", req.Store, ingest.ErrStore)
	}
	ov, err := e.here(ctx, req.Overlay.ID)
	if err != nil {
		return catalog.Task{}, err
	}
	req.Overlay = ov
	c := &capture{e: e, id: uuid.NewString(), req: req}
	if err := e.captures.add(c.id, ov.ID); err != nil {
		return catalog.Task{}, err
	}
	if err := c.begin(ctx); err != nil {
		c.undo(context.WithoutCancel(ctx))
		e.captures.remove(c.id)
		return catalog.Task{}, err
	}
	task := c.task
	go func() { // captures.stop waits for it
		defer e.captures.remove(c.id)
		ctx, cancel := e.captures.context(context.WithoutCancel(ctx))
		defer cancel()
		c.run(ctx)
	}()
	return task, nil
}

// begin writes down the task and the image, in this order, so that whatever a
// crash leaves is found by way of the task, and takes the snapshot.
func (c *capture) begin(ctx context.Context) error {
	base, err := c.e.cfg.Catalog.Image(ctx, c.req.Overlay.ImageID)
	if err != nil {
		return err
	}
	img := derive(c.req, base)
	c.task, err = c.e.cfg.Catalog.CreateTask(ctx, catalog.Task{
		ID: c.id, Type: taskType, Status: catalog.TaskPending, Owner: c.req.Owner, ImageID: img.ID,
		RequestID: c.req.RequestID, UserID: c.req.UserID, Gateway: c.e.cfg.GatewayID,
		Input: map[string]any{
			"overlay_id": c.req.Overlay.ID, "image_id": img.ID, "disk_format": img.DiskFormat, "store": c.req.Store,
		},
		Progress: catalog.Progress{Total: c.req.Overlay.Size},
	})
	if err != nil {
		return err
	}
	// The protection comes last, so that a failed capture can be removed.
	img.Protected = false
	created, err := c.e.cfg.Catalog.CreateImage(ctx, img)
	if err != nil {
		// Only the answer may have been lost, so undo looks for the image,
		// unless the id that the user chose was somebody else's.
		if c.req.Image.ID == "" || !errors.Is(err, fs.ErrExist) {
			c.image.ID = img.ID
		}
		return err
	}
	c.image = created
	if c.disk, err = c.e.acquireOverlay(ctx, c.req.Overlay); err != nil {
		return err
	}
	c.snapshot, err = c.disk.vol.snaps.Snapshot(ctx, ownSnapshot+"capture:"+c.id)
	return err
}

// undo takes back what begin did, as far as it came. What is not there is no
// error: an answer may have been lost, so everything is tried.
func (c *capture) undo(ctx context.Context) {
	errs := []error{c.dropSource(ctx)}
	if c.image.ID != "" {
		_, err := c.e.cfg.Catalog.DeleteImage(ctx, c.image.ID)
		errs = append(errs, absent(err))
	}
	errs = append(errs, absent(c.e.cfg.Catalog.DeleteTask(ctx, c.id)))
	if err := errors.Join(errs...); err != nil {
		c.e.log.WarnContext(ctx, "what a capture that did not begin left could not be removed; the next start tries again",
			"task", c.id, "err", err)
	}
}

// absent is err, unless that says that there is nothing.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// dropSource forgets the snapshot and lets go of the overlay.
func (c *capture) dropSource(ctx context.Context) error {
	if c.disk == nil {
		return nil
	}
	var err error
	if c.snapshot != "" {
		err = c.disk.vol.snaps.DeleteSnapshot(ctx, c.snapshot)
	}
	return errors.Join(err, c.e.release(c.disk))
}

// dropImage removes the image of a capture that failed.
func (c *capture) dropImage(ctx context.Context) error {
	if c.image.ID == "" {
		return nil
	}
	return c.e.dropUnfinished(ctx, c.image.ID)
}

// dropUnfinished removes an image that never became active.
func (e *Exports) dropUnfinished(ctx context.Context, id string) error {
	img, err := e.cfg.Catalog.Image(ctx, id)
	if err != nil || img.Status.HasData() {
		return absent(err)
	}
	if img.Protected { // somebody's wish for an image that there will not be
		_, err = e.cfg.Catalog.UpdateImage(ctx, id, func(img *catalog.Image) error {
			img.Protected = false
			return nil
		})
	}
	if err == nil {
		_, err = e.cfg.Catalog.DeleteImage(ctx, id)
	}
	return absent(err)
}

// derive makes the record of the new image: what the user chose, then what
// the base image says of itself and still holds, then what a snapshot of
// an instance says in the Image API.
func derive(req platter.CaptureRequest, base catalog.Image) catalog.Image {
	img := req.Image
	img.ID = cmp.Or(img.ID, uuid.NewString())
	img.Status, img.Owner, img.Parent = catalog.StatusQueued, req.Owner, base.ID
	if img.Name == nil {
		name := imageName(base) + "-" + req.Overlay.ID[:8]
		if req.Overlay.Name != "" {
			name = req.Overlay.Name
		}
		img.Name = &name
	}
	img.MinRAM = max(img.MinRAM, base.MinRAM)
	img.MinDisk = max(img.MinDisk, base.MinDisk)
	if img.MinDisk > 0 { // a larger disk needs a larger flavor
		img.MinDisk = max(img.MinDisk, (req.Overlay.Size+1<<30-1)>>30)
	}
	properties := map[string]string{}
	for key, value := range base.Properties {
		if inherited(key) {
			properties[key] = value
		}
	}
	for key, value := range map[string]string{
		"image_type": "snapshot", "base_image_ref": base.ID, "image_state": "available", "image_location": "snapshot",
		"user_id": req.UserID, "owner_id": req.Owner,
	} {
		if value != "" {
			properties[key] = value
		}
	}
	maps.Copy(properties, req.Image.Properties)
	img.Properties = properties
	return img
}

// inherited tells whether a property of the base still holds for what was
// written over it. What speaks of the base's own bytes, or of where they came
// from, does not.
func inherited(key string) bool {
	if slices.Contains([]string{
		"block_device_mapping", "bdm_v2", "root_device_name", "mappings", "instance_uuid", "direct_url", "checksum",
		"cinder_encryption_key_id", "cinder_encryption_key_deletion_policy",
	}, key) {
		return false
	}
	return !strings.HasPrefix(key, "img_signature") && !strings.HasPrefix(key, "os_glance") && !strings.HasPrefix(key, "owner_specified.openstack.")
}
