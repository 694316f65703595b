package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
	"github.com/seed-478a8fee/platter/cmd/platterd/handover"
)

// A process is what stays while gateways are opened and closed: the lock on
// the data directory and the listening sockets. There is one gateway in its
// life, unless it tried to hand over and the next process did not live.
type process struct {
	cfg *config.Config
	log *slog.Logger

	dir   *dataDir
	doors *doors
	next  *door // where the next process asks

	before  *handover.Predecessor // until it has let us go; nil: none
	waiting []waiting             // connections to go on with
	since   time.Time             // since when they wait

	self     string      // the program's file
	nextRuns atomic.Bool // one that we started has not taken over yet
}

// A waiting is a client's connection between two gateways.
type waiting struct {
	conn  net.Conn
	state []byte
}

// run serves until ctx ends or another process has taken over, then stops in
// good order: requests in flight end, overlays are flushed, the tree is
// unmounted, the catalog is closed. With takeOver it begins by taking the
// place of the gateway that runs on the data directory.
func run(ctx context.Context, cfg *config.Config, log *slog.Logger, takeOver bool) (err error) {
	p := &process{cfg: cfg, log: log, self: program()}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.begin(ctx, takeOver); err != nil {
		return err
	}
	for {
		again, err := p.serve(ctx)
		if err != nil || !again || ctx.Err() != nil {
			return err
		}
	}
}

// begin gets the lock and the sockets.
func (p *process) begin(ctx context.Context, takeOver bool) error {
	if takeOver {
		// What can be seen to be wrong is said before anybody has to wait.
		if err := errors.Join(newGateway(p).openCerts(), roomForRecords(p.cfg)); err != nil {
			return err
		}
		err := p.take(ctx)
		if !errors.Is(err, handover.ErrNobody) {
			return err
		}
		p.log.Info("there is no gateway whose place could be taken; starting as ever", "err", err)
	}
	given, err := activated(p.cfg)
	if err != nil {
		return err
	}
	if p.dir, err = openDataDir(p.cfg.DataDir); err != nil {
		return err
	}
	return p.listen(given)
}

// listen opens what was not given.
func (p *process) listen(given []*door) (err error) {
	if p.doors, err = listen(p.cfg, given); err != nil {
		return err
	}
	for _, d := range given {
		if d.name == doorTakeover {
			p.next = d
			return nil
		}
	}
	ln, err := handover.Listen(p.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("cannot make the socket where the next gateway asks for its place: %w", err)
	}
	p.next = &door{name: doorTakeover, ln: ln}
	return nil
}

// serve opens a gateway and closes it when it is to stop. It reports whether
// the process has to go on with another gateway.
func (p *process) serve(ctx context.Context) (again bool, err error) {
	g := newGateway(p)
	// What serves must outlive ctx for as long as the stop takes.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	open := true
	defer func() {
		if open {
			err = errors.Join(err, g.close(end))
		}
	}()
	if err := g.open(ctx, life); err != nil {
		return false, err
	}
	g.greet()
	notify("READY=1")
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			p.log.Info("stopping: requests in flight may end", "within", time.Duration(p.cfg.Limits.StopWithin))
			notify("STOPPING=1")
			return false, nil
		case err := <-g.failed:
			return false, err
		case s := <-g.successors:
			if p.welcome(s) {
				open = false
				return p.giveWay(g, s, end)
			}
		case sig := <-signals:
			if sig == syscall.SIGUSR2 {
				p.startNext()
			} else {
				g.reload()
			}
		}
	}
}

// close gives back what stays.
func (p *process) close() error {
	for _, w := range p.waiting {
		w.conn.Close()
	}
	if p.before != nil {
		p.before.Close()
	}
	if p.doors != nil {
		p.doors.close()
	}
	if p.next != nil {
		p.next.ln.Close()
	}
	if p.dir != nil {
		return p.dir.Close()
	}
	return nil
}
