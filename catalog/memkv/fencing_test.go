package memkv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/catalogtest"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// TestFencing lets gateways take an overlay from each other, commit heads and
// give it back, in any order, with answers that are lost, gateways that are
// cut off, die, are replaced, and wake up after others have taken over, also
// between what a call reads and what it commits.
func TestFencing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		defer w.close()
		t.Repeat(map[string]func(*rapid.T){
			"":        w.check,
			"take":    w.take,
			"commit":  w.commit,
			"release": w.release,
			"time":    w.pass,
			"cut":     w.cut,
			"die":     w.die,
			"leave":   w.leave,
		})
	})
}

const overlayID, leaseTime = "o", 10 * time.Second

// A gateway is one run of one.
type gateway struct {
	id     string
	kv     *catalogtest.Faulty
	cat    *catalog.Catalog
	member *catalog.Membership
	cut    bool
}

// A tenure is what one that took the overlay thinks, for as long as it thinks.
type tenure struct {
	g     *gateway
	epoch int64
	head  catalog.OverlayHead // the last one it knows to be committed
}

// A world has the truth: what a KV must hold, by what was said to callers.
type world struct {
	kv       *memkv.KV
	gateways []*gateway
	tenures  []*tenure // of runs that are over, too: they may be asleep

	owner   string // "": nobody
	since   int64  // the first epoch of the owner's
	head    catalog.OverlayHead
	highest int64 // epoch that anybody was told
	queued  map[string]bool
	losses  int
	count   int
}

