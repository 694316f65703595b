package exports

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/fusefs"
)

// ended waits until a task has ended.
func (r *rig) ended(id string) catalog.Task {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		task, err := r.cat.Task(context.Background(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		if task.Status.Done() {
			return task
		}
	}
	r.t.Fatal("the task does not end")
	return catalog.Task{}
}

func (r *rig) capture(ov catalog.Overlay, img catalog.Image) catalog.Task {
	r.t.Helper()
	img.ContainerFormat = "bare"
	if img.Visibility == "" {
		img.Visibility = catalog.VisibilityShared
	}
	task, err := r.e.Capture(context.Background(), platter.CaptureRequest{
		Overlay: ov, Image: img, Owner: "me", UserID: "u", RequestID: "req-1",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return task
}

func (r *rig) noSnapshots(ov catalog.Overlay) {
	r.t.Helper()
	d, err := r.e.acquireOverlay(context.Background(), ov)
	if err != nil {
		r.t.Fatal(err)
	}
	defer r.e.release(d)
	if s, err := d.vol.list(context.Background()); err != nil || len(s) > 0 {
		r.t.Errorf("the overlay keeps the snapshots %+v", s)
	}
}

// TestCapture captures while the guest goes on writing: the image is the disk
// at the moment of the request.
func TestCapture(t *testing.T) {
	for _, format := range []string{"qcow2", "raw"} {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, nil)
			data := noise(8<<20, 1)
			base := r.image("qcow2", data)
			ov := r.overlay(base, 0)
			x := r.open(first, "overlay/"+ov.ID)
			r.write(x, noise(300_000, 2), 1<<20)
			want := r.read(x.Disk)

			name := "captured"
			task := r.capture(ov, catalog.Image{
				Name: &name, DiskFormat: format, Protected: true, Tags: []string{"t"},
				Properties: map[string]string{"os_distro": "mine", "color": "red"},
			})
			if task.Status != catalog.TaskPending || task.Type != "capture" || task.ImageID == "" {
				t.Errorf("the task is %+v", task)
			}
			var wg sync.WaitGroup
			stop := make(chan struct{})
			wg.Go(func() { // the guest
				for off := int64(0); ; off = (off + 40_960) % (8 << 20) {
					select {
					case <-stop:
						return
					default:
						r.write(x, noise(4096, 7), off&^4095)
					}
				}
			})
			task = r.ended(task.ID)
			close(stop)
			wg.Wait()
			if task.Status != catalog.TaskSuccess || task.Progress.Done != 8<<20 || task.Result["image_id"] != task.ImageID || task.ExpiresAt.IsZero() {
				t.Fatalf("the task ended as %+v", task)
			}
			img, err := r.cat.Image(t.Context(), task.ImageID)
			if err != nil {
				t.Fatal(err)
			}
			y := r.open(second, img.ID)
			defer y.Close()
			if !bytes.Equal(r.read(y.Disk), want) {
				t.Error("the captured disk is not that of the moment of the request")
			}
			p := img.Properties
			if img.Parent != base.ID || !img.Protected || img.Owner != "me" || img.MinRAM != 64 || !slices.Equal(img.Tags, []string{"t"}) ||
				p["image_type"] != "snapshot" || p["base_image_ref"] != base.ID || p["os_distro"] != "mine" || p["color"] != "red" ||
				p["img_signature"] != "" || p["user_id"] != "u" || img.DiskFormat != format {
				t.Errorf("the record is %+v", img)
			}
			r.noSnapshots(ov)
			r.close(x)
		})
	}
}

func TestCaptureFails(t *testing.T) {
	var broken *brokenStore
	r := newRig(t, func(c *Config) {
		broken = &brokenStore{s: c.Stores["mem"]}
		c.Stores["mem"] = broken
	})
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	broken.full = true
	task := r.ended(r.capture(ov, catalog.Image{DiskFormat: "qcow2"}).ID)
	if task.Status != catalog.TaskFailure || !strings.Contains(task.Message, "no space") {
		t.Errorf("the task ended as %s: %s", task.Status, task.Message)
	}
	if _, err := r.cat.Image(t.Context(), task.ImageID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the image of a failed capture: %v", err)
	}
	r.noSnapshots(ov)
	if err := r.e.DeleteOverlay(t.Context(), ov.ID); err != nil {
		t.Errorf("deleting the overlay afterwards: %v", err)
	}
}

