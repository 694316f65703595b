package catalogtest

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// logged adds an overlay of the engine object-log that nobody owns.
func logged(t testing.TB, c *catalog.Catalog) catalog.Overlay {
	t.Helper()
	return must(c.CreateOverlay(t.Context(), catalog.Overlay{
		ImageID: active(t, c).ID, Engine: "object-log", Store: "far", Size: 1 << 30, Status: catalog.OverlayAvailable,
	}))(t)
}

func testOwners(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	a, ma := joined(t, kv, "a")
	b, _ := joined(t, kv, "b")
	o := logged(t, a)
	if o.Epoch != 0 || o.Gateway != "" {
		t.Errorf("created without an owner: %+v", o)
	}
	first := must(a.TakeOverlay(ctx, o.ID, catalog.Take{}))(t)
	if first.Epoch <= o.Epoch || first.Gateway != "a" || first.HeldSince != first.Epoch || first.Revision <= o.Revision {
		t.Errorf("taken: %+v", first)
	}
	var held *catalog.HeldError
	if _, err := b.TakeOverlay(ctx, o.ID, catalog.Take{AcceptLoss: true}); !errors.As(err, &held) || held.Gateway != "a" {
		t.Errorf("take while another has it: %v, want a HeldError", err)
	}
	again := must(a.TakeOverlay(ctx, o.ID, catalog.Take{}))(t)
	if again.Epoch <= first.Epoch || again.HeldSince != first.Epoch {
		t.Errorf("taken again by the same: %+v after %+v", again, first)
	}
	if _, err := a.ReleaseOverlay(ctx, o.ID, first.Epoch); !errors.Is(err, catalog.ErrFenced) {
		t.Errorf("release by an earlier owner: %v, want ErrFenced", err)
	}
	free := must(a.ReleaseOverlay(ctx, o.ID, again.Epoch))(t)
	if free.Gateway != "" {
		t.Errorf("released: %+v", free)
	}
	must(a.ReleaseOverlay(ctx, o.ID, again.Epoch))(t)
	if err := a.CommitHead(ctx, o.ID, catalog.OverlayHead{Epoch: again.Epoch, Sequence: 1}, nil); !errors.Is(err, catalog.ErrFenced) {
		t.Errorf("commit after the release: %v, want ErrFenced", err)
	}
	moved := must(b.TakeOverlay(ctx, o.ID, catalog.Take{}))(t)
	if moved.Epoch <= again.Epoch || moved.Gateway != "b" || moved.HeldSince != moved.Epoch || len(moved.Quarantined) != 0 {
		t.Errorf("taken by another: %+v", moved)
	}
	if _, err := a.ReleaseOverlay(ctx, o.ID, again.Epoch); !errors.Is(err, catalog.ErrFenced) {
		t.Errorf("release after another took it: %v, want ErrFenced", err)
	}
	for _, mode := range []catalog.AttachMode{catalog.AttachRO, catalog.AttachRW} {
		at := catalog.Attachment{OverlayID: o.ID, Mode: mode, Gateway: "a"}
		if _, err := a.CreateAttachment(ctx, at); !errors.As(err, &held) || held.Gateway != "b" || held.Holder != "" {
			t.Errorf("attach %s at the gateway that lost it: %v, want a HeldError", mode, err)
		}
		at.Gateway = "b"
		if err := a.DeleteAttachment(ctx, must(a.CreateAttachment(ctx, at))(t).ID); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "both see the owner", func() bool {
		list, err := a.Overlays(ctx, catalog.OverlayQuery{Gateway: "b"})
		return err == nil && len(list) == 1 && list[0].Epoch == moved.Epoch
	})
	if err := ma.Close(); err != nil {
		t.Fatal(err)
	}
	own := must(b.CreateOverlay(ctx, catalog.Overlay{ImageID: o.ImageID, Engine: "rbd", Gateway: "b"}))(t)
	if own.Epoch == 0 || own.HeldSince != own.Epoch || must(b.OverlayHead(ctx, own.ID))(t).Epoch != own.Epoch {
		t.Errorf("created with an owner: %+v", own)
	}
	if err := b.DeleteOverlay(ctx, own.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.OverlayHead(ctx, own.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("head of a deleted overlay: %v", err)
	}
	if _, err := b.TakeOverlay(ctx, own.ID, catalog.Take{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("take of a deleted overlay: %v", err)
	}
}

// testLoss: what only a journal has is not given away without a word.
func testLoss(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	a, ma := joined(t, kv, "a")
	b, _ := joined(t, kv, "b")
	o := logged(t, a)
	first := must(a.TakeOverlay(ctx, o.ID, catalog.Take{}))(t)
	dirty := catalog.OverlayHead{Epoch: first.Epoch, Sequence: 7, Dirty: true, Data: []byte("state")}
	if err := a.CommitHead(ctx, o.ID, dirty, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*catalog.Catalog{a, b} {
		eventually(t, "the overlay is shown as dirty", func() bool {
			got, err := c.Overlay(ctx, o.ID)
			return err == nil && got.Dirty
		})
	}
	if kept := must(a.ReleaseOverlay(ctx, o.ID, first.Epoch))(t); kept.Gateway != "a" || !kept.Dirty || kept.Epoch != first.Epoch {
		t.Errorf("released though it is dirty: %+v", kept)
	}
	if err := ma.Close(); err != nil {
		t.Fatal(err)
	}
	var loss *catalog.LossError
	if _, err := b.TakeOverlay(ctx, o.ID, catalog.Take{}); !errors.As(err, &loss) || loss.Gateway != "a" || loss.Overlay != o.ID {
		t.Errorf("take of what is dirty: %v, want a LossError", err)
	}
	// The old gateway may always have it back, whole.
	a2, ma2 := joined(t, kv, "a")
	back := must(a2.TakeOverlay(ctx, o.ID, catalog.Take{AcceptLoss: true}))(t)
	if !back.Dirty || back.HeldSince != first.Epoch || len(back.Quarantined) != 0 {
		t.Errorf("taken back: %+v", back)
	}
	if h := must(a2.OverlayHead(ctx, o.ID))(t); !h.Dirty || h.Epoch != back.Epoch || h.Sequence != 7 || string(h.Data) != "state" {
		t.Errorf("head after it was taken back: %+v", h)
	}
	if err := ma2.Close(); err != nil {
		t.Fatal(err)
	}
	got := must(b.TakeOverlay(ctx, o.ID, catalog.Take{AcceptLoss: true}))(t)
	if got.Dirty || got.HeldSince != got.Epoch || len(got.Quarantined) != 1 || got.Quarantined[0].Gateway != "a" || got.Quarantined[0].Epoch != back.Epoch {
		t.Errorf("taken with the loss accepted: %+v", got)
	}
	if h := must(b.OverlayHead(ctx, o.ID))(t); h.Dirty || h.Epoch != got.Epoch || h.Sequence != 7 || string(h.Data) != "state" {
		t.Errorf("head after the loss: %+v", h)
	}
	if must(b.Overlay(ctx, o.ID))(t).Dirty {
		t.Error("the overlay is shown as dirty after the loss")
	}
	if err := a2.CommitHead(ctx, o.ID, dirty, nil); !errors.Is(err, catalog.ErrFenced) {
		t.Errorf("commit by the owner before: %v, want ErrFenced", err)
	}
}

func testFiles(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	a, b := Start(t, kv, catalog.Config{GatewayID: "a"}), Start(t, kv, catalog.Config{GatewayID: "b"})
	o := must(a.CreateOverlay(ctx, catalog.Overlay{ImageID: active(t, a).ID, Engine: "file", Gateway: "a"}))(t)
	if _, err := b.TakeOverlay(ctx, o.ID, catalog.Take{AcceptLoss: true}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("take of another gateway's file: %v, want fs.ErrPermission", err)
	}
	got := must(a.TakeOverlay(ctx, o.ID, catalog.Take{}))(t)
	if free := must(a.ReleaseOverlay(ctx, o.ID, got.Epoch))(t); free.Gateway != "a" {
		t.Errorf("a file was released: %+v", free)
	}
	if _, err := a.OverlayHead(ctx, o.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("head of a file: %v", err)
	}
	changed := must(a.UpdateOverlay(ctx, o.ID, func(o *catalog.Overlay) error {
		o.Gateway, o.Epoch, o.Engine, o.Store, o.Parent, o.Name = "b", 99, "rbd", "x", "p", "name"
		return nil
	}))(t)
	if changed.Gateway != "a" || changed.Epoch != got.Epoch || changed.Engine != "file" || changed.Store != "" || changed.Parent != "p" || changed.Name != "name" {
		t.Errorf("updated: %+v", changed)
	}
}

// testTakeRace: many take at once; each that does has an epoch of its own.
func testTakeRace(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	gateways := []*catalog.Catalog{Start(t, kv, catalog.Config{GatewayID: "a"}), Start(t, kv, catalog.Config{GatewayID: "b"})}
	o := logged(t, gateways[0])
	var mu sync.Mutex
	var epochs []int64
	var all sync.WaitGroup
	for i := range 8 {
		c := gateways[i%2]
		all.Go(func() {
			for n := 0; n < 4; {
				got, err := c.TakeOverlay(ctx, o.ID, catalog.Take{})
				if errors.Is(err, catalog.ErrConflict) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				n++
				mu.Lock()
				epochs = append(epochs, got.Epoch)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(epochs)
	if len(slices.Compact(slices.Clone(epochs))) != 32 {
		t.Errorf("two have one epoch: %v", epochs)
	}
	if last := must(gateways[0].TakeOverlay(ctx, o.ID, catalog.Take{}))(t); last.Epoch <= epochs[len(epochs)-1] {
		t.Errorf("epoch %d after %d", last.Epoch, epochs[len(epochs)-1])
	}
}

// testTakeLate: what a take has looked at changes before it commits.
func testTakeLate(t *testing.T, open Open) {
	inner := open(t)
	kv, ctx := NewFaulty(inner), t.Context()
	a, ma := joined(t, inner, "a")
	o := must(a.TakeOverlay(ctx, logged(t, a).ID, catalog.Take{}))(t)
	if err := ma.Close(); err != nil {
		t.Fatal(err)
	}
	b, _ := joined(t, kv, "b")
	kv.Before(func(catalog.Txn) { joined(t, inner, "a") })
	var held *catalog.HeldError
	if _, err := b.TakeOverlay(ctx, o.ID, catalog.Take{}); !errors.As(err, &held) {
		t.Errorf("the owner came back meanwhile: %v, want a HeldError", err)
	}
	free := must(a.CreateOverlay(ctx, catalog.Overlay{ImageID: o.ImageID, Engine: "rbd"}))(t)
	kv.Before(func(catalog.Txn) { joined(t, inner, "b") })
	if _, err := b.TakeOverlay(ctx, free.ID, catalog.Take{}); !errors.Is(err, catalog.ErrLeaseGone) {
		t.Errorf("this run was replaced meanwhile: %v, want ErrLeaseGone", err)
	}
}

func testHeads(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{GatewayID: "a"}), t.Context()
	o := must(c.TakeOverlay(ctx, logged(t, c).ID, catalog.Take{}))(t)
	h := catalog.OverlayHead{Epoch: o.Epoch, Sequence: 1, Dirty: true, Data: make([]byte, catalog.MaxData)}
	for i := range h.Data {
		h.Data[i] = byte(i * 31)
	}
	for range 2 { // the second time nothing is left to do
		if err := c.CommitHead(ctx, o.ID, h, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := must(c.OverlayHead(ctx, o.ID))(t)
	if got.Epoch != h.Epoch || got.Sequence != 1 || !got.Dirty || string(got.Data) != string(h.Data) {
		t.Errorf("head: epoch %d, sequence %d, dirty %t, %d bytes", got.Epoch, got.Sequence, got.Dirty, len(got.Data))
	}
	big := h
	big.Sequence, big.Data = 2, make([]byte, catalog.MaxData+1)
	if err := c.CommitHead(ctx, o.ID, big, nil); !errors.Is(err, catalog.ErrTooBig) {
		t.Errorf("a head over the limit: %v, want ErrTooBig", err)
	}
	clean := catalog.OverlayHead{Epoch: o.Epoch, Sequence: 1}
	if err := c.CommitHead(ctx, o.ID, clean, nil); err != nil {
		t.Fatal(err)
	}
	if must(c.Overlay(ctx, o.ID))(t).Dirty {
		t.Error("dirty after a clean head")
	}
	for name, bad := range map[string]catalog.OverlayHead{
		"sequence behind": {Epoch: o.Epoch}, "epoch never taken": {Epoch: o.Epoch + 1, Sequence: 2},
	} {
		if err := c.CommitHead(ctx, o.ID, bad, nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v, want fs.ErrInvalid", name, err)
		}
	}
	if err := c.DeleteOverlay(ctx, o.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.CommitHead(ctx, o.ID, catalog.OverlayHead{Epoch: o.Epoch, Sequence: 9}, nil); !errors.Is(err, catalog.ErrFenced) {
		t.Errorf("commit to a deleted overlay: %v, want ErrFenced", err)
	}
}

// testHeadRace lets two owners commit while they take the overlay from each
// other: what each was told is committed is in the order of the epochs.
func testHeadRace(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	o := logged(t, Start(t, kv, catalog.Config{}))
	var mu sync.Mutex
	last := map[int64]int64{} // epoch → highest sequence acknowledged
	var all sync.WaitGroup
	for i := range 2 {
		c := Start(t, kv, catalog.Config{GatewayID: fmt.Sprint("g", i)})
		all.Go(func() {
			for range 10 {
				own, err := c.TakeOverlay(ctx, o.ID, catalog.Take{})
				if errors.Is(err, catalog.ErrConflict) {
					continue
				} else if err != nil {
					t.Error(err)
					return
				}
				h := must(c.OverlayHead(ctx, o.ID))(t)
				for h.Epoch == own.Epoch { // else it is lost already
					h.Sequence++
					err := c.CommitHead(ctx, o.ID, h, []catalog.Garbage{{Store: "far", Key: fmt.Sprint("seq/", h.Sequence)}})
					if err != nil {
						if !errors.Is(err, catalog.ErrFenced) && !errors.Is(err, catalog.ErrConflict) {
							t.Error(err)
						}
						break
					}
					mu.Lock()
					last[own.Epoch] = h.Sequence
					mu.Unlock()
					if h.Sequence%5 == 0 {
						break
					}
				}
			}
		})
	}
	all.Wait()
	high := int64(0)
	for _, epoch := range sortedKeys(last) {
		if last[epoch] <= high {
			t.Errorf("epoch %d ended at %d after %d of an epoch before", epoch, last[epoch], high)
		}
		high = max(high, last[epoch])
	}
	if h := must(Start(t, kv, catalog.Config{}).OverlayHead(ctx, o.ID))(t); h.Sequence != high {
		t.Errorf("the head is %d, the last one acknowledged %d", h.Sequence, high)
	}
	queued := 0
	for range keys(t, kv, "gc/", "") {
		queued++
	}
	if int64(queued) != high {
		t.Errorf("%d heads committed and %d times garbage queued", high, queued)
	}
}

func sortedKeys(m map[int64]int64) []int64 {
	var out []int64
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// testLostAnswers: what was done and not heard of is done when asked again.
func testLostAnswers(t *testing.T, open Open) {
	kv, ctx := NewFaulty(open(t)), t.Context()
	c := Start(t, kv, catalog.Config{GatewayID: "a"})
	o := logged(t, c)
	kv.LoseAnswer()
	if _, err := c.TakeOverlay(ctx, o.ID, catalog.Take{}); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("take whose answer is lost: %v", err)
	}
	own := must(c.TakeOverlay(ctx, o.ID, catalog.Take{}))(t)
	h := catalog.OverlayHead{Epoch: own.Epoch, Sequence: 1, Data: []byte("1")}
	old := []catalog.Garbage{{Store: "far", Key: "old"}}
	kv.LoseAnswer()
	if err := c.CommitHead(ctx, o.ID, h, old); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("commit whose answer is lost: %v", err)
	}
	before := must(c.OverlayHead(ctx, o.ID))(t)
	if err := c.CommitHead(ctx, o.ID, h, old); err != nil {
		t.Errorf("commit again: %v", err)
	}
	if after := must(c.OverlayHead(ctx, o.ID))(t); before.Sequence != 1 || after.Revision != before.Revision {
		t.Errorf("head %+v, then %+v; want the same", before, after)
	}
	kv.LoseAnswer()
	if _, err := c.ReleaseOverlay(ctx, o.ID, own.Epoch); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("release whose answer is lost: %v", err)
	}
	if free, err := c.ReleaseOverlay(ctx, o.ID, own.Epoch); err != nil || free.Gateway != "" {
		t.Errorf("release again: %+v, %v", free, err)
	}
	img := active(t, c)
	claim := catalog.Parent{Image: img.ID, Store: "rbd", Key: "k1", Total: 10}
	kv.LoseAnswer()
	if _, _, err := c.ClaimParent(ctx, claim); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("claim whose answer is lost: %v", err)
	}
	if got, own, err := c.ClaimParent(ctx, claim); err != nil || !own || got.Key != "k1" {
		t.Errorf("claim again: %+v, %t, %v", got, own, err)
	}
}

// testHeadGarbage: garbage comes with the head, and not before its time.
func testHeadGarbage(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	var mu sync.Mutex
	var clock time.Duration
	cfg := catalog.Config{GatewayID: "a", Clock: func() time.Duration { mu.Lock(); defer mu.Unlock(); return clock }}
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); clock += d }
	c := Start(t, kv, cfg)
	o := must(c.TakeOverlay(ctx, logged(t, c).ID, catalog.Take{}))(t)
	var list []catalog.Garbage
	for i := range catalog.MaxGarbage {
		list = append(list, catalog.Garbage{Store: []string{"far", "near"}[i%2], Key: fmt.Sprintf("segment/%d", i)})
	}
	h := catalog.OverlayHead{Epoch: o.Epoch, Sequence: 1}
	if err := c.CommitHead(ctx, o.ID, h, append(list, list[0])); !errors.Is(err, catalog.ErrTooBig) {
		t.Errorf("garbage over the limit: %v, want ErrTooBig", err)
	}
	if err := c.CommitHead(ctx, o.ID, h, list); err != nil {
		t.Fatal(err)
	}
	h.Epoch--
	if err := c.CommitHead(ctx, o.ID, h, list[:1]); !errors.Is(err, catalog.ErrFenced) {
		t.Fatal(err)
	}
	for range 2 {
		if got := must(c.Garbage(ctx))(t); len(got) != 0 {
			t.Fatalf("%d objects are garbage at once", len(got))
		}
		pass(2*catalog.DefaultLease - time.Second)
	}
	pass(2 * time.Second)
	got := must(c.Garbage(ctx))(t)
	if len(got) != len(list) {
		t.Fatalf("%d objects are garbage, want %d", len(got), len(list))
	}
	// Another gateway has a clock of its own.
	if other := must(Start(t, kv, cfg).Garbage(ctx))(t); len(other) != 0 {
		t.Errorf("%d objects are garbage for a gateway that has just started", len(other))
	}
	seen := map[string]bool{}
	for i, g := range got[:100] {
		seen[g.Store+" "+g.Key] = true
		if err := c.Collected(ctx, g); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := c.Collected(ctx, got[0]); err != nil {
		t.Errorf("collected again: %v", err)
	}
	left := must(c.Garbage(ctx))(t)
	if len(left) != len(list)-100 || len(seen) != 100 {
		t.Errorf("%d objects are left of %d after 100", len(left), len(list))
	}
	testDeleteGarbage(t, kv, c, o.ID)
}

// testDeleteGarbage deletes an overlay with more objects than a transaction
// can take.
func testDeleteGarbage(t *testing.T, kv catalog.KV, c *catalog.Catalog, overlay string) {
	ctx := t.Context()
	before := len(keys(t, kv, "gc/", ""))
	var list []catalog.Garbage
	for i := range catalog.MaxGarbage + 1 {
		list = append(list, catalog.Garbage{Store: "far", Key: fmt.Sprint(i)})
	}
	if err := c.DeleteOverlay(ctx, overlay, list...); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("delete of what is not being deleted: %v, want fs.ErrInvalid", err)
	}
	must(c.UpdateOverlay(ctx, overlay, func(o *catalog.Overlay) error { o.Status = catalog.OverlayDeleting; return nil }))(t)
	if err := c.DeleteOverlay(ctx, overlay, list...); err != nil {
		t.Fatal(err)
	}
	if n := len(keys(t, kv, "gc/", "")) - before; n < 65 || n > 70 {
		t.Errorf("%d objects in %d records", len(list), n)
	}
}

func testResize(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{}), t.Context()
	o := logged(t, c)
	resize := func(size int64) (catalog.Overlay, error) {
		return c.UpdateOverlay(ctx, o.ID, func(o *catalog.Overlay) error { o.Size = size; return nil })
	}
	if got := must(resize(2 << 30))(t); got.Size != 2<<30 || must(c.Overlay(ctx, o.ID))(t).Size != 2<<30 {
		t.Errorf("resized: %+v", got)
	}
	if _, err := resize(1 << 30); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("to less: %v, want fs.ErrInvalid", err)
	}
	must(c.CreateAttachment(ctx, catalog.Attachment{OverlayID: o.ID, Mode: catalog.AttachRO}))(t)
	var used *catalog.InUseError
	if _, err := resize(3 << 30); !errors.As(err, &used) {
		t.Errorf("of what is attached: %v, want an InUseError", err)
	}
}
