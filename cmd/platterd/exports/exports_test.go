package exports

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
	"github.com/seed-478a8fee/platter/nbd"
)

// A rig is a gateway without doors, on memory and a temporary folder.
type rig struct {
	t      *testing.T
	kv     catalog.KV
	store  *mem.Store
	dir    string
	id     string // of the gateway; "": gw
	change func(*Config)

	cat *catalog.Catalog
	in  *ingest.Ingest
	e   *Exports
	now time.Time
	mu  sync.Mutex
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, kv: memkv.New(), store: mem.New(), dir: t.TempDir(), change: change, now: time.Now()}
	r.start()
	t.Cleanup(func() { r.e.Close(); r.cat.Close() })
	return r
}

// newRigOn is a rig whose catalog can fail.
func newRigOn(t *testing.T, kv *brokenKV) *rig {
	t.Helper()
	kv.kv = memkv.New()
	r := &rig{t: t, kv: kv, store: mem.New(), dir: t.TempDir(), now: time.Now()}
	r.start()
	t.Cleanup(func() { r.e.Close(); r.cat.Close() })
	return r
}

// start is the start of a gateway, the first or after a stop.
func (r *rig) start() {
	r.t.Helper()
	ctx := context.Background()
	id := cmp.Or(r.id, "gw")
	var err error
	if r.cat, err = catalog.Open(ctx, r.kv, catalog.Config{GatewayID: id, Now: r.clock}); err != nil {
		r.t.Fatal(err)
	}
	stores := map[string]backends.Store{"mem": r.store}
	if r.in, err = ingest.New(ingest.Config{Catalog: r.cat, Stores: stores, GatewayID: id, RetryPause: time.Millisecond}); err != nil {
		r.t.Fatal(err)
	}
	cfg := Config{
		Catalog: r.cat, Stores: stores, Opener: disk.New(disk.Config{Check: true}), Ingest: r.in,
		DataDir: r.dir, GatewayID: id, Socket: "/run/platter/nbd.sock", TCP: "127.0.0.1:10809", Now: r.clock,
	}
	if r.change != nil {
		r.change(&cfg)
	}
	if r.e, err = New(cfg); err != nil {
		r.t.Fatal(err)
	}
	r.e.pause, r.e.handover = time.Millisecond, 200*time.Millisecond
	if err := errors.Join(r.in.Recover(ctx), r.e.Recover(ctx)); err != nil {
		r.t.Fatal(err)
	}
}

// restart is a stop in good order and a start.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.e.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.cat.Close()
	r.start()
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) later(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

const diskSize = 2 << 20

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{seed})
	rng.Read(b)
	return b
}

