package platter

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/catalog"
)

// Places shows where bytes are kept, far and near. The owner of the Server
// provides it.
type Places interface {
	// Stores returns the stores of this gateway, in the order of their names.
	Stores(ctx context.Context) []StoreInfo

	// Cache returns what the cache above far stores has done and holds. A
	// gateway without a cache is fs.ErrNotExist.
	Cache(ctx context.Context) (CacheInfo, error)

	// DropCached takes an image out of the cache.
	DropCached(ctx context.Context, img catalog.Image) error

	// Trace returns what is fetched ahead when an image is attached, or
	// fs.ErrNotExist.
	Trace(ctx context.Context, img catalog.Image) (TraceInfo, error)

	// ForgetTrace lets the next attachment record anew.
	ForgetTrace(ctx context.Context, img catalog.Image) error
}

// A StoreInfo tells about a store. Total and Free are bytes; 0 in both is
// unknown.
type StoreInfo struct {
	Name, Type, Description string
	Default                 bool
	Weight                  int
	Overlay, Durability     string // how overlays are kept there
	Usage                   backends.Usage
	Capabilities            []backends.Capability
	Health                  Health
}

// Health is how a store answers.
type Health struct {
	OK      bool
	Message string    // why not
	Since   time.Time // of the state; zero: since the start
	Latency time.Duration
}

// A CacheInfo tells about the cache. Sizes are bytes, counts are since the
// gateway started.
type CacheInfo struct {
	Dir                              string
	OK                               bool
	Message                          string // why it only reads through
	Size, Used                       int64
	Hits, Misses, Waits              int64
	Fetches, Hedges, Corrupt         int64
	HitBytes, FarBytes, EvictedBytes int64
	Images                           []CachedImage
}

// A CachedImage is the part of one object that is in the cache.
type CachedImage struct {
	ImageID    string // "": the catalog does not know it any more
	Generation string
	Size, Used int64
}

// A TraceInfo is what reading an image's bytes began with, in order.
type TraceInfo struct {
	Boots  int64 // attachments that it was learned from
	Bytes  int64
	Ranges []Range
}

// A Range is a part of an image's native bytes.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

type capabilityView struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

type storeView struct {
	Name         string           `json:"name"`
	Type         string           `json:"type"`
	Description  string           `json:"description"`
	Default      bool             `json:"default"`
	Weight       int              `json:"weight"`
	Overlay      string           `json:"overlay"`
	Durability   string           `json:"durability"`
	Total        *int64           `json:"total"`
	Free         *int64           `json:"free"`
	State        string           `json:"state"`
	Message      string           `json:"message"`
	Since        *string          `json:"since"`
	Latency      float64          `json:"latency_seconds"`
	Capabilities []capabilityView `json:"capabilities"`
}

type cachedView struct {
	ImageID    *string `json:"image_id"`
	Generation string  `json:"generation"`
	Size       int64   `json:"size"`
	Used       int64   `json:"used"`
}

type cacheView struct {
	Dir     string       `json:"dir"`
	State   string       `json:"state"`
	Message string       `json:"message"`
	Size    int64        `json:"size"`
	Used    int64        `json:"used"`
	Hits    int64        `json:"hits"`
	Misses  int64        `json:"misses"`
	Waits   int64        `json:"waits"`
	Fetches int64        `json:"fetches"`
	Hedges  int64        `json:"hedges"`
	Corrupt int64        `json:"corrupt"`
	HitB    int64        `json:"hit_bytes"`
	FarB    int64        `json:"far_bytes"`
	EvictB  int64        `json:"evicted_bytes"`
	Images  []cachedView `json:"images"`
}

// state says in one word how something is.
func state(ok bool, otherwise string) string {
	if ok {
		return "ok"
	}
	return otherwise
}

