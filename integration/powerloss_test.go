package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// A plCommit is a commit of the catalog: it happened between two moments of
// the disk.
type plCommit struct {
	from, to int
	txn      catalog.Txn
}

// A plKV is a catalog that is durable at once, as etcd is, and remembers what
// it had when.
type plKV struct {
	catalog.KV
	disk *crashfs.FS

	mu  sync.Mutex
	log []plCommit
}

func newPLKV(disk *crashfs.FS) *plKV { return &plKV{KV: memkv.New(), disk: disk} }

func (k *plKV) Commit(ctx context.Context, txn catalog.Txn) (int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := k.disk.Len()
	rev, err := k.KV.Commit(ctx, txn)
	if err == nil {
		k.log = append(k.log, plCommit{from, k.disk.Len(), txn})
	}
	return rev, err
}

// seen waits until it is known when what was just committed happened: who acts
// on it acts after that.
func (k *plKV) seen() {
	k.mu.Lock()
	defer k.mu.Unlock()
}

func (k *plKV) Get(ctx context.Context, key string) (catalog.Pair, error) {
	defer k.seen()
	return k.KV.Get(ctx, key)
}

func (k *plKV) List(ctx context.Context, prefix, after string) iter.Seq2[catalog.Pair, error] {
	return func(yield func(catalog.Pair, error) bool) {
		for p, err := range k.KV.List(ctx, prefix, after) {
			if k.seen(); !yield(p, err) {
				return
			}
		}
	}
}

func (k *plKV) Watch(ctx context.Context, prefix string, rev int64) iter.Seq2[catalog.Event, error] {
	return func(yield func(catalog.Event, error) bool) {
		for e, err := range k.KV.Watch(ctx, prefix, rev) {
			if k.seen(); !yield(e, err) {
				return
			}
		}
	}
}

// after is a catalog as a crash at the moment can leave it: with all commits
// that had returned, and some of those that had begun.
func (k *plKV) after(t *testing.T, rng *rand.Rand, moment int) []catalog.Txn {
	t.Helper()
	var out []catalog.Txn
	for _, c := range k.log {
		if c.from > moment || c.to > moment && rng.IntN(2) == 0 {
			break
		}
		out = append(out, c.txn)
	}
	return out
}

// A plImage is what was done with one image, and when it was known to be done.
type plImage struct {
	id       string
	data     []byte
	putting  int // the moment when the upload began
	put      int // when it was acknowledged
	deleting int
	deleted  int
}

// plNever is after every crash.
const plNever = int(^uint(0) >> 1)

// allowed says what a crash at the moment may leave of it.
func (i *plImage) allowed(moment int) (whole, waiting, gone bool) {
	whole = moment >= i.putting && moment < i.deleted
	waiting = moment < i.put
	gone = moment >= i.deleting
	return whole, waiting, gone
}

// A plGateway is the part of a gateway that takes uploads, on a disk.
type plGateway struct {
	cat   *catalog.Catalog
	store *file.Store
	in    *ingest.Ingest
}

