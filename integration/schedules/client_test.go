package schedules

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/nbd"
)

// A client uses the overlay through one gateway: one request that writes at a
// time, and flushes beside it. Its fields are guarded by world.mu.
type client struct {
	busy     bool // with a request that the next one waits for
	flushing bool
	x        nbd.Export
	s        *session // nil: it has not opened the disk
	loss     bool     // it was told that it may accept a loss
	refused  int      // how often it could not open the disk
}

// forget is what a client does whose gateway is gone.
func (c *client) forget() { *c = client{loss: c.loss} }

// A request is something that a client asks of its gateway.
type request func(ctx context.Context, l *life)

// ask has a client ask for something, and wait for it.
func (g *gateway) ask(do request) {
	l, c := g.life, &g.c
	g.w.mu.Lock()
	c.busy = true
	g.w.mu.Unlock()
	l.ops.Go(func() {
		do(l.ctx, l)
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if !l.dead {
			c.busy = false
		}
	})
}

// told calls f with mu held, unless the gateway died: then nobody was told.
func (l *life) told(what string, err error, f func(w *world, c *client)) {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.dead {
		return
	}
	w.note("%s: client: %s: %v", l, what, err)
	f(w, &l.gw.c)
}

// open opens the disk. Who accepts a loss attaches the overlay for that; what
// opens it then is the same as ever.
func open(accept bool) request {
	return func(ctx context.Context, l *life) {
		err := error(nil)
		if accept {
			err = attach(ctx, l)
		}
		var x nbd.Export
		if err == nil {
			x, err = l.e.Open(ctx, nbd.Client{ID: 1, Addr: &net.UnixAddr{Net: "unix"}, Transport: "unix"}, "overlay/"+overlayID)
		}
		var got image
		if err == nil {
			got, err = look(ctx, x)
		}
		var held *catalog.LossError
		var gone *objectlog.LossError
		l.told(fmt.Sprintf("open, accepting a loss: %t", accept), err, func(w *world, c *client) {
			c.loss = errors.As(err, &held) || errors.As(err, &gone)
			if err != nil {
				c.refused++
				return
			}
			c.x, c.s, c.refused = x, w.m.opened(w, l, got), 0
		})
		if err != nil && x.Close != nil {
			_ = x.Close() // the disk could not be read, which was noted
		}
	}
}

func attach(ctx context.Context, l *life) error {
	set := func(on bool) {
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		l.accepts = on
	}
	set(true)
	a, err := l.e.Attach(ctx, platter.AttachRequest{
		Overlay: &catalog.Overlay{ID: overlayID}, Mode: catalog.AttachRW, Transport: "unix", AcceptLoss: true,
	})
	set(false)
	if err != nil {
		return err
	}
	return l.e.Detach(ctx, a.Attachment.ID)
}

// look reads the whole disk.
func look(ctx context.Context, x nbd.Export) (image, error) {
	p := make([]byte, blocks*blockSize)
	if err := x.Disk.ReadAt(ctx, p, 0); err != nil {
		return image{}, err
	}
	return parse(p)
}

// begin notes a request.
func (l *life) begin(ctx context.Context, s *session, what string) (context.Context, *op) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	o := &op{s: s, cover: s.done}
	if l.dead {
		return ctx, o
	}
	l.w.note("%s: client: %s ...", l, what)
	return context.WithValue(ctx, opKey{}, o), o
}

// put writes n blocks from block at on, or zeros.
func put(s *session, x nbd.Export, at, n int, zero bool) request {
	return func(ctx context.Context, l *life) {
		what := fmt.Sprintf("write %d blocks at %d, zeros: %t", n, at, zero)
		ctx, o := l.begin(ctx, s, what)
		l.w.mu.Lock()
		wr := l.w.m.write(s, at, n, zero)
		l.w.mu.Unlock()
		dev := x.Disk.(block.Device)
		var err error
		if zero {
			err = block.ZeroAt(ctx, dev, int64(at)*blockSize, int64(n)*blockSize, block.ZeroAny)
		} else {
			p := make([]byte, n*blockSize)
			fill(p, wr.stamp)
			err = dev.WriteAt(ctx, p, int64(at)*blockSize)
		}
		l.told(fmt.Sprintf("%s, %d", what, wr.stamp), err, func(w *world, c *client) {
			if err != nil {
				s.failed(w, what, err)
				return
			}
			if zero && o.gate == 0 {
				o.gate = s.epoch // it was zeros already: nothing was done, and nothing checked
			}
			w.m.wrote(w, o, wr)
		})
	}
}

