package catalogtest

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

func testAttempts(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{GatewayID: "a"}), t.Context()
	img := must(c.CreateImage(ctx, catalog.Image{}))(t)
	key := func() string { return must(c.Uploads(ctx))(t)[0].Key }
	first := must(c.BeginUpload(ctx, catalog.Upload{ID: "u1", Image: img.ID, Store: "s"}))(t)
	if first.Attempts != 1 || key() != img.ID {
		t.Errorf("attempt %d writes to %s", first.Attempts, key())
	}
	if err := c.MoveUpload(ctx, catalog.Upload{ID: "u0", Image: img.ID}, "x"); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("move of another upload: %v, want ErrGone", err)
	}
	if err := c.MoveUpload(ctx, catalog.Upload{ID: "u1", Image: img.ID}, "elsewhere"); err != nil || key() != "elsewhere" {
		t.Errorf("moved to %s, %v", key(), err)
	}
	if err := c.AbandonUpload(ctx, catalog.Upload{ID: "u1", Image: img.ID}); err != nil {
		t.Fatal(err)
	}
	garbage := must(c.Garbage(ctx))(t)
	if len(garbage) != 1 || garbage[0].Key != "elsewhere" {
		t.Errorf("garbage after the move: %v", garbage)
	}
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Attempts = 0; return nil }))(t)
	second := must(c.BeginUpload(ctx, catalog.Upload{ID: "u2", Image: img.ID, Store: "s"}))(t)
	if want := catalog.UploadKey(img.ID, "u2", 2); second.Attempts != 2 || key() != want || want != img.ID+".u2" {
		t.Errorf("attempt %d writes to %s", second.Attempts, key())
	}
	if got := must(c.Image(ctx, img.ID))(t); got.Attempts != 2 {
		t.Errorf("the image counts %d attempts", got.Attempts)
	}
}

func testAbandonDead(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	dead, m := joined(t, kv, "dead")
	single := Start(t, kv, catalog.Config{GatewayID: "single"})
	var mu sync.Mutex
	var clock time.Duration
	c := Start(t, kv, catalog.Config{GatewayID: "a", Clock: func() time.Duration { mu.Lock(); defer mu.Unlock(); return clock }})
	ids := map[*catalog.Catalog]string{}
	for _, g := range []*catalog.Catalog{dead, single} {
		img := must(c.CreateImage(ctx, catalog.Image{}))(t)
		must(g.BeginUpload(ctx, catalog.Upload{ID: "u", Image: img.ID, Store: "s"}))(t)
		ids[g] = img.ID
	}
	eventually(t, "the uploads are known", func() bool { return len(must(c.Uploads(ctx))(t)) == 2 })
	abandon := func(want int, when string) {
		t.Helper()
		if n := must(c.AbandonDead(ctx, time.Minute))(t); n != want {
			t.Errorf("%s: %d uploads given up, want %d", when, n, want)
		}
		mu.Lock()
		defer mu.Unlock()
		clock += time.Hour
	}
	abandon(0, "while it runs")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	abandon(0, "when it was seen gone first")
	_, again := joined(t, kv, "dead")
	abandon(0, "when it has come back")
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	abandon(0, "when it was seen gone anew")
	abandon(1, "when it stayed away")
	if got := must(c.Image(ctx, ids[dead]))(t); got.Status != catalog.StatusQueued {
		t.Errorf("its image is %s", got.Status)
	}
	if got := must(c.Image(ctx, ids[single]))(t); got.Status != catalog.StatusSaving {
		t.Errorf("the image of a gateway without a lease is %s", got.Status)
	}
	if g := must(c.Garbage(ctx))(t); len(g) != 0 {
		t.Errorf("its object may be removed at once: %v", g)
	}
	loc := catalog.Location{Store: "s", Key: ids[dead]}
	if _, err := dead.FinishUpload(ctx, "u", ids[dead], loc, 1, nil, "", "", ""); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("finish by the dead: %v, want ErrGone", err)
	}
}

