package exports

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/nbd"
)

// TestLogOverlay: an overlay in a shared store is anybody's when nobody has
// it open, and only one gateway's while somebody has.
func TestLogOverlay(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	want := noise(diskSize, 1)
	ov := a.overlay(a.image("qcow2", want), 0)
	if ov.Engine != "object-log" || ov.Store != "mem" || a.record(ov.ID).Gateway != "" {
		t.Errorf("made %+v", a.record(ov.ID))
	}
	x := a.open(first, "overlay/"+ov.ID)
	a.write(x, noise(100_000, 2), 70_000)
	copy(want[70_000:], noise(100_000, 2))
	b.sees(a)
	for _, mode := range []catalog.AttachMode{catalog.AttachRW, catalog.AttachRO} {
		_, err := b.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: mode, Transport: "unix", AcceptLoss: true})
		if err == nil || wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), "gateway a") {
			t.Errorf("attaching %s what another gateway has open: %v", mode, err)
		}
	}
	b.refused(first, "overlay/"+ov.ID, fs.ErrPermission, "gateway a")
	if !bytes.Equal(a.read(x.Disk), want) {
		t.Error("what was written is not read")
	}
	a.close(x)
	if got := a.record(ov.ID); got.Gateway != "" || got.Dirty {
		t.Errorf("nobody has it open, and it is %+v", got)
	}
	b.sees(a)
	att := b.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
	y := b.open(second, exportOf(att))
	if !bytes.Equal(b.read(y.Disk), want) {
		t.Error("the other gateway reads something else")
	}
	b.write(y, []byte("b was here"), 0)
	b.close(y)
	if err := b.e.Detach(t.Context(), att.Attachment.ID); err != nil {
		t.Fatal(err)
	}
	a.sees(b)
	x = a.open(first, "overlay/"+ov.ID)
	if got := a.read(x.Disk); string(got[:10]) != "b was here" || !bytes.Equal(got[10:], want[10:]) {
		t.Error("the first gateway does not see what the other wrote")
	}
	a.close(x)
}

// dirty makes an overlay with acknowledged data that only the journal has.
func (c *cluster) dirty(r *rig) (catalog.Overlay, []byte) {
	c.t.Helper()
	disk := noise(diskSize, 1)
	ov := r.overlay(r.image("raw", disk), 0)
	c.logs.set(true, false)
	x := r.open(first, "overlay/"+ov.ID)
	r.write(x, []byte("precious"), 4096)
	eventually(c.t, "the catalog to know of the journal", func() bool { return r.record(ov.ID).Dirty })
	copy(disk[4096:], "precious")
	return ov, disk
}

// TestLoss: what only the journal of a gateway has that is gone is lost when
// somebody says so, and is never replayed over what came after.
func TestLoss(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	ov, disk := c.dirty(a)
	back := c.kill(a)
	c.logs.set(false, false)
	b.sees(a)
	eventually(t, "a to be gone", func() bool { list, _ := b.cat.Gateways(t.Context()); return len(list) == 1 })
	for _, mode := range []catalog.AttachMode{catalog.AttachRW, catalog.AttachRO} {
		_, err := b.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: mode, Transport: "unix"})
		if err == nil || wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), "accept_loss") || !strings.Contains(err.Error(), "gateway a") {
			t.Errorf("attaching %s what lacks its journal: %v", mode, err)
		}
	}
	b.refused(first, "overlay/"+ov.ID, fs.ErrPermission, "accept_loss")
	if got := b.record(ov.ID); got.Gateway != "a" || !got.Dirty {
		t.Errorf("a refused taking has made it %+v", got)
	}
	att, err := b.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix", AcceptLoss: true})
	if err != nil {
		t.Fatal(err)
	}
	x := b.open(first, exportOf(att))
	if got := b.read(x.Disk); string(got[4096:4104]) == "precious" || !bytes.Equal(got[:4096], disk[:4096]) {
		t.Error("the disk is none that the store can have had")
	}
	b.write(x, []byte("new epoch"), 0)
	if got := b.record(ov.ID); len(got.Quarantined) != 1 || got.Quarantined[0].Gateway != "a" {
		t.Errorf("the journal is not quarantined: %+v", got)
	}
	back.start() // with the journal that nobody may replay
	if err := back.e.settleAll(t.Context()); err != nil {
		t.Errorf("looking after what another gateway has: %v", err)
	}
	back.refused(first, "overlay/"+ov.ID, fs.ErrPermission, "gateway b")
	b.close(x)
	if err := b.e.Detach(t.Context(), att.Attachment.ID); err != nil {
		t.Fatal(err)
	}
	back.sees(b)
	y := back.open(first, "overlay/"+ov.ID)
	if got := back.read(y.Disk); string(got[:9]) != "new epoch" || string(got[4096:4104]) == "precious" {
		t.Error("an old journal was replayed")
	}
	back.close(y)
	if aside, _ := filepath.Glob(filepath.Join(back.e.journalDir(), ov.ID, "aside-*")); len(aside) != 1 {
		t.Errorf("set aside: %q", aside)
	}
}