func startPL(t *testing.T, kv catalog.KV, disk *crashfs.FS) *plGateway {
	t.Helper()
	cat, err := catalog.Open(t.Context(), kv, catalog.Config{GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(file.Config{Dir: "/data/images", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	in, err := ingest.New(ingest.Config{
		Catalog: cat, Stores: map[string]backends.Store{"file": store}, GatewayID: "gw",
		Grace: time.Nanosecond, // a sweeper that is wrong about anything deletes it
	})
	if err != nil {
		t.Fatal(err)
	}
	return &plGateway{cat, store, in}
}

var errHungUp = errors.New("the client hung up")

// work uploads, fails to upload and deletes, n times.
func (g *plGateway) work(t *testing.T, disk *crashfs.FS, rng *rand.Rand, n int) (done []*plImage) {
	ctx := context.Background()
	for range n {
		img := &plImage{putting: plNever, put: plNever, deleting: plNever, deleted: plNever}
		diskFormat := []string{"raw", "qcow2"}[rng.IntN(2)]
		img.data = plData(t, rng, diskFormat)
		rec, err := g.cat.CreateImage(ctx, catalog.Image{DiskFormat: diskFormat, ContainerFormat: "bare", Visibility: catalog.VisibilityShared})
		if err != nil {
			t.Error(err)
			return done
		}
		img.id = rec.ID
		done = append(done, img)
		for range rng.IntN(3) { // clients that do not come to the end
			cut := io.MultiReader(bytes.NewReader(img.data[:rng.IntN(len(img.data))]), plBroken{})
			if err := g.in.Put(ctx, img.id, cut, -1, ""); !errors.Is(err, errHungUp) {
				t.Errorf("an upload that was cut off: %v", err)
			}
		}
		if rng.IntN(6) > 0 {
			img.putting = disk.Len()
			if err := g.in.Put(ctx, img.id, bytes.NewReader(img.data), int64(len(img.data)), ""); err != nil {
				t.Error(err)
			}
			img.put = disk.Len()
		}
		if old := done[rng.IntN(len(done))]; rng.IntN(2) == 0 && old.deleting == plNever {
			old.deleting = disk.Len()
			if _, err := g.cat.DeleteImage(ctx, old.id); err != nil {
				t.Error(err)
			}
			old.deleted = disk.Len()
		}
	}
	return done
}

type plBroken struct{}

func (plBroken) Read([]byte) (int, error) { return 0, errHungUp }

// plData makes a disk with holes, at times nothing but a hole.
func plData(t *testing.T, rng *rand.Rand, diskFormat string) []byte {
	raw := make([]byte, 512*(1+rng.IntN(600)))
	for range rng.IntN(4) {
		at := rng.IntN(len(raw))
		piece := raw[at:min(at+1+rng.IntN(100_000), len(raw))]
		seed := [32]byte{byte(rng.Uint32()), byte(rng.Uint32())}
		rand.NewChaCha8(seed).Read(piece)
	}
	if diskFormat == "raw" {
		return raw
	}
	var out bytes.Buffer
	if err := qcow2.Encode(context.Background(), &out, mem.Reader(raw), qcow2.EncodeOptions{}); err != nil {
		t.Error(err)
	}
	return out.Bytes()
}

// TestPowerLoss has several clients upload and delete at once, with the
// sweeper between them, cuts the power at random moments, in every way in
// which the disk may lose what was not synced, and cuts it again during the
// recovery. What was acknowledged is there, whole; what was deleted is not;
// nothing half is ever seen; and after recovery and sweep nothing is left over.
func TestPowerLoss(t *testing.T) {
	rounds, states := 4, 60
	if os.Getenv("PLATTER_SOAK") != "" {
		rounds, states = 40, 200
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			powerLoss(t, rand.New(rand.NewPCG(uint64(seed), 1)), states)
		})
	}
}

func powerLoss(t *testing.T, rng *rand.Rand, states int) {
	disk := crashfs.New()
	kv := newPLKV(disk)
	g := startPL(t, kv, disk)
	images := plBusy(t, g, disk, rng)
	if err := g.cat.Close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		return
	}
	seen := map[string]int{}
	for moment, after := range disk.Crashes(rng, states) {
		txns := kv.after(t, rng, moment)
		again := newPLKV(after)
		plRestart(t, again, txns, after, images, moment, seen)
		for late, twice := range after.Crashes(rng, 2) {
			// The catalog of the recovery comes on top of what was there.
			all := append(append([]catalog.Txn(nil), txns...), again.after(t, rng, late)...)
			plRestart(t, newPLKV(twice), all, twice, images, moment, seen)
		}
		if t.Failed() {
			t.Fatalf("after a crash at moment %d of %d", moment, disk.Len())
		}
	}
	t.Log(seen)
	if seen["whole"] == 0 || seen["waiting"] == 0 || seen["gone"] == 0 {
		t.Errorf("the moments do not cover an image's life: %v", seen)
	}
}

// plBusy lets everybody work and returns what was done.
func plBusy(t *testing.T, g *plGateway, disk *crashfs.FS, rng *rand.Rand) (images []*plImage) {
	var clients, sweeper sync.WaitGroup
	var mu sync.Mutex
	ctx, stop := context.WithCancel(context.Background())
	sweeper.Go(func() {
		for ctx.Err() == nil {
			if _, err := g.in.Sweep(context.Background()); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	for range 3 {
		seed := rng.Uint64()
		clients.Go(func() {
			done := g.work(t, disk, rand.New(rand.NewPCG(seed, 2)), 6)
			mu.Lock()
			defer mu.Unlock()
			images = append(images, done...)
		})
	}
	clients.Wait()
	stop()
	sweeper.Wait()
	return images
}

// plRestart starts a gateway after a crash and looks at everything, before
// and after it has recovered.
func plRestart(t *testing.T, kv *plKV, txns []catalog.Txn, disk *crashfs.FS, images []*plImage, moment int, seen map[string]int) {
	t.Helper()
	for _, txn := range txns {
		if _, err := kv.KV.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	g := startPL(t, kv, disk)
	defer g.cat.Close()
	g.look(t, "before the recovery", images, moment, seen)
	if err := g.in.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Microsecond) // all that is left is older than the grace period
	if _, err := g.in.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.tidy(t, g.look(t, "after the recovery", images, moment, seen))
}

// look wants every image to be something that a crash at the moment may leave,
// and returns how many have data.
func (g *plGateway) look(t *testing.T, when string, images []*plImage, moment int, seen map[string]int) (data int) {
	t.Helper()
	for _, img := range images {
		state, err := g.state(t.Context(), img)
		whole, waiting, gone := img.allowed(moment)
		// Before the upload is acknowledged nobody says that the image exists.
		may := map[string]bool{"whole": whole, "waiting": waiting, "gone": gone || waiting}
		if err != nil || !may[state] {
			t.Errorf("%s: image %s (uploaded in %d..%d, deleted in %d..%d) is %s, %v",
				when, img.id, img.putting, img.put, img.deleting, img.deleted, state, err)
		}
		if seen[state]++; state == "whole" {
			data++
		}
	}
	return data
}

// state tells what becomes of an image: "whole", "waiting" for an upload, or
// "gone". Everything between is an error.
func (g *plGateway) state(ctx context.Context, want *plImage) (string, error) {
	img, err := g.cat.Image(ctx, want.id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "gone", nil
	case err != nil:
		return "unknown", err
	case img.Status == catalog.StatusQueued || img.Status == catalog.StatusSaving:
		if len(img.Locations) > 0 || img.Size != nil || img.Checksum != "" {
			return "half", fmt.Errorf("it is %s and has locations %v", img.Status, img.Locations)
		}
		return "waiting", nil
	case img.Status != catalog.StatusActive:
		return string(img.Status), errors.New("a state that nobody asked for")
	}
	r, err := g.in.Open(ctx, img)
	if err != nil {
		return "half", err
	}
	defer r.Close()
	got, err := io.ReadAll(io.NewSectionReader(block.ReaderAt(ctx, r), 0, r.Size()))
	if err == nil && !bytes.Equal(got, want.data) {
		err = fmt.Errorf("%d other bytes than the %d that were uploaded", len(got), len(want.data))
	}
	return "whole", err
}

// tidy wants as many objects as are needed, and no record of anything that is
// still to be done.
func (g *plGateway) tidy(t *testing.T, needed int) {
	t.Helper()
	n := 0
	for e, err := range g.store.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; e.Partial {
			t.Errorf("%s is left, unfinished", e.Key)
		}
	}
	if n != needed {
		t.Errorf("%d objects are left for %d images", n, needed)
	}
	if garbage, err := g.cat.Garbage(t.Context()); err != nil || len(garbage) > 0 {
		t.Errorf("still to be deleted: %v, %v", garbage, err)
	}
	if uploads, err := g.cat.Uploads(t.Context()); err != nil || len(uploads) > 0 {
		t.Errorf("still uploading: %v, %v", uploads, err)
	}
}
