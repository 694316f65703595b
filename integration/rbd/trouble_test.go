//go:build integration

package rbd_test

import (
	"bytes"
	"errors"
	"io/fs"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// TestFencing: a new writer takes over from one that has it open, and the old
// one can do nothing more, now or later.
func TestFencing(t *testing.T) {
	ctx := t.Context()
	cfg := config(t, ceph(t))
	one, two := open(t, cfg), open(t, cfg)
	data := sparse(10 << 20)
	clone(t, one, "o", data, 0)
	old := device(t, one, "o", 1)
	piece := storetest.Bytes(5, 50_000)
	if err := old.WriteAt(ctx, piece, 1<<20); err != nil {
		t.Fatal(err)
	}
	copy(data[1<<20:], piece)
	if _, err := two.OpenDevice(ctx, "o", rbd.DeviceConfig{Epoch: 2}); !errors.Is(err, rbd.ErrLocked) {
		t.Fatalf("open what another has open = %v, want ErrLocked", err)
	}
	if err := two.Takeover(ctx, "o"); err != nil {
		t.Fatal(err)
	}
	d := device(t, two, "o", 2)
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := old.WriteAt(ctx, piece, 5<<20); !errors.Is(err, rbd.ErrFenced) {
			t.Errorf("a write of the old writer = %v, want ErrFenced", err)
		}
		if err := old.Flush(ctx); !errors.Is(err, rbd.ErrFenced) {
			t.Errorf("a flush of the old writer = %v, want ErrFenced", err)
		}
	}
	if err := old.Close(); err != nil {
		t.Errorf("Close of a fenced writer: %v", err)
	}
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	if _, err := one.OpenDevice(ctx, "o", rbd.DeviceConfig{Epoch: 1}); !errors.Is(err, rbd.ErrLocked) {
		t.Errorf("the old writer again = %v, want ErrLocked", err)
	}
	closing(t, d)
	if _, err := one.OpenDevice(ctx, "o", rbd.DeviceConfig{Epoch: 1}); !errors.Is(err, rbd.ErrFenced) {
		t.Errorf("the old writer again, when nobody has it open = %v, want ErrFenced", err)
	}
	if err := storetest.Want(ctx, one, "base-of-o", sparse(10<<20)); err != nil {
		t.Errorf("the store of the fenced writer: %v", err)
	}
	closing(t, device(t, one, "o", 3))
}

// TestFencingBesideWrites: whatever an old writer is told, nothing of it lands
// under the new one.
func TestFencingBesideWrites(t *testing.T) {
	ctx := t.Context()
	cfg := config(t, ceph(t))
	s := open(t, cfg)
	clone(t, s, "o", make([]byte, 64<<20), 0)
	for epoch := int64(1); epoch <= 5; epoch++ {
		old := device(t, s, "o", 2*epoch)
		var wait sync.WaitGroup
		for user := range 8 {
			wait.Go(func() {
				p := bytes.Repeat([]byte{byte(epoch)}, 4096)
				for i := 0; ; i++ {
					if err := old.WriteAt(ctx, p, int64((i*8+user)%(16<<10))<<12); err != nil {
						if !errors.Is(err, rbd.ErrFenced) {
							t.Errorf("a write of the old writer = %v, want ErrFenced", err)
						}
						return
					}
				}
			})
		}
		time.Sleep(200 * time.Millisecond)
		if err := s.Takeover(ctx, "o"); err != nil {
			t.Fatal(err)
		}
		d := device(t, s, "o", 2*epoch+1)
		first, later := make([]byte, 64<<20), make([]byte, 64<<20)
		if err := d.ReadAt(ctx, first, 0); err != nil {
			t.Fatal(err)
		}
		wait.Wait()
		if err := d.ReadAt(ctx, later, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, later) {
			t.Error("a write of the old writer landed under the new one")
		}
		closing(t, old)
		closing(t, d)
	}
}

