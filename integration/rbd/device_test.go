//go:build integration

package rbd_test

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// sparse is a disk with holes at the beginning, in the middle and at the end.
func sparse(size int) []byte {
	p := make([]byte, size)
	copy(p[size/5:], storetest.Bytes(1, size/5))
	copy(p[3*size/5:], storetest.Bytes(3, size/7))
	return p
}

// clone makes an overlay of an object with these bytes.
func clone(t testing.TB, s *rbd.Store, key string, data []byte, size int64) {
	t.Helper()
	if err := storetest.Put(t.Context(), s, "base-of-"+key, -1, data); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateClone(t.Context(), rbd.CloneConfig{Parent: "base-of-" + key, Key: key, Size: size}); err != nil {
		t.Fatal(err)
	}
}

func device(t testing.TB, s *rbd.Store, key string, epoch int64) *rbd.Device {
	t.Helper()
	d, err := s.OpenDevice(t.Context(), key, rbd.DeviceConfig{Epoch: epoch})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closing(t testing.TB, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestDevice(t *testing.T) {
	const size = 18<<20 + 4096
	for name, longer := range map[string]int64{"as long as its parent": 0, "longer": 5<<20 + 512} {
		t.Run(name, func(t *testing.T) {
			s := open(t, config(t, ceph(t)))
			data := sparse(size)
			clone(t, s, "o", data, size+longer)
			d := device(t, s, "o", 1)
			defer closing(t, d)
			blocktest.TestDevice(t, d, append(data, make([]byte, longer)...))
		})
	}
}

func TestSnapshots(t *testing.T) {
	s := open(t, config(t, ceph(t)))
	data := sparse(20 << 20)
	clone(t, s, "o", data, 0)
	d := device(t, s, "o", 1)
	defer closing(t, d)
	ctx := t.Context()
	var ids []string
	var states [][]byte
	for i := range 3 {
		id, err := d.Snapshot(ctx, "a name/with @ everything")
		if err != nil {
			t.Fatal(err)
		}
		ids, states = append(ids, id), append(states, bytes.Clone(data))
		piece := storetest.Bytes(uint64(2*i+1), 100_000)
		copy(data[i<<22+12345:], piece)
		if err := d.WriteAt(ctx, piece, int64(i<<22+12345)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := d.Snapshots(ctx)
	if err != nil || len(list) != 3 || list[0].ID != ids[0] || list[0].Name != "a name/with @ everything" || list[0].Size != 20<<20 || time.Since(list[0].Created) > time.Minute {
		t.Errorf("Snapshots = %+v, %v", list, err)
	}
	for i, id := range ids {
		r, err := d.OpenSnapshot(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		blocktest.TestReader(t, r, states[i])
		if err := d.DeleteSnapshot(ctx, id); err == nil {
			t.Error("a snapshot that is being read was deleted")
		}
		closing(t, r)
	}
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	if err := d.DeleteSnapshot(ctx, ids[1]); err != nil {
		t.Error(err)
	}
	for _, id := range []string{ids[1], "", "snap"} {
		if _, err := d.OpenSnapshot(ctx, id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenSnapshot(%q) = %v, want fs.ErrNotExist", id, err)
		}
		if err := d.DeleteSnapshot(ctx, id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("DeleteSnapshot(%q) = %v, want fs.ErrNotExist", id, err)
		}
	}
	closing(t, d)
	if err := s.Remove(ctx, "o"); err != nil {
		t.Errorf("Remove with snapshots: %v", err)
	}
	if err := s.Delete(ctx, "base-of-o"); err != nil {
		t.Errorf("Delete after the last clone: %v", err)
	}
}

func TestFlatten(t *testing.T) {
	s := open(t, config(t, ceph(t)))
	data := sparse(64 << 20)
	clone(t, s, "o", data, 0)
	d := device(t, s, "o", 1)
	defer closing(t, d)
	before := d.Usage()
	if err := d.Flatten(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := blocktest.Equal(t.Context(), d, data); err != nil {
		t.Error(err)
	}
	if err := d.Flatten(t.Context(), nil); err != nil {
		t.Errorf("Flatten of what is flat: %v", err)
	}
	if err := s.Delete(t.Context(), "base-of-o"); err != nil {
		t.Errorf("delete the parent of what is flat: %v", err)
	}
	if err := blocktest.Equal(t.Context(), d, data); err != nil {
		t.Error(err)
	}
	if before != 0 {
		t.Errorf("a new clone uses %d bytes", before)
	}
}

func TestResize(t *testing.T) {
	s := open(t, config(t, ceph(t)))
	data := sparse(10 << 20)
	clone(t, s, "o", data, 0)
	d := device(t, s, "o", 1)
	if err := s.Resize(t.Context(), "o", 12<<20); !errors.Is(err, rbd.ErrLocked) {
		t.Errorf("Resize while open = %v, want ErrLocked", err)
	}
	closing(t, d)
	if err := s.Resize(t.Context(), "o", 12<<20+1); err != nil {
		t.Fatal(err)
	}
	d = device(t, s, "o", 1)
	if err := blocktest.Equal(t.Context(), d, append(data, make([]byte, 2<<20+1)...)); err != nil {
		t.Error(err)
	}
	closing(t, d)
	if err := s.CreateClone(t.Context(), rbd.CloneConfig{Parent: "base-of-o", Key: "p", Size: 1 << 20}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a clone smaller than its parent = %v, want fs.ErrInvalid", err)
	}
	if err := s.CreateClone(t.Context(), rbd.CloneConfig{Parent: "none", Key: "p"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a clone of nothing = %v, want fs.ErrNotExist", err)
	}
	if err := s.CreateClone(t.Context(), rbd.CloneConfig{Parent: "base-of-o", Key: "o"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a clone at a taken key = %v, want fs.ErrExist", err)
	}
}

var _ block.Zeroer = (*rbd.Device)(nil)