// TestLostDisk: a gateway that has lost its disk says so when somebody attaches
// what was in its journal, and not only when they open it.
func TestLostDisk(t *testing.T) {
	c := newCluster(t)
	a := c.gateway("a")
	ov, disk := c.dirty(a)
	c.kill(a)
	c.logs.set(false, false)
	again := c.gateway("a") // on an empty disk
	_, err := again.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix"})
	if err == nil || wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), "accept_loss") {
		t.Errorf("attaching what was in a journal that is lost: %v", err)
	}
	att, err := again.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix", AcceptLoss: true})
	if err != nil {
		t.Fatal(err)
	}
	x := again.open(first, exportOf(att))
	if got := again.read(x.Disk); !bytes.Equal(got[:4096], disk[:4096]) {
		t.Error("the disk is none that the store can have had")
	}
	again.close(x)
}

// TestAttachTooLate: an attachment is not made at a gateway that does not know
// yet that another one has taken the overlay.
func TestAttachTooLate(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	b.sees(a)
	var x nbd.Export
	a.faulty().Before(func(catalog.Txn) { x = b.open(first, "overlay/"+ov.ID) })
	_, err := a.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix"})
	if err == nil || wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), "gateway b") {
		t.Errorf("attaching what another gateway has taken: %v", err)
	}
	b.write(x, []byte("still ours"), 0)
	b.close(x)
	a.sees(b)
	if _, err := a.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix"}); err != nil {
		t.Errorf("attaching what was given back: %v", err)
	}
}

// TestSettle: after kill -9 the gateway brings over what its journals hold, and
// gives the overlays back, without anybody asking.
func TestSettle(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	ov, disk := c.dirty(a)
	back := c.kill(a)
	back.start()
	back.e.drain = 10 * time.Millisecond
	if err := back.e.settleAll(t.Context()); err != nil {
		t.Errorf("while the store is away: %v", err)
	}
	if got := back.record(ov.ID); got.Gateway != "a" || !got.Dirty {
		t.Errorf("while the store is away it is %+v", got)
	}
	c.logs.set(false, false)
	back.e.drain = drainTime
	if err := back.e.settleAll(t.Context()); err != nil {
		t.Error(err)
	}
	if got := back.record(ov.ID); got.Gateway != "" || got.Dirty || back.e.isOpen(ov.ID) {
		t.Errorf("settled it is %+v", got)
	}
	b.sees(back)
	x := b.open(first, "overlay/"+ov.ID)
	if !bytes.Equal(b.read(x.Disk), disk) {
		t.Error("what was flushed is lost")
	}
	b.close(x)
}

