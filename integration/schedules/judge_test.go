package schedules

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/catalog"
)

// sweep removes attachments of clients that died before they could detach.
// Those of a gateway that is gone are a matter of their own.
func (w *world) sweep() {
	for _, g := range w.gws {
		if g.life != nil && g.life.accepting() {
			return
		}
	}
	ctx := context.Background()
	for p := range w.kv.List(ctx, "att/", "") {
		for _, key := range []string{p.Key, "hold/" + overlayID, "ref/overlay/" + overlayID + "/attachment/" + strings.TrimPrefix(p.Key, "att/")} {
			if _, err := w.kv.Commit(ctx, catalog.Txn{Then: []catalog.Op{{Key: key, Delete: true}}}); err != nil {
				w.fail("remove an attachment: %v", err)
			}
		}
	}
}

// settle lets everybody get on, with nothing wrong, until done, or for d.
func (w *world) settle(d time.Duration, done func() bool) bool {
	for end := time.Now().Add(d); ; {
		synctest.Wait()
		w.raise()
		if w.broken() {
			return true
		}
		if done() {
			return true
		}
		steps := w.choices()
		for _, s := range steps {
			w.let(s)
		}
		if len(steps) == 0 {
			if time.Now().After(end) {
				return false
			}
			w.idle(200 * time.Millisecond)
		}
	}
}

// recover ends all faults. Then everybody must become well by himself, and the
// disk must be there for all gateways, one after the other.
func (w *world) recover() {
	w.say("all faults end")
	w.cfg.lossy, w.cfg.held = 0, 0
	w.mu.Lock()
	for _, g := range w.gws {
		g.stopped, g.noKV, g.noStore, g.back = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	}
	w.mu.Unlock()
	idle := func() bool {
		for _, g := range w.gws {
			w.mu.Lock()
			ok := g.life != nil && !g.starting && !g.c.busy && !g.c.flushing
			w.mu.Unlock()
			if !ok {
				return false
			}
		}
		return true
	}
	if !w.settle(time.Minute, idle) {
		w.stuck("somebody waits for a minute after all faults ended")
		return
	}
	for _, g := range w.gws { // those who lost the overlay get errors, and nobody hangs
		if s, x := g.c.s, g.c.x; s != nil && (s != w.m.owner || s.bad || w.rng.IntN(2) == 0) {
			g.ask(shut(s, x))
		}
	}
	if !w.settle(time.Minute, idle) {
		w.stuck("somebody waits for a minute to close the disk")
		return
	}
	order := append([]*gateway(nil), w.gws...)
	for i, g := range order { // where the journal is
		if g.name == w.m.holder {
			order[0], order[i] = order[i], order[0]
		}
	}
	for _, g := range order {
		if !w.use(g, idle) {
			return
		}
	}
	for range 2 { // what may be deleted some time is then deleted
		order[0].ask(w.cfg.bug.collector())
		if !w.settle(time.Minute, idle) {
			w.stuck("%s collects garbage for a minute", order[0].name)
			return
		}
		w.settle(3*ttl, func() bool { return false })
	}
}

// stuck fails, and says who does not get on.
func (w *world) stuck(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.pending {
		w.note("%s waits at %s", s.l, s.name)
	}
	for _, g := range w.gws {
		w.note("%s: starting %t, its client busy %t, flushing %t", g.name, g.starting, g.c.busy, g.c.flushing)
	}
	w.fail(format, args...)
}

// use opens the disk through g, writes, flushes and closes it.
func (w *world) use(g *gateway, idle func() bool) bool {
	if s := g.c.s; s != nil && s.epoch != w.m.epoch { // it lost the overlay and does not know
		g.ask(shut(s, g.c.x))
		w.settle(time.Minute, idle)
	}
	for try := 0; g.c.s == nil; try++ {
		w.sweep()
		if try == 40 {
			w.stuck("%s cannot open the disk after all faults ended", g.name)
			return false
		}
		// Who has its journal need not accept any loss.
		accept := g.c.loss && w.lost()
		g.ask(open(accept))
		w.settle(time.Minute, idle)
		if w.broken() {
			return false
		}
		if g.c.s == nil {
			w.settle(time.Second, func() bool { return false })
		}
	}
	for _, do := range []request{put(g.c.s, g.c.x, 3, 2, false), flush(g.c.s, g.c.x), read(g.c.s, g.c.x), shut(g.c.s, g.c.x)} {
		g.ask(do)
		if !w.settle(time.Minute, idle) {
			w.stuck("%s does not answer", g.name)
		}
		if w.broken() {
			return false
		}
		if g.c.s != nil && g.c.s.bad {
			w.stuck("%s cannot write to the disk after all faults ended", g.name)
			return false
		}
	}
	w.settle(ttl, func() bool { return false })
	return !w.broken()
}

