package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/cmd/platterd/exports"
	"github.com/seed-478a8fee/platter/cmd/platterd/handover"
)

// take takes the lock, the sockets and the connections of the gateway that
// runs on the data directory. That has closed everything else by then.
// handover.ErrNobody wraps why there is none that could be asked.
func (p *process) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	before, err := handover.Ask(ctx, p.cfg.DataDir, version)
	if err != nil {
		return err
	}
	p.before = before
	items, err := before.Receive(ctx)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			before.Close()
			p.before = nil
			return fmt.Errorf("%w: it ended while it was asked: %w", handover.ErrNobody, err)
		}
		return err
	}
	p.since = before.Since
	var given []*door
	for i := range items {
		if err := p.takeItem(&items[i], &given); err != nil {
			for ; i < len(items); i++ {
				items[i].Close()
			}
			return err // what is ours already is closed with the process
		}
	}
	if p.dir == nil {
		return errors.New("the running gateway has not handed over the lock on the data directory: stop it and start the new one")
	}
	return p.listen(given)
}

func (p *process) takeItem(i *handover.Item, given *[]*door) (err error) {
	switch i.Kind {
	case handover.Lock:
		p.dir, err = holdDataDir(p.cfg.DataDir, i.File())
		return err
	case handover.Listener:
		var state doorState
		if err := json.Unmarshal(i.State, &state); err != nil {
			return fmt.Errorf("the socket of %s: %w", i.Name, err)
		}
		ln, err := i.Listener()
		if err != nil {
			return err
		}
		d := &door{name: i.Name, ln: ln, asked: state.Asked, foreign: state.Foreign}
		d.keep(true) // until it is ours
		*given = append(*given, d)
	case handover.Conn:
		c, err := i.Conn()
		if err != nil {
			return err
		}
		p.waiting = append(p.waiting, waiting{conn: c, state: i.State})
	default: // of a newer version, which would have told us by another protocol
		return i.Close()
	}
	return nil
}

// inherit makes this process the owner of what it was given. Before it nobody may
// be served.
func (p *process) inherit(ctx context.Context) error {
	if p.before == nil {
		return nil
	}
	err := p.before.Taken(ctx)
	if err == nil {
		for _, d := range append(p.doors.list, p.doors.unwanted...) {
			d.keep(d.foreign)
		}
		p.doors.drop()
	}
	return errors.Join(err, p.before.Close())
}

// resumers is how many connections are resumed at a time.
const resumers = 64

// resume goes on with the connections that were handed over. It returns when
// each has its export: who comes by a door must not have it before them. A
// connection that cannot go on is closed; its client may connect again.
func (g *gateway) resume(life context.Context) {
	list, since := g.waiting, g.since
	if since.IsZero() {
		return
	}
	g.waiting, g.since = nil, time.Time{}
	var work errgroup.Group
	work.SetLimit(resumers)
	var lost atomic.Int64
	for _, w := range list {
		work.Go(func() error {
			if err := g.nbd.Resume(life, exports.PeerConn(w.conn), w.state); err != nil {
				lost.Add(1)
				g.log.Warn("a client's connection could not be taken over; it may connect again", "client", w.conn.RemoteAddr().String(), "err", err)
			}
			return nil
		})
	}
	work.Wait()
	g.log.Info("clients go on", "connections", int64(len(list))-lost.Load(), "lost", lost.Load(), "waited", time.Since(since).Seconds())
}
