//go:build integration

package crashes

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/backends/rbd"
)

// trashSnapshots does the first step of the removal of an image's snapshots,
// which is all that librbd does when it is killed then. Arguments are a
// ceph.conf, a pool and an image.
const trashSnapshots = `
import rados, struct, sys
cluster = rados.Rados(conffile=sys.argv[1])
cluster.connect()
io = cluster.open_ioctx(sys.argv[2])
header = "rbd_header." + io.read("rbd_id." + sys.argv[3])[4:].decode()
with rados.ReadOpCtx() as op:
    values, _ = io.get_omap_vals(op, "", "snapshot_", 10)
    io.operate_read_op(op, header)
    for key, _ in values:
        io.execute(header, "rbd", "snapshot_trash_add", struct.pack("<Q", int(key[len("snapshot_"):], 16)))
`

// TestSnapshotHalfRemoved wants an object and an overlay to go away, and a
// snapshot not to be seen, although a client died while it removed it.
func TestSnapshotHalfRemoved(t *testing.T) {
	ctx, c := t.Context(), ceph(t)
	pool := place()
	c.AddPool(t, pool)
	s, err := rbd.Open(ctx, rbd.Config{Pool: pool, Conf: c.Conf, User: c.User, Keyring: c.Keyring})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	half := func(image string) {
		t.Helper()
		// Debian's Python, which has the bindings.
		if out, err := exec.Command("/usr/bin/python3", "-c", trashSnapshots, c.Conf, pool, image).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if list := c.Command(t, "rbd", "snap", "ls", "--all", pool+"/"+image); !strings.Contains(list, "trash") {
			t.Fatalf("no snapshot of %s is half removed:\n%s", image, list)
		}
	}
	if err := s.CreateClone(ctx, rbd.CloneConfig{Key: "overlay", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	d, err := s.OpenDelta(ctx, "overlay", rbd.DeviceConfig{Epoch: 1})
	if err == nil {
		_, err = d.Snapshot(ctx, "one")
	}
	if err != nil {
		t.Fatal(err)
	}
	half("overlay")
	if list, err := d.Snapshots(ctx); err != nil || len(list) > 0 {
		t.Errorf("its snapshots are %v, %v", list, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "overlay"); err != nil {
		t.Error(err)
	}

	w, err := s.Create(ctx, "object", 4)
	if err == nil {
		_, err = w.Write([]byte("data"))
	}
	if err == nil {
		err = w.Commit(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Command(t, "rbd", "snap", "unprotect", pool+"/object@snap")
	half("object")
	if err := s.Delete(ctx, "object"); err != nil {
		t.Error(err)
	}
	if left := c.Command(t, "rbd", "ls", pool); left != "" {
		t.Errorf("what is left: %s", left)
	}
}

// dropHeader removes the last thing that is made of an image and that is
// removed of it, but for its name.
const dropHeader = `
import rados, sys
cluster = rados.Rados(conffile=sys.argv[1])
cluster.connect()
io = cluster.open_ioctx(sys.argv[2])
io.remove_object("rbd_header." + io.read("rbd_id." + sys.argv[3])[4:].decode())
`

// TestImageHalfMade wants the names of images to be free again that were half
// made or half removed when their client died.
func TestImageHalfMade(t *testing.T) {
	ctx, c := t.Context(), ceph(t)
	pool := place()
	c.AddPool(t, pool)
	s, err := rbd.Open(ctx, rbd.Config{Pool: pool, Conf: c.Conf, User: c.User, Keyring: c.Keyring})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	half := func(image string) {
		t.Helper()
		c.Command(t, "rbd", "create", "--size", "1M", pool+"/"+image)
		if out, err := exec.Command("/usr/bin/python3", "-c", dropHeader, c.Conf, pool, image).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	half("object")
	if err := s.Delete(ctx, "object"); err != nil {
		t.Errorf("delete an object: %v", err)
	}
	half("overlay")
	if err := s.Remove(ctx, "overlay"); err != nil {
		t.Errorf("remove an overlay: %v", err)
	}
	if left := c.Command(t, "rbd", "ls", pool); left != "" {
		t.Errorf("what is left: %s", left)
	}
	half("parent")
	if err := s.Materialize(ctx, "parent", empty{}, nil); err != nil {
		t.Errorf("make an object in the place of a half one: %v", err)
	}
	for _, gone := range []string{"object", "none"} {
		if err := errors.Join(s.Delete(ctx, gone), s.Remove(ctx, gone)); err != nil {
			t.Errorf("delete nothing: %v", err)
		}
	}
}

// empty is a disk of 4096 zeros.
type empty struct{}

func (empty) Size() int64 { return 4096 }

func (empty) ReadAt(_ context.Context, p []byte, _ int64) error {
	clear(p)
	return nil
}