// TestOSDStopped: while the cluster does not answer, nothing waits for ever
// and nothing is acknowledged; afterwards everything goes on.
func TestOSDStopped(t *testing.T) {
	ctx := t.Context()
	c := ceph(t)
	cfg := config(t, c)
	cfg.Timeout = 4 * time.Second
	s := open(t, cfg)
	data := sparse(10 << 20)
	clone(t, s, "o", data, 0)
	d := device(t, s, "o", 1)
	r, err := s.Open(ctx, "base-of-o")
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, r)

	c.OSD.Pause(t)
	began := time.Now()
	p := make([]byte, 4096)
	if err := d.ReadAt(ctx, p, 0); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("read of an overlay = %v, want ETIMEDOUT", err)
	}
	if err := r.ReadAt(ctx, p, 5<<20); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("read of an object = %v, want ETIMEDOUT", err)
	}
	if err := d.WriteAt(ctx, p, 4096); !errors.Is(err, syscall.ETIMEDOUT) || !errors.Is(err, rbd.ErrUnknown) {
		t.Errorf("write = %v, want ErrUnknown", err)
	}
	if _, err := s.Open(ctx, "base-of-o"); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("open = %v, want ETIMEDOUT", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("four requests took %v", took)
	}
	c.OSD.Resume(t)
	if !d.Unknown() {
		t.Error("the write that was not answered is forgotten")
	}
	again(t, func() error { return r.ReadAt(ctx, p, 5<<20) })
	piece := storetest.Bytes(7, 8192)
	again(t, func() error { return d.WriteAt(ctx, piece, 0) })
	copy(data, piece)
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	closing(t, d)
	if _, err := s.OpenDevice(ctx, "o", rbd.DeviceConfig{Epoch: 2}); !errors.Is(err, rbd.ErrLocked) {
		t.Errorf("open after a write that may still land = %v, want ErrLocked", err)
	}
	d, err = s.OpenDevice(ctx, "o", rbd.DeviceConfig{Epoch: 2, Takeover: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	closing(t, d)
}

// TestOSDStoppedForLong: the cluster is silent for longer than it remembers
// its clients.
func TestOSDStoppedForLong(t *testing.T) {
	ctx := t.Context()
	c := blue(t)
	cfg := config(t, c)
	cfg.Timeout = 4 * time.Second
	s := open(t, cfg)
	data := sparse(10 << 20)
	clone(t, s, "o", data, 0)
	d := device(t, s, "o", 1)
	c.OSD.Pause(t)
	p := storetest.Bytes(9, 4096)
	for began := time.Now(); time.Since(began) < 45*time.Second; {
		if err := d.WriteAt(ctx, p, 4096); !errors.Is(err, rbd.ErrUnknown) {
			t.Fatalf("write = %v, want ErrUnknown", err)
		}
	}
	c.OSD.Resume(t)
	again(t, func() error { return d.WriteAt(ctx, p, 4096) })
	copy(data[4096:], p)
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	closing(t, d)
}

// again tries until it works, for at most two minutes.
func again(t testing.TB, f func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestOSDKilled: an OSD that was killed and starts again has every write that
// was answered.
func TestOSDKilled(t *testing.T) {
	ctx := t.Context()
	c := blue(t)
	cfg := config(t, c)
	cfg.Timeout = 5 * time.Second
	s := open(t, cfg)
	clone(t, s, "o", make([]byte, 32<<20), 0)
	d := device(t, s, "o", 1)
	defer closing(t, d)
	var wait sync.WaitGroup
	stop := make(chan struct{})
	acknowledged := make([]byte, 32<<20/4096)
	for user := range 4 {
		wait.Go(func() {
			for i := user; ; i += 4 {
				at := i % len(acknowledged)
				value := byte(i/len(acknowledged) + 1)
				again(t, func() error { return d.WriteAt(ctx, bytes.Repeat([]byte{value}, 4096), int64(at)<<12) })
				acknowledged[at] = value
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	c.OSD.Kill(t)
	time.Sleep(time.Second)
	c.OSD.Start(t)
	time.Sleep(2 * time.Second)
	close(stop)
	wait.Wait()
	got := make([]byte, 32<<20)
	again(t, func() error { return d.ReadAt(ctx, got, 0) })
	for i, want := range acknowledged {
		if !bytes.Equal(got[i<<12:(i+1)<<12], bytes.Repeat([]byte{want}, 4096)) {
			t.Fatalf("block %d is %#x, acknowledged was %#x", i, got[i<<12], want)
		}
	}
}

// TestFull: in a full cluster what takes space is ENOSPC, what takes none
// works, and nothing is lost.
func TestFull(t *testing.T) {
	ctx := t.Context()
	c := ceph(t)
	cfg := config(t, c)
	cfg.Timeout = 5 * time.Second
	s := open(t, cfg)
	data := sparse(512 << 20)
	clone(t, s, "o", data, 0)
	d := device(t, s, "o", 1)
	defer closing(t, d)
	at, p := int64(0), storetest.Bytes(9, 4096)
	full(t, c, "0.00001", func() bool {
		err := d.WriteAt(ctx, p, at)
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write = %v, want ENOSPC", err)
		}
		if err == nil {
			copy(data[at:], p)
			at += 4 << 20
		}
		return err != nil
	})
	if err := storetest.Put(ctx, s, "k", -1, storetest.Bytes(1, 10<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a new object = %v, want ENOSPC", err)
	}
	if err := d.WriteAt(ctx, p[:512], 0); err != nil {
		t.Errorf("what is there already, again: %v", err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Error(err)
	}
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	full(t, c, "0.95", func() bool { return d.WriteAt(ctx, p, at) == nil })
	copy(data[at:], p)
	if err := blocktest.Equal(ctx, d, data); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(ctx, "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what did not fit = %v, want fs.ErrNotExist", err)
	}
	if err := s.Delete(ctx, "k"); err != nil {
		t.Error(err)
	}
}

// full sets at what part of its space an OSD is full, and waits until that
// shows.
func full(t *testing.T, c *servers.Ceph, ratio string, shows func() bool) {
	t.Helper()
	for _, what := range []string{"set-nearfull-ratio", "set-backfillfull-ratio", "set-full-ratio"} {
		c.Command(t, "ceph", "osd", what, ratio)
	}
	for began := time.Now(); !shows(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("a full ratio of %s shows no effect", ratio)
		}
	}
}