// lost tells whether a disk was lost.
func (w *world) lost() bool {
	for _, g := range w.gws {
		if g.lost {
			return true
		}
	}
	return false
}

// judge looks at the store without any gateway: the disk and all snapshots
// must be there.
func (w *world) judge() {
	ctx := context.Background()
	if err := w.look(ctx); err != nil {
		w.mu.Lock()
		w.fail("at the end: %v", err)
		w.mu.Unlock()
	}
}

func (w *world) look(ctx context.Context) error {
	cat, err := catalog.Open(ctx, w.kv, catalog.Config{GatewayID: "judge"})
	if err != nil {
		return err
	}
	defer cat.Close()
	ov, err := cat.TakeOverlay(ctx, overlayID, catalog.Take{})
	if err != nil {
		return err
	}
	cfg := objectlog.Config{
		ID: overlayID, Store: w.store, Prefix: prefix, Heads: heads{cat}, Epoch: ov.Epoch, Dir: "journal", FS: newDisk(""),
	}
	if w.cfg.bug == none {
		if err := w.leaks(ctx, cfg); err != nil {
			return err
		}
	}
	log, err := objectlog.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer log.Close()
	if got, err := under(ctx, log); err != nil {
		return err
	} else if n, ok := w.m.match(got); !ok || n < w.m.need {
		return fmt.Errorf("the store has %v of %s", got, w.m.text())
	}
	for id, s := range w.m.snaps {
		if s.deleted {
			continue
		}
		r, err := log.OpenSnapshot(ctx, id)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", id, err)
		}
		got, err := under(ctx, r)
		r.Close()
		if err != nil || got != s.disk {
			return fmt.Errorf("snapshot %s has %v, was made of %v: %w", id, got, s.disk, err)
		}
	}
	return nil
}

// leaks is an error if the store has an object that nobody will ever delete,
// unless an upload arrived when its sender was long dead.
func (w *world) leaks(ctx context.Context, cfg objectlog.Config) error {
	keys, err := objectlog.Objects(ctx, cfg)
	for e, bad := range w.store.List(ctx) {
		if err = errors.Join(err, bad); err == nil && ours(e.Key) && !slices.Contains(keys, e.Key) {
			if w.seen["uploads that arrived late"] == 0 {
				return fmt.Errorf("object %s is forgotten", e.Key)
			}
			w.tally("objects forgotten after an upload that arrived late")
		}
	}
	return err
}

// under reads a log, and the base where that has nothing.
func under(ctx context.Context, r block.Reader) (d image, err error) {
	p := make([]byte, blocks*blockSize)
	if err := r.ReadAt(ctx, p, 0); err != nil {
		return d, err
	}
	if d, err = parse(p); err != nil {
		return d, err
	}
	for i := range d {
		e, err := block.ExtentAt(ctx, r, int64(i)*blockSize, blockSize)
		if err != nil {
			return d, err
		}
		if e.Kind == block.Absent {
			d[i] = base()[i]
		}
	}
	return d, nil
}

// heads are those that package exports keeps.
type heads struct{ c *catalog.Catalog }

func (h heads) Load(ctx context.Context) (objectlog.Head, error) {
	got, err := h.c.OverlayHead(ctx, overlayID)
	if err != nil {
		return objectlog.Head{}, err
	}
	epoch, n := binary.Varint(got.Data)
	if n <= 0 {
		return objectlog.Head{}, fmt.Errorf("head of %d bytes", len(got.Data))
	}
	return objectlog.Head{Epoch: epoch, Sequence: got.Sequence, Dirty: got.Dirty, State: got.Data[n:]}, nil
}

func (h heads) Commit(ctx context.Context, head objectlog.Head) error {
	return h.c.CommitHead(ctx, overlayID, catalog.OverlayHead{
		Epoch: head.Epoch, Sequence: head.Sequence, Dirty: head.Dirty,
		Data: append(binary.AppendVarint(nil, head.Epoch), head.State...),
	}, nil)
}
