package exports

import (
	"context"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/catalog"
)

// A brokenKV fails one commit: it is not made, or made and not answered; once,
// or with all that follow, as in a crash.
type brokenKV struct {
	kv catalog.KV

	mu           sync.Mutex
	n, at        int
	after, crash bool
	hit          bool
}

func (k *brokenKV) arm(at int, after, crash bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n, k.at, k.after, k.crash, k.hit = 0, at, after, crash, false
}

// wasHit tells whether the commit that fails was made, and mends the KV.
func (k *brokenKV) wasHit() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = 0
	return k.hit
}

func (k *brokenKV) Get(ctx context.Context, key string) (catalog.Pair, error) {
	return k.kv.Get(ctx, key)
}

func (k *brokenKV) List(ctx context.Context, prefix, after string) iter.Seq2[catalog.Pair, error] {
	return k.kv.List(ctx, prefix, after)
}

func (k *brokenKV) Watch(ctx context.Context, prefix string, rev int64) iter.Seq2[catalog.Event, error] {
	return k.kv.Watch(ctx, prefix, rev)
}

func (k *brokenKV) Commit(ctx context.Context, txn catalog.Txn) (int64, error) {
	k.mu.Lock()
	k.n++
	now := k.at > 0 && k.n == k.at
	dead := k.at > 0 && k.n > k.at && k.crash
	k.hit = k.hit || now
	after := k.after
	k.mu.Unlock()
	if dead || now && !after {
		return 0, fmt.Errorf("broken: %w", catalog.ErrUnavailable)
	}
	rev, err := k.kv.Commit(ctx, txn)
	if now && err == nil {
		return 0, fmt.Errorf("broken: %w", catalog.ErrUnavailable)
	}
	return rev, err
}

// TestEveryCommit lets every commit of every change fail, in all four ways.
// After a restart there is nothing half: each overlay has its file and each
// file its record, each task has ended, each image is active, no snapshot of
// a capture is left, and what was asked for can be done again.
func TestEveryCommit(t *testing.T) {
	type world struct {
		r   *rig
		img catalog.Image
		ov  catalog.Overlay
		att platter.Attached
	}
	changes := map[string]func(w world) error{
		"create overlay": func(w world) error {
			_, err := w.r.e.CreateOverlay(w.r.t.Context(), platter.OverlayRequest{Image: w.img})
			return err
		},
		"delete overlay": func(w world) error {
			if _, err := w.r.cat.Overlay(w.r.t.Context(), w.ov.ID); err != nil {
				return nil // it was deleted, and only the answer was lost
			}
			return w.r.e.DeleteOverlay(w.r.t.Context(), w.ov.ID)
		},
		"snapshot": func(w world) error {
			_, err := w.r.e.Snapshot(w.r.t.Context(), w.ov.ID, "s")
			return err
		},
		"attach": func(w world) error {
			a, err := w.r.e.Attach(w.r.t.Context(), platter.AttachRequest{Image: &w.img, Mode: catalog.AttachEphemeral, Transport: "unix"})
			if err != nil {
				return err
			}
			x, err := w.r.e.Open(w.r.t.Context(), first, exportOf(a))
			if err != nil {
				return err
			}
			return x.Close()
		},
		"detach": func(w world) error {
			if _, err := w.r.cat.Attachment(w.r.t.Context(), w.att.Attachment.ID); err != nil {
				return nil
			}
			return w.r.e.Detach(w.r.t.Context(), w.att.Attachment.ID)
		},
		"capture": func(w world) error {
			task, err := w.r.e.Capture(w.r.t.Context(), platter.CaptureRequest{Overlay: w.ov, Image: catalog.Image{
				DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared,
			}})
			if err != nil {
				return err
			}
			w.r.e.captures.wg.Wait()
			if task, err = w.r.cat.Task(w.r.t.Context(), task.ID); err == nil && task.Status != catalog.TaskSuccess {
				err = fmt.Errorf("the task is %s: %s", task.Status, task.Message)
			}
			return err
		},
	}
	for name, change := range changes {
		for _, crash := range []bool{false, true} {
			for _, after := range []bool{false, true} {
				for at, hit := 1, true; hit; at++ {
					if at > 50 {
						t.Fatalf("%s never comes to its end", name)
					}
					t.Run(fmt.Sprintf("%s/%d,done=%t,crash=%t", name, at, after, crash), func(t *testing.T) {
						kv := &brokenKV{}
						r := newRigOn(t, kv)
						w := world{r: r, img: r.image("raw", noise(64<<10, 1))}
						w.ov = r.overlay(w.img, 0)
						w.att = r.attach(platter.AttachRequest{Image: &w.img, Mode: catalog.AttachEphemeral})
						r.close(r.open(first, exportOf(w.att)))
						kv.arm(at, after, crash)
						err := change(w)
						hit = kv.wasHit()
						if !hit && err != nil {
							t.Fatal(err)
						}
						if !crash && !strings.HasPrefix(name, "de") { // a delete is asked for again
							r.consistent()
						}
						r.restart()
						r.consistent()
						if hit {
							if err := change(world{r, w.img, w.ov, w.att}); err != nil {
								t.Errorf("again after a restart: %v", err)
							}
							r.consistent()
						}
					})
				}
			}
		}
	}
}

// consistent checks that nothing is half.
func (r *rig) consistent() {
	r.t.Helper()
	ctx := context.Background()
	overlays, err := r.cat.Overlays(ctx, catalog.OverlayQuery{})
	if err != nil {
		r.t.Fatal(err)
	}
	known := map[string]bool{}
	for _, ov := range overlays {
		known[ov.ID+".qcow2"] = true
		if ov.Status != catalog.OverlayAvailable {
			r.t.Errorf("overlay %s is %s", ov.ID, ov.Status)
			continue
		}
		d, err := r.e.acquireOverlay(ctx, ov)
		if err != nil {
			r.t.Errorf("overlay %s: %v", ov.ID, err)
			continue
		}
		snaps, err := d.vol.list(ctx)
		if err != nil || len(snaps) != len(ov.Snapshots) {
			r.t.Errorf("the file has the snapshots %+v, the record %+v", snaps, ov.Snapshots)
		}
		for _, s := range snaps {
			if strings.HasPrefix(s.Name, ownSnapshot) {
				r.t.Errorf("snapshot %s is left", s.Name)
			}
		}
		r.e.release(d)
	}
	attachments, _ := r.cat.Attachments(ctx, catalog.AttachmentQuery{})
	for _, a := range attachments {
		known[a.ID+".qcow2"] = true
	}
	for _, dir := range []string{r.e.overlayDir(), r.e.ephemeralDir()} {
		files, err := os.ReadDir(dir)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, f := range files {
			if !known[f.Name()] {
				r.t.Errorf("%s has no record", f.Name())
			}
		}
	}
	tasks, _ := r.cat.Tasks(ctx, catalog.TaskQuery{Viewer: catalog.Viewer{Admin: true}})
	for _, task := range tasks {
		if !task.Status.Done() {
			r.t.Errorf("task %s is %s", task.ID, task.Status)
		}
	}
	images, _ := r.cat.Images(ctx, catalog.Query{Viewer: catalog.Viewer{Admin: true}, Visibility: catalog.VisibilityAll, Hidden: catalog.HiddenAny})
	for _, img := range images {
		if img.Status != catalog.StatusActive {
			r.t.Errorf("image %s is %s", img.ID, img.Status)
		}
	}
}
