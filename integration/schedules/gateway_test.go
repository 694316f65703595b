package schedules

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/cmd/platterd/exports"
)

// ttl is how long a lease lasts.
const ttl = 6 * time.Second

// A gateway is a machine with a disk. It runs one life after the other.
type gateway struct {
	w    *world
	name string
	dir  string
	disk *crashfs.FS
	lost bool // its disk was lost, with a journal that may be needed

	speed float64 // of its clock

	n    int
	life *life // nil: it is down, until back
	back time.Time

	stopped  time.Time // it stands still until then
	noKV     time.Time // it is cut off until then
	noStore  time.Time
	starting bool
	c        client
}

func (g *gateway) frozen() bool { return time.Now().Before(g.stopped) }

func (g *gateway) cut(on side) bool {
	switch on {
	case onKV:
		return time.Now().Before(g.noKV)
	case onStore:
		return time.Now().Before(g.noStore)
	}
	return false
}

// up tells whether it can be asked for something.
func (g *gateway) up() bool {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.life != nil && !g.starting && !g.frozen()
}

// well tells whether nothing is wrong with it.
func (g *gateway) well() bool { return g.up() && !g.cut(onKV) && !g.cut(onStore) }

// A life is a process of a gateway, from its start to its crash.
type life struct {
	w    *world
	gw   *gateway
	n    int
	dead bool // guarded by world.mu, as the next ones

	accepts bool  // somebody who accepts a loss attaches the overlay
	epoch   int64 // that it took last
	hangUp  []context.CancelCauseFunc

	ctx  context.Context // of all that clients ask for
	end  context.CancelFunc
	ops  sync.WaitGroup // of clients
	cat  *catalog.Catalog
	e    *exports.Exports
	stop context.CancelFunc // of Run
	ran  sync.WaitGroup
}

// String names it.
func (l *life) String() string { return fmt.Sprintf("%s%d", l.gw.name, l.n) }

func (l *life) accepting() bool {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.accepts
}

// boot begins a life of g. Until it has started, starting is true.
func (g *gateway) boot() {
	g.n++
	l := &life{w: g.w, gw: g, n: g.n}
	l.ctx, l.end = context.WithCancel(context.Background())
	g.w.mu.Lock()
	g.life, g.starting = l, true
	g.w.note("%s starts", l)
	g.w.mu.Unlock()
	l.ops.Go(func() {
		for try := time.Second; ; {
			err := l.start()
			g.w.mu.Lock()
			g.w.note("%s started: %v", l, err)
			if err == nil && !l.dead {
				g.starting = false
			}
			dead := l.dead
			g.w.mu.Unlock()
			if err == nil || dead {
				return
			}
			time.Sleep(try)
		}
	})
}

func (l *life) start() error {
	ctx, w := l.ctx, l.w
	if l.cat == nil {
		cat, err := catalog.Open(ctx, link{l}, catalog.Config{GatewayID: l.gw.name, Clock: l.clock, Heartbeat: 5 * time.Second})
		if err != nil {
			return err
		}
		l.cat = cat
	}
	stores := map[string]backends.Store{"s": pipe{l}}
	in, err := ingest.New(ingest.Config{Catalog: l.cat, Stores: stores, GatewayID: l.gw.name})
	if err != nil {
		return err
	}
	cfg := exports.Config{
		Catalog: l.cat, Stores: stores, Opener: disk.New(disk.Config{}), Ingest: in, DefaultStore: "s",
		Overlays:     map[string]exports.Overlays{"s": {Objects: pipe{l}, Durability: w.cfg.durability}},
		JournalLimit: w.cfg.journal, DataDir: l.gw.dir, GatewayID: l.gw.name, FS: drive{l, l.gw.disk},
		Socket: "/run/nbd.sock", Steps: l.step,
		Join: func(ctx context.Context) (*catalog.Membership, error) { return l.cat.Join(ctx, ttl, "") },
	}
	e, err := exports.New(cfg)
	if err != nil {
		return err
	}
	if err := e.Recover(ctx); err != nil {
		return errors.Join(err, e.Close())
	}
	run, stop := context.WithCancel(context.Background())
	l.e, l.stop = e, stop
	l.ran.Go(func() { _ = e.Run(run) }) // it returns nil
	return nil
}

// clock is what leases are measured with.
func (l *life) clock() time.Duration {
	if l.w.cfg.bug == openGate {
		return 0
	}
	return time.Duration(float64(time.Since(l.w.begun)) * l.gw.speed)
}

// opKey is where the context of a client's request has its op.
type opKey struct{}

// step is exports.Config.Steps.
func (l *life) step(ctx context.Context, _, name string) error {
	switch name {
	case "written", "flushed": // the last check is behind it
		if o, ok := ctx.Value(opKey{}).(*op); ok {
			l.w.mu.Lock()
			o.gate = l.w.m.epoch
			l.w.mu.Unlock()
		}
	case "append", "appended", "sync", "synced", "claim", "claimed", "applied", "trim", "trimmed", "loaded":
	default: // the same as a step of the store or of the catalog
		return l.reach(inside)
	}
	if !l.w.cfg.fine {
		return l.reach(inside)
	}
	return l.at(context.Background(), inside, name, nil)
}

// crash ends a life at once. What is on its way may arrive yet.
func (l *life) crash() {
	w := l.w
	w.mu.Lock()
	l.dead = true
	var kept []*step
	for _, s := range w.pending {
		if s.l != l {
			kept = append(kept, s)
			continue
		}
		if s.do != nil && !s.did && w.rng.IntN(2) == 0 {
			late := *s // its own way from here on
			late.left = true
			kept = append(kept, &late)
		}
		s.err = errDead
		if !s.left {
			close(s.ready)
		}
	}
	w.pending = kept
	for _, cancel := range l.hangUp {
		cancel(errDead)
	}
	l.gw.life, l.gw.starting, l.gw.stopped = nil, false, time.Time{}
	l.gw.c.forget()
	w.mu.Unlock()
	l.gw.w.dying.Go(l.bury)
}

// bury ends what goes on in a dead life, which nobody outside sees.
func (l *life) bury() {
	l.end()
	l.ops.Wait()
	if l.stop != nil {
		l.stop()
		l.ran.Wait()
		_ = l.e.Close() // it says that everything is dead
	}
	if l.cat != nil {
		_ = l.cat.Close()
	}
}

// partition cuts a gateway off.
func (g *gateway) partition(d time.Duration, kv, store bool) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	until := time.Now().Add(d)
	if store {
		g.noStore = until
	}
	if kv {
		g.noKV = until
		if g.life != nil {
			for _, cancel := range g.life.hangUp {
				cancel(errLost)
			}
			g.life.hangUp = nil
		}
	}
}
