//go:build integration

package swift

import (
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
)

func TestStore(t *testing.T) {
	for name, c := range map[string]struct {
		segment int64
		static  bool
	}{
		"one piece":         {},
		"dynamic manifests": {segment: 64 << 10},
		"static manifests":  {segment: 64 << 10, static: true},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, a servers.SwiftAccount) {
				storetest.Test(t, func(t *testing.T) backends.Store {
					cfg := config(a)
					cfg.SegmentSize, cfg.Static = c.segment, c.static
					return open(t, cfg)
				})
			})
		})
	}
}

func TestCapabilities(t *testing.T) {
	onEach(t, func(t *testing.T, a servers.SwiftAccount) {
		for _, c := range open(t, config(a)).Capabilities() {
			t.Logf("%-32s %-5v %s", c.Name, c.OK, c.Detail)
		}
	})
}
