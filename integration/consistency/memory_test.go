package consistency

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// sectors of the disk: three clusters of an overlay, and a bit.
const sectors = 3*256 + 100

// runs is how many games TestConnections plays; "make test" wants more of
// them than who only wants to know whether everything is all right.
func runs() int {
	if n, err := strconv.Atoi(os.Getenv("PLATTER_CONSISTENCY")); err == nil && n > 0 {
		return n
	}
	return 60
}

// image is a disk that holds Base, and never changes.
type image struct{}

func (image) Size() int64 { return sectors * Sector }

func (image) ReadAt(_ context.Context, p []byte, off int64) error {
	whole := make([]byte, (int64(len(p))+2*Sector)/Sector*Sector)
	Stamp(whole, Base)
	copy(p, whole[off%8:])
	return block.CheckRange(off, int64(len(p)), sectors*Sector)
}

// exports are one disk, called "disk".
type exports struct{ disk block.Reader }

func (e exports) Open(_ context.Context, _ nbd.Client, name string) (nbd.Export, error) {
	if name != "disk" {
		return nbd.Export{}, fmt.Errorf("no export %s: %w", name, fs.ErrNotExist)
	}
	return nbd.Export{Disk: e.disk, Label: name, MultiConn: true}, nil
}

func (e exports) List(context.Context, nbd.Client) iter.Seq2[nbd.Info, error] {
	return func(func(nbd.Info, error) bool) {}
}

// serve serves a disk on a socket, and returns how to end that.
func serve(t *testing.T, disk block.Reader) (socket string, stop func()) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s, err := nbd.New(nbd.Config{Exports: exports{disk}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	return socket, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// connect opens connections of every kind to an export.
func connect(t *testing.T, socket, export string) (clients []*nbdtest.Client) {
	t.Helper()
	for _, enter := range []func(c *nbdtest.Client) error{
		func(c *nbdtest.Client) error { return c.Enter(export) },
		func(c *nbdtest.Client) error { _, err := c.Go(export); return err }, // simple replies
		func(c *nbdtest.Client) error { return c.EnterExtended(export) },
	} {
		c, err := nbdtest.Dial("unix", socket)
		if err == nil {
			err = enter(c)
		}
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	return clients
}

// readAll reads the disk, in pieces that every server takes.
func readAll(r block.Reader) ([]uint64, error) {
	p := make([]byte, r.Size())
	err := r.ReadAt(context.Background(), p, 0)
	return Values(p), err
}

// TestConnections plays games on overlays that are opened anew for each, and
// after each lets the power fail: some time after the last answer, so that
// everything that a flush covers must be there.
func TestConnections(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CONSISTENCY_SEED"); s != "" {
		fmt.Sscan(s, &seed)
	}
	t.Logf("CONSISTENCY_SEED=%d", seed)
	fsys, h := newFS(t), NewHistory(sectors)
	for run := range runs() {
		if run%8 == 0 { // a new overlay; the others go on with what is left
			fsys, h = newFS(t), NewHistory(sectors)
		}
		var err error
		if fsys, err = crash(t, fsys, h, seed+uint64(run)*1000, run%8 == 0, overlaid); err != nil {
			t.Fatalf("run %d of seed %d: %v", run, seed, err)
		}
	}
}

func newFS(t *testing.T) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
	if err := errors.Join(fsys.Mkdir("d", 0o700), fsys.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return fsys
}

// overlaid is the disk that a gateway makes of an image and an overlay's file.
func overlaid(d *delta.Delta) block.Device { return overlay.New(image{}, d) }

// crash plays one game on the disk that build makes, and returns what a loss
// of power after it leaves, or what cannot be.
func crash(t *testing.T, fsys *crashfs.FS, h *History, seed uint64, fresh bool, build func(*delta.Delta) block.Device) (left *crashfs.FS, wrong error) {
	t.Helper()
	d := open(t, fsys, fresh)
	socket, stop := serve(t, build(d))
	clients := connect(t, socket, "disk")
	g := game{h: h, clients: clients, lanes: 3, steps: 12}
	wrong = g.play(seed)
	for _, c := range clients {
		c.Close()
	}
	stop()
	for _, state := range fsys.CrashesNow(rand.New(rand.NewPCG(seed, 99)), 1) {
		left = state
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	d = open(t, left, false)
	values, err := readAll(overlaid(d))
	if err == nil && wrong == nil {
		wrong = h.Crashed(values)
	}
	if err := errors.Join(err, d.Close()); err != nil {
		t.Error(err)
	}
	return left, wrong
}

func open(t *testing.T, fsys localfs.FS, fresh bool) *delta.Delta {
	t.Helper()
	use := delta.Open
	if fresh {
		use = delta.Create
	}
	d, err := use(context.Background(), delta.Config{FS: fsys, Path: "d/disk.qcow2", Size: sectors * Sector})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
