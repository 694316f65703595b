package exports

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/catalog"
)

func TestCreateOverlay(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxOverlaySize = 1 << 30 })
	img := r.image("qcow2", noise(diskSize, 1))
	for _, tt := range []struct {
		req    platter.OverlayRequest
		size   int64
		status int
		err    error
	}{
		{req: platter.OverlayRequest{Image: img}, size: diskSize},
		{req: platter.OverlayRequest{Image: img, Size: diskSize + 512, Store: "mem"}, size: diskSize + 512},
		{req: platter.OverlayRequest{Image: img, Size: diskSize - 512}, status: 400},
		{req: platter.OverlayRequest{Image: img, Size: 2 << 30}, status: 413},
		{req: platter.OverlayRequest{Image: img, Store: "moon"}, err: ingest.ErrStore},
	} {
		ov, err := r.e.CreateOverlay(t.Context(), tt.req)
		switch {
		case tt.err != nil && !errors.Is(err, tt.err), tt.status != 0 && (err == nil || wire.StatusOf(err) != tt.status):
			t.Errorf("CreateOverlay(%d): %v, want %v %d", tt.req.Size, err, tt.err, tt.status)
		case tt.size != 0 && (err != nil || ov.Size != tt.size || ov.Status != catalog.OverlayAvailable || ov.Engine != "file"):
			t.Errorf("CreateOverlay(%d): %+v, %v", tt.req.Size, ov, err)
		}
	}
	list, _ := r.cat.Overlays(t.Context(), catalog.OverlayQuery{})
	if len(list) != 2 {
		t.Errorf("%d overlays, want the 2 good ones", len(list))
	}
	file, err := os.ReadFile(r.e.files.path(list[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	if uri := "nbd+unix:///" + img.ID + "?socket=%2Frun%2Fplatter%2Fnbd.sock"; !bytes.Contains(file, []byte(uri)) {
		t.Errorf("the file does not name %s as its backing", uri)
	}
	var inUse *catalog.InUseError
	if _, err := r.cat.DeleteImage(t.Context(), img.ID); !errors.As(err, &inUse) || len(inUse.Users) != 2 {
		t.Errorf("deleting an image under overlays: %v", err)
	}
}

func TestOverlayKeepsWrites(t *testing.T) {
	r := newRig(t, nil)
	data := noise(diskSize, 1)
	img := r.image("qcow2", data)
	ov := r.overlay(img, diskSize+1<<20)
	want := append(bytes.Clone(data), make([]byte, 1<<20)...)
	x := r.open(first, "overlay/"+ov.ID)
	r.write(x, noise(100_000, 2), 70_000)
	r.write(x, noise(512, 3), diskSize+512)
	copy(want[70_000:], noise(100_000, 2))
	copy(want[diskSize+512:], noise(512, 3))
	if !bytes.Equal(r.read(x.Disk), want) {
		t.Error("read back: bytes differ")
	}
	if use := r.e.Use(t.Context(), ov.ID); use.Bytes < 100_000 || len(use.Clients) != 1 {
		t.Errorf("Use: %+v", use)
	}
	r.close(x)
	r.restart()
	x = r.open(tcp, "overlay/"+ov.ID)
	if !bytes.Equal(r.read(x.Disk), want) {
		t.Error("after a restart bytes differ")
	}
	if x.MultiConn {
		t.Error("multi-conn over TCP by name, where connections cannot share")
	}
	r.close(x)
	if use := r.e.Use(t.Context(), ov.ID); use.Bytes < 100_000 || len(use.Clients) != 0 {
		t.Errorf("Use of a closed one: %+v", use)
	}
}

func TestOneOwner(t *testing.T) {
	r := newRig(t, nil)
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	name := "overlay/" + ov.ID
	a, b := r.open(first, name), r.open(again, name)
	if !a.MultiConn || !b.MultiConn {
		t.Error("connections of one process share the disk, but are not told")
	}
	r.write(a, []byte("seen"), 0)
	if got := r.read(b.Disk)[:4]; string(got) != "seen" {
		t.Errorf("the other connection of the process reads %q", got)
	}
	r.refused(second, name, fs.ErrPermission, "process 101", "attachment")
	r.refused(tcp, name, fs.ErrPermission, "process 101")
	_, err := r.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix"})
	if wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), "process 101") {
		t.Errorf("attaching while a client writes: %v", err)
	}
	if list, _ := r.cat.Attachments(t.Context(), catalog.AttachmentQuery{}); len(list) > 0 {
		t.Errorf("a refused attachment has left %+v", list)
	}
	r.close(a)
	r.refused(second, name, fs.ErrPermission)
	r.close(b)

	c := r.open(tcp, name)
	r.refused(tcp2, name, fs.ErrPermission, "127.0.0.1:4")
	r.close(c)

	att := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
	r.refused(first, name, fs.ErrPermission, "attachment "+att.Attachment.ID)
	d, e := r.open(first, exportOf(att)), r.open(second, exportOf(att))
	if !d.MultiConn {
		t.Error("connections of one attachment share the disk, but are not told")
	}
	_, err = r.e.Attach(t.Context(), platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "unix"})
	if wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), att.Attachment.ID) || !strings.Contains(err.Error(), "process 101") {
		t.Errorf("attaching twice: %v", err)
	}
	ro := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRO})
	f := r.open(second, exportOf(ro))
	if _, writable := f.Disk.(block.Device); writable {
		t.Error("ro can write")
	}
	r.write(d, []byte("live"), 0)
	if got := r.read(f.Disk)[:4]; string(got) != "live" {
		t.Errorf("a reader beside the writer sees %q", got)
	}
	r.close(d)
	r.close(e)
	r.close(f)
}