func testParents(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	a, ma := joined(t, kv, "a")
	b, _ := joined(t, kv, "b")
	img := active(t, a)
	claim, own, err := a.ClaimParent(ctx, catalog.Parent{Image: img.ID, Store: "rbd", Key: "k1", Total: 100})
	if err != nil || !own || claim.Status != catalog.ParentCreating || claim.Gateway != "a" {
		t.Fatalf("claim: %+v, %t, %v", claim, own, err)
	}
	for name, c := range map[string]*catalog.Catalog{"the same": a, "another": b} {
		if got, own, err := c.ClaimParent(ctx, catalog.Parent{Image: img.ID, Store: "rbd", Key: "k2"}); err != nil || own || got.Key != "k1" {
			t.Errorf("second claim by %s: %+v, %t, %v", name, got, own, err)
		}
	}
	if _, own, err := b.ClaimParent(ctx, catalog.Parent{Image: img.ID, Store: "other", Key: "k1"}); err != nil || !own {
		t.Errorf("claim in another store: %t, %v", own, err)
	}
	claim.Done = 50
	claim = must(a.UpdateParent(ctx, claim))(t)
	eventually(t, "the progress is seen", func() bool {
		p, err := b.Parent(ctx, img.ID, "rbd")
		return err == nil && p.Done == 50 && p.Total == 100
	})
	o := must(a.CreateOverlay(ctx, catalog.Overlay{ImageID: img.ID, Engine: "rbd", Store: "rbd"}))(t)
	// Its gateway goes away, another begins anew, and the first comes back.
	if err := ma.Close(); err != nil {
		t.Fatal(err)
	}
	second, own, err := b.ClaimParent(ctx, catalog.Parent{Image: img.ID, Store: "rbd", Key: "k2", Total: 100})
	if err != nil || !own {
		t.Fatalf("claim after the first is gone: %t, %v", own, err)
	}
	if _, err := a.UpdateParent(ctx, claim); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("update of a claim that has passed on: %v, want ErrGone", err)
	}
	second.Done, second.Snapshot = 100, "snap"
	for range 2 {
		if got := must(b.UpdateParent(ctx, second))(t); got.Status != catalog.ParentReady || got.Snapshot != "snap" {
			t.Errorf("ready: %+v", got)
		}
	}
	if err := b.AbandonParent(ctx, second); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("giving up what is ready: %v, want fs.ErrInvalid", err)
	}
	testParentsGo(t, kv, b, img.ID, o.ID)
}

// testParentsGo deletes the overlay and the image of two parents, one of them
// not ready.
func testParentsGo(t *testing.T, kv catalog.KV, c *catalog.Catalog, image, overlay string) {
	ctx := t.Context()
	eventually(t, "both are listed", func() bool { return len(must(c.Parents(ctx, image))(t)) == 2 })
	if got := must(c.Objects(ctx, "rbd"))(t); got["k2"] != "parent of image "+image {
		t.Errorf("objects: %v", got)
	}
	var used *catalog.InUseError
	if _, err := c.DeleteImage(ctx, image); !errors.As(err, &used) {
		t.Errorf("delete of the image of a clone: %v, want an InUseError", err)
	}
	if err := c.DeleteOverlay(ctx, overlay); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Parent(ctx, image, "rbd"); err != nil {
		t.Errorf("the parent went with the overlay: %v", err)
	}
	must(c.DeleteImage(ctx, image))(t)
	if left := keys(t, kv, "par/", ""); len(left) != 0 {
		t.Errorf("parents after the image: %q", left)
	}
	var now []string
	for _, g := range must(c.Garbage(ctx))(t) {
		now = append(now, g.Key)
	}
	if !slices.Contains(now, "k2") || len(keys(t, kv, "gc/", "")) < 4 {
		t.Errorf("garbage: %q of %q", now, keys(t, kv, "gc/", ""))
	}
	claim := catalog.Parent{Image: image, Store: "rbd", Key: "k3"}
	if _, _, err := c.ClaimParent(ctx, claim); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("claim for a deleted image: %v", err)
	}
	if err := c.AbandonParent(ctx, claim); err != nil {
		t.Errorf("giving up what is no claim: %v", err)
	}
}

// testParentRace: of all that claim at once one may, and a parent never
// outlives its image.
func testParentRace(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	gateways := []*catalog.Catalog{Start(t, kv, catalog.Config{GatewayID: "a"}), Start(t, kv, catalog.Config{GatewayID: "a"})}
	for range 10 {
		img := active(t, gateways[0])
		var won atomic.Int64
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				claim := catalog.Parent{Image: img.ID, Store: "rbd", Key: string(rune('a' + i))}
				_, own, err := gateways[i%2].ClaimParent(ctx, claim)
				if own {
					won.Add(1)
				}
				if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, catalog.ErrConflict) {
					t.Error(err)
				}
			})
		}
		all.Go(func() {
			if _, err := gateways[0].DeleteImage(ctx, img.ID); err != nil && !errors.Is(err, catalog.ErrConflict) {
				t.Error(err)
			}
		})
		all.Wait()
		if won.Load() > 1 {
			t.Errorf("%d may make one parent", won.Load())
		}
		_, err := kv.Get(ctx, "img/"+img.ID)
		if left := keys(t, kv, "par/"+img.ID, ""); err != nil && len(left) > 0 {
			t.Errorf("the image is gone, and %q is there", left)
		}
	}
}

