package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/far"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/trace"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
	"github.com/seed-478a8fee/platter/cmd/platterd/exports"
)

// A place is a store of the configuration.
type place struct {
	name  string
	cfg   config.Store
	store backends.Store // as everybody uses it

	late *lateStore // of a far store
	far  *far.Store // above it
}

// trouble tells what is wrong with a store, as far as it is known.
func (p *place) trouble() error {
	if p.late == nil {
		return nil
	}
	if err := p.late.state(); err != nil {
		return err
	}
	if h := p.far.Health(); !h.OK() {
		return h.Err
	}
	return nil
}

// places are the stores and the cache, as operators see them.
type places struct {
	stores  []*place // in the order of their names
	byName  string   // of the default store
	cache   *cache.Cache
	dir     string // of the cache
	catalog *catalog.Catalog
	log     *slog.Logger
}

// Stores returns the stores of this gateway.
func (ps *places) Stores(ctx context.Context) []platter.StoreInfo {
	usage := ps.ask(ctx)
	var out []platter.StoreInfo
	for n, p := range ps.stores {
		i := platter.StoreInfo{
			Name: p.name, Type: p.cfg.Type, Description: p.cfg.Description, Weight: p.cfg.Weight, Default: p.name == ps.byName,
			Overlay: p.cfg.Engine(), Capabilities: backends.Capabilities(p.store),
		}
		if i.Overlay == "object-log" {
			i.Durability = p.cfg.Durability
			if i.Durability == "" {
				i.Durability = "gateway"
			}
		}
		i.Health, i.Usage = p.health(), usage[n]
		out = append(out, i)
	}
	return out
}

// checkTime bounds how long somebody who wants to know how the stores are waits
// for one that does not say.
const checkTime = 3 * time.Second

// ask asks every far store something harmless, so that what is told of them is
// of now, and all of them how full they are, which some do not know.
func (ps *places) ask(ctx context.Context) []backends.Usage {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	usage := make([]backends.Usage, len(ps.stores))
	var asked sync.WaitGroup
	for i, p := range ps.stores {
		asked.Go(func() {
			if p.far != nil {
				p.far.Check(ctx) // what it finds is in its Health
			}
			if p.trouble() == nil {
				usage[i], _ = backends.UsageOf(ctx, p.store) // unknown if it fails
			}
		})
	}
	asked.Wait()
	return usage
}

// health is how a store answers, in the words of the API.
func (p *place) health() platter.Health {
	if p.late == nil {
		return platter.Health{OK: true}
	}
	h := p.far.Health()
	out := platter.Health{OK: true, Latency: h.Latency}
	if err := p.trouble(); err != nil {
		out.OK, out.Message, out.Since = false, err.Error(), h.Failing
	}
	return out
}

// Cache returns what the cache has done and holds.
func (ps *places) Cache(ctx context.Context) (platter.CacheInfo, error) {
	if ps.cache == nil {
		return platter.CacheInfo{}, fs.ErrNotExist
	}
	s := ps.cache.Stats()
	out := platter.CacheInfo{
		Dir: ps.dir, OK: s.Degraded == "", Message: s.Degraded, Size: s.Size, Used: s.Used,
		Hits: s.Hits, Misses: s.Misses, Waits: s.Waits, Fetches: s.Fetches, Hedges: s.Hedges, Corrupt: s.Corrupt,
		HitBytes: s.HitBytes, FarBytes: s.FarBytes, EvictedBytes: s.Evicted,
	}
	names, err := ps.generations(ctx)
	if err != nil {
		return out, err
	}
	for _, i := range ps.cache.List() {
		out.Images = append(out.Images, platter.CachedImage{ImageID: names[i.ID], Generation: i.ID, Size: i.Size, Used: i.Used})
	}
	return out, nil
}

// generations maps the names that objects have in the cache to images.
func (ps *places) generations(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	list, err := ps.catalog.Images(ctx, catalog.Query{
		Viewer: catalog.Viewer{Admin: true}, Visibility: catalog.VisibilityAll, Hidden: catalog.HiddenAny,
	})
	for _, img := range list {
		for _, l := range img.Locations {
			out[l.Generation] = img.ID
		}
	}
	return out, err
}

// DropCached takes an image out of the cache.
func (ps *places) DropCached(_ context.Context, img catalog.Image) error {
	if ps.cache == nil {
		return fs.ErrNotExist
	}
	for _, l := range img.Locations {
		ps.cache.Drop(l.Generation)
	}
	return nil
}

// Trace returns what is fetched ahead when an image is attached.
func (ps *places) Trace(ctx context.Context, img catalog.Image) (platter.TraceInfo, error) {
	data, err := ps.catalog.Trace(ctx, img.ID)
	if err != nil {
		return platter.TraceInfo{}, err
	}
	t, err := trace.Decode(data)
	if err != nil {
		return platter.TraceInfo{}, fmt.Errorf("the trace of image %s: %w", img.ID, err)
	}
	out := platter.TraceInfo{Boots: int64(t.Boots)}
	for _, r := range t.Ranges {
		out.Ranges = append(out.Ranges, platter.Range{Offset: r.Off, Length: r.Len})
		out.Bytes += r.Len
	}
	return out, nil
}