// TestReconcile: whoever opens an overlay that was not closed well makes its
// record say which snapshots there are, even if a client is faster than the
// looking after; and those of captures go.
func TestReconcile(t *testing.T) {
	for _, who := range []string{"a", "b"} {
		c := newCluster(t)
		a, b := c.gateway("a"), c.gateway("b")
		ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
		if _, err := a.e.Snapshot(t.Context(), ov.ID, "known"); err != nil {
			t.Fatal(err)
		}
		d, err := a.e.acquireOverlay(t.Context(), a.record(ov.ID))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{ownSnapshot + "capture:x", "unknown"} {
			if _, err := d.vol.snaps.Snapshot(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { a.e.release(d) })
		r := c.kill(a)
		if who == "b" {
			r = b
			b.sees(a)
			eventually(t, "a to be gone", func() bool { list, _ := b.cat.Gateways(t.Context()); return len(list) == 1 })
		} else {
			r.start()
		}
		r.close(r.open(first, "overlay/"+ov.ID))
		var names []string
		for _, s := range r.record(ov.ID).Snapshots {
			names = append(names, s.Name)
		}
		if !slices.Equal(names, []string{"known", "unknown"}) {
			t.Errorf("opened by %s, the record has the snapshots %q", who, names)
		}
		r.noSnapshotOfCaptures(ov)
	}
}

func (r *rig) noSnapshotOfCaptures(ov catalog.Overlay) {
	r.t.Helper()
	d, err := r.e.acquireOverlay(context.Background(), r.record(ov.ID))
	if err != nil {
		r.t.Fatal(err)
	}
	defer r.e.release(d)
	list, err := d.vol.list(context.Background())
	for _, s := range list {
		if err != nil || strings.HasPrefix(s.Name, ownSnapshot) {
			r.t.Errorf("snapshot %s of a capture is left, %v", s.Name, err)
		}
	}
}

// TestReconcileUnlisted: that the snapshots cannot be listed does not mean that
// there are none.
func TestReconcileUnlisted(t *testing.T) {
	c := newCluster(t)
	a := c.gateway("a")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	if _, err := a.e.Snapshot(t.Context(), ov.ID, "known"); err != nil {
		t.Fatal(err)
	}
	v := &volume{list: func(context.Context) ([]catalog.OverlaySnapshot, error) { return nil, errAway }}
	if err := a.e.reconcile(t.Context(), ov.ID, v); !errors.Is(err, errAway) {
		t.Errorf("reconcile: %v", err)
	}
	if n := len(a.record(ov.ID).Snapshots); n != 1 {
		t.Errorf("the record has %d snapshots", n)
	}
}

// TestDeleteElsewhere: an overlay that another gateway has open is not deleted,
// and goes on; one whose owner is gone is.
func TestDeleteElsewhere(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	ov, _ := c.dirty(a)
	c.logs.set(false, false)
	b.sees(a)
	err := b.e.DeleteOverlay(t.Context(), ov.ID)
	if err == nil || wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), "gateway a") {
		t.Errorf("deleting what another gateway has open: %v", err)
	}
	if got := b.record(ov.ID); got.Status != catalog.OverlayAvailable || got.Gateway != "a" {
		t.Errorf("after a refused delete it is %+v", got)
	}
	back := c.kill(a)
	eventually(t, "a to be gone", func() bool { list, _ := b.cat.Gateways(t.Context()); return len(list) == 1 })
	if err := b.e.DeleteOverlay(t.Context(), ov.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.cat.Overlay(t.Context(), ov.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted, and still there: %v", err)
	}
	if _, err := b.cat.DeleteImage(t.Context(), ov.ImageID); err != nil {
		t.Errorf("the image is held: %v", err)
	}
	back.start()
	back.sees(b)
	dir := filepath.Join(back.e.journalDir(), ov.ID)
	if err := back.e.sweepJournals(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("a journal that has just lost its record is removed at once: %v", err)
	}
	back.later(journalGrace + time.Hour)
	if err := back.e.sweepJournals(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal of an overlay that was deleted elsewhere stays: %v", err)
	}
}