func newWorld(t *rapid.T) *world {
	w := &world{kv: memkv.NewManual(), queued: map[string]bool{}}
	for i := range 3 {
		w.gateways = append(w.gateways, w.start(t, fmt.Sprint("g", i)))
	}
	size := int64(1)
	cat := w.gateways[0].cat
	img, err := cat.CreateImage(context.Background(), catalog.Image{Status: catalog.StatusActive, Size: &size})
	if err == nil {
		_, err = cat.CreateOverlay(context.Background(), catalog.Overlay{ID: overlayID, ImageID: img.ID, Engine: "object-log", Status: catalog.OverlayAvailable})
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) start(t *rapid.T, id string) *gateway {
	g := &gateway{id: id, kv: catalogtest.NewFaulty(w.kv)}
	var err error
	g.cat, err = catalog.Open(context.Background(), g.kv, catalog.Config{GatewayID: id, Clock: w.kv.Now, Heartbeat: time.Hour})
	if err == nil {
		g.member, err = g.cat.Join(context.Background(), leaseTime, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// stop ends a run without a word to the KV.
func (g *gateway) stop() {
	g.kv.Down()
	g.member.Close()
	g.cat.Close()
}

func (w *world) close() {
	for _, g := range w.gateways {
		g.stop()
	}
}

func (w *world) any(t *rapid.T) *gateway { return rapid.SampledFrom(w.gateways).Draw(t, "gateway") }

// alive tells whether the KV holds the record of a gateway.
func (w *world) alive(id string) bool {
	_, err := w.kv.Get(context.Background(), "gw/"+id)
	return err == nil
}

// own tells whether the record of a gateway is that of this run.
func (g *gateway) own() bool { return !g.cut && g.member.Renew(context.Background()) == nil }

func (w *world) take(t *rapid.T) { w.takeBy(t, w.any(t)) }

func (w *world) takeBy(t *rapid.T, g *gateway) {
	accept := rapid.Bool().Draw(t, "accept")
	lost := !g.cut && rapid.IntRange(0, 4).Draw(t, "lost") == 0
	mine := g.own()
	other := w.owner != g.id
	held := other && w.owner != "" && w.alive(w.owner)
	loss := other && w.head.Dirty && !accept
	if lost && mine && !held && !loss {
		g.kv.LoseAnswer()
	} else {
		lost = false
	}
	o, err := g.cat.TakeOverlay(context.Background(), overlayID, catalog.Take{AcceptLoss: accept})
	var heldErr *catalog.HeldError
	var lossErr *catalog.LossError
	switch {
	case g.cut:
		w.want(t, err, errors.Is(err, catalog.ErrUnavailable), "take while cut off")
		return
	case held:
		w.want(t, err, errors.As(err, &heldErr) && heldErr.Gateway == w.owner, "take of what is held")
		return
	case loss:
		w.want(t, err, errors.As(err, &lossErr) && lossErr.Gateway == w.owner, "take with a loss")
		return
	case !mine:
		w.want(t, err, errors.Is(err, catalog.ErrLeaseGone), "take without a lease")
		return
	case lost:
		w.want(t, err, errors.Is(err, catalog.ErrUnavailable), "take whose answer is lost")
		if o, err = w.gateways[0].cat.Overlay(context.Background(), overlayID); err == nil {
			o = w.stored(t)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if o.Epoch <= w.highest || o.Gateway != g.id {
		t.Fatalf("%s took epoch %d after %d: %+v", g.id, o.Epoch, w.highest, o)
	}
	w.highest = o.Epoch
	if other {
		if w.head.Dirty {
			w.losses++
		}
		w.since, w.head.Dirty = o.Epoch, false
	}
	w.owner, w.head.Epoch = g.id, o.Epoch
	if o.HeldSince != w.since || len(o.Quarantined) != min(w.losses, 32) {
		t.Fatalf("held since %d, want %d; %d quarantined, want %d", o.HeldSince, w.since, len(o.Quarantined), w.losses)
	}
	if !lost {
		w.tenures = append(w.tenures, &tenure{g, o.Epoch, w.head})
	}
}

// stored reads the overlay from the KV itself.
func (w *world) stored(t *rapid.T) catalog.Overlay {
	c, err := catalog.Open(context.Background(), w.kv, catalog.Config{Clock: w.kv.Now, Heartbeat: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	o, err := c.Overlay(context.Background(), overlayID)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (w *world) want(t *rapid.T, err error, ok bool, what string) {
	if !ok {
		t.Fatalf("%s: %v", what, err)
	}
}

// tenure draws one of all there ever were.
func (w *world) tenure(t *rapid.T) *tenure {
	if len(w.tenures) == 0 {
		t.Skip("nobody has taken it")
	}
	return w.tenures[rapid.IntRange(0, len(w.tenures)-1).Draw(t, "tenure")]
}

func (w *world) commit(t *rapid.T) {
	x := w.tenure(t)
	w.count++
	h := catalog.OverlayHead{
		Epoch: x.epoch, Sequence: x.head.Sequence + int64(rapid.IntRange(0, 1).Draw(t, "step")),
		Dirty: rapid.Bool().Draw(t, "dirty"), Data: fmt.Append(nil, w.count),
	}
	garbage := []catalog.Garbage{{Store: "s", Key: fmt.Sprint("segment", w.count)}}
	how := rapid.SampledFrom([]string{"", "", "lost", "overtaken"}).Draw(t, "how")
	if how == "overtaken" {
		// Another one takes it between our look and our commit.
		i := slices.Index(w.gateways, x.g) + rapid.IntRange(1, 2).Draw(t, "other")
		x.g.kv.Before(func(catalog.Txn) { w.takeBy(t, w.gateways[i%3]) })
	}
	// How it ends is decided by what holds when it commits.
	lost := how == "lost" && !x.g.cut && w.head.Epoch == x.epoch
	if lost {
		x.g.kv.LoseAnswer()
	}
	err := x.g.cat.CommitHead(context.Background(), overlayID, h, garbage)
	x.g.kv.Before(nil)
	if lost {
		w.want(t, err, errors.Is(err, catalog.ErrUnavailable), "commit whose answer is lost")
		for range rapid.IntRange(1, 2).Draw(t, "again") {
			if err = x.g.cat.CommitHead(context.Background(), overlayID, h, garbage); err != nil {
				t.Fatalf("commit of what is committed: %v", err)
			}
		}
	}
	switch {
	case errors.Is(err, catalog.ErrClosed), x.g.cut && errors.Is(err, catalog.ErrUnavailable):
	case w.head.Epoch != x.epoch:
		w.want(t, err, errors.Is(err, catalog.ErrFenced), fmt.Sprintf("commit in epoch %d when %d is taken", x.epoch, w.head.Epoch))
	case err != nil:
		t.Fatalf("commit by the owner: %v", err)
	default:
		w.head, x.head = h, h
		w.queued[garbage[0].Key] = true
	}
}

func (w *world) release(t *rapid.T) {
	x := w.tenure(t)
	lost := !x.g.cut && rapid.Bool().Draw(t, "lost") && w.head.Epoch == x.epoch && !w.head.Dirty && w.owner != ""
	if lost {
		x.g.kv.LoseAnswer()
	}
	o, err := x.g.cat.ReleaseOverlay(context.Background(), overlayID, x.epoch)
	if lost && errors.Is(err, catalog.ErrUnavailable) {
		o, err = x.g.cat.ReleaseOverlay(context.Background(), overlayID, x.epoch)
	}
	again := w.owner == "" && w.head.Epoch == x.epoch+1
	switch {
	case errors.Is(err, catalog.ErrClosed), x.g.cut && errors.Is(err, catalog.ErrUnavailable):
	case w.head.Epoch != x.epoch && !again:
		w.want(t, err, errors.Is(err, catalog.ErrFenced), fmt.Sprintf("release of epoch %d when %d is taken", x.epoch, w.head.Epoch))
	case err != nil:
		t.Fatalf("release by the owner: %v", err)
	case w.head.Dirty:
		if o.Gateway != w.owner {
			t.Fatalf("a dirty overlay was released: %+v", o)
		}
	case !again:
		w.owner, w.head.Epoch = "", w.head.Epoch+1
		w.highest = w.head.Epoch
	}
}

// pass lets time go by; who can renews.
func (w *world) pass(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "steps") {
		w.kv.Advance(leaseTime / 3)
		w.check(t)
		for _, g := range w.gateways {
			if rapid.Bool().Draw(t, "renews") {
				g.own()
			}
		}
	}
}

func (w *world) cut(t *rapid.T) {
	g := w.any(t)
	if g.cut = !g.cut; g.cut {
		g.kv.Down()
	} else {
		g.kv.Up()
	}
}

// die ends a run and starts the next. What it took it may still believe to
// have: another process of its id can only be one that sleeps.
func (w *world) die(t *rapid.T) {
	w.replace(t, rapid.IntRange(0, len(w.gateways)-1).Draw(t, "gateway"))
}

func (w *world) replace(t *rapid.T, i int) {
	old := w.gateways[i]
	next := w.start(t, old.id)
	for _, x := range w.tenures {
		if x.g == old { // its commits still arrive, late
			x.g = next
		}
	}
	old.stop()
	w.gateways[i] = next
}

// leave ends a run with a farewell, and starts the next one when it may.
func (w *world) leave(t *rapid.T) {
	i := rapid.IntRange(0, len(w.gateways)-1).Draw(t, "gateway")
	old := w.gateways[i]
	if old.cut {
		t.Skip("it cannot say so")
	}
	if err := old.member.Close(); err != nil {
		t.Fatal(err)
	}
	if w.alive(old.id) {
		t.Fatalf("%s has left and is there", old.id)
	}
	if rapid.Bool().Draw(t, "others first") {
		w.take(t)
	}
	w.replace(t, i)
}

// check compares the KV with the truth.
func (w *world) check(t *rapid.T) {
	for _, g := range w.gateways {
		if g.member.Valid() && !w.alive(g.id) {
			t.Fatalf("%s is valid and its lease has ended", g.id)
		}
	}
	c, err := catalog.Open(context.Background(), w.kv, catalog.Config{Clock: w.kv.Now, Heartbeat: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h, err := c.OverlayHead(context.Background(), overlayID)
	if err != nil {
		t.Fatal(err)
	}
	if h.Epoch != w.head.Epoch || h.Sequence != w.head.Sequence || h.Dirty != w.head.Dirty || !bytes.Equal(h.Data, w.head.Data) {
		t.Fatalf("the head is %+v, want %+v", h, w.head)
	}
	o, err := c.Overlay(context.Background(), overlayID)
	if err != nil || o.Epoch != h.Epoch || o.Gateway != w.owner || o.Dirty != h.Dirty {
		t.Fatalf("the overlay is %+v, %v, want owner %q and head %+v", o, err, w.owner, h)
	}
	found := map[string]bool{}
	for p, err := range w.kv.List(context.Background(), "gc/", "") {
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(p.Value), `"key":"`)
		key, _, _ := strings.Cut(after, `"`)
		found[key] = true
	}
	if len(found) != len(w.queued) {
		t.Fatalf("garbage %v, want %v", found, w.queued)
	}
	for key := range w.queued {
		if !found[key] {
			t.Fatalf("%s is not queued", key)
		}
	}
}