func TestDeleteOverlay(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(diskSize, 1))
	ov := r.overlay(img, 0)
	var inUse *catalog.InUseError
	x := r.open(first, "overlay/"+ov.ID)
	if err := r.e.DeleteOverlay(t.Context(), ov.ID); !errors.As(err, &inUse) || !strings.Contains(err.Error(), "process 101") {
		t.Errorf("deleting an overlay that is open: %v", err)
	}
	r.close(x)
	att := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
	if err := r.e.DeleteOverlay(t.Context(), ov.ID); !errors.As(err, &inUse) || !strings.Contains(err.Error(), att.Attachment.ID) {
		t.Errorf("deleting an overlay that is attached: %v", err)
	}
	if got, _ := r.cat.Overlay(t.Context(), ov.ID); got.Status != catalog.OverlayAvailable {
		t.Errorf("after a refused delete the overlay is %s", got.Status)
	}
	if err := r.e.Detach(t.Context(), att.Attachment.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.e.DeleteOverlay(t.Context(), ov.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.e.files.path(ov.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if _, err := r.cat.DeleteImage(t.Context(), img.ID); err != nil {
		t.Errorf("the image is still held: %v", err)
	}
}

func TestAttachment(t *testing.T) {
	r := newRig(t, nil)
	data := noise(diskSize, 1)
	img := r.image("qcow2", data)
	att := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachRO, Owner: "me"})
	token := strings.TrimPrefix(exportOf(att), "attach/")
	if len(token) != 43 || strings.Contains(att.Attachment.TokenHash, token) || att.Attachment.ExpiresAt.IsZero() {
		t.Errorf("token of %d characters, record %+v", len(token), att.Attachment)
	}
	for _, text := range []string{att.QEMU, att.LibvirtXML, att.NBDClient} {
		if !strings.Contains(text, token) {
			t.Errorf("%s lacks the token", text)
		}
	}
	r.refused(remote, exportOf(att), fs.ErrPermission, "plain TCP")
	r.refused(tcp, exportOf(att), fs.ErrPermission, "transport unix")
	r.refused(first, "attach/"+hashToken(token), fs.ErrNotExist)
	x := r.open(first, exportOf(att))
	if !bytes.Equal(r.read(x.Disk), data) || !x.MultiConn || strings.Contains(x.Label, token) {
		t.Errorf("the disk differs, or multi-conn=%t, or the label %q is a secret", x.MultiConn, x.Label)
	}
	got, _ := r.cat.Attachment(t.Context(), att.Attachment.ID)
	if got.LastUsed.IsZero() || !got.ExpiresAt.IsZero() {
		t.Errorf("after its first use the attachment is %+v", got)
	}
	var inUse *catalog.InUseError
	if _, err := r.cat.DeleteImage(t.Context(), img.ID); !errors.As(err, &inUse) {
		t.Errorf("deleting an image that is attached: %v", err)
	}
	if err := r.e.Detach(t.Context(), att.Attachment.ID); err != nil {
		t.Fatal(err)
	}
	if err := x.Disk.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, syscall.ESHUTDOWN) {
		t.Errorf("reading after detach: %v", err)
	}
	r.close(x)
	r.refused(first, exportOf(att), fs.ErrNotExist)
}