// A brokenStore is full when asked to be, and slow when asked to be.
type brokenStore struct {
	s    backends.Store
	full bool
	hold chan struct{}
}

func (b *brokenStore) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	return b.s.Open(ctx, key)
}

func (b *brokenStore) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if b.full {
		return mem.NewLimited(1).Create(ctx, key, size)
	}
	return b.s.Create(ctx, key, size)
}

func (b *brokenStore) Delete(ctx context.Context, key string) error { return b.s.Delete(ctx, key) }

func TestCaptureRefuses(t *testing.T) {
	r := newRig(t, nil)
	base := r.image("raw", noise(diskSize, 1))
	ov := r.overlay(base, 0)
	_, err := r.e.Capture(t.Context(), platter.CaptureRequest{Overlay: ov, Store: "moon", Image: catalog.Image{DiskFormat: "raw"}})
	if wire.StatusOf(err) != 400 {
		t.Errorf("capture into an unknown store: %v", err)
	}
	_, err = r.e.Capture(t.Context(), platter.CaptureRequest{Overlay: ov, Image: catalog.Image{
		ID: base.ID, DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared,
	}})
	if wire.StatusOf(err) != 409 {
		t.Errorf("capture into an id that is taken: %v", err)
	}
	if tasks, _ := r.cat.Tasks(t.Context(), catalog.TaskQuery{Viewer: catalog.Viewer{Admin: true}}); len(tasks) > 0 {
		t.Errorf("refused captures have left %+v", tasks)
	}
	if img, err := r.cat.Image(t.Context(), base.ID); err != nil || img.Status != catalog.StatusActive {
		t.Errorf("the image whose id was taken: %s, %v", img.Status, err)
	}
	r.noSnapshots(ov)
}

// TestStopDuringCapture stops the gateway in good order while a capture runs
// and another waits, and TestCrashDuringCapture without any order.
func TestStopDuringCapture(t *testing.T) {
	var broken *brokenStore
	r := newRig(t, func(c *Config) {
		c.MaxCaptures, c.MaxPending = 1, 1
		if broken == nil {
			broken = &brokenStore{s: c.Stores["mem"]}
		}
		c.Stores["mem"] = broken
	})
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	broken.hold = make(chan struct{})
	one, two := r.capture(ov, catalog.Image{DiskFormat: "raw"}), r.capture(ov, catalog.Image{DiskFormat: "raw"})
	_, err := r.e.Capture(t.Context(), platter.CaptureRequest{Overlay: ov, Image: catalog.Image{DiskFormat: "raw"}})
	if wire.StatusOf(err) != 503 {
		t.Errorf("one capture too many: %v", err)
	}
	var inUse *catalog.InUseError
	if err := r.e.DeleteOverlay(t.Context(), ov.ID); !errors.As(err, &inUse) || !strings.Contains(err.Error(), "capture "+one.ID) {
		t.Errorf("deleting an overlay that is captured: %v", err)
	}
	r.restart()
	for _, id := range []string{one.ID, two.ID} {
		task := r.ended(id)
		if task.Status != catalog.TaskFailure || task.Message != stoppedText {
			t.Errorf("the task ended as %s: %s", task.Status, task.Message)
		}
		if _, err := r.cat.Image(t.Context(), task.ImageID); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the image of a stopped capture: %v", err)
		}
	}
	broken.hold = nil
	r.noSnapshots(ov)
	if task := r.ended(r.capture(ov, catalog.Image{DiskFormat: "raw"}).ID); task.Status != catalog.TaskSuccess {
		t.Errorf("capturing again: %s: %s", task.Status, task.Message)
	}
}