// TestDeleteDamaged: an overlay of which nobody can say what belongs to it can
// still be deleted.
func TestDeleteDamaged(t *testing.T) {
	c := newCluster(t)
	a := c.gateway("a")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	taken, err := a.cat.TakeOverlay(t.Context(), ov.ID, catalog.Take{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cat.CommitHead(t.Context(), ov.ID, catalog.OverlayHead{Epoch: taken.Epoch, Sequence: 99, Data: []byte("\x02nonsense")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.e.Open(t.Context(), first, "overlay/"+ov.ID); !errors.Is(err, objectlog.ErrCorrupt) {
		t.Errorf("open: %v", err)
	}
	if err := a.e.DeleteOverlay(t.Context(), ov.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.cat.Overlay(t.Context(), ov.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted, and still there: %v", err)
	}
}

// TestDetachDead: an attachment of a gateway that is gone can be detached at
// any other; else nobody could ever write to its overlay again.
func TestDetachDead(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	att := a.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
	a.close(a.open(first, exportOf(att)))
	b.sees(a)
	if err := b.e.Detach(t.Context(), att.Attachment.ID); err == nil || wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), "gateway a") {
		t.Errorf("detaching what another gateway serves: %v", err)
	}
	c.kill(a)
	eventually(t, "a to be gone", func() bool { list, _ := b.cat.Gateways(t.Context()); return len(list) == 1 })
	if _, err := b.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix"}); err == nil || wire.StatusOf(err) != 409 {
		t.Errorf("attaching what is attached: %v", err)
	}
	if err := b.e.Detach(t.Context(), att.Attachment.ID); err != nil {
		t.Fatal(err)
	}
	next := b.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
	b.close(b.open(first, exportOf(next)))
}

// TestResizeLog: an overlay grows while nobody has it open, never shrinks, and
// a resizing that broke off before the record knew loses nothing.
func TestResizeLog(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	x := a.open(first, "overlay/"+ov.ID)
	var inUse *catalog.InUseError
	if _, err := a.e.Resize(t.Context(), ov.ID, 2*diskSize); !errors.As(err, &inUse) {
		t.Errorf("resizing what is open: %v", err)
	}
	a.close(x)
	got, err := a.e.Resize(t.Context(), ov.ID, 2*diskSize)
	if err != nil || got.Size != 2*diskSize {
		t.Fatalf("resize: %+v, %v", got, err)
	}
	if _, err := a.e.Resize(t.Context(), ov.ID, diskSize); err == nil || wire.StatusOf(err) != 400 {
		t.Errorf("shrinking: %v", err)
	}
	x = a.open(first, "overlay/"+ov.ID)
	a.write(x, []byte("at the end"), 2*diskSize-10)
	a.close(x)
	// The other gateway has not heard of it yet.
	d, err := b.e.acquireOverlay(t.Context(), ov)
	if err != nil {
		t.Fatal(err)
	}
	end := make([]byte, 10)
	if d.vol.disk.Size() != 2*diskSize {
		t.Errorf("opening with an old record made it %d bytes", d.vol.disk.Size())
	} else if err := d.vol.disk.ReadAt(t.Context(), end, 2*diskSize-10); err != nil || string(end) != "at the end" {
		t.Errorf("the end reads %q, %v", end, err)
	}
	if err := b.e.release(d); err != nil {
		t.Error(err)
	}
}

// TestLogCapture: logs are captured while a guest writes, and cannot be
// flattened.
func TestLogCapture(t *testing.T) {
	c := newCluster(t)
	a := c.gateway("a")
	want := noise(diskSize, 1)
	ov := a.overlay(a.image("qcow2", want), 0)
	x := a.open(first, "overlay/"+ov.ID)
	a.write(x, noise(50_000, 2), 1000)
	copy(want[1000:], noise(50_000, 2))
	task, err := a.e.Capture(t.Context(), platter.CaptureRequest{Overlay: ov, Image: catalog.Image{DiskFormat: "raw", ContainerFormat: "bare"}})
	if err != nil {
		t.Fatal(err)
	}
	a.write(x, noise(50_000, 3), 1000)
	eventually(t, "the capture", func() bool {
		task, err = a.cat.Task(t.Context(), task.ID)
		return err != nil || task.Status.Done()
	})
	if err != nil || task.Status != catalog.TaskSuccess {
		t.Fatalf("the capture ended with %+v, %v", task, err)
	}
	y := a.open(second, task.ImageID)
	if !bytes.Equal(a.read(y.Disk), want) {
		t.Error("the image is not the disk of the moment")
	}
	a.close(y)
	if _, err := a.e.Flatten(t.Context(), platter.FlattenRequest{Overlay: ov}); err == nil || wire.StatusOf(err) != 501 {
		t.Errorf("flatten: %v", err)
	}
	a.close(x)
	a.noSnapshots(ov)
	if got := a.record(ov.ID); got.Gateway != "" {
		t.Errorf("a refused flattening holds it: %+v", got)
	}
	if err := a.e.DeleteOverlay(t.Context(), ov.ID); err != nil {
		t.Fatal(err)
	}
}