func testTraces(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	c := Start(t, kv, catalog.Config{})
	img := active(t, c)
	if _, err := c.Trace(ctx, img.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no trace: %v", err)
	}
	data := bytes.Repeat([]byte{1, 255}, catalog.MaxData/2)
	for _, d := range [][]byte{{7}, data} {
		if err := c.PutTrace(ctx, img.ID, d); err != nil {
			t.Fatal(err)
		}
		if got := must(c.Trace(ctx, img.ID))(t); !bytes.Equal(got, d) {
			t.Errorf("%d bytes kept, %d found", len(d), len(got))
		}
	}
	if err := c.PutTrace(ctx, img.ID, append(data, 1)); !errors.Is(err, catalog.ErrTooBig) {
		t.Errorf("over the limit: %v, want ErrTooBig", err)
	}
	if err := c.DeleteTrace(ctx, img.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteTrace(ctx, img.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten twice: %v, want fs.ErrNotExist", err)
	}
	if err := c.PutTrace(ctx, img.ID, data); err != nil {
		t.Fatal(err)
	}
	must(c.DeleteImage(ctx, img.ID))(t)
	if left := keys(t, kv, "trace/", ""); len(left) != 0 {
		t.Errorf("traces after the image: %q", left)
	}
	if err := c.PutTrace(ctx, img.ID, data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("trace of a deleted image: %v", err)
	}
	queued := must(c.CreateImage(ctx, catalog.Image{}))(t)
	if err := c.PutTrace(ctx, queued.ID, data); !errors.Is(err, catalog.ErrNoData) {
		t.Errorf("trace of no data: %v, want ErrNoData", err)
	}
}

// testBackupMore: everything that overlays need goes into a backup, but for
// who runs; and epochs go on where nobody can have been.
func testBackupMore(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	a, _ := joined(t, kv, "a")
	o := must(a.TakeOverlay(ctx, logged(t, a).ID, catalog.Take{}))(t)
	h := catalog.OverlayHead{Epoch: o.Epoch, Sequence: 3, Dirty: true, Data: bytes.Repeat([]byte{255, 0, 'x'}, catalog.MaxData/3)}
	if err := a.CommitHead(ctx, o.ID, h, []catalog.Garbage{{Store: "far", Key: "old"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.PutTrace(ctx, o.ImageID, []byte{255}); err != nil {
		t.Fatal(err)
	}
	claim, _, err := a.ClaimParent(ctx, catalog.Parent{Image: o.ImageID, Store: "rbd", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	if err := a.Backup(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	// What the backup does not know.
	late := must(a.TakeOverlay(ctx, o.ID, catalog.Take{}))(t)
	into := open(t)
	if err := catalog.Restore(ctx, into, &backup); err != nil {
		t.Fatal(err)
	}
	moved := Start(t, into, catalog.Config{GatewayID: "b"})
	if who := living(t, moved); who != "" {
		t.Errorf("gateways were restored: %s", who)
	}
	got := must(moved.OverlayHead(ctx, o.ID))(t)
	if got.Epoch != h.Epoch || got.Sequence != 3 || !got.Dirty || !bytes.Equal(got.Data, h.Data) {
		t.Errorf("head restored: %d, %d, %t, %d bytes", got.Epoch, got.Sequence, got.Dirty, len(got.Data))
	}
	if data := must(moved.Trace(ctx, o.ImageID))(t); !bytes.Equal(data, []byte{255}) {
		t.Errorf("trace restored: %v", data)
	}
	if p := must(moved.Parent(ctx, o.ImageID, "rbd"))(t); p.Key != claim.Key {
		t.Errorf("parent restored: %+v", p)
	}
	if n := len(keys(t, into, "gc/", "")); n != 1 {
		t.Errorf("%d records of garbage restored", n)
	}
	var loss *catalog.LossError
	if _, err := moved.TakeOverlay(ctx, o.ID, catalog.Take{}); !errors.As(err, &loss) || !must(moved.Overlay(ctx, o.ID))(t).Dirty {
		t.Errorf("take of what was dirty in the backup: %v, want a LossError", err)
	}
	if next := must(moved.TakeOverlay(ctx, o.ID, catalog.Take{AcceptLoss: true}))(t); next.Epoch <= late.Epoch {
		t.Errorf("epoch %d after the restore, %d was taken before", next.Epoch, late.Epoch)
	}
}
