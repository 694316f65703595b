package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// An ImageCache is what /v2/cache shows: the images that this gateway has
// whole on its own disk, and the queue of those that it fetches.
type ImageCache interface {
	// State returns what is cached and, in their order, the ids of what is
	// queued.
	State(ctx context.Context) ([]CachedImage, []string, error)

	// Holds reports whether an image is cached.
	Holds(img catalog.Image) bool

	ImageCacheChanger
}

// An ImageCacheChanger changes what is cached.
type ImageCacheChanger interface {
	// Queue has an image fetched in the background; for one that is cached or
	// queued already it does nothing. The error of one that can never be cached
	// here is errors.ErrUnsupported, that of one too many ErrCacheQueueFull.
	Queue(img catalog.Image) error

	// Remove takes one image, or all of them for "", out of the cache, the
	// queue or both, and tells whether there was one.
	Remove(ctx context.Context, id string, cached, queued bool) (bool, error)

	// Clean removes what is left of images that are no longer there.
	Clean(ctx context.Context) error
}

// ErrCacheQueueFull is the error of queueing more images than the queue takes.
var ErrCacheQueueFull = errors.New("the queue of the cache is full")

// A CachedImage is an image that is cached whole.
type CachedImage struct {
	ImageID  string
	Hits     int64     // how often it was opened since
	Accessed time.Time // when it last was, or came
	Modified time.Time // when it came
	Size     int64     // bytes
}

type cachedView struct {
	ImageID  string  `json:"image_id"`
	Hits     int64   `json:"hits"`
	Accessed float64 `json:"last_accessed"` // seconds since 1970
	Modified float64 `json:"last_modified"`
	Size     int64   `json:"size"`
}

// seconds is a time as the cache API writes it.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// cacheFor asks the policy, and then whether there is a cache, in that order.
func (s *Server) cacheFor(r *http.Request, rule string) (ImageCache, error) {
	if err := s.allow(r.Context(), rule, wire.Target{}); err != nil {
		return nil, err
	}
	return s.imageCache()
}

func (s *Server) imageCache() (ImageCache, error) {
	if s.cfg.Cache == nil {
		return nil, wire.Errorf(http.StatusNotFound, "This gateway has no cache: every store is on its own machine, or [cache] dir is \"off\".")
	}
	return s.cfg.Cache, nil
}

// cachedImage returns the image of the path, if the policy allows the rule for
// it. Unlike elsewhere, a refusal is no secret: who asks here manages the cache.
func (s *Server) cachedImage(r *http.Request, rule string) (catalog.Image, ImageCache, error) {
	img, err := s.find(r)
	if err != nil {
		return img, nil, err
	}
	if err := s.allow(r.Context(), rule, s.target(r.Context(), &img)); err != nil {
		return img, nil, err
	}
	c, err := s.imageCache()
	return img, c, err
}

func (s *Server) showCache(w http.ResponseWriter, r *http.Request) error {
	c, err := s.cacheFor(r, "cache_list")
	if err != nil {
		return err
	}
	list, queued, err := c.State(r.Context())
	if err != nil {
		return err
	}
	views := []cachedView{}
	for _, i := range list {
		views = append(views, cachedView{i.ImageID, i.Hits, seconds(i.Accessed), seconds(i.Modified), i.Size})
	}
	return wire.WriteJSON(w, http.StatusOK, object{"cached_images": views, "queued_images": append([]string{}, queued...)})
}

// clearCache empties the cache, the queue or both.
func (s *Server) clearCache(w http.ResponseWriter, r *http.Request) error {
	c, err := s.cacheFor(r, "cache_delete")
	if err != nil {
		return err
	}
	target := strings.ToLower(r.Header.Get("X-Image-Cache-Clear-Target"))
	if target != "" && target != "cache" && target != "queue" {
		return wire.Errorf(http.StatusBadRequest, "The header x-image-cache-clear-target must be cache, queue or empty, not %.40q.", target)
	}
	if _, err := c.Remove(r.Context(), "", target != "queue", target != "cache"); err != nil {
		return err
	}
	wire.Audit(r.Context(), s.cfg.Logger, "cache.clear", "target", target)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// queueCached has an image fetched.
func (s *Server) queueCached(w http.ResponseWriter, r *http.Request) error {
	img, c, err := s.cachedImage(r, "cache_image")
	if err != nil {
		return err
	}
	if img.Status != catalog.StatusActive {
		return wire.Errorf(http.StatusBadRequest, "Only an active image can be cached; image %s is %s.", img.ID, img.Status)
	}
	err = c.Queue(img)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return wire.Errorf(http.StatusBadRequest, "Not queued: %s.", wire.WithoutKind(err.Error()))
	case errors.Is(err, ErrCacheQueueFull):
		return wire.Errorf(http.StatusServiceUnavailable, "Image %s was not queued, for the queue of the cache is full. Try again when some of it was fetched.", img.ID).With("Retry-After", "60")
	case err != nil:
		return err
	}
	wire.Audit(r.Context(), s.cfg.Logger, "cache.queue", "image", img.ID)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// dropCached takes an image out of the cache and the queue. It may be one that
// is deleted.
func (s *Server) dropCached(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), r.PathValue("id")
	_, c, err := s.cachedImage(r, "cache_delete")
	gone := err != nil && wire.AsError(err).Status == http.StatusNotFound && s.cfg.Cache != nil
	if gone {
		c, err = s.cacheFor(r, "cache_delete")
	}
	if err != nil {
		return err
	}
	found, err := c.Remove(ctx, id, true, true)
	if err != nil {
		return err
	}
	if gone && !found {
		return noImage(id)
	}
	wire.Audit(ctx, s.cfg.Logger, "cache.delete", "image", id)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cacheNodes lists the gateways that have an image cached. A gateway knows of
// itself only, so where there are several it does not say.
func (s *Server) cacheNodes(w http.ResponseWriter, r *http.Request) error {
	img, c, err := s.cachedImage(r, "list_cached_nodes")
	if err != nil {
		return err
	}
	others, err := s.cfg.Catalog.Gateways(r.Context())
	if err != nil {
		return err
	}
	if len(others) > 1 {
		return wire.Errorf(http.StatusConflict, "Each of the %d gateways knows of its own cache only. Ask each of them with GET /v2/cache.", len(others))
	}
	nodes := []string{}
	if c.Holds(img) {
		nodes = append(nodes, s.baseURL(r))
	}
	return wire.WriteJSON(w, http.StatusOK, nodes)
}

// cleanCache removes what is left of images that are gone.
func (s *Server) cleanCache(w http.ResponseWriter, r *http.Request) error {
	c, err := s.cacheFor(r, "manage_image_cache")
	if err != nil {
		return err
	}
	if err := c.Clean(r.Context()); err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, object{})
}

// pruneCache has nothing to do, whenever it is asked: the cache makes room
// before it takes more, so it is never larger than it may be.
func (s *Server) pruneCache(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.cacheFor(r, "manage_image_cache"); err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, object{"total_files_pruned": 0, "total_bytes_pruned": 0})
}
