//go:build integration

package rbd_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// TestBadConfig: what is wrong is said, and soon.
func TestBadConfig(t *testing.T) {
	c := ceph(t)
	good := config(t, c)
	good.Timeout = 2 * time.Second
	for name, change := range map[string]func(*rbd.Config){
		"no such pool":      func(c *rbd.Config) { c.Pool = "none" },
		"no such user":      func(c *rbd.Config) { c.User = "nobody" },
		"no such conf":      func(c *rbd.Config) { c.Conf = "/nonexistent" },
		"keyring of others": func(cfg *rbd.Config) { cfg.Keyring = strings.ReplaceAll(c.Keyring, c.User, "osd.0") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			began := time.Now()
			s, err := rbd.Open(t.Context(), cfg)
			if err == nil {
				closing(t, s)
				t.Fatal("it worked")
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			t.Log(err)
		})
	}
}

// TestProbe: what the cluster can do is known, and what nobody knows is not
// made up.
func TestProbe(t *testing.T) {
	s := open(t, config(t, ceph(t)))
	caps := backends.Capabilities(s)
	t.Logf("%+v", caps)
	if len(caps) < 3 {
		t.Errorf("capabilities: %+v", caps)
	}
	u, err := backends.UsageOf(t.Context(), s)
	if err != nil || u != (backends.Usage{}) {
		t.Errorf("usage of a cluster without a manager = %+v, %v, want unknown", u, err)
	}
	if slices.ContainsFunc(caps, func(c backends.Capability) bool { return c.Name == "usage" && c.OK }) {
		t.Errorf("usage is said to be known: %+v", caps)
	}
}

// TestStoreBlocklisted: when the Store's own client is shut out, readers and
// the Store go on with a new one.
func TestStoreBlocklisted(t *testing.T) {
	ctx, c := t.Context(), ceph(t)
	cfg := config(t, c)
	s := open(t, cfg)
	data := sparse(20 << 20)
	if err := storetest.Put(ctx, s, "k", -1, data); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(ctx, "w", -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	// The writer is the only one whom the cluster can name.
	var status struct {
		Watchers []struct{ Address string }
	}
	out := c.Command(t, "rbd", "--pool", cfg.Pool, "--namespace", cfg.Namespace, "status", "--format", "json", "w")
	if err := json.Unmarshal([]byte(out), &status); err != nil || len(status.Watchers) != 1 {
		t.Fatalf("rbd status: %v\n%s", err, out)
	}
	c.Command(t, "ceph", "osd", "blocklist", "add", status.Watchers[0].Address)
	for range 2 {
		if err := blocktest.Equal(ctx, r, data); err != nil {
			t.Fatalf("an open reader: %v", err)
		}
	}
	if err := storetest.Want(ctx, s, "k", data); err != nil {
		t.Errorf("a new reader: %v", err)
	}
	_, err = w.Write(make([]byte, 100))
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Commit(ctx)
	}
	if !errors.Is(err, rbd.ErrFenced) {
		t.Errorf("a writer that was shut out = %v, want ErrFenced", err)
	}
	w.Abort()
	if err := storetest.Put(ctx, s, "k2", -1, data); err != nil {
		t.Errorf("a new writer: %v", err)
	}
	closing(t, r)
	again(t, func() error {
		err := s.Delete(ctx, "w")
		if err != nil && !errors.Is(err, syscall.EBUSY) {
			t.Fatal(err)
		}
		return err
	})
}

// TestAttach: to open an overlay of a large disk takes no longer than one of a
// small one.
func TestAttach(t *testing.T) {
	ctx := t.Context()
	s := open(t, config(t, ceph(t)))
	times := map[string][]time.Duration{}
	for name, size := range map[string]int64{"small": 1 << 30, "large": 1 << 40} {
		clone(t, s, name, storetest.Bytes(1, 1<<20), size)
		p := make([]byte, 4096)
		for i := range 20 {
			began := time.Now()
			d := device(t, s, name, int64(i))
			if err := d.ReadAt(ctx, p, 0); err != nil {
				t.Fatal(err)
			}
			times[name] = append(times[name], time.Since(began))
			closing(t, d)
		}
		slices.Sort(times[name])
		t.Logf("%s: median %v, worst %v", name, times[name][10], times[name][19])
	}
	if small, large := times["small"][10], times["large"][10]; large > time.Second+3*small {
		t.Errorf("a large disk took %v, a small one %v", large, small)
	}
}
