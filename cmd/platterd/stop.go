package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
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
	if g.own != nil {
		note(g.own.Close())
	}
	if g.api != nil {
		note(stopHTTP(ctx, g.api))
	}
	if g.tree != nil {
		note(g.tree.Close())
	}
	if g.nbd != nil {
		note(g.nbd.Shutdown(ctx))
	}
	if g.doors != nil {
		g.doors.close()
	}
	if g.debug != nil {
		note(g.debug.Close())
	}
	end()
	g.background.Wait()
	if g.exports != nil {
		note(g.exports.Close())
	}
	if g.catalog != nil {
		note(g.catalog.Close())
	}
	if g.records != nil {
		note(g.records.close())
	}
	if g.dir != nil {
		note(g.dir.Close())
	}
	return errors.Join(errs...)
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