// image uploads a disk in a format and returns its record.
func (r *rig) image(format string, data []byte) catalog.Image {
	r.t.Helper()
	ctx := context.Background()
	name := "base " + format
	img, err := r.cat.CreateImage(ctx, catalog.Image{
		Name: &name, DiskFormat: format, ContainerFormat: "bare", Visibility: catalog.VisibilityShared, MinRAM: 64,
		Properties: map[string]string{"os_distro": "debian", "img_signature": "x"},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	file := data
	if format == "qcow2" {
		var b bytes.Buffer
		if err := qcow2.Encode(ctx, &b, block.FromReaderAt(bytes.NewReader(data), int64(len(data))), qcow2.EncodeOptions{}); err != nil {
			r.t.Fatal(err)
		}
		file = b.Bytes()
	}
	if err := r.in.Put(ctx, img.ID, bytes.NewReader(file), int64(len(file)), ""); err != nil {
		r.t.Fatal(err)
	}
	if img, err = r.cat.Image(ctx, img.ID); err != nil {
		r.t.Fatal(err)
	}
	return img
}

func (r *rig) overlay(img catalog.Image, size int64) catalog.Overlay {
	r.t.Helper()
	ov, err := r.e.CreateOverlay(context.Background(), platter.OverlayRequest{Image: img, Name: "o", Size: size})
	if err != nil {
		r.t.Fatal(err)
	}
	return ov
}

func (r *rig) attach(req platter.AttachRequest) platter.Attached {
	r.t.Helper()
	if req.Transport == "" {
		req.Transport = "unix"
	}
	a, err := r.e.Attach(context.Background(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// exportOf is the export name in a URI.
func exportOf(a platter.Attached) string {
	name, _, _ := strings.Cut(a.URI[strings.Index(a.URI, "attach/"):], "?")
	return name
}

var (
	first  = nbd.Client{ID: 1, Addr: PeerAddr{PID: 101}, Transport: "unix"}
	again  = nbd.Client{ID: 2, Addr: PeerAddr{PID: 101}, Transport: "unix"}
	second = nbd.Client{ID: 3, Addr: PeerAddr{PID: 202}, Transport: "unix"}
	tcp    = nbd.Client{ID: 4, Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4}, Transport: "tcp"}
	tcp2   = nbd.Client{ID: 5, Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5}, Transport: "tcp"}
	remote = nbd.Client{ID: 6, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6}, Transport: "tcp"}
)

func (r *rig) open(c nbd.Client, name string) nbd.Export {
	r.t.Helper()
	x, err := r.e.Open(context.Background(), c, name)
	if err != nil {
		r.t.Fatalf("open %s: %v", name, err)
	}
	return x
}

// refused checks that an export cannot be opened, and why.
func (r *rig) refused(c nbd.Client, name string, want error, words ...string) {
	r.t.Helper()
	x, err := r.e.Open(context.Background(), c, name)
	if err == nil {
		x.Close()
	}
	if !errors.Is(err, want) {
		r.t.Errorf("open %s: %v, want %v", name, err, want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			r.t.Errorf("open %s: %q does not say %q", name, err, w)
		}
	}
}

func (r *rig) read(d block.Reader) []byte {
	r.t.Helper()
	b := make([]byte, d.Size())
	if err := d.ReadAt(context.Background(), b, 0); err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *rig) write(x nbd.Export, p []byte, off int64) {
	r.t.Helper()
	d, ok := x.Disk.(block.Device)
	if !ok {
		r.t.Fatalf("%s is not writable", x.Label)
	}
	if err := d.WriteAt(context.Background(), p, off); err != nil {
		r.t.Fatal(err)
	}
	if err := d.Flush(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close(x nbd.Export) {
	r.t.Helper()
	if err := x.Close(); err != nil {
		r.t.Fatal(err)
	}
}

func TestParseName(t *testing.T) {
	const id = "0d7f5f6c-7e0b-4b0a-9d53-1b1c5b0f7a11"
	for _, tt := range []struct {
		name string
		k    kind
		id   string
		bad  bool
	}{
		{name: id, k: kindDisk, id: id},
		{name: id + "/native", k: kindNative, id: id},
		{name: "ephemeral/" + id, k: kindEphemeral, id: id},
		{name: "overlay/" + id, k: kindOverlay, id: id},
		{name: "secret", bad: true}, {name: "secret/native", bad: true}, {name: "overlay/secret", bad: true}, {name: "ephemeral/secret", bad: true},
		{name: "attach/a-_Z9", k: kindToken, id: "a-_Z9"},
		{name: "", bad: true}, {name: "/", bad: true}, {name: "a/b", bad: true}, {name: "../x", bad: true},
		{name: "attach/", bad: true}, {name: "overlay/../x", bad: true}, {name: "/native", bad: true},
		{name: strings.Repeat("a", 129), bad: true}, {name: "attach/secret!", bad: true},
	} {
		k, id, err := parseName(tt.name)
		switch {
		case tt.bad && !errors.Is(err, fs.ErrNotExist):
			t.Errorf("parseName(%q) = %v, %q, %v; want fs.ErrNotExist", tt.name, k, id, err)
		case !tt.bad && (err != nil || k != tt.k || id != tt.id):
			t.Errorf("parseName(%q) = %v, %q, %v", tt.name, k, id, err)
		case tt.bad && strings.Contains(err.Error(), "secret"):
			t.Errorf("parseName(%q) repeats it: %v", tt.name, err)
		}
	}
}

func TestOpenImage(t *testing.T) {
	r := newRig(t, nil)
	data := noise(diskSize, 1)
	for _, format := range []string{"raw", "qcow2"} {
		img := r.image(format, data)
		x := r.open(first, img.ID)
		if !bytes.Equal(r.read(x.Disk), data) {
			t.Errorf("%s: the disk bytes differ", format)
		}
		if _, writable := x.Disk.(block.Device); writable || !x.MultiConn {
			t.Errorf("%s: writable=%t multi-conn=%t", format, writable, x.MultiConn)
		}
		native := r.open(tcp, img.ID+"/native")
		if native.Disk.Size() != *img.Size {
			t.Errorf("%s: native has %d bytes, want %d", format, native.Disk.Size(), *img.Size)
		}
		r.close(x)
		r.close(native)
	}
}

func TestOpenRefuses(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	queued, err := r.cat.CreateImage(ctx, catalog.Image{DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared})
	if err != nil {
		t.Fatal(err)
	}
	img := r.image("raw", noise(1000, 1))
	off := r.image("raw", noise(1000, 2))
	if _, err := r.cat.UpdateImage(ctx, off.ID, func(i *catalog.Image) error { i.Status = catalog.StatusDeactivated; return nil }); err != nil {
		t.Fatal(err)
	}
	const none = "00000000-0000-4000-8000-000000000000"
	r.refused(first, none, fs.ErrNotExist, "no image "+none)
	r.refused(first, queued.ID, fs.ErrNotExist, "queued")
	r.refused(first, "ephemeral/"+queued.ID, fs.ErrNotExist, "queued")
	r.refused(first, off.ID, fs.ErrPermission, "deactivated")
	r.refused(first, "overlay/"+none, fs.ErrNotExist, "no overlay")
	r.refused(first, "attach/AAAA", fs.ErrNotExist, "no such attachment")

	odd := r.image("raw", noise(512, 3))
	if _, err := r.cat.UpdateImage(ctx, odd.ID, func(i *catalog.Image) error { i.DiskFormat = "vmdk"; return nil }); err != nil {
		t.Fatal(err)
	}
	r.refused(first, odd.ID, errors.ErrUnsupported, "vmdk", "/native")

	r.e.cfg.TokensOnly = true
	r.refused(first, img.ID, fs.ErrPermission, "attach/TOKEN")
	for info, err := range r.e.List(ctx, first) {
		t.Errorf("List shows %v, %v", info, err)
	}
	a := r.attach(platter.AttachRequest{Image: &img, Mode: catalog.AttachRO})
	r.close(r.open(first, exportOf(a)))
}

func TestList(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("raw", noise(1024, 1))
	ov := r.overlay(img, 0)
	var names []string
	for info, err := range r.e.List(t.Context(), first) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	if want := []string{img.ID, "overlay/" + ov.ID}; !slices.Equal(names, want) {
		t.Errorf("List: %q, want %q", names, want)
	}
}

func TestEphemeral(t *testing.T) {
	r := newRig(t, nil)
	data := noise(diskSize+100, 1) // not whole sectors
	img := r.image("raw", data)
	a, b := r.open(first, "ephemeral/"+img.ID), r.open(second, "ephemeral/"+img.ID)
	if a.Disk.Size() != diskSize+512 || a.MultiConn {
		t.Errorf("size %d, multi-conn %t", a.Disk.Size(), a.MultiConn)
	}
	r.write(a, []byte("hello"), 5000)
	if got := r.read(a.Disk)[5000:5005]; string(got) != "hello" {
		t.Errorf("read back %q", got)
	}
	if !bytes.Equal(r.read(b.Disk)[:len(data)], data) {
		t.Error("another connection sees the writes")
	}
	if files, _ := os.ReadDir(r.e.ephemeralDir()); len(files) > 0 {
		t.Errorf("an ephemeral disk has the name %s", files[0].Name())
	}
	r.close(a)
	r.close(b)
	x := r.open(first, img.ID)
	defer x.Close()
	if !bytes.Equal(r.read(x.Disk), data) {
		t.Error("the image has changed")
	}
}

func TestImageOutlivesDelete(t *testing.T) {
	r := newRig(t, nil)
	data := noise(diskSize, 1)
	img := r.image("raw", data)
	x := r.open(first, img.ID)
	defer x.Close()
	if _, err := r.cat.DeleteImage(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.in.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.read(x.Disk), data) {
		t.Error("an open disk does not outlive its image")
	}
	r.refused(first, img.ID, fs.ErrNotExist)
}

func TestDoor(t *testing.T) {
	unix := door{node: "platter-1", export: "attach/T", socket: "/run/my sock,et"}
	tcp := door{node: "platter-1", export: "attach/T", host: "127.0.0.1", port: "10809", readOnly: true}
	for _, tt := range []struct{ got, want string }{
		{unix.uri(), "nbd+unix:///attach/T?socket=%2Frun%2Fmy%20sock%2Cet"},
		{tcp.uri(), "nbd://127.0.0.1:10809/attach/T"},
		{unix.qemu(), "-blockdev 'driver=nbd,node-name=platter-1,server.type=unix,server.path=/run/my sock,,et,export=attach/T,reconnect-delay=60,discard=unmap' -device virtio-blk-pci,drive=platter-1"},
		{tcp.qemu(), "-blockdev driver=nbd,node-name=platter-1,server.type=inet,server.host=127.0.0.1,server.port=10809,export=attach/T,reconnect-delay=60,read-only=on -device virtio-blk-pci,drive=platter-1"},
		{unix.nbdClient(), "nbd-client -name attach/T -unix '/run/my sock,et' /dev/nbd0 -persist"},
		{tcp.nbdClient(), "nbd-client -name attach/T 127.0.0.1 10809 /dev/nbd0 -persist -readonly"},
	} {
		if tt.got != tt.want {
			t.Errorf("got  %s\nwant %s", tt.got, tt.want)
		}
	}
	if x := tcp.libvirt(); !strings.Contains(x, "<readonly/>") || !strings.Contains(x, `<host name="127.0.0.1" port="10809"/>`) {
		t.Errorf("libvirt: %s", x)
	}
	if x := unix.libvirt(); !strings.Contains(x, `socket="/run/my sock,et"`) || strings.Contains(x, "<readonly/>") {
		t.Errorf("libvirt: %s", x)
	}
	for listen, want := range map[string]string{
		"0.0.0.0:1": "127.0.0.1:1", ":1": "127.0.0.1:1", "[::]:1": "[::1]:1", "10.0.0.1:1": "10.0.0.1:1", "": "",
	} {
		if got := reach(listen); got != want {
			t.Errorf("reach(%q) = %q, want %q", listen, got, want)
		}
	}
}

func TestPeers(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	p := Peers(l)
	defer p.Close()
	go func() {
		if c, err := net.Dial("unix", l.Addr().String()); err == nil {
			defer c.Close()
			c.Read(make([]byte, 1))
		}
	}()
	c, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	addr, ok := c.RemoteAddr().(PeerAddr)
	if !ok || addr.PID != os.Getpid() || addr.UID != os.Getuid() || c.LocalAddr().Network() != "unix" {
		t.Errorf("peer %#v", c.RemoteAddr())
	}
	if !strings.Contains(addr.String(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the peer is called %q", addr)
	}
}
