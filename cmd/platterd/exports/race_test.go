package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/catalog"
)

// files returns what is in a folder.
func (r *rig) files(dir string) []string {
	r.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestDetachDuringOpen detaches while a client waits for a slow store: the
// client gets nothing, and nothing is left of it.
func TestDetachDuringOpen(t *testing.T) {
	var slow *slowFS
	r := newRig(t, func(c *Config) { slow = &slowFS{FS: localfs.OS()}; c.FS = slow })
	img := r.image("raw", noise(diskSize, 1))
	att := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachEphemeral})
	reached, goOn := slow.stopAtCreate()
	opened := make(chan error)
	go func() {
		x, err := r.e.Open(context.Background(), first, exportOf(att))
		if err == nil {
			x.Close()
		}
		opened <- err
	}()
	<-reached
	if err := r.e.Detach(t.Context(), att.Attachment.ID); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-opened; err == nil {
		t.Error("an attachment that was detached meanwhile was opened")
	}
	if left := r.files(r.e.ephemeralDir()); len(left) > 0 {
		t.Errorf("the detached disk has left %v", left)
	}
}

// A slowFS stops once when a file is made.
type slowFS struct {
	localfs.FS
	mu             sync.Mutex
	reached, until chan struct{}
	stuck          string // cannot be removed
}

func (f *slowFS) stopAtCreate() (reached, goOn chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reached, f.until = make(chan struct{}), make(chan struct{})
	return f.reached, f.until
}

func (f *slowFS) Open(name string, flag int, perm fs.FileMode) (localfs.File, error) {
	f.mu.Lock()
	reached, until := f.reached, f.until
	if flag&os.O_CREATE != 0 {
		f.reached = nil
	}
	f.mu.Unlock()
	if flag&os.O_CREATE != 0 && reached != nil {
		close(reached)
		<-until
	}
	return f.FS.Open(name, flag, perm)
}

func (f *slowFS) Remove(name string) error {
	if f.stuck != "" && strings.Contains(name, f.stuck) {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.EPERM}
	}
	return f.FS.Remove(name)
}

// TestExpireSparesTheUsed: an attachment that is used just when it would
// expire stays.
func TestExpireSparesTheUsed(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(1024, 1))
	att := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachRO})
	r.later(time.Hour - time.Millisecond)
	old := att.Attachment
	x := r.open(first, exportOf(att))
	r.later(time.Second)
	if err := r.e.expireOne(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := x.Disk.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
		t.Errorf("an attachment in use has expired: %v", err)
	}
	r.close(x)
	r.close(r.open(first, exportOf(att)))
}

