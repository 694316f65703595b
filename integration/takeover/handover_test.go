//go:build integration

package takeover

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestHandOver lets new processes take over while clients that cannot connect
// again work: fio over the socket and over TCP, on an overlay and on an image,
// and clients with simple, structured and extended headers. None may see more
// than a pause. TLS cannot be handed over: its clients are told that the server
// stops, and connect again, a client of ours at once and QEMU's storage daemon
// in its own time; fio behind it sees no error.
func TestHandOver(t *testing.T) {
	gateway.Need(t, "fio", "qemu-img", "qemu-storage-daemon")
	ca := nbdtest.NewAuthority(t, "hand-over")
	g := gateway.Start(t, gateway.ServeTLS(t, ca, "optional")...)
	qcow := g.Upload(t, "qcow2", "qcow2", image(t, "qcow2"))
	overlay := func() string { return "overlay/" + g.NewOverlay(t, qcow, "") }
	rounds := times(5, 100)
	load := []*running{
		fio(t, g.Export(overlay())),
		fio(t, "nbd://"+g.NBD+"/"+overlay()),
		launch(t, "fio", "--name=read", "--ioengine=nbd", "--uri="+g.Export(qcow), "--rw=randread", "--bs=4k", "--size=48m", "--iodepth=8",
			"--time_based", "--runtime=1h", "--rate_iops=2000", "--thread"),
		fio(t, reconnecting(t, "server.type=inet,server.host=localhost,server.port="+port(g.NBD)+",tls-creds=tls", overlay(),
			"--object", "tls-creds-x509,id=tls,endpoint=client,dir="+ca.Folder(t, "client", nbdtest.Subject{Name: "QEMU"}))),
	}
	watchers := []*watcher{
		{t: t, network: "unix", addr: g.Socket, name: overlay()},
		{t: t, network: "tcp", addr: g.NBD, name: overlay()},
		{t: t, network: "tcp", addr: g.NBD, name: overlay()},
	}
	for i, w := range watchers {
		w.start(uint64(i)<<20, i == 2)
	}
	secure := &watcher{t: t, network: "tcp", addr: g.NBD, name: overlay(), tls: ca.Client(t, ""), returns: true}
	secure.start(0, false)
	time.Sleep(time.Second)
	var said, felt, again []time.Duration
	for range rounds {
		for _, w := range append(watchers, secure) {
			w.stalled()
		}
		said = append(said, g.TakeOver(t))
		for _, w := range watchers {
			felt = append(felt, w.stalled())
		}
		again = append(again, secure.stalled())
		time.Sleep(300 * time.Millisecond)
	}
	for _, w := range append(watchers, secure) {
		w.stop()
	}
	if n := secure.back.Load(); n < int64(rounds) {
		t.Errorf("the client with TLS connected again %d times for %d hand-overs", n, rounds)
	}
	for _, r := range load {
		r.sound(t)
	}
	t.Logf("%d hand-overs; the gateway paused: %s; clients waited: %s; with TLS: %s", rounds, stalls(said), stalls(felt), stalls(again))
	if strings.Contains(g.Log(), "could not be taken over") {
		t.Error("a connection was lost")
	}
}

// TestHandOverFails: whatever becomes of the new process in the middle, the
// old one goes on, and its clients with it.
func TestHandOverFails(t *testing.T) {
	gateway.Need(t, "fio")
	g := gateway.Start(t, "PLATTER_LIMITS_HANDOVER_WITHIN=4s")
	overlay := "overlay/" + g.NewOverlay(t, g.Upload(t, "raw", "raw", image(t, "raw")), "")
	rounds := times(4, 50)
	load := fio(t, g.Export(overlay))
	w := &watcher{t: t, network: "tcp", addr: g.NBD, name: "overlay/" + g.NewOverlay(t, g.Upload(t, "raw", "raw", image(t, "raw")), "")}
	w.start(0, false)
	failed, went := 0, 0
	for round := 0; round < rounds || failed < rounds/2 && round < 20*rounds; round++ {
		from, old := len(g.Log()), g.Done()
		back := g.LaunchTakeOver(t)
		next := g.Process().Process
		since := func(text string) bool { return strings.Contains(g.Log()[from:], text) }
		await(t, g, func() bool { return since("handing over to another process") })
		time.Sleep(time.Duration(round%4) * 4 * time.Millisecond)
		next.Signal(syscall.SIGSTOP)
		time.Sleep(250 * time.Millisecond) // what was on its way is heard of
		if since(`msg="handed over"`) {    // too late: it is the gateway now
			next.Signal(syscall.SIGCONT)
			<-old
			g.WaitReady(t)
			went++
			continue
		}
		if round%2 == 0 {
			next.Kill()
		} // else it hangs, and the old one loses its patience
		await(t, g, func() bool { return since("this one goes on") && since("clients go on") })
		<-g.Done()
		back()
		g.WaitReady(t)
		failed++
	}
	stall := w.stalled()
	w.stop()
	load.sound(t)
	t.Logf("%d hand-overs failed and %d went well; no client waited for longer than %v", failed, went, stall)
	if failed < rounds/2 {
		t.Errorf("only %d of %d hand-overs failed", failed, rounds)
	}
	g.TakeOver(t) // and the next one may
}

// await waits for something that the gateway's log shows.
func await(t *testing.T, g *gateway.Gateway, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within two minutes:\n%s", g.Log()[max(0, len(g.Log())-8192):])
		}
	}
}
