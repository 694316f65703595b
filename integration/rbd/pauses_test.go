//go:build integration

package rbd_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// TestPauses: the OSD stops for longer than a request may take, again and
// again, while everything that there is to do is done. Nothing crashes, nothing
// waits for ever, and in the end everything can be done and removed.
func TestPauses(t *testing.T) {
	ctx := t.Context()
	c := blue(t)
	cfg := config(t, c)
	patient := open(t, cfg)
	cfg.Timeout = time.Second
	hasty := open(t, cfg)
	data := sparse(9 << 20)
	if err := storetest.Put(ctx, patient, "base", -1, data); err != nil {
		t.Fatal(err)
	}
	work := func(s *rbd.Store, user, round int) error {
		key := fmt.Sprintf("u%d-%d", user, round)
		err := storetest.Put(ctx, s, key, -1, data)
		errs := []error{err, s.CreateClone(ctx, rbd.CloneConfig{Parent: "base", Key: key + "-o"})}
		for epoch := range int64(2) {
			d, err := s.OpenDevice(ctx, key+"-o", rbd.DeviceConfig{Epoch: epoch, Takeover: true})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, d.WriteAt(ctx, data[:10_000], 5<<20))
			id, err := d.Snapshot(ctx, "s")
			errs = append(errs, err, d.Flush(ctx), d.DeleteSnapshot(ctx, id), d.Flatten(ctx, nil), d.Close())
		}
		return errors.Join(append(errs, s.Resize(ctx, key+"-o", 10<<20), s.Remove(ctx, key+"-o"), s.Delete(ctx, key))...)
	}
	var wait sync.WaitGroup
	began := time.Now()
	failed := make([]int, 4)
	for user := range failed {
		wait.Go(func() {
			for round := 0; time.Since(began) < 40*time.Second; round++ {
				if work(hasty, user, round) != nil {
					failed[user]++
				}
			}
		})
	}
	for time.Since(began) < 35*time.Second {
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		c.OSD.Pause(t)
		time.Sleep(time.Duration(rand.IntN(4000)) * time.Millisecond)
		c.OSD.Resume(t)
	}
	wait.Wait()
	t.Logf("rounds that met a pause, by user: %v", failed)
	again(t, func() error { return work(patient, 9, 9) })
	if err := storetest.Want(ctx, patient, "base", data); err != nil {
		t.Error(err)
	}
}
