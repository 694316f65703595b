package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// tidyEvery is how often the cache is looked through for objects that are
// gone. Until then they only take space that anything else may take.
const tidyEvery = 10 * time.Minute

// run drops from the cache what is gone from the catalog, until ctx ends.
func (ps *places) run(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		if err := ps.tidy(ctx); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "the cache could not be looked through; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tidy drops the objects of images and overlays that the catalog does not have
// any more. What is listed before the catalog is asked, and unknown to it
// then, will never be known again: its names are used once.
func (ps *places) tidy(ctx context.Context) error {
	cached := ps.cache.List()
	images, err := ps.generations(ctx)
	if err != nil {
		return err
	}
	overlays := map[string]bool{}
	list, err := ps.catalog.Overlays(ctx, catalog.OverlayQuery{})
	if err != nil {
		return err
	}
	for _, ov := range list {
		overlays[ov.ID] = true
	}
	for _, c := range cached {
		if images[c.ID] == "" && !overlays[overlayOf(c.ID)] && c.Readers == 0 {
			ps.cache.Drop(c.ID)
		}
	}
	return nil
}

// overlayOf returns the overlay whose segment has this name in the cache, or
// "".
func overlayOf(id string) string {
	_, rest, _ := strings.Cut(id, "/platter/overlays/")
	overlay, _, _ := strings.Cut(rest, "/")
	return overlay
}
