//go:build integration

package takeover

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestUpgrade sends a gateway the signal of systemctl reload: it starts its
// program anew, which takes over, while a client works.
func TestUpgrade(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	overlay := "overlay/" + g.NewOverlay(t, g.Upload(t, "raw", "raw", image(t, "raw")), "")
	w := &watcher{t: t, network: "unix", addr: g.Socket, name: overlay}
	w.start(0, true)
	holder := func() int {
		text, err := os.ReadFile(filepath.Join(g.Dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	for pid, round := g.PID(), 1; round <= 3; round++ {
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		await(t, g, func() bool { return strings.Count(g.Log(), "platterd is ready") > round })
		next := holder()
		if next == pid {
			t.Fatalf("process %d still has the data directory", pid)
		}
		pid = next
		t.Cleanup(func() { syscall.Kill(next, syscall.SIGTERM) }) // it is nobody's child
		g.WaitReady(t)
		w.stalled()
	}
	w.stop()
	if err := syscall.Kill(holder(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-g.Done() // its output ends with the last of them
}
