//go:build integration

package crashes

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestTakeover has two gateways on one catalog. The one that has the overlay
// is killed, or stopped for longer than its lease, and the other one takes it.
// When the first comes back, nothing of it may reach the disk, and nothing may
// be acknowledged that the disk does not have.
func TestTakeover(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		name         string
		env          func(t *testing.T, more ...string) []string
		more         []string
		prefix       bool
		sample, full int
	}{
		{"log/gateway", inVersity, nil, true, 3, 60},
		{"log/store", inVersity, []string{"DURABILITY=store"}, true, 3, 60},
		{"rbd", inPool, nil, false, 3, 60},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			env := shared(t, k.env(t, k.more...)...)
			a, b := gateway.Start(t, env...), gateway.Start(t, env...)
			d := &duel{rig: newRig(t, a, k.prefix, "raw"), other: b, loses: k.name == "log/gateway"}
			d.run(times(k.sample, k.full))
		})
	}
}

// A duel is a rig whose overlay another gateway takes.
type duel struct {
	*rig
	other *gateway.Gateway
	loses bool // a takeover may lose what only a journal has

	killed, paused, handed, accepted, set int
}

func (d *duel) run(rounds int) {
	start := time.Now()
	for round := range rounds {
		switch round % 3 {
		case 0:
			d.pause()
		case 1:
			d.kill()
		case 2:
			d.handover()
		}
	}
	d.t.Logf("%d killed, %d paused, %d handed over in %v; %d losses accepted, %d journals set aside",
		d.killed, d.paused, d.handed, time.Since(start).Round(time.Second), d.accepted, d.set)
}

// kill kills the owner while it writes; it comes back when it has lost the
// overlay.
func (d *duel) kill() {
	t := d.t
	c := d.open()
	stop := d.write(c)
	d.between(50, 500)
	d.g.Kill(t)
	c.Close()
	stop()
	d.killed++
	taken, loss := d.attach(d.other)
	d.taken(taken, loss, func() { d.g.Run(t) })
}

// pause stops the owner for longer than its lease, as a machine may.
func (d *duel) pause() {
	t := d.t
	c := d.open()
	stop := d.write(c)
	d.between(50, 500)
	d.signal(syscall.SIGSTOP)
	time.Sleep(300 * time.Millisecond) // what it said before comes in
	taken, loss := d.attach(d.other)
	d.paused++
	d.taken(taken, loss, func() {
		since := d.h.tick()
		d.signal(syscall.SIGCONT)
		d.refused() // from the first moment on
		ended := make(chan struct{})
		go func() { stop(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(2 * time.Minute):
			t.Error("writes to the gateway that lost the overlay neither end nor fail")
			c.Close()
			<-ended
		}
		c.Close()
		d.late(since)
	})
}

// late wants nothing to be acknowledged that was asked of a gateway after it
// came back without its overlay. A trim that may do nothing is no promise:
// librbd answers a short one without asking the cluster.
func (d *duel) late(since int64) {
	for _, l := range d.h.lanes {
		for _, o := range l.ops {
			if o.sent > since && o.acked > 0 && (o.kind != opTrim || d.h.exact) {
				d.t.Errorf("a gateway acknowledged %+v of lane %d after it had lost the overlay at %d", o, l.number, since)
			}
		}
	}
	for _, sent := range d.h.flushes {
		if sent > since {
			d.t.Error("a gateway acknowledged a flush that was asked for after it had lost the overlay")
		}
	}
}

func (d *duel) signal(s syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(d.g.PID(), s); err != nil {
		d.t.Fatal(err)
	}
}

// taken goes on with the gateway that took the overlay, lets the other one come
// back, and gives the overlay to that at the end.
func (d *duel) taken(c *nbdtest.Client, loss bool, comeBack func()) {
	t := d.t
	if loss && !d.loses {
		t.Fatal("a takeover should not need to lose anything here")
	}
	if loss {
		d.accepted++
	}
	disk := d.read(c)
	next := &rig{t: t, g: d.other, h: d.h.next(disk), rng: d.rng, overlay: d.overlay, prefix: d.prefix}
	stop := next.write(c)
	comeBack()
	// What was acknowledged by then, however late, the new owner found.
	d.h.failed = nil // the old owner has to refuse
	d.check(disk, span{flushed: !loss})
	d.refused()
	d.between(50, 300)
	stop()
	disk = next.read(c)
	next.check(disk, span{after: next.h.tick()})
	leave(t, c)

	d.h = next.h.next(disk)
	c = d.open()
	if now := d.read(c); true {
		d.check(now, span{})
	}
	leave(t, c)
	aside, err := filepath.Glob(filepath.Join(d.g.Dir, "journals", d.overlay, "aside-*"))
	if err != nil {
		t.Fatal(err)
	}
	if loss && len(aside) == 0 {
		t.Error("the journal that was left behind was not set aside")
	}
	d.set = len(aside)
}

// refused wants the overlay not to be had from the gateway that lost it, also
// before that has heard of it. It may say first that it does not know.
func (d *duel) refused() {
	d.t.Helper()
	body := fmt.Sprintf(`{"overlay_id":%q,"mode":"rw","accept_loss":true}`, d.overlay)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		answer, status, err := d.g.Ask("POST", "/platter/v1/attachments", body)
		if status == 409 && strings.Contains(string(answer), "gateway") {
			return
		}
		if err != nil || status == 201 || time.Now().After(end) {
			d.t.Fatalf("an overlay that another gateway has: %v %d %s", err, status, answer)
		}
	}
}

// handover closes the overlay on one gateway and opens it on the other.
func (d *duel) handover() {
	c := d.open()
	stop := d.write(c)
	d.between(50, 500)
	stop()
	at := d.h.tick()
	leave(d.t, c)
	d.handed++
	c = d.openAt(d.other, 10*time.Second)
	disk := d.read(c)
	d.check(disk, span{after: at})
	d.settle(c, disk)
	leave(d.t, c)
}
