//go:build integration

package takeover

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestRestart stops and starts the gateway while clients work that connect
// again: QEMU's storage daemon, with fio behind it, and a client of ours that
// tries every 10 ms. None may see an error, or find anything but what it
// wrote. Every other round is a hand-over, which they need not notice.
func TestRestart(t *testing.T) {
	gateway.Need(t, "fio", "qemu-storage-daemon", "qemu-img")
	g := gateway.Start(t)
	id := g.Upload(t, "qcow2", "qcow2", image(t, "qcow2"))
	overlay := func() string { return "overlay/" + g.NewOverlay(t, id, "") }
	rounds := times(5, 100)
	load := []*running{
		fio(t, reconnecting(t, "server.type=unix,server.path="+g.Socket, overlay())),
		fio(t, reconnecting(t, "server.type=inet,server.host=127.0.0.1,server.port="+port(g.NBD), overlay())),
	}
	watchers := []*watcher{
		{t: t, network: "unix", addr: g.Socket, name: overlay(), returns: true},
		{t: t, network: "tcp", addr: g.NBD, name: overlay(), returns: true},
	}
	for _, w := range watchers {
		w.start(0, false)
	}
	time.Sleep(time.Second)
	var down, up, restart, over []time.Duration
	for range rounds {
		for _, w := range watchers {
			w.stalled()
		}
		begin := time.Now()
		g.Stop(t)
		stopped := time.Now()
		g.Run(t)
		down, up = append(down, stopped.Sub(begin)), append(up, time.Since(stopped))
		for _, w := range watchers {
			restart = append(restart, w.stalled())
		}
		time.Sleep(300 * time.Millisecond)
		g.TakeOver(t)
		for _, w := range watchers {
			over = append(over, w.stalled())
		}
		time.Sleep(300 * time.Millisecond)
	}
	for _, w := range watchers {
		w.stop()
		if n := w.back.Load(); n < int64(rounds) || n > 3*int64(rounds) {
			t.Errorf("a client connected again %d times for %d restarts; hand-overs should not need it", n, rounds)
		}
	}
	for _, r := range load {
		r.sound(t)
	}
	t.Logf("%d restarts: stop %s; start %s; clients waited: %s", rounds, stalls(down), stalls(up), stalls(restart))
	t.Logf("%d hand-overs: clients waited: %s", rounds, stalls(over))
}

// reconnecting starts QEMU's storage daemon, a client of the gateway that
// connects again for a minute, and returns where it serves what it got. Its
// first arguments may be others.
func reconnecting(t *testing.T, server, export string, first ...string) (uri string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "qsd")
	launch(t, "qemu-storage-daemon", append(first,
		"--blockdev", "driver=nbd,node-name=disk,"+server+",export="+export+",reconnect-delay=60",
		"--nbd-server", "addr.type=unix,addr.path="+socket,
		"--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on")...)
	uri = "nbd+unix:///disk?socket=" + socket
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := try(t, "nbdinfo", "--size", uri); err == nil {
			return uri
		} else if time.Now().After(end) {
			t.Fatalf("QEMU's storage daemon does not serve: %v", err)
		}
	}
}
