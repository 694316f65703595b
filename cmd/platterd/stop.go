package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
)

// newHTTPServer returns a server whose own complaints go to the log.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	s := wire.NewServer(h)
	s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	return s
}

// close stops every part that was opened, the doors first. Requests in flight
// have the time that the configuration gives them.
func (g *gateway) close(end context.CancelFunc) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(g.cfg.Limits.StopWithin))
	defer cancel()
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if g.records != nil {
		g.records.makeRoom()
	}
	if g.own != nil {
		note(g.own.Close())
	}
	note(g.closeDoors(ctx))
	if g.tree != nil {
		note(g.tree.Close())
	}
	if g.debug != nil {
		note(g.debug.Close())
	}
	end()
	g.background.Wait()
	note(g.closeInside())
	return errors.Join(errs...)
}

// closeInside closes what the doors stand on, once they are closed.
func (g *gateway) closeInside() error {
	var errs []error
	if g.importer != nil {
		g.importer.Close()
	}
	if g.exports != nil {
		errs = append(errs, g.exports.Close())
	}
	if g.opener != nil { // it stores what it has learned of boots that go on
		if err := g.opener.Close(); err != nil { // by requests that were cut, and have not noticed yet
			g.log.Warn("disks were not closed in time", "err", err)
		}
	}
	if g.places != nil {
		errs = append(errs, g.places.close())
	}
	if g.catalog != nil {
		errs = append(errs, g.catalog.Close())
	}
	g.closeNotifications() // nothing changes any more
	if g.records != nil {
		errs = append(errs, g.records.close())
	}
	return errors.Join(errs...)
}

// closeDoors stops HTTP and NBD side by side: a download that takes long must
// not use up the time that guests have to end their requests.
func (g *gateway) closeDoors(ctx context.Context) error {
	var work sync.WaitGroup
	var web, blocks error
	if g.api != nil {
		work.Go(func() { web = stopHTTP(ctx, g.api) })
	}
	if g.nbd != nil {
		work.Go(func() { blocks = g.nbd.Shutdown(ctx) })
	}
	work.Wait()
	return errors.Join(web, blocks)
}

// stopHTTP lets requests end and cuts those that do not. Streams of events
// never do: being cut is their ordinary end.
func stopHTTP(ctx context.Context, s *http.Server) error {
	err := s.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return s.Close()
	}
	return err
}
