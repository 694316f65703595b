//go:build integration

package takeover

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestActivation starts a gateway at the first connection to sockets that
// systemd's activator holds, lets another process take over, and stops it: the
// sockets' file is not the gateway's to remove.
func TestActivation(t *testing.T) {
	gateway.Need(t, "systemd-socket-activate", "nbdinfo")
	for _, names := range []string{"api:nbd:nbd-socket", ""} {
		t.Run("names "+names, func(t *testing.T) {
			g := gateway.New(t, "--mount", "off")
			g.Wrap = []string{"systemd-socket-activate", "-l", strings.TrimPrefix(g.URL, "http://"), "-l", g.NBD, "-l", g.Socket}
			if names != "" {
				g.Wrap = append(g.Wrap, "--fdname="+names)
			}
			g.Run(t)
			if !strings.Contains(g.Log(), "Execing") {
				t.Errorf("the gateway was not started by a connection:\n%s", g.Log())
			}
			id := g.Upload(t, "disk", "raw", image(t, "raw"))
			for _, uri := range []string{g.Export(id), "nbd://" + g.NBD + "/" + id} {
				tool(t, "nbdinfo", "--size", uri)
			}
			g.Wrap = nil
			g.TakeOver(t)
			tool(t, "nbdinfo", "--size", g.Export(id))
			g.Stop(t)
			if _, err := os.Stat(g.Socket); err != nil {
				t.Errorf("after the stop: %v", err)
			}
			if _, err := net.DialTimeout("unix", g.Socket, time.Second); err == nil {
				t.Error("somebody still listens")
			}
			g.Run(t) // on what lies there
			tool(t, "nbdinfo", "--size", g.Export(id))
		})
	}
}