// ForgetTrace lets the next attachment record anew.
func (ps *places) ForgetTrace(ctx context.Context, img catalog.Image) error {
	err := ps.catalog.DeleteTrace(ctx, img.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ready tells what is wrong with the default store.
func (ps *places) ready() error {
	for _, p := range ps.stores {
		if err := p.trouble(); err != nil && p.name == ps.byName {
			return fmt.Errorf("the default store %s: %w", p.name, err)
		}
	}
	return nil
}

// ailing says what is wrong without making the gateway useless.
func (ps *places) ailing() []string {
	var out []string
	for _, p := range ps.stores {
		if err := p.trouble(); err != nil {
			out = append(out, fmt.Sprintf("store %s: %v", p.name, err))
		}
	}
	if ps.cache != nil {
		if s := ps.cache.Stats(); s.Degraded != "" {
			out = append(out, "cache: "+s.Degraded)
		}
	}
	return out
}

// fails tells whether a store is known not to answer.
func (ps *places) fails(store string) bool {
	return slices.ContainsFunc(ps.stores, func(p *place) bool { return p.name == store && p.trouble() != nil })
}

// all returns the stores by name.
func (ps *places) all() map[string]backends.Store {
	out := map[string]backends.Store{}
	for _, p := range ps.stores {
		out[p.name] = p.store
	}
	return out
}

// distant names the stores that are read through the cache.
func (ps *places) distant() map[string]bool {
	out := map[string]bool{}
	for _, p := range ps.stores {
		out[p.name] = p.late != nil && ps.cache != nil
	}
	return out
}

// overlays says how overlays are kept in each store.
func (ps *places) overlays() map[string]exports.Overlays {
	out := map[string]exports.Overlays{}
	for _, p := range ps.stores {
		switch p.cfg.Engine() {
		case "object-log":
			o := exports.Overlays{Objects: p.store}
			if ps.cache != nil {
				o.Objects = &nearStore{name: p.name, far: p.store, cache: ps.cache}
			}
			if p.cfg.Durability == "store" {
				o.Durability = objectlog.Store
			}
			out[p.name] = o
		case "rbd":
			out[p.name] = exports.Overlays{RBD: func(ctx context.Context) (*rbd.Store, error) {
				s, err := p.late.get(ctx)
				if err != nil {
					return nil, err
				}
				r, ok := s.(*rbd.Store)
				if !ok {
					return nil, fmt.Errorf("store %s is no RBD pool", p.name)
				}
				return r, nil
			}}
		}
	}
	return out
}

// close closes the cache, and the stores that must be closed.
func (ps *places) close() error {
	var errs []error
	if ps.cache != nil {
		errs = append(errs, ps.cache.Close())
	}
	for _, p := range ps.stores {
		if p.late != nil {
			errs = append(errs, p.late.close())
		}
	}
	return errors.Join(errs...)
}

// openPlaces opens the stores, and a cache if one of them is far.
func (g *gateway) openPlaces(ctx context.Context) error {
	stores, err := openStores(ctx, g.cfg, g.metrics, g.log)
	g.places = &places{stores: stores, byName: g.cfg.DefaultStore, dir: g.cfg.Cache.Dir, catalog: g.catalog, log: g.log}
	if err != nil {
		return err // what was opened is closed with the gateway
	}
	if g.cfg.Cache.Dir == config.Off || !slices.ContainsFunc(stores, func(p *place) bool { return p.late != nil }) {
		return nil
	}
	g.places.cache, err = cache.Open(cache.Config{
		Dir: g.cfg.Cache.Dir, Size: int64(g.cfg.Cache.Size), Logger: g.log,
		Guard: localfs.NewGuard(g.cfg.Cache.Dir, int64(g.cfg.Limits.Reserve)),
	})
	if err != nil {
		return fmt.Errorf("open the cache: %w", err)
	}
	g.metrics.watchCache(g.places.cache)
	return nil
}

// traces keeps traces of first reads with the images they are of.
type traces struct{ c *catalog.Catalog }

// Load returns the trace of an image.
func (t traces) Load(ctx context.Context, image string) ([]byte, error) { return t.c.Trace(ctx, image) }

// Store keeps the trace of an image.
func (t traces) Store(ctx context.Context, image string, data []byte) error {
	return t.c.PutTrace(ctx, image, data)
}

// A nearStore is a far store whose objects are read through the cache. It is
// only for keys that are used once, whatever becomes of their objects.
type nearStore struct {
	name  string
	far   backends.Store
	cache *cache.Cache
}

// Open opens an object. What the cache has whole is not asked for.
func (n *nearStore) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	open := func(ctx context.Context) (block.ReadCloser, error) { return n.far.Open(ctx, key) }
	id := n.name + "/" + key
	size, known := n.cache.Size(id)
	if !known {
		r, err := open(ctx)
		if err != nil {
			return nil, err
		}
		size = r.Size()
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return n.cache.Reader(id, size, open, cache.ReaderConfig{Store: n.name})
}

// Create starts an object, past the cache.
func (n *nearStore) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	return n.far.Create(ctx, key, size)
}

// Delete removes an object.
func (n *nearStore) Delete(ctx context.Context, key string) error {
	n.cache.Drop(n.name + "/" + key)
	return n.far.Delete(ctx, key)
}

// sortPlaces orders stores by name.
func sortPlaces(list []*place) {
	slices.SortFunc(list, func(a, b *place) int { return strings.Compare(a.name, b.name) })
}

// clusterCache returns how many bytes of inflated clusters to keep. Nothing is
// dearer to serve than a compressed cluster that was let go, so where nobody
// says how much, it goes by what the machine has.
func clusterCache(cfg config.Cache) int64 {
	if cfg.Memory > 0 {
		return int64(cfg.Memory)
	}
	var all int64
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		all = int64(info.Totalram) * int64(info.Unit)
	}
	return min(max(all/32, 128<<20), 1<<30)
}
