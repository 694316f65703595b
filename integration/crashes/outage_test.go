//go:build integration

package crashes

import (
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// TestStoreAway takes the store or the catalog away while an overlay is
// written, and brings it back. Writes wait; what was acknowledged is there. In
// half of the rounds the gateway is killed as well, before the store is back.
func TestStoreAway(t *testing.T) {
	t.Run("log/gateway", func(t *testing.T) { awayS3(t, "PLATTER_LIMITS_JOURNAL_BYTES=16MiB") })
	t.Run("log/store", func(t *testing.T) { awayS3(t, "PLATTER_STORES_COLD_DURABILITY=store") })
	t.Run("rbd", func(t *testing.T) {
		g := gateway.Start(t, flags(inPool(t)...)...)
		a := &absence{rig: newRig(t, g, false, "raw"), store: ceph(t).OSD}
		a.leave, a.comeBack, a.most = a.store.Pause, a.store.Resume, 1500
		t.Cleanup(func() { a.store.Resume(t) }) // it is the others' as well
		a.run(times(3, 60))
	})
	t.Run("catalog", func(t *testing.T) { // also for longer than the lease
		t.Parallel()
		e := servers.StartEtcd(t, 1)
		g := gateway.Start(t, flags(append(inVersity(t), "PLATTER_CATALOG_ETCD="+e.Endpoints[0], "PLATTER_CATALOG_LEASE=3s")...)...)
		a := &absence{rig: newRig(t, g, true, "raw"), store: e.Members[0], stays: true, most: 6000}
		a.leave, a.comeBack = a.store.Kill, a.store.Start
		a.run(times(2, 60))
	})
}

func awayS3(t *testing.T, more ...string) {
	t.Parallel()
	v := servers.StartVersity(t, servers.VersityConfig{})
	v.MakeBucket(t, "away")
	g := gateway.Start(t, append(gateway.S3Store(v.S3, "away"), flags(more...)...)...)
	a := &absence{rig: newRig(t, g, true, "raw"), store: v.Process, most: 1500}
	a.leave, a.comeBack = v.Process.Kill, v.Process.Start
	a.run(times(4, 60))
}

// An absence is a rig whose store is now and then away.
type absence struct {
	*rig
	store           *servers.Process
	leave, comeBack func(servers.TB)
	most            int  // milliseconds that it is away
	stays           bool // the gateway is not killed: it does not start without

	kills int
}

func (a *absence) run(rounds int) {
	t := a.t
	start := time.Now()
	c := a.open()
	for round := range rounds {
		stop := a.write(c)
		a.between(50, 300)
		a.leave(t)
		a.between(200, a.most)
		if round%2 == 0 || a.stays { // the gateway stays
			a.comeBack(t)
			at := a.h.tick()
			a.between(300, 600)
			stop()
			if a.h.failed != nil {
				t.Fatal(a.h.failed)
			}
			if err := a.h.flush(c); err != nil {
				t.Fatalf("flush after the store came back: %v", err)
			}
			disk := a.read(c)
			a.check(disk, span{flushed: true, after: at})
			a.h.rebase(disk)
			continue
		}
		a.g.Kill(t)
		a.kills++
		c.Close()
		stop()
		a.g.Launch(t)
		a.between(100, 1000)
		a.comeBack(t)
		a.g.WaitReady(t)
		c = a.open()
		disk := a.read(c)
		a.check(disk, span{flushed: true})
		a.settle(c, disk)
	}
	leave(t, c)
	t.Logf("%d times away, %d of them killed, in %v; %d writes and %d flushes", rounds, a.kills, time.Since(start).Round(time.Second), a.h.writes, a.h.flushed)
}
