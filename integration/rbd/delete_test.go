//go:build integration

package rbd_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// TestDeleteWithClones: what has clones is in use, or waits in the trash.
func TestDeleteWithClones(t *testing.T) {
	for _, release := range []string{"luminous", "mimic"} { // clones of the first kind, of the second
		for _, trash := range []bool{false, true} {
			t.Run(release, func(t *testing.T) {
				ctx, c := t.Context(), ceph(t)
				c.Command(t, "ceph", "osd", "set-require-min-compat-client", release, "--yes-i-really-mean-it")
				cfg := config(t, c)
				cfg.Trash = trash
				s := open(t, cfg)
				data := sparse(10 << 20)
				clone(t, s, "o", data, 0)
				if err := s.Free(ctx, "base-of-o"); errors.Is(err, syscall.EBUSY) == trash || trash && err != nil {
					t.Errorf("Free of what has a clone, trash %t = %v", trash, err)
				}
				if err := errors.Join(s.Free(ctx, "nothing"), s.Free(ctx, "o")); err != nil {
					t.Errorf("Free of what nobody needs = %v", err)
				}
				err := s.Delete(ctx, "base-of-o")
				if !trash {
					if !errors.Is(err, syscall.EBUSY) {
						t.Errorf("Delete of what has a clone = %v, want EBUSY", err)
					}
					if err := storetest.Want(ctx, s, "base-of-o", data); err != nil {
						t.Errorf("after a refused Delete: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Open(ctx, "base-of-o"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Open of what is in the trash = %v, want fs.ErrNotExist", err)
				}
				if err := storetest.Put(ctx, s, "base-of-o", -1, []byte("another")); err != nil {
					t.Errorf("the key again: %v", err)
				}
				d := device(t, s, "o", 1)
				if err := blocktest.Equal(ctx, d, data); err != nil {
					t.Error(err)
				}
				closing(t, d)
				if err := s.Remove(ctx, "o"); err != nil {
					t.Fatal(err)
				}
				closing(t, open(t, cfg)) // looks into the trash
				if left := c.Command(t, "rbd", "trash", "ls", "--pool", cfg.Pool, "--namespace", cfg.Namespace); left != "" {
					t.Errorf("after the last clone the trash still has %s", left)
				}
			})
		}
	}
}

// TestTrashOfOthers: what others put into the trash is theirs.
func TestTrashOfOthers(t *testing.T) {
	c := ceph(t)
	cfg := config(t, c)
	where := []string{"--pool", cfg.Pool, "--namespace", cfg.Namespace}
	c.Command(t, "rbd", append(where, "create", "--size", "1M", "theirs")...)
	c.Command(t, "rbd", append(where, "trash", "mv", "theirs")...)
	s := open(t, cfg)
	if err := s.Delete(t.Context(), "theirs"); err != nil {
		t.Error(err)
	}
	if left := c.Command(t, "rbd", append(where, "trash", "ls")...); !strings.Contains(left, "theirs") {
		t.Errorf("the trash has %q", left)
	}
}

// TestUnfinished: what a crash left of an upload is no object, and Delete
// frees it.
func TestUnfinished(t *testing.T) {
	ctx, c := t.Context(), ceph(t)
	cfg := config(t, c)
	c.Command(t, "rbd", "--pool", cfg.Pool, "--namespace", cfg.Namespace, "create", "--size", "1M", "k")
	s := open(t, cfg)
	if _, err := s.Open(ctx, "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v, want fs.ErrNotExist", err)
	}
	if err := storetest.Put(ctx, s, "k", -1, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create = %v, want fs.ErrExist", err)
	}
	if err := s.Delete(ctx, "k"); err != nil {
		t.Error(err)
	}
	if err := storetest.Put(ctx, s, "k", -1, []byte("x")); err != nil {
		t.Error(err)
	}
	c.Command(t, "rbd", "--pool", cfg.Pool, "--namespace", cfg.Namespace, "snap", "create", "k@of-somebody-else")
	if err := s.Delete(ctx, "k"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Delete of what has a snapshot of somebody else = %v, want EBUSY", err)
	}
	if err := storetest.Want(ctx, s, "k", []byte("x")); err != nil {
		t.Errorf("after a refused Delete: %v", err)
	}
}

