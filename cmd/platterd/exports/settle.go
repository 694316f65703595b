package exports

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/catalog"
)

// settleEvery is how often overlays are looked for that somebody left with a
// journal, or in the midst of being made or deleted.
const settleEvery = 30 * time.Second

// settle looks after overlays in shared stores that this gateway owned when
// its last run ended, or that were closed while their store was away: what a
// journal holds is brought over, and what was half made or half deleted goes.
// It returns when ctx ends.
func (e *Exports) settle(ctx context.Context) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		if err := errors.Join(e.settleAll(ctx), e.sweepJournals(ctx)); err != nil && ctx.Err() == nil {
			e.log.WarnContext(ctx, "overlays could not be looked after; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (e *Exports) settleAll(ctx context.Context) error {
	list, err := e.cfg.Catalog.Overlays(ctx, catalog.OverlayQuery{Gateway: e.cfg.GatewayID})
	if err != nil {
		return err
	}
	errs := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(repairs) // a store that is away must not keep the others waiting
	for i, ov := range list {
		if ctx.Err() == nil && e.moves(ov) && !e.isOpen(ov.ID) {
			g.Go(func() error {
				errs[i] = e.settleOne(ctx, ov.ID)
				return nil
			})
		}
	}
	_ = g.Wait() // the errors are all kept
	return errors.Join(errs...)
}

// settleOne looks after one overlay, unless somebody has come meanwhile.
func (e *Exports) settleOne(ctx context.Context, id string) error {
	defer e.keys.lock(id)()
	ov, err := e.cfg.Catalog.Overlay(ctx, id)
	if err != nil || !e.local(ov) || ov.Gateway == "" || e.isOpen(id) {
		return absent(err)
	}
	if ov.Status == catalog.OverlayCreating || ov.Status == catalog.OverlayDeleting {
		return e.removeOverlay(ctx, ov)
	}
	d, err := e.acquireOverlay(ctx, ov) // which has the record say what there is
	if err != nil {
		return err
	}
	return e.release(d)
}

// agree makes the record of an overlay say which snapshots there are.
func (e *Exports) agree(ctx context.Context, ov catalog.Overlay, snaps []catalog.OverlaySnapshot) error {
	same := slices.EqualFunc(snaps, ov.Snapshots, func(a, b catalog.OverlaySnapshot) bool { return a.ID == b.ID })
	if same {
		return nil
	}
	_, err := e.cfg.Catalog.UpdateOverlay(ctx, ov.ID, func(o *catalog.Overlay) error {
		o.Snapshots = snaps
		return nil
	})
	return err
}

// overlaysHere returns the overlays that this gateway can open.
func (e *Exports) overlaysHere(ctx context.Context) ([]catalog.Overlay, error) {
	list, err := e.cfg.Catalog.Overlays(ctx, catalog.OverlayQuery{})
	return slices.DeleteFunc(list, func(ov catalog.Overlay) bool { return !e.local(ov) }), err
}
