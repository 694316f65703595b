package schedules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
	"github.com/seed-478a8fee/platter/cmd/platterd/exports"
)

// Settings are what is the same throughout one schedule.
type settings struct {
	seed       uint64
	durability objectlog.Durability
	gateways   int
	turns      int   // before the faults end
	faults     int   // at most
	journal    int64 // bytes
	fine       bool  // gateways stop inside as well
	lossy      int   // percent of requests that are lost, or their answers
	held       int   // percent of answers that take long
	traps      []trap
	bug        bug
}

// A trap is a fault that waits for a gateway to come to a step for the n-th
// time.
type trap struct {
	step  string
	n     int
	after bool // what the step does is done, and not answered
	fault int
}

// places are the steps that have traps.
var places = []string{
	"commit head", "commit head+dirty", "commit head+gc", "commit ovl+head", "commit ovl+head+dirty", "commit gc",
	"get head", "get ovl", "get gw", "renew", "lease", "commit gw", "put", "open", "delete",
	"append", "appended", "written", "sync", "synced", "flushed", "loaded", "claim", "claimed", "applied", "trim", "trimmed",
}

// The faults of traps.
const (
	standStill = iota
	cutKV
	cutStore
	cutAll
	kill
	faults
)

var faultNames = [faults]string{"stands still", "is cut off from the catalog", "is cut off from the store", "is cut off", "crashes"}

// pick chooses settings from a seed.
func pick(seed uint64) settings {
	rng := rand.New(rand.NewPCG(seed, 7))
	s := settings{
		seed: seed, gateways: 2, turns: 80 + rng.IntN(160), faults: 1 + rng.IntN(6), journal: 64 << 10,
		fine: rng.IntN(3) > 0, held: rng.IntN(3) * 5, durability: objectlog.Durability(rng.IntN(2)),
	}
	if rng.IntN(8) == 0 {
		s.gateways = 3
	}
	if rng.IntN(3) == 0 {
		s.lossy = 1 + rng.IntN(6)
	}
	if rng.IntN(4) == 0 {
		s.journal = 1 << 20
	}
	for range rng.IntN(4) {
		s.traps = append(s.traps, trap{places[rng.IntN(len(places))], rng.IntN(4), rng.IntN(2) == 0, rng.IntN(faults)})
	}
	return s
}

// An original is a catalog and a store with an image and an overlay on it,
// which every schedule begins with.
type original struct {
	pairs   []catalog.Pair
	objects map[string][]byte
	dir     string
}

// What the original has.
var (
	overlayID = "" // set once, before the first schedule
	prefix    = ""
)

// newOriginal makes one. It is the same for all tests of the process.
var newOriginal = sync.OnceValues(func() (*original, error) {
	ctx := context.Background()
	kv, store, dir := memkv.New(), mem.New(), "/data"
	o := &original{objects: map[string][]byte{}}
	cat, err := catalog.Open(ctx, kv, catalog.Config{GatewayID: "maker"})
	if err != nil {
		return nil, err
	}
	defer cat.Close()
	stores := map[string]backends.Store{"s": store}
	in, err := ingest.New(ingest.Config{Catalog: cat, Stores: stores, GatewayID: "maker"})
	if err != nil {
		return nil, err
	}
	img, err := cat.CreateImage(ctx, catalog.Image{DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared})
	if err != nil {
		return nil, err
	}
	p := make([]byte, blocks*blockSize)
	for i, stamp := range base() {
		fill(p[i*blockSize:(i+1)*blockSize], stamp)
	}
	err = in.Put(ctx, img.ID, bytes.NewReader(p), int64(len(p)), "")
	if err == nil {
		img, err = cat.Image(ctx, img.ID)
	}
	if err != nil {
		return nil, err
	}
	o.dir = scratch + dir
	e, err := exports.New(exports.Config{
		Catalog: cat, Stores: stores, Opener: disk.New(disk.Config{}), Ingest: in, DefaultStore: "s",
		Overlays: map[string]exports.Overlays{"s": {Objects: store}},
		DataDir:  o.dir, GatewayID: "maker", FS: newDisk(o.dir),
	})
	if err != nil {
		return nil, err
	}
	ov, err := e.CreateOverlay(ctx, platter.OverlayRequest{Image: img, Name: "disk"})
	if err = errors.Join(err, e.Close()); err != nil {
		return nil, err
	}
	overlayID, prefix = ov.ID, "platter/overlays/"+ov.ID+"/"
	for p, err := range kv.List(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		o.pairs = append(o.pairs, p)
	}
	for e, err := range store.List(ctx) {
		if err != nil {
			return nil, err
		}
		r, err := store.Open(ctx, e.Key)
		if err != nil {
			return nil, err
		}
		b := make([]byte, r.Size())
		if err := r.ReadAt(ctx, b, 0); err != nil {
			return nil, err
		}
		o.objects[e.Key] = b
	}
	return o, nil
})

// scratch is where gateways have folders that stay empty.
var scratch string

// newWorld makes a world in which nothing has happened.
func newWorld(o *original, cfg settings) (*world, error) {
	ctx := context.Background()
	w := &world{
		rng: rand.New(rand.NewPCG(cfg.seed, 1)), cfg: cfg, kv: memkv.New(), store: mem.New(), begun: time.Now(),
		arrived: make(chan struct{}, 1), dying: new(sync.WaitGroup), seen: map[string]int{},
	}
	w.m = model{durability: cfg.durability, snaps: map[string]*snap{}}
	for _, p := range o.pairs {
		if _, err := w.kv.Commit(ctx, catalog.Txn{Then: []catalog.Op{{Key: p.Key, Value: p.Value}}}); err != nil {
			return nil, err
		}
	}
	for key, b := range o.objects {
		f, err := w.store.Create(ctx, key, int64(len(b)))
		if err != nil {
			return nil, err
		}
		if _, err = f.Write(b); err == nil {
			err = f.Commit(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	for i := range cfg.gateways {
		g := &gateway{w: w, name: string(rune('A' + i)), dir: o.dir, speed: 0.9 + w.rng.Float64()/5}
		g.disk = newDisk(g.dir)
		w.gws = append(w.gws, g)
	}
	return w, nil
}

// A verdict is what became of a schedule.
type verdict struct {
	err   error
	trace []line
	seen  map[string]int
}

// explore runs one schedule.
func explore(t *testing.T, o *original, cfg settings) (v verdict) {
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(o, cfg)
		if err != nil {
			v.err = err
			return
		}
		for _, g := range w.gws {
			g.boot()
		}
		for w.turns = 0; w.turns < cfg.turns && !w.broken(); w.turns++ {
			w.turn()
		}
		if !w.broken() {
			w.recover()
		}
		if !w.broken() {
			w.judge()
		}
		w.end()
		w.seen["turns"] = w.turns
		v = verdict{w.failed, w.trace, w.seen}
	})
	return v
}

// end kills what runs.
func (w *world) end() {
	synctest.Wait()
	for _, g := range w.gws {
		if g.life != nil {
			g.life.crash()
		}
	}
	w.dying.Wait()
}

// String tells what the settings are.
func (s settings) String() string {
	return fmt.Sprintf("seed %d, durability %d, %d gateways, %d turns, %d faults, journal %d, fine %t, lossy %d%%, held %d%%, bug %q",
		s.seed, s.durability, s.gateways, s.turns, s.faults, s.journal, s.fine, s.lossy, s.held, s.bug)
}