func (s *Server) listStores(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if err := s.allow(r.Context(), "platter:get_stores", wire.Target{Kind: "store"}); err != nil {
		return err
	}
	out := struct {
		Stores []storeView `json:"stores"`
	}{[]storeView{}}
	if s.cfg.Places != nil {
		for _, i := range s.cfg.Places.Stores(r.Context()) {
			out.Stores = append(out.Stores, viewStore(i))
		}
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func viewStore(i StoreInfo) storeView {
	v := storeView{
		Name: i.Name, Type: i.Type, Description: i.Description, Default: i.Default, Weight: i.Weight,
		Overlay: i.Overlay, Durability: i.Durability, State: state(i.Health.OK, "failing"), Message: i.Health.Message,
		Latency: i.Health.Latency.Seconds(), Capabilities: []capabilityView{},
	}
	if i.Usage != (backends.Usage{}) {
		v.Total, v.Free = &i.Usage.Total, &i.Usage.Free
	}
	v.Since = timeOrNull(i.Health.Since)
	for _, c := range i.Capabilities {
		v.Capabilities = append(v.Capabilities, capabilityView(c))
	}
	return v
}

func (s *Server) showCache(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if err := s.allow(r.Context(), "platter:get_cache", wire.Target{Kind: "cache"}); err != nil {
		return err
	}
	i, err := s.cache(r.Context())
	if err != nil {
		return err
	}
	v := cacheView{
		Dir: i.Dir, State: state(i.OK, "reading through"), Message: i.Message, Size: i.Size, Used: i.Used,
		Hits: i.Hits, Misses: i.Misses, Waits: i.Waits, Fetches: i.Fetches, Hedges: i.Hedges, Corrupt: i.Corrupt,
		HitB: i.HitBytes, FarB: i.FarBytes, EvictB: i.EvictedBytes, Images: []cachedView{},
	}
	for _, c := range i.Images {
		v.Images = append(v.Images, cachedView{orNull(c.ImageID), c.Generation, c.Size, c.Used})
	}
	return wire.WriteJSON(w, http.StatusOK, v)
}

func (s *Server) cache(ctx context.Context) (CacheInfo, error) {
	if s.cfg.Places == nil {
		return CacheInfo{}, errNoCache()
	}
	i, err := s.cfg.Places.Cache(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoCache()
	}
	return i, err
}

func errNoCache() error {
	return wire.Errorf(http.StatusNotFound, "This gateway has no cache: all its stores are local, or cache.dir is off.")
}

func (s *Server) dropCached(w http.ResponseWriter, r *http.Request) error {
	if err := s.allow(r.Context(), "platter:modify_cache", wire.Target{Kind: "cache"}); err != nil {
		return err
	}
	img, err := s.image(r.Context(), r.PathValue("image_id"))
	if err == nil {
		_, err = s.cache(r.Context())
	}
	if err == nil {
		err = s.cfg.Places.DropCached(r.Context(), img)
	}
	if err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "drop from cache", "image", img.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) showTrace(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	img, err := s.traced(r)
	if err != nil {
		return err
	}
	t, err := s.cfg.Places.Trace(r.Context(), img)
	if errors.Is(err, fs.ErrNotExist) {
		return wire.Errorf(http.StatusNotFound, "Image %s has no trace yet: one is recorded while it is attached from a far store.", img.ID)
	}
	if err != nil {
		return err
	}
	out := struct {
		ImageID string  `json:"image_id"`
		Boots   int64   `json:"boots"`
		Bytes   int64   `json:"bytes"`
		Ranges  []Range `json:"ranges"`
	}{img.ID, t.Boots, t.Bytes, append([]Range{}, t.Ranges...)}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (s *Server) forgetTrace(w http.ResponseWriter, r *http.Request) error {
	img, err := s.traced(r)
	if err == nil {
		err = s.allow(r.Context(), "platter:modify_cache", wire.Target{Kind: "cache"})
	}
	if err == nil {
		err = s.cfg.Places.ForgetTrace(r.Context(), img)
	}
	if err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "forget trace", "image", img.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// traced finds the image whose trace is asked for.
func (s *Server) traced(r *http.Request) (catalog.Image, error) {
	img, err := s.image(r.Context(), r.PathValue("image_id"))
	if err == nil {
		err = s.mayRead(r.Context(), img)
	}
	if err == nil && s.cfg.Places == nil {
		err = wire.Errorf(http.StatusNotFound, "This gateway keeps no traces: all its stores are local.")
	}
	return img, err
}
