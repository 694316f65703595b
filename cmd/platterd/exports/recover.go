package exports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/overlay/delta"
	"github.com/seed-478a8fee/platter/catalog"
)

// repairs is how many overlays are repaired at once.
const repairs = 4

// Recover ends what the last run of this gateway left half done. It is called
// once, after that of ingest and before the doors open. One overlay that
// cannot be read stops nobody: it says so when it is opened.
func (e *Exports) Recover(ctx context.Context) error {
	if err := e.members.start(ctx); err != nil {
		return fmt.Errorf("exports: join the other gateways: %w", err)
	}
	if err := e.failCaptures(ctx); err != nil {
		return fmt.Errorf("exports: end the captures that a stop cut off: %w", err)
	}
	for _, dir := range []string{e.overlayDir(), e.ephemeralDir()} {
		if err := delta.Sweep(e.cfg.FS, dir); err != nil { // it costs space and nothing else
			e.log.WarnContext(ctx, "what a crash left of overlays that were being made stays", "folder", dir, "err", err)
		}
	}
	if err := e.recoverOverlays(ctx); err != nil {
		return fmt.Errorf("exports: look after overlays: %w", err)
	}
	if err := e.dropParents(ctx); err != nil {
		return fmt.Errorf("exports: give up the parents of clones that a stop cut off: %w", err)
	}
	if err := e.dropOrphans(ctx); err != nil {
		return fmt.Errorf("exports: remove the disks of attachments that are gone: %w", err)
	}
	return nil
}

// failCaptures ends the tasks that nobody works on.
func (e *Exports) failCaptures(ctx context.Context) error {
	tasks, err := e.cfg.Catalog.Tasks(ctx, catalog.TaskQuery{Viewer: catalog.Viewer{Admin: true}})
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if t.Status.Done() || t.Gateway != e.cfg.GatewayID || t.Type != taskType && t.Type != flattenType {
			continue
		}
		end := e.failCapture
		if t.Type == flattenType {
			end = e.failFlatten
		}
		if err := end(ctx, t); err != nil {
			e.log.ErrorContext(ctx, "a capture that a stop cut off could not be ended; the next start tries again", "task", t.ID, "err", err)
		}
	}
	return nil
}

// failCapture ends one. That the image is active only says that the crash
// came after the last byte.
func (e *Exports) failCapture(ctx context.Context, t catalog.Task) error {
	img, err := e.cfg.Catalog.Image(ctx, t.ImageID)
	active := err == nil && img.Status.HasData()
	// Only captures have a parent: an image without one has the id that the
	// capture wanted, and is somebody else's.
	if err == nil && !active && img.Parent != "" {
		if err := e.dropUnfinished(ctx, t.ImageID); err != nil {
			return err
		}
	}
	_, err = e.cfg.Catalog.UpdateTask(ctx, t.ID, func(t *catalog.Task) error {
		t.ExpiresAt = e.cfg.Now().Add(e.cfg.TaskLife)
		if active {
			t.Status, t.Message, t.Result = catalog.TaskSuccess, "", map[string]any{"image_id": t.ImageID}
			t.Progress.Done = t.Progress.Total
			return nil
		}
		t.Status, t.Message = catalog.TaskFailure, stoppedText
		return nil
	})
	e.log.WarnContext(ctx, "a capture was cut off by a stop", "task", t.ID, "image", t.ImageID, "done", active)
	return err
}

// failFlatten ends a flattening: the overlay goes on as it was.
func (e *Exports) failFlatten(ctx context.Context, t catalog.Task) error {
	_, err := e.cfg.Catalog.UpdateTask(ctx, t.ID, func(t *catalog.Task) error {
		t.ExpiresAt = e.cfg.Now().Add(e.cfg.TaskLife)
		t.Status, t.Message = catalog.TaskFailure, "The gateway was stopped before the overlay was flattened. It is as it was; flatten it again."
		return nil
	})
	return err
}

func (e *Exports) recoverOverlays(ctx context.Context) error {
	list, err := e.cfg.Catalog.Overlays(ctx, catalog.OverlayQuery{Gateway: e.cfg.GatewayID})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, e.moves) // their stores may be away: settle looks after them
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(repairs)
	for _, ov := range list {
		g.Go(func() error {
			var err error
			switch ov.Status {
			case catalog.OverlayCreating, catalog.OverlayDeleting:
				err = e.removeOverlay(ctx, ov)
			default:
				err = e.repair(ctx, ov)
			}
			if err != nil {
				e.log.ErrorContext(ctx, "an overlay cannot be used; the rest is served",
					"overlay", ov.ID, "status", ov.Status, "engine", ov.Engine, "err", err)
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// repair opens an overlay, which mends what a crash did to it, and makes its
// data and its record agree on its snapshots: the data knows.
func (e *Exports) repair(ctx context.Context, ov catalog.Overlay) error {
	v, err := e.files.mend(ctx, ov)
	if err != nil {
		return err
	}
	snaps, err := ownSnapshots(ctx, v)
	if err := errors.Join(err, v.close()); err != nil {
		return err
	}
	return e.agree(ctx, ov, snaps)
}

// ownSnapshots returns the snapshots that users made, and deletes those that
// captures made.
func ownSnapshots(ctx context.Context, v *volume) ([]catalog.OverlaySnapshot, error) {
	list, err := v.list(ctx)
	if err != nil {
		return nil, err
	}
	var out []catalog.OverlaySnapshot
	for _, s := range list {
		if strings.HasPrefix(s.Name, ownSnapshot) {
			if err := v.snaps.DeleteSnapshot(ctx, s.ID); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

// dropOrphans removes ephemeral disks whose attachment is gone, and says which
// files of overlays have no record. Those stay: somebody may have restored an
// old catalog, and what a guest wrote is not ours to throw away.
func (e *Exports) dropOrphans(ctx context.Context) error {
	list, err := e.cfg.Catalog.Attachments(ctx, catalog.AttachmentQuery{Gateway: e.cfg.GatewayID})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, a := range list {
		known[a.ID] = true
	}
	err = e.unknown(e.ephemeralDir(), known, func(name, id string) { e.drop(ctx, id) })
	if err != nil {
		return err
	}
	overlays, err := e.cfg.Catalog.Overlays(ctx, catalog.OverlayQuery{Gateway: e.cfg.GatewayID})
	if err != nil {
		return err
	}
	known = map[string]bool{}
	for _, ov := range overlays {
		known[ov.ID] = true
	}
	return e.unknown(e.overlayDir(), known, func(name, id string) {
		e.log.WarnContext(ctx, "a file of an overlay has no record in the catalog; delete it if no backup of the catalog has one",
			"path", name)
	})
}

// unknown calls f for each qcow2 file in dir whose id is not known.
func (e *Exports) unknown(dir string, known map[string]bool, f func(path, id string)) error {
	entries, err := e.cfg.FS.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if id, ok := strings.CutSuffix(entry.Name(), ".qcow2"); ok && !known[id] {
			f(dir+"/"+entry.Name(), id)
		}
	}
	return nil
}
