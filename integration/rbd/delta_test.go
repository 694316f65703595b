//go:build integration

package rbd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

var _ overlay.Delta = (*rbd.Delta)(nil)

func bare(t testing.TB, s *rbd.Store, key string, size, epoch int64) *rbd.Delta {
	t.Helper()
	if size >= 0 {
		if err := s.CreateClone(t.Context(), rbd.CloneConfig{Key: key, Size: size}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := s.OpenDelta(t.Context(), key, rbd.DeviceConfig{Epoch: epoch})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// over returns base with zeros to size.
func over(base []byte, size int) []byte {
	p := make([]byte, size)
	copy(p, base)
	return p
}

func TestDelta(t *testing.T) {
	const size = 18<<20 + 4096
	for name, base := range map[string]int{"as long as its base": size, "longer": 5<<20 + 512, "shorter": size + 1<<20, "over nothing": 0} {
		t.Run(name, func(t *testing.T) {
			s := open(t, config(t, ceph(t)))
			data := sparse(base)
			if err := storetest.Put(t.Context(), s, "base", -1, data); err != nil {
				t.Fatal(err)
			}
			below := openObject(t, s, "base")
			d := bare(t, s, "o", size, 1)
			o := overlay.New(below, d)
			blocktest.TestDevice(t, o, over(data, size))
			want := make([]byte, size)
			if err := o.ReadAt(t.Context(), want, 0); err != nil {
				t.Fatal(err)
			}
			closing(t, d)
			d = bare(t, s, "o", -1, 2)
			if err := blocktest.Equal(t.Context(), overlay.New(below, d), want); err != nil {
				t.Errorf("opened again: %v", err)
			}
			if err := d.Flatten(t.Context(), below, nil); err != nil {
				t.Fatal(err)
			}
			closing(t, d)
			flat := device(t, s, "o", 3)
			if err := blocktest.Equal(t.Context(), flat, want); err != nil {
				t.Errorf("flattened: %v", err)
			}
			closing(t, flat)
		})
	}
}

// TestDeltaZeroStays: what was zeroed over data is zero when it is opened
// again, and after a snapshot.
func TestDeltaZeroStays(t *testing.T) {
	ctx := t.Context()
	s := open(t, config(t, ceph(t)))
	const size = 33 << 20
	data := storetest.Bytes(1, size)
	if err := storetest.Put(ctx, s, "base", -1, data); err != nil {
		t.Fatal(err)
	}
	below := openObject(t, s, "base")
	d := bare(t, s, "o", size, 1)
	if _, err := s.OpenDevice(ctx, "o", rbd.DeviceConfig{Epoch: 9}); !errors.Is(err, rbd.ErrLocked) {
		t.Errorf("OpenDevice of what is open = %v, want ErrLocked", err)
	}
	zero := func(off, n int64) {
		t.Helper()
		if err := block.ZeroAt(ctx, overlay.New(below, d), off, n, block.ZeroAny); err != nil {
			t.Fatal(err)
		}
		clear(data[off : off+n])
	}
	zero(4<<20, 9<<20) // two objects and a part of one
	id, err := d.Snapshot(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(data)
	zero(4<<20, 4<<20) // again: the object is its own now
	zero(0, size)
	closing(t, d)
	d = bare(t, s, "o", -1, 1)
	defer closing(t, d)
	if err := blocktest.Equal(ctx, overlay.New(below, d), data); err != nil {
		t.Error(err)
	}
	r, err := d.OpenSnapshot(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, r)
	if err := blocktest.Equal(ctx, overlay.Over(r, below), before); err != nil {
		t.Errorf("the snapshot: %v", err)
	}
}

// TestKinds: an overlay over a base of the caller's is not opened as if it had
// none, nor the other way round.
func TestKinds(t *testing.T) {
	ctx := t.Context()
	s := open(t, config(t, ceph(t)))
	clone(t, s, "o", sparse(1<<20), 0)
	closing(t, bare(t, s, "b", 1<<20, 1))
	if _, err := s.OpenDelta(ctx, "o", rbd.DeviceConfig{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("OpenDelta of a clone = %v, want fs.ErrInvalid", err)
	}
	if _, err := s.OpenDevice(ctx, "b", rbd.DeviceConfig{Epoch: 1}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("OpenDevice of a bare overlay = %v, want fs.ErrInvalid", err)
	}
	for _, key := range []string{"none", "a/b"} {
		if _, err := s.OpenDevice(ctx, key, rbd.DeviceConfig{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenDevice(%q) = %v, want fs.ErrNotExist", key, err)
		}
	}
	if _, err := s.OpenDevice(ctx, "a b", rbd.DeviceConfig{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("OpenDevice of no key = %v, want fs.ErrInvalid", err)
	}
}

// TestDeltaAfterCrash: RBD's map of objects may name one that a crash kept from
// being written. It is the base's.
func TestDeltaAfterCrash(t *testing.T) {
	ctx, c := t.Context(), ceph(t)
	cfg := config(t, c)
	s := open(t, cfg)
	const size = 20 << 20
	data := storetest.Bytes(1, size)
	if err := storetest.Put(ctx, s, "base", -1, data); err != nil {
		t.Fatal(err)
	}
	below := openObject(t, s, "base")
	d := bare(t, s, "o", size, 1)
	for i := range int64(3) {
		if err := d.WriteOver(ctx, below, bytes.Repeat([]byte{7}, 5000), i<<22); err != nil {
			t.Fatal(err)
		}
	}
	closing(t, d)
	copy(data, bytes.Repeat([]byte{7}, 5000))
	copy(data[2<<22:], bytes.Repeat([]byte{7}, 5000))
	var info struct {
		Prefix string `json:"block_name_prefix"`
	}
	out := c.Command(t, "rbd", "--pool", cfg.Pool, "--namespace", cfg.Namespace, "info", "--format", "json", "o")
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatal(err)
	}
	c.Command(t, "rados", "--pool", cfg.Pool, "--namespace", cfg.Namespace, "rm", info.Prefix+".0000000000000001")
	d = bare(t, s, "o", -1, 2)
	defer closing(t, d)
	id, err := d.Snapshot(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.OpenSnapshot(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, r)
	if err := blocktest.Equal(ctx, overlay.Over(r, below), data); err != nil {
		t.Errorf("the snapshot: %v", err)
	}
	if err := blocktest.Equal(ctx, overlay.New(below, d), data); err != nil {
		t.Error(err)
	}
}
