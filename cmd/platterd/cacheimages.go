package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-478a8fee/platter/api"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/catalog"
)

// notesEvery is how often uses of whole images are written down.
const notesEvery = time.Minute

// imageCache is the cache as Glance's clients see it: images that it has
// whole, and a queue of those that it is to have. Parts of images, which is
// what it mostly has, do not count.
type imageCache struct {
	*places
	notes *cacheNotes
	log   *slog.Logger
}

// openImageCache reads the queue. Without a cache there is none.
func (g *gateway) openImageCache() {
	if g.places.cache == nil {
		return
	}
	notes, err := readCacheNotes(filepath.Join(g.cfg.DataDir, "cache-queue.json"))
	if err != nil {
		g.log.Warn("the queue of the cache is lost", "err", err)
	}
	g.images = &imageCache{places: g.places, notes: notes, log: g.log}
}

// glanceCache returns the cache for the API, or nil.
func (g *gateway) glanceCache() api.ImageCache {
	if g.images == nil {
		return nil
	}
	return g.images
}

// used counts that an image is opened.
func (g *gateway) used(img catalog.Image) {
	if g.images != nil {
		g.images.used(img)
	}
}

func (c *imageCache) used(img catalog.Image) {
	for _, l := range img.Locations {
		if c.cache.Whole(l.Generation) {
			c.notes.note(l.Generation, time.Time{}, time.Now(), 1)
			return
		}
	}
}

// State returns the images that are whole, in the order of their ids, and
// those in the queue.
func (c *imageCache) State(ctx context.Context) ([]api.CachedImage, []string, error) {
	names, err := c.generations(ctx)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	list := []api.CachedImage{}
	whole := map[string]bool{}
	for _, i := range c.cache.List() {
		if !i.Whole || names[i.ID] == "" {
			continue
		}
		whole[i.ID] = true
		u := c.notes.note(i.ID, i.Grown, now, 0)
		list = append(list, api.CachedImage{ImageID: names[i.ID], Hits: u.Hits, Accessed: u.Accessed, Modified: u.Modified, Size: i.Size})
	}
	c.notes.keepOnly(whole)
	slices.SortFunc(list, func(a, b api.CachedImage) int { return cmp.Compare(a.ImageID, b.ImageID) })
	return list, c.notes.waitingImages(), nil
}

// Holds reports whether the image is whole here.
func (c *imageCache) Holds(img catalog.Image) bool {
	return slices.ContainsFunc(img.Locations, func(l catalog.Location) bool { return c.cache.Whole(l.Generation) })
}

// Queue has the image fetched in the background.
func (c *imageCache) Queue(img catalog.Image) error {
	if c.Holds(img) {
		return nil
	}
	if _, ok := c.source(img); !ok {
		return fmt.Errorf("every copy of image %s is in a store on this machine, which is not cached: %w", img.ID, errors.ErrUnsupported)
	}
	if size := c.cache.Stats().Size; img.Size != nil && *img.Size > size {
		return fmt.Errorf("image %s has %d bytes and the cache holds %d; give it more (cache.size): %w", img.ID, *img.Size, size, errors.ErrUnsupported)
	}
	err := c.notes.add(img.ID)
	if errors.Is(err, errQueueFull) {
		return fmt.Errorf("%d images wait already: %w", maxQueued, api.ErrCacheQueueFull)
	}
	return err
}

// Remove takes images out of the cache, the queue or both: one, or all if id
// is "". It tells whether there was one.
func (c *imageCache) Remove(ctx context.Context, id string, cached, queued bool) (bool, error) {
	found := false
	if queued {
		was, err := c.notes.remove(id)
		if err != nil {
			return was, err
		}
		found = was
	}
	if !cached {
		return found, nil
	}
	names, err := c.generations(ctx)
	if err != nil {
		return found, err
	}
	for _, i := range c.cache.List() {
		if name := names[i.ID]; name != "" && (id == "" || name == id) {
			found = true
			c.cache.Drop(i.ID)
		}
	}
	return found, nil
}

// Clean drops what belongs to images that are no longer there.
func (c *imageCache) Clean(ctx context.Context) error { return c.tidy(ctx) }

// source returns the copy that an image is fetched from.
func (c *imageCache) source(img catalog.Image) (catalog.Location, bool) {
	far := c.distant()
	var last *catalog.Location
	for _, l := range img.Locations {
		switch {
		case !far[l.Store]:
		case !c.fails(l.Store):
			return l, true
		default:
			last = &l
		}
	}
	if last == nil {
		return catalog.Location{}, false
	}
	return *last, true
}

// run fetches what is queued, one image at a time, and writes uses down.
func (c *imageCache) run(ctx context.Context) error {
	tick := time.NewTicker(notesEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		work, stop := context.WithCancel(ctx)
		id, tries, pause := c.notes.next(time.Now(), stop)
		if id != "" {
			c.fetch(work, id, tries)
			stop()
			continue
		}
		stop()
		later := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-c.notes.wake:
		case <-later.C:
		case <-tick.C:
			if err := c.notes.flush(); err != nil {
				c.log.WarnContext(ctx, "how cached images were used could not be written down", "err", err)
			}
		}
		later.Stop()
	}
	return c.notes.flush()
}

// fetch brings one image into the cache, or says why not.
func (c *imageCache) fetch(ctx context.Context, id string, tries int) {
	img, err := c.catalog.Image(ctx, id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && img.Status != catalog.StatusActive {
		c.done(ctx, id, "it is no longer active")
		return
	}
	whole := false
	if err == nil {
		whole, err = c.fill(ctx, img)
	}
	switch {
	case ctx.Err() != nil: // it was taken out, or the gateway stops
	case whole:
		c.done(ctx, id, "")
	case err == nil && tries+1 >= maxFills:
		c.done(ctx, id, "it came whole, but the cache did not keep all of it; its disk or its size may be too small")
	default:
		c.log.WarnContext(ctx, "an image could not be brought into the cache; it is tried again", "image", id, "err", err)
		c.notes.failed(id, time.Now())
	}
}

// done takes an image out of the queue. why is "" if it is in the cache.
func (c *imageCache) done(ctx context.Context, id, why string) {
	if _, err := c.notes.remove(id); err != nil {
		c.log.WarnContext(ctx, "the queue of the cache could not be written down", "err", err)
	}
	if why != "" {
		c.log.WarnContext(ctx, "an image is not brought into the cache", "image", id, "reason", why)
		return
	}
	c.log.InfoContext(ctx, "an image was brought into the cache", "image", id)
}

// fill fetches an image and tells whether all of it was kept.
func (c *imageCache) fill(ctx context.Context, img catalog.Image) (bool, error) {
	if c.Holds(img) || img.Size != nil && *img.Size == 0 {
		return true, nil
	}
	l, ok := c.source(img)
	if !ok {
		return false, fmt.Errorf("no far store of this gateway has image %s", img.ID)
	}
	store := c.all()[l.Store]
	far := func(ctx context.Context) (block.ReadCloser, error) { return store.Open(ctx, l.Key) }
	r, err := c.cache.Reader(l.Generation, l.Size, far, cache.ReaderConfig{Store: l.Store})
	if err != nil {
		return false, err
	}
	err = r.Fill(ctx)
	err = errors.Join(err, r.Close())
	if whole := c.cache.Whole(l.Generation); err == nil && whole {
		c.notes.note(l.Generation, time.Now(), time.Now(), 0)
		return true, nil
	}
	return false, err
}
