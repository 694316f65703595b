package main

import (
	"context"
	"errors"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
	"github.com/seed-478a8fee/platter/fusefs"
)

// mount shows the tree of files and keeps it true. Where there is no FUSE the
// gateway goes on without it.
func (g *gateway) mount(life context.Context) error {
	if g.cfg.FUSE.Mount == config.Off {
		return nil
	}
	tree, err := fusefs.Mount(life, fusefs.Config{
		Dir: g.cfg.FUSE.Mount, Library: g.exports.Library(), AllowOther: g.cfg.FUSE.AllowOther,
		Gateway: g.dir.gateway, Revision: g.catalog.Revision, Logger: g.log,
	})
	if errors.Is(err, fusefs.ErrNoFUSE) {
		g.log.Warn("images are not shown as files", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	g.tree = tree
	from := g.catalog.Revision()
	g.run(func() error { g.follow(life, from); return nil })
	return nil
}

// follow tells the kernel of every image that changes, until life ends.
func (g *gateway) follow(life context.Context, from int64) {
	for life.Err() == nil {
		for change, err := range g.catalog.Watch(life, from) {
			if errors.Is(err, catalog.ErrCompacted) {
				from = g.catalog.Revision() // before looking: what comes later is told
				g.tree.Missed(life)
			}
			if err != nil {
				break
			}
			from = change.Revision
			g.tell(life, change)
		}
		select {
		case <-life.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (g *gateway) tell(ctx context.Context, change catalog.Change) {
	switch {
	case change.Kind != "image":
	case change.Deleted:
		g.tree.Removed(ctx, change.ID)
	default:
		g.tree.Changed(ctx, change.ID)
	}
}

// greet says where everything is.
func (g *gateway) greet() {
	where := []any{"version", version, "data", g.cfg.DataDir, "gateway", g.dir.gateway}
	if a := g.doors.address(doorAPI); a != "" {
		where = append(where, "api", g.scheme()+a)
	}
	if a := g.doors.address(doorSocket); a != "" {
		where = append(where, "nbd_socket", a)
	}
	if a := g.doors.address(doorNBD); a != "" {
		where = append(where, "nbd", a)
	}
	if g.tree != nil {
		where = append(where, "files", g.cfg.FUSE.Mount)
	}
	if a := g.doors.address(doorDebug); a != "" {
		where = append(where, "metrics", "http://"+a+"/metrics")
	}
	g.log.Info("platterd is ready", where...)
}

func (g *gateway) scheme() string {
	if g.apiCerts != nil {
		return "https://"
	}
	return "http://"
}
