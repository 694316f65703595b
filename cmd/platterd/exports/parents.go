package exports

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/catalog"
)

// parentNote is how often it is written down how far a parent has come.
const parentNote = time.Second

// parents makes the disks of images into objects that overlays are cloned
// from, one at a time.
type parents struct {
	mu      sync.Mutex
	stopped bool
	busy    map[string]bool // image and store
	work    sync.WaitGroup
	slot    chan struct{}
	quit    context.CancelFunc
	ctx     context.Context
}

func (p *parents) init() {
	p.busy, p.slot = map[string]bool{}, make(chan struct{}, 1)
	p.ctx, p.quit = context.WithCancel(context.Background())
}

// begin starts to make the parent of an image in a pool, unless that goes on.
func (p *parents) begin(c clones, img catalog.Image) {
	id := img.ID + "/" + c.store
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.busy[id] {
		return
	}
	p.busy[id] = true
	p.work.Go(func() {
		defer func() {
			p.mu.Lock()
			delete(p.busy, id)
			p.mu.Unlock()
		}()
		select {
		case p.slot <- struct{}{}:
			defer func() { <-p.slot }()
		case <-p.ctx.Done():
			return
		}
		if err := c.materialize(p.ctx, img); err != nil && p.ctx.Err() == nil {
			c.e.log.Error("an image could not be made into a parent of clones; the next overlay of it tries again",
				"image", img.ID, "store", c.store, "err", err)
		}
	})
}

// stop ends what goes on and waits for it.
func (p *parents) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.quit()
	p.work.Wait()
}

// materialize makes the parent of an image, if nobody does.
func (c clones) materialize(ctx context.Context, img catalog.Image) error {
	s, err := c.rbd(ctx)
	if err != nil {
		return err
	}
	src, err := c.e.OpenDisk(ctx, img)
	if err != nil {
		return err
	}
	defer src.Close()
	claim, own, err := c.e.cfg.Catalog.ClaimParent(ctx, catalog.Parent{
		Image: img.ID, Store: c.store, Key: "platter-parent-" + uuid.NewString(), Total: src.Size(),
	})
	if err != nil || !own {
		return err
	}
	err = c.fill(ctx, s, claim, func(progress func(done int64)) error {
		return s.Materialize(ctx, claim.Key, src, progress)
	})
	if err != nil {
		return errors.Join(err, c.e.cfg.Catalog.AbandonParent(context.WithoutCancel(ctx), claim))
	}
	return nil
}

// fill makes the object and writes down how far it has come.
func (c clones) fill(ctx context.Context, s *rbd.Store, claim catalog.Parent, work func(progress func(done int64)) error) error {
	last := time.Now()
	var mu sync.Mutex
	err := work(func(done int64) {
		if !mu.TryLock() {
			return
		}
		defer mu.Unlock()
		if time.Since(last) < parentNote {
			return
		}
		last = time.Now()
		claim.Done = done
		if next, err := c.e.cfg.Catalog.UpdateParent(ctx, claim); err == nil {
			claim = next
		}
	})
	if err == nil {
		claim.Done, claim.Snapshot = claim.Total, "snap"
		_, err = c.e.cfg.Catalog.UpdateParent(ctx, claim)
	}
	return err
}

// dropParents gives up what an earlier run of this gateway was making.
func (e *Exports) dropParents(ctx context.Context) error {
	list, err := e.cfg.Catalog.Parents(ctx, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range list {
		if p.Status == catalog.ParentCreating && p.Gateway == e.cfg.GatewayID {
			errs = append(errs, e.cfg.Catalog.AbandonParent(ctx, p))
		}
	}
	return errors.Join(errs...)
}
