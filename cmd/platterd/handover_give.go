package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/cmd/platterd/handover"
)

const (
	sayWithin   = 5 * time.Second  // for a word between two processes of one machine
	closeWithin = 10 * time.Second // for clients to take their last replies before a hand-over
)

// hear waits for processes that want our place, until ctx ends.
func (g *gateway) hear(ctx context.Context) error {
	ln := g.next.open()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			g.meet(ctx, c.(*net.UnixConn))
		case ctx.Err() != nil:
			return nil
		default:
			g.log.Warn("a process that wants to take over cannot be heard", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
}

// meet hears one of them and passes it on.
func (g *gateway) meet(ctx context.Context, c *net.UnixConn) {
	s, err := handover.Meet(ctx, c)
	if err != nil {
		g.log.Warn("a process may not take over", "err", err)
		c.Close()
		return
	}
	select {
	case g.successors <- s:
	case <-ctx.Done():
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), sayWithin)
		defer cancel()
		s.Refuse(late, "it is stopping: start the new one once it has ended") // the new one sees the end as well
		s.Close()
	}
}

// welcome tells another process that it may have our place, unless it is gone
// already.
func (p *process) welcome(s *handover.Successor) bool {
	ctx, cancel := context.WithTimeout(context.Background(), sayWithin)
	defer cancel()
	if err := s.Welcome(ctx); err != nil {
		p.log.Warn("the process that asked to take over is gone", "process", s.PID, "err", err)
		s.Close()
		return false
	}
	p.log.Info("handing over to another process", "process", s.PID, "version", s.Version)
	return true
}

// giveWay closes the gateway and hands everything to s. If s does not live to
// take it, the process goes on with a gateway of its own.
func (p *process) giveWay(g *gateway, s *handover.Successor, end context.CancelFunc) (again bool, err error) {
	defer s.Close()
	log := p.log.With("process", s.PID)
	ctx := context.Background() // a stop that is asked for now is the next one's
	start := time.Now()
	var closeErr error
	p.waiting, p.since, closeErr = g.suspend(ctx, end)
	if closeErr != nil { // as at a stop: it is said, and what is safe stays safe
		log.Error("not everything could be closed well", "err", closeErr)
	}
	closed := time.Now()
	if err := p.give(ctx, s); err != nil {
		return p.goOn(ctx, s, err)
	}
	notify(fmt.Sprintf("MAINPID=%d", s.PID))
	if err := s.Go(); err != nil {
		notify(fmt.Sprintf("MAINPID=%d", syscall.Getpid()))
		return p.goOn(ctx, s, err)
	}
	p.doors.handOver()
	p.waiting = nil // theirs; our descriptors of them end with us
	log.Info("handed over", "to_http", p.since.Sub(start).Seconds(), "to_close", closed.Sub(p.since).Seconds(),
		"to_take", time.Since(closed).Seconds())
	return false, nil
}

// give passes everything on and waits until it is taken.
func (p *process) give(ctx context.Context, s *handover.Successor) error {
	items, err := p.items()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(p.cfg.Limits.HandoverWithin),
		errors.New("limits.handover_within is over"))
	defer cancel()
	if err := s.Give(ctx, items, p.since); err != nil {
		return err
	}
	return s.Taken(ctx)
}

// A doorState is what the next process must know of a listening socket.
type doorState struct {
	Asked   string `json:"asked,omitempty"`
	Foreign bool   `json:"foreign,omitempty"`
}

// items lists everything that is handed over.
func (p *process) items() ([]handover.Item, error) {
	items := []handover.Item{{Kind: handover.Lock, Name: "the data directory", Open: p.dir.lock}}
	for _, d := range slices.Concat(p.doors.list, []*door{p.next}) {
		sock, ok := d.ln.(syscall.Conn)
		if !ok {
			return nil, fmt.Errorf("the socket of %s has no descriptor", d.name)
		}
		state, err := json.Marshal(doorState{d.asked, d.foreign})
		if err != nil {
			return nil, err
		}
		items = append(items, handover.Item{Kind: handover.Listener, Name: d.name, State: state, Open: sock})
	}
	for _, w := range p.waiting {
		sock, ok := w.conn.(syscall.Conn)
		if !ok {
			return nil, fmt.Errorf("the connection from %s has no descriptor", w.conn.RemoteAddr())
		}
		items = append(items, handover.Item{Kind: handover.Conn, Name: "connection", State: w.state, Open: sock})
	}
	return items, nil
}

// goOn makes sure that the other process is gone, and lets this one open
// everything again.
func (p *process) goOn(ctx context.Context, s *handover.Successor, why error) (again bool, err error) {
	p.log.Error("the new process has not taken over; this one goes on", "process", s.PID, "err", why)
	ctx, cancel := context.WithTimeout(ctx, 2*sayWithin)
	defer cancel()
	if err := s.Dismiss(ctx, why); err != nil {
		return false, fmt.Errorf("nobody knows who owns the data directory now: %w: end that process and start platterd again", errors.Join(why, err))
	}
	return true, nil
}

// suspend closes the gateway for the next one. NBD clients are served to the
// last; their connections are returned, and since when they wait. The time of
// what comes before is not theirs.
func (g *gateway) suspend(ctx context.Context, end context.CancelFunc) (_ []waiting, since time.Time, err error) {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	g.records.makeRoom()
	grace, cancel := context.WithTimeout(ctx, time.Duration(g.cfg.Limits.HandoverGrace))
	defer cancel()
	var web, files error
	var work sync.WaitGroup
	work.Go(func() { web = errors.Join(g.own.Close(), stopHTTP(grace, g.api)) })
	if g.tree != nil {
		work.Go(func() { files = g.tree.Close() })
	}
	work.Wait()
	note(web)
	note(files)
	note(g.debug.Close())
	end() // nobody new comes in from here on
	g.background.Wait()

	since = time.Now()
	g.exports.Hurry()
	within, cancel := context.WithTimeout(ctx, closeWithin)
	defer cancel()
	list, err := g.suspendNBD(within)
	note(err)
	note(g.closeInside())
	return list, since, errors.Join(errs...)
}

// suspendNBD ends the service of NBD at a point between two requests of each
// client.
func (g *gateway) suspendNBD(ctx context.Context) ([]waiting, error) {
	handed, err := g.nbd.Suspend(ctx)
	list := make([]waiting, len(handed))
	for i, h := range handed {
		list[i] = waiting{conn: h.Conn, state: h.State}
	}
	return list, err
}