// TestDeleteWaitsForGoodbye: who deletes, or attaches, right after the last
// client has gone is not told of a conflict.
func TestDeleteWaitsForGoodbye(t *testing.T) {
	r := newRig(t, nil)
	r.e.handover = 10 * time.Second
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	for round := range 2 {
		x := r.open(first, "overlay/"+ov.ID)
		var wg sync.WaitGroup
		wg.Go(func() { time.Sleep(50 * time.Millisecond); r.close(x) })
		if round == 0 {
			att := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
			if err := r.e.Detach(t.Context(), att.Attachment.ID); err != nil {
				t.Fatal(err)
			}
		} else if err := r.e.DeleteOverlay(t.Context(), ov.ID); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

// TestDeleteAgainstOpen deletes an overlay while clients try to open, capture
// and snapshot it: either it is refused, and all is as before, or it is gone
// for everybody.
func TestDeleteAgainstOpen(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(diskSize, 1))
	for range 20 {
		ov := r.overlay(img, 0)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				c := first
				c.ID = uint64(10 + i)
				for range 10 {
					x, err := r.e.Open(context.Background(), c, "overlay/"+ov.ID)
					if err != nil {
						continue
					}
					if err := x.Disk.(block.Device).WriteAt(context.Background(), []byte("x"), 0); err != nil {
						t.Errorf("writing to an overlay that could be opened: %v", err)
					}
					if now, err := r.cat.Overlay(context.Background(), ov.ID); err != nil || now.Status != catalog.OverlayAvailable {
						t.Errorf("an overlay in use is %s, %v", now.Status, err)
					}
					if err := x.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() { r.e.Snapshot(context.Background(), ov.ID, "s") })
		var task catalog.Task
		wg.Go(func() {
			task, _ = r.e.Capture(context.Background(), platter.CaptureRequest{Overlay: ov, Image: catalog.Image{
				DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared,
			}})
		})
		wg.Go(func() {
			for {
				err := r.e.DeleteOverlay(context.Background(), ov.ID)
				var inUse *catalog.InUseError
				if errors.As(err, &inUse) {
					time.Sleep(time.Millisecond)
					continue
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
		})
		wg.Wait()
		if task.ID != "" {
			r.ended(task.ID)
		}
	}
	r.consistent()
	if left := r.files(r.e.overlayDir()); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// TestCaptureOfAProtectedImage: whoever protects the image of a capture that
// then fails keeps no half image, and stops no start.
func TestCaptureOfAProtectedImage(t *testing.T) {
	var broken *brokenStore
	r := newRig(t, func(c *Config) {
		if broken == nil {
			broken = &brokenStore{s: c.Stores["mem"]}
		}
		c.Stores["mem"] = broken
	})
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	broken.hold = make(chan struct{})
	task := r.capture(ov, catalog.Image{DiskFormat: "raw"})
	_, err := r.cat.UpdateImage(t.Context(), task.ImageID, func(i *catalog.Image) error { i.Protected = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	r.restart()
	if img, err := r.cat.Image(t.Context(), task.ImageID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the image of the stopped capture: %s, %v", img.Status, err)
	}
}

// TestRecoverGoesOn: one file that cannot be removed stops no start.
func TestRecoverGoesOn(t *testing.T) {
	slow := &slowFS{FS: localfs.OS()}
	r := newRig(t, func(c *Config) { c.FS = slow })
	img := r.image("raw", noise(diskSize, 1))
	stuck, good := r.overlay(img, 0), r.overlay(img, 0)
	slow.stuck = stuck.ID
	if err := r.e.DeleteOverlay(t.Context(), stuck.ID); !errors.Is(err, syscall.EPERM) {
		t.Fatalf("deleting what cannot be removed: %v", err)
	}
	r.restart()
	r.refused(first, "overlay/"+stuck.ID, fs.ErrPermission, "deleting")
	r.close(r.open(first, "overlay/"+good.ID))
	slow.stuck = ""
	if err := r.e.DeleteOverlay(t.Context(), stuck.ID); err != nil {
		t.Error(err)
	}
}

// TestManyAtOnce has many overlays and attachments open side by side.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("qcow2", noise(diskSize, 1))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ctx := context.Background()
			ov, err := r.e.CreateOverlay(ctx, platter.OverlayRequest{Image: img, Name: fmt.Sprint(i)})
			if err != nil {
				t.Error(err)
				return
			}
			att, err := r.e.Attach(ctx, platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix"})
			if err != nil {
				t.Error(err)
				return
			}
			c := first
			c.ID = uint64(1000 + i)
			x, err := r.e.Open(ctx, c, exportOf(att))
			if err != nil {
				t.Error(err)
				return
			}
			if err := x.Disk.(block.Device).WriteAt(ctx, []byte{byte(i)}, 0); err != nil {
				t.Error(err)
			}
			if use := r.e.Use(ctx, ov.ID); len(use.Clients) != 1 || use.Bytes == 0 {
				t.Errorf("overlay %d: %+v", i, use)
			}
			if err := r.e.Detach(ctx, att.Attachment.ID); err != nil {
				t.Error(err)
			}
			x.Close()
			if err := r.e.DeleteOverlay(ctx, ov.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left := r.files(r.e.overlayDir()); len(left) > 0 || len(r.e.sessions) > 0 || len(r.e.disks) > 0 || len(r.e.keys.held) > 0 {
		t.Errorf("left are %v, %d sessions, %d disks", left, len(r.e.sessions), len(r.e.disks))
	}
}