func TestAttachTransports(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(1024, 1))
	try := func(transport string) int {
		_, err := r.e.Attach(t.Context(), platter.AttachRequest{Image: &img, Mode: catalog.AttachRO, Transport: transport})
		if err == nil {
			return 0
		}
		return wire.StatusOf(err)
	}
	if a := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachRO, Transport: "tcp"}); !strings.HasPrefix(a.URI, "nbd://127.0.0.1:10809/attach/") {
		t.Errorf("uri %s", a.URI)
	} else {
		r.close(r.open(tcp, exportOf(a)))
	}
	if got := try("tls"); got != 409 {
		t.Errorf("tls: %d", got)
	}
	r.e.cfg.TCP = "192.0.2.1:10809"
	if got := try("tcp"); got != 409 {
		t.Errorf("tcp outside loopback: %d", got)
	}
	r.e.cfg.TCP, r.e.cfg.Socket = "", ""
	if a, b := try("tcp"), try("unix"); a != 409 || b != 409 {
		t.Errorf("doors that are closed: %d, %d", a, b)
	}
}

func TestEphemeralAttachment(t *testing.T) {
	r := newRig(t, func(c *Config) { c.EphemeralQuota = 1 << 20 })
	data := noise(diskSize, 1)
	img := r.image("raw", data)
	att := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachEphemeral})
	x := r.open(first, exportOf(att))
	r.write(x, []byte("mine"), 4096)
	r.close(x)
	r.restart()
	x = r.open(second, exportOf(att))
	if got := r.read(x.Disk)[4096:4100]; string(got) != "mine" {
		t.Errorf("reconnecting after a restart finds %q", got)
	}
	d := x.Disk.(block.Device)
	if err := d.WriteAt(t.Context(), noise(diskSize, 9), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing over the quota: %v", err)
	}
	if err := r.e.Detach(t.Context(), att.Attachment.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(t.Context(), []byte("x"), 0); !errors.Is(err, syscall.ESHUTDOWN) {
		t.Errorf("writing after detach: %v", err)
	}
	r.close(x)
	if _, err := os.Stat(r.e.ephemeralPath(att.Attachment.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the delta is still there: %v", err)
	}
}

func TestExpire(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(1024, 1))
	unused := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachRO})
	used := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachRO})
	r.close(r.open(first, exportOf(used)))
	r.later(2 * time.Hour)
	r.refused(first, exportOf(unused), fs.ErrNotExist, "expired")
	if err := r.e.expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, _ := r.cat.Attachments(t.Context(), catalog.AttachmentQuery{})
	if len(list) != 1 || list[0].ID != used.Attachment.ID {
		t.Errorf("left are %+v", list)
	}
	r.close(r.open(first, exportOf(used)))
}

// TestDetachStopsWrites: once Detach has returned nothing changes any more,
// however busy the client was.
func TestDetachStopsWrites(t *testing.T) {
	r := newRig(t, nil)
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	for range 20 {
		att := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
		x := r.open(first, exportOf(att))
		d := x.Disk.(block.Device)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				p := make([]byte, 4096)
				for n := byte(0); ; n++ {
					for j := range p {
						p[j] = n
					}
					if err := d.WriteAt(context.Background(), p, int64(i)*8192); err != nil {
						return
					}
				}
			})
		}
		time.Sleep(time.Millisecond)
		if err := r.e.Detach(t.Context(), att.Attachment.ID); err != nil {
			t.Fatal(err)
		}
		y := r.open(second, "overlay/"+ov.ID)
		before := r.read(y.Disk)
		time.Sleep(2 * time.Millisecond)
		if !bytes.Equal(before, r.read(y.Disk)) {
			t.Fatal("the disk changed after Detach")
		}
		wg.Wait()
		r.close(x)
		r.close(y)
	}
}

func TestOpenAndCloseAtOnce(t *testing.T) {
	r := newRig(t, nil)
	ov := r.overlay(r.image("qcow2", noise(diskSize, 1)), 0)
	att := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				c := first
				c.ID = uint64(100 + i)
				x, err := r.e.Open(t.Context(), c, exportOf(att))
				if err != nil {
					t.Error(err)
					return
				}
				if err := x.Disk.(block.Device).WriteAt(t.Context(), []byte{byte(n)}, int64(i)*4096); err != nil {
					t.Error(err)
				}
				if err := x.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if r.e.isOpen(ov.ID) {
		t.Error("the disk is still open")
	}
	x := r.open(first, exportOf(att))
	defer x.Close()
	for i := range 8 {
		p := make([]byte, 1)
		if err := x.Disk.ReadAt(t.Context(), p, int64(i)*4096); err != nil || p[0] != 19 {
			t.Errorf("writer %d left %d, %v", i, p[0], err)
		}
	}
}

