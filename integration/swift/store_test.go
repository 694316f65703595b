//go:build integration

package swift

import (
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/far"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/backends/swift"
	"github.com/seed-478a8fee/platter/integration/servers"
)

func dynamic(c *swift.Config) { c.SegmentSize = 256 << 10 }

func static(c *swift.Config) { c.SegmentSize, c.Static = 256<<10, true }

func TestStore(t *testing.T) {
	suite := func(a servers.SwiftAccount, change func(*swift.Config)) func(t *testing.T) {
		return func(t *testing.T) {
			storetest.Far(t, func(t *testing.T) backends.Store {
				cfg := config(a)
				change(&cfg)
				return far.New(open(t, cfg), far.Config{Name: "swift"})
			})
		}
	}
	t.Run("one piece", func(t *testing.T) {
		onEach(t, func(t *testing.T, a servers.SwiftAccount) { suite(a, func(*swift.Config) {})(t) })
	})
	t.Run("dynamic/tempauth", suite(tempauth(t).Account, dynamic))
	t.Run("dynamic/rgw", suite(ceph(t).RGW.Swift, dynamic))
	t.Run("static/tempauth", suite(tempauth(t).Account, static))
	t.Run("static/rgw", suite(ceph(t).RGW.Swift, static))
}

// TestCapabilities: what was found out about each server is what is known of
// it.
func TestCapabilities(t *testing.T) {
	cannot := map[string]map[string]bool{
		"rgw": {"if-none-match on put": true, "static manifests are checked": true, "static manifests are told": true},
	}
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			can := open(t, config(k.account(t))).Capabilities()
			if len(can) != 9 {
				t.Errorf("%d capabilities, want 9", len(can))
			}
			for _, c := range can {
				t.Logf("%-30s %-5v %s", c.Name, c.OK, c.Detail)
				if c.OK == cannot[k.name][c.Name] {
					t.Errorf("%s: %v", c.Name, c.OK)
				}
			}
		})
	}
}

func BenchmarkStore(b *testing.B) {
	for _, k := range kinds() {
		b.Run(k.name, func(b *testing.B) {
			storetest.Benchmark(b, func(b *testing.B) backends.Store { return open(b, config(k.account(b))) })
		})
	}
}