// flush flushes the disk.
func flush(s *session, x nbd.Export) request {
	return func(ctx context.Context, l *life) {
		ctx, o := l.begin(ctx, s, "flush")
		err := x.Disk.(block.Device).Flush(ctx)
		l.told(fmt.Sprintf("flush of %d", o.cover), err, func(w *world, c *client) {
			if err != nil {
				w.count("flushes that were refused")
				s.failed(w, "flush", err)
				return
			}
			w.m.legal(w, o, "flush")
			w.m.flushed(w, o, false)
		})
	}
}

// failed notes that a write or a flush failed. While the catalog or the store is
// away it has to wait.
func (s *session) failed(w *world, what string, err error) {
	s.bad = true
	if errors.Is(err, catalog.ErrUnavailable) {
		w.fail("%s: %s fails because something is away for a while: %v", s.l, what, err)
	}
}

// beside lets a client flush while it does something else.
func (g *gateway) beside(do request) {
	l, c := g.life, &g.c
	g.w.mu.Lock()
	c.flushing = true
	g.w.mu.Unlock()
	l.ops.Go(func() {
		do(l.ctx, l)
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if !l.dead {
			c.flushing = false
		}
	})
}

// read reads the disk, which must be as this client left it, whoever has it now.
func read(s *session, x nbd.Export) request {
	return func(ctx context.Context, l *life) {
		got, err := look(ctx, x)
		l.told("read", err, func(w *world, c *client) {
			switch {
			case err != nil:
				s.bad = true
			case got != s.view:
				w.fail("%s reads %v, and wrote %v", l, got, s.view)
			}
		})
	}
}

// shut closes the disk. What it had written is then where all gateways find it,
// or the overlay stays with this one.
func shut(s *session, x nbd.Export) request {
	return func(ctx context.Context, l *life) {
		err := x.Close() // no promise: others may go on using it
		l.told("close", err, func(_ *world, c *client) { c.s, c.x = nil, nbd.Export{} })
	}
}

// snapshot keeps the disk as it is.
func snapshot(s *session) request {
	return func(ctx context.Context, l *life) {
		l.w.mu.Lock()
		cover, disk := s.done, s.view
		l.w.mu.Unlock()
		got, err := l.e.Snapshot(ctx, overlayID, "of "+l.String())
		l.told("snapshot "+got.ID, err, func(w *world, c *client) {
			if err != nil {
				return // it may be there, and is removed by whoever settles the overlay
			}
			s.snaps = append(s.snaps, got.ID)
			w.count("snapshots")
			w.m.snaps[got.ID] = &snap{disk: disk}
			w.m.promise(w, s, cover, true)
		})
	}
}

// unsnap deletes a snapshot.
func unsnap(s *session, id string) request {
	return func(ctx context.Context, l *life) {
		l.w.mu.Lock()
		if have := l.w.m.snaps[id]; have != nil {
			have.deleted = true
		}
		l.w.mu.Unlock()
		err := l.e.DeleteSnapshot(ctx, overlayID, id)
		l.told("delete snapshot "+id, err, func(*world, *client) {})
	}
}

// collect removes garbage from the store, as package ingest does.
func collect(ctx context.Context, l *life) {
	n := 0
	err := func() error {
		list, err := l.cat.Garbage(ctx)
		if err != nil {
			return err
		}
		for _, g := range list {
			if !ours(g.Key) {
				continue
			}
			if err := (pipe{l}).Delete(ctx, g.Key); err != nil {
				return err
			}
			if err := l.cat.Collected(ctx, g); err != nil {
				return err
			}
			n++
		}
		return nil
	}()
	l.told("collect", err, func(w *world, _ *client) { w.seen["objects collected"] += n })
}