func TestCrashDuringCapture(t *testing.T) {
	r := newRig(t, nil)
	base := r.image("raw", noise(diskSize, 1))
	ov := r.overlay(base, 0)
	// What a crash leaves at each stage: the task, the image, its upload, the
	// snapshot; and a task whose image is complete.
	task := func(id, image string) {
		if _, err := r.cat.CreateTask(t.Context(), catalog.Task{ID: id, Type: taskType, Status: catalog.TaskProcessing, ImageID: image, Gateway: "gw"}); err != nil {
			t.Fatal(err)
		}
	}
	const id = "10000000-0000-4000-8000-00000000000%d"
	var images []string
	for i := range 3 {
		images = append(images, fmt.Sprintf(id, i))
		task(fmt.Sprintf("20000000-0000-4000-8000-00000000000%d", i), images[i])
		if i == 0 {
			continue
		}
		if _, err := r.cat.CreateImage(t.Context(), catalog.Image{ID: images[i], DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared, Parent: base.ID}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.cat.BeginUpload(t.Context(), catalog.Upload{ID: "u", Image: images[2], Gateway: "gw", Store: "mem", Key: images[2] + "/u"}); err != nil {
		t.Fatal(err)
	}
	task("30000000-0000-4000-8000-000000000000", base.ID)
	d, err := r.e.acquireOverlay(t.Context(), ov)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.vol.snaps.Snapshot(t.Context(), ownSnapshot+"capture:x"); err != nil {
		t.Fatal(err)
	}
	r.e.release(d)
	r.restart()
	tasks, _ := r.cat.Tasks(t.Context(), catalog.TaskQuery{Viewer: catalog.Viewer{Admin: true}})
	for _, task := range tasks {
		want := catalog.TaskFailure
		if task.ImageID == base.ID {
			want = catalog.TaskSuccess
		}
		if task.Status != want {
			t.Errorf("task %s is %s, want %s", task.ID, task.Status, want)
		}
	}
	for _, id := range images {
		if _, err := r.cat.Image(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("image %s: %v", id, err)
		}
	}
	r.noSnapshots(ov)
}

func TestLibrary(t *testing.T) {
	r := newRig(t, nil)
	lib := r.e.Library()
	var ids []string
	for i := range 5 {
		ids = append(ids, r.image("raw", noise(1000+i, 1)).ID)
	}
	slices.Sort(ids)
	if _, err := r.cat.CreateImage(t.Context(), catalog.Image{Visibility: catalog.VisibilityShared}); err != nil {
		t.Fatal(err) // queued: not shown
	}
	listed := func(after string) []string {
		var got []string
		for img, err := range lib.Images(t.Context(), after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, img.ID)
		}
		return got
	}
	if got := listed(""); !slices.Equal(got, ids) {
		t.Errorf("Images: %q, want %q", got, ids)
	}
	if _, err := r.cat.DeleteImage(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	if got := listed(ids[1]); !slices.Equal(got, ids[2:]) {
		t.Errorf("Images after one that is gone: %q, want %q", got, ids[2:])
	}
	named, err := lib.Named(t.Context(), "base raw")
	if err != nil || len(named) != 4 || named[0].ID != ids[0] {
		t.Errorf("Named: %+v, %v", named, err)
	}
	img, err := lib.Image(t.Context(), ids[2])
	if err != nil || img.DiskSize != img.NativeSize || img.DiskSize < 1000 {
		t.Errorf("Image: %+v, %v", img, err)
	}
	if _, err := lib.Image(t.Context(), ids[1]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Image that is gone: %v", err)
	}
	for _, file := range []fusefs.File{fusefs.Disk, fusefs.Native, fusefs.Record} {
		f, err := lib.Open(t.Context(), ids[2], file)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if text := r.read(f); file == fusefs.Record && !bytes.Contains(text, []byte(ids[2])) {
			t.Errorf("record: %s", text)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