func TestSnapshots(t *testing.T) {
	r := newRig(t, nil)
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	snap, err := r.e.Snapshot(t.Context(), ov.ID, "before")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Snapshot(t.Context(), ov.ID, ownSnapshot+"x"); wire.StatusOf(err) != 400 {
		t.Errorf("a name of the gateway's own: %v", err)
	}
	got, _ := r.cat.Overlay(t.Context(), ov.ID)
	if len(got.Snapshots) != 1 || got.Snapshots[0].Name != "before" || got.Snapshots[0].ID != snap.ID {
		t.Errorf("the record has %+v", got.Snapshots)
	}
	// A crash between file and record: the file knows.
	if _, err := r.cat.UpdateOverlay(t.Context(), ov.ID, func(o *catalog.Overlay) error { o.Snapshots = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if got, _ = r.cat.Overlay(t.Context(), ov.ID); len(got.Snapshots) != 1 || got.Snapshots[0].Name != "before" {
		t.Errorf("after a restart the record has %+v", got.Snapshots)
	}
	if err := r.e.DeleteSnapshot(t.Context(), ov.ID, snap.ID); err != nil {
		t.Fatal(err)
	}
	if got, _ = r.cat.Overlay(t.Context(), ov.ID); len(got.Snapshots) != 0 {
		t.Errorf("after the delete the record has %+v", got.Snapshots)
	}
}

func TestRecover(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(diskSize, 1))
	creating, deleting, good := r.overlay(img, 0), r.overlay(img, 0), r.overlay(img, 0)
	for id, status := range map[string]catalog.OverlayStatus{creating.ID: catalog.OverlayCreating, deleting.ID: catalog.OverlayDeleting} {
		if _, err := r.cat.UpdateOverlay(t.Context(), id, func(o *catalog.Overlay) error { o.Status = status; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	r.refused(first, "overlay/"+deleting.ID, fs.ErrPermission, "deleting")
	stray, gone := r.e.files.path("stray"), r.e.ephemeralPath("gone")
	half, halfGone := r.e.files.path("half")+".new", gone+".new" // of a Create that a crash cut off
	for _, name := range []string{stray, gone, half, halfGone} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.restart()
	list, _ := r.cat.Overlays(t.Context(), catalog.OverlayQuery{})
	if len(list) != 1 || list[0].ID != good.ID {
		t.Errorf("after a restart there are %+v", list)
	}
	for name, want := range map[string]bool{
		r.e.files.path(creating.ID): false, r.e.files.path(deleting.ID): false, r.e.files.path(good.ID): true,
		stray: true, gone: false, half: false, halfGone: false,
	} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s: %v, want there=%t", name, err, want)
		}
	}
}

func TestCloseFlushesOpenDisks(t *testing.T) {
	r := newRig(t, nil)
	ov := r.overlay(r.image("raw", noise(diskSize, 1)), 0)
	x := r.open(first, "overlay/"+ov.ID)
	d := x.Disk.(block.Device)
	if err := d.WriteAt(t.Context(), []byte("last words"), 0); err != nil { // not flushed by the client
		t.Fatal(err)
	}
	r.restart()
	if err := d.WriteAt(t.Context(), []byte("too late"), 0); !errors.Is(err, syscall.ESHUTDOWN) {
		t.Errorf("writing after Close: %v", err)
	}
	y := r.open(second, "overlay/"+ov.ID)
	defer y.Close()
	if got := r.read(y.Disk)[:10]; string(got) != "last words" {
		t.Errorf("after a stop in good order the disk has %q", got)
	}
}

// TestQEMUReadsIt: what the file says of itself is for QEMU to read.
func TestOverlayHeader(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(diskSize, 1))
	ov := r.overlay(img, 0)
	b, err := os.ReadFile(r.e.files.path(ov.ID))
	if err != nil {
		t.Fatal(err)
	}
	q, err := qcow2.Open(t.Context(), block.FromReaderAt(bytes.NewReader(b), int64(len(b))))
	if err != nil {
		t.Fatal(err)
	}
	if q.Backing() != r.e.imageURI(img.ID) || q.Size() != diskSize {
		t.Errorf("backing %q, size %d", q.Backing(), q.Size())
	}
}
