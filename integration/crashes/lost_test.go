//go:build integration

package crashes

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestMachineLost takes the gateway's disk away between a kill and the next
// start. With durability "store" nothing is missing that a flush covered; with
// "gateway" the disk is as it was at an earlier moment, and that only after
// somebody has said in so many words that this may be.
func TestMachineLost(t *testing.T) {
	t.Parallel()
	for _, durability := range []string{"gateway", "store"} {
		t.Run(durability, func(t *testing.T) {
			t.Parallel()
			g := gateway.Start(t, shared(t, inVersity(t, "DURABILITY="+durability)...)...)
			l := &loser{rig: newRig(t, g, true, "raw"), durability: durability}
			l.run(times(8, 150))
		})
	}
}

// A loser loses the disk of its gateway.
type loser struct {
	*rig
	durability string

	losses, accepted, gone, kills int
}

func (l *loser) run(rounds int) {
	t := l.t
	start := time.Now()
	var c *nbdtest.Client
	for range rounds {
		c = l.open()
		stop := l.write(c)
		l.between(50, 700)
		l.g.Kill(t)
		c.Close()
		stop()
		if l.rng.IntN(4) == 0 { // first once more without a loss
			l.g.Run(t)
			c = l.open()
			disk := l.read(c)
			l.h.keep(disk, l.check(disk, span{flushed: true}))
			stop = l.write(c)
			l.between(50, 300)
			l.g.Kill(t)
			c.Close()
			stop()
			l.kills++
		}
		l.lose()
		l.g.Run(t)
		var loss bool
		c, loss = l.attach(l.g)
		if loss && l.durability == "store" {
			t.Fatal("an overlay whose flushes wait for the store needs a journal")
		}
		disk := l.read(c)
		cut := l.check(disk, span{flushed: !loss})
		for i, lane := range l.h.lanes {
			l.gone += len(lane.ops) - cut[i]
		}
		l.settle(c, disk)
		leave(t, c)
		l.losses++
		if loss {
			l.accepted++
		}
	}
	t.Logf("%d disks lost (and %d kills without) in %v, %d losses had to be accepted; %d writes and %d flushes, %d requests gone",
		l.losses, l.kills, time.Since(start).Round(time.Second), l.accepted, l.h.writes, l.h.flushed, l.gone)
	if l.durability == "gateway" && l.accepted < l.losses/4 {
		t.Error("hardly ever was there anything to lose")
	}
}

// lose empties the data directory. Now and then the new machine has the old
// one's id.
func (l *loser) lose() {
	l.t.Helper()
	entries, err := os.ReadDir(l.g.Dir)
	if err != nil {
		l.t.Fatal(err)
	}
	keepID := l.rng.IntN(3) > 0
	for _, e := range entries {
		if e.Name() == "gateway-id" && keepID {
			continue
		}
		if err := os.RemoveAll(filepath.Join(l.g.Dir, e.Name())); err != nil {
			l.t.Fatal(err)
		}
	}
}

// attach makes a gateway the owner of an overlay and opens it, and accepts a
// loss only if there is no other way; loss says whether that was so. While
// another owner may be alive it waits.
func (r *rig) attach(g *gateway.Gateway) (c *nbdtest.Client, loss bool) {
	r.t.Helper()
	wanted := fmt.Sprintf(`{"overlay_id":%q,"mode":"rw"}`, r.overlay)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		answer, status, err := g.Ask("POST", "/platter/v1/attachments", wanted)
		if err != nil {
			r.t.Fatal(err)
		}
		said := string(answer)
		switch status {
		case 201:
			r.detach(g, answer)
			c, err := nbdtest.Open("unix", g.Socket, "overlay/"+r.overlay)
			if err == nil {
				return c, loss
			}
			said = err.Error()
		case 409, 503:
		default:
			r.t.Fatalf("attach: %d %s", status, answer)
		}
		if strings.Contains(said, "accept_loss") {
			if loss {
				r.t.Fatalf("the loss was accepted, and still: %s", said)
			}
			loss = true
			wanted = fmt.Sprintf(`{"overlay_id":%q,"mode":"rw","accept_loss":true}`, r.overlay)
		}
		if time.Now().After(end) {
			r.t.Fatalf("the overlay cannot be attached: %d %s", status, said)
		}
	}
}

// detach forgets the attachment that an answer tells of.
func (r *rig) detach(g *gateway.Gateway, answer []byte) {
	r.t.Helper()
	var made struct{ ID string }
	if err := json.Unmarshal(answer, &made); err != nil {
		r.t.Fatal(err)
	}
	g.Call(r.t, "DELETE", "/platter/v1/attachments/"+made.ID, "", 204)
}
