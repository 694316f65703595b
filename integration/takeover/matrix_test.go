//go:build integration

package takeover

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestHandOverOf hands overlays of each engine over, with the catalog in the
// gateway's own etcd and in a cluster of three members: there the old process
// gives its lease back, and the new one gets another. Of a log the new process
// finds in the journal what the store does not have yet; of an image in Ceph it
// takes the lock. fio and a client of ours work meanwhile, on an overlay each.
func TestHandOverOf(t *testing.T) {
	gateway.Need(t, "fio", "qemu-img")
	for _, c := range []struct {
		name         string
		outside      bool   // the etcd
		engine       string // of the overlays
		format       string // of the image under fio's
		sample, full int
	}{
		{"a file, etcd outside", true, "file", "qcow2", 3, 100},
		{"a log", false, "object-log", "raw", 3, 50},
		{"a log, etcd outside", true, "object-log", "raw", 3, 100},
		{"a clone in Ceph", false, "rbd", "raw", 3, 50},
		{"a clone in Ceph, etcd outside", true, "rbd", "raw", 3, 100},
		{"a delta in Ceph, etcd outside", true, "rbd", "qcow2", 2, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := []string{"--mount", "off"}
			place := fmt.Sprintf("takeover-%08x", rand.Uint32())
			switch c.engine {
			case "object-log":
				versity(t).MakeBucket(t, place)
				env = append(env, gateway.S3Store(versity(t).S3, place)...)
			case "rbd":
				ceph(t).AddPool(t, place)
				env = append(env, gateway.RBDStore(ceph(t), place)...)
			}
			if c.outside {
				env = append(env, "PLATTER_CATALOG_ETCD="+strings.Join(etcd(t).Endpoints, ","), "PLATTER_CATALOG_PREFIX=/"+place)
			}
			g := gateway.Start(t, env...)
			overlay := func(format string) string {
				id := g.NewOverlay(t, g.Upload(t, format, format, image(t, format)), "")
				if got := string(g.Call(t, "GET", "/platter/v1/overlays/"+id, "", 200)); !strings.Contains(got, `"engine":"`+c.engine+`"`) {
					t.Fatalf("an overlay of another engine: %s", got)
				}
				return "overlay/" + id
			}
			load := fio(t, g.Export(overlay(c.format)))
			w := &watcher{t: t, network: "tcp", addr: g.NBD, name: overlay("raw")}
			w.start(0, false)
			rounds := times(c.sample, c.full)
			var said, felt []time.Duration
			for range rounds {
				time.Sleep(500 * time.Millisecond)
				w.stalled()
				said = append(said, g.TakeOver(t))
				felt = append(felt, w.stalled())
			}
			w.stop()
			load.sound(t)
			t.Logf("%d hand-overs; the gateway paused: %s; clients waited: %s", rounds, stalls(said), stalls(felt))
			if strings.Contains(g.Log(), "could not be taken over") {
				t.Error("a connection was lost")
			}
		})
	}
}