// TestPeers: what we write, rbd and QEMU read and clone; what they write, we
// read and clone.
func TestPeers(t *testing.T) {
	ctx, c := t.Context(), ceph(t)
	s := open(t, plain(t, c))
	data := sparse(20<<20 + 4096)
	if err := storetest.Put(ctx, s, "ours", -1, data); err != nil {
		t.Fatal(err)
	}
	fsid := strings.TrimSpace(c.Command(t, "ceph", "fsid"))
	if got, want := backends.URI(s, "ours"), "rbd://"+fsid+"/"+c.Pool+"/ours/snap"; got != want {
		t.Errorf("URI = %s, want %s", got, want)
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	qemu := "rbd:" + c.Pool + "/ours@snap:id=" + c.User + ":conf=" + c.Conf
	if text, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "raw", qemu, out).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img convert: %v\n%s", err, text)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != string(data) {
		t.Errorf("what QEMU read differs, %v", err)
	}
	c.Command(t, "rbd", "clone", c.Pool+"/ours@snap", c.Pool+"/cloned")
	if err := s.Delete(ctx, "ours"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Delete of what rbd has cloned = %v, want EBUSY", err)
	}
	c.Command(t, "rbd", "export", c.Pool+"/cloned", filepath.Join(dir, "cloned"))
	if got, err := os.ReadFile(filepath.Join(dir, "cloned")); err != nil || string(got) != string(data) {
		t.Errorf("what rbd exported of its clone differs, %v", err)
	}
	c.Command(t, "rbd", "rm", "--no-progress", c.Pool+"/cloned")

	c.Command(t, "rbd", "import", "--no-progress", "--object-size", "8M", "--image-feature", "layering", out, c.Pool+"/theirs")
	if _, err := s.Open(ctx, "theirs"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of an image without a snapshot = %v, want fs.ErrNotExist", err)
	}
	c.Command(t, "rbd", "snap", "create", "--no-progress", c.Pool+"/theirs@snap")
	c.Command(t, "rbd", "snap", "protect", c.Pool+"/theirs@snap")
	r, err := s.Open(ctx, "theirs")
	if err != nil {
		t.Fatal(err)
	}
	blocktest.TestReader(t, r, data)
	closing(t, r)
	if err := s.CreateClone(ctx, rbd.CloneConfig{Parent: "theirs", Key: "o"}); err != nil {
		t.Fatal(err)
	}
	d := device(t, s, "o", 1)
	blocktest.TestDevice(t, d, data)
	closing(t, d)
	for _, err := range []error{s.Remove(ctx, "o"), s.Delete(ctx, "ours"), s.Delete(ctx, "theirs")} {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestHoles: zeros take no space, and are known.
func TestHoles(t *testing.T) {
	ctx, c := t.Context(), ceph(t)
	cfg := config(t, c)
	s := open(t, cfg)
	data := make([]byte, 100<<20)
	copy(data[50<<20:], storetest.Bytes(1, 1<<20))
	if err := storetest.Put(ctx, s, "k", -1, data); err != nil {
		t.Fatal(err)
	}
	if err := s.Materialize(ctx, "m", openObject(t, s, "k"), nil); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"k", "m"} {
		if err := storetest.Want(ctx, s, key, data); err != nil {
			t.Error(err)
		}
		used := c.Command(t, "rbd", "--pool", cfg.Pool, "--namespace", cfg.Namespace, "du", "--exact", "--format", "json", key)
		if !strings.Contains(used, `"used_size":3145728}`) && !strings.Contains(used, `"used_size":3145728,`) {
			t.Errorf("1 MiB of data at the third of a RADOS object should take 3 MiB of it; rbd du: %s", used)
		}
	}
}
