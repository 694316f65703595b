package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/api"
	"github.com/seed-478a8fee/platter/api/importer"
	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/keystone"
	events "github.com/seed-478a8fee/platter/api/notify"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
	"github.com/seed-478a8fee/platter/cmd/platterd/exports"
	"github.com/seed-478a8fee/platter/cmd/platterd/handover"
	"github.com/seed-478a8fee/platter/fusefs"
	"github.com/seed-478a8fee/platter/nbd"
)

// lookEvery is how often a far store is asked something of which nothing was
// heard.
const lookEvery = 10 * time.Second

// keepDisks is how long a disk that is a file here stays open for the next
// client. To open it costs as much as the rest of a connection.
const keepDisks = time.Second

// A gateway is everything of one platterd. Its parts are opened from the
// bottom up and closed from the top down.
type gateway struct {
	*process

	keystone *keystone.Keystone // nil: auth mode none
	notify   *events.Notifier   // nil: nobody is told of changes

	records  *records
	catalog  *catalog.Catalog
	places   *places
	images   *imageCache // nil: no cache
	opener   *disk.Opener
	ingest   *ingest.Ingest
	importer *importer.Importer
	exports  *exports.Exports
	nbd      *nbd.Server
	own      *platter.Server
	glance   *api.Server
	policy   *policyRules
	tree     *fusefs.Tree // nil: no FUSE here
	api      *http.Server
	debug    *http.Server
	metrics  *metrics

	apiCerts, nbdCerts *certs // nil: no TLS

	background sync.WaitGroup // sweepers and watchers; they end with their context
	failed     chan error     // the first door that cannot go on
	successors chan *handover.Successor
}

func newGateway(p *process) *gateway {
	return &gateway{
		process: p, metrics: newMetrics(), failed: make(chan error, 8), successors: make(chan *handover.Successor),
	}
}

// open opens every part. What it opened before an error is closed by close.
func (g *gateway) open(ctx, life context.Context) (err error) {
	if err := g.openCerts(); err != nil {
		return err
	}
	if err := g.openIdentity(); err != nil {
		return err
	}
	if err := g.openNotifications(); err != nil {
		return err
	}
	if g.records, err = openRecords(ctx, g.cfg, g.log, false); err != nil {
		return err
	}
	g.catalog, err = catalog.Open(ctx, g.records.kv, catalog.Config{GatewayID: g.dir.gateway, Observer: g.observer(), Logger: g.log})
	if err != nil {
		return fmt.Errorf("cannot read the catalog: %w", err)
	}
	g.metrics.watchCatalog(g.catalog.Revision, g.catalog.Ready)
	if err := g.openBytes(ctx); err != nil {
		return err
	}
	if err := g.openDoors(life); err != nil {
		return err
	}
	if err := g.inherit(ctx); err != nil {
		return err
	}
	g.resume(life)
	g.serveAll(life)
	return nil
}

// openBytes joins the catalog and the stores.
func (g *gateway) openBytes(ctx context.Context) error {
	if err := g.openPlaces(ctx); err != nil {
		return err
	}
	g.openImageCache()
	stores := g.places.all()
	var err error
	g.ingest, err = ingest.New(ingest.Config{
		Catalog: g.catalog, Stores: stores, DefaultStore: g.cfg.DefaultStore, Shared: g.places.shared(), GatewayID: g.dir.gateway,
		SizeCap: int64(g.cfg.Limits.ImageSize), RequireFormatMatch: g.cfg.Images.RequireFormatMatch, Strict: g.cfg.Images.Strict,
		HashAlgo: g.cfg.Images.HashAlgorithm, Grace: time.Duration(g.cfg.Limits.OrphanGrace), OrphanEvery: time.Duration(g.cfg.Limits.OrphanGrace),
		Read: func(ctx context.Context, img catalog.Image, l catalog.Location) (block.ReadCloser, error) {
			return g.exports.OpenNative(ctx, img, l)
		},
		Activated: func(ctx context.Context, img catalog.Image) { g.exports.Pin(ctx, img) },
		Freed:     func(store, key string) { g.opener.Drop(stores[store], key) },
		Fails:     g.places.fails,
		Logger:    g.log, Observe: g.metrics.attempt,
	})
	if err != nil {
		return err
	}
	g.opener = disk.New(disk.Config{ClusterCache: clusterCache(g.cfg.Cache), Cache: g.places.cache, Traces: traces{g.catalog}, Keep: keepDisks, Logger: g.log})
	reserve := localfs.NewGuard(g.cfg.DataDir, int64(g.cfg.Limits.Reserve))
	g.exports, err = exports.New(exports.Config{
		Catalog: g.catalog, Stores: stores, DefaultStore: g.cfg.DefaultStore, Ingest: g.ingest,
		Opener: g.opener,
		Fails:  g.places.fails, Used: g.used, Far: g.places.distant(), Traces: *g.cfg.Cache.Traces, Overlays: g.places.overlays(), Join: g.joins(),
		DataDir: g.cfg.DataDir, GatewayID: g.dir.gateway, Guard: reserve,
		Socket: g.doors.address(doorSocket), TCP: g.doors.address(doorNBD), Kick: g.kick,
		TLS: g.cfg.NBD.TLS != config.Off, TLSRequired: g.cfg.NBD.TLS == "required", ClientCertificates: g.cfg.NBD.TLSClientCA != "",
		Elsewhere: g.cfg.NBDEndpoint(), Rules: rules(g.cfg.NBD.Clients), TokensOnly: g.keystone != nil,
		Record:         g.record,
		MaxOverlaySize: int64(g.cfg.Limits.OverlaySize), OverlayQuota: int64(g.cfg.Limits.OverlayBytes),
		JournalLimit: int64(g.cfg.Limits.JournalBytes), JournalFull: journalFull(g.cfg.Limits.JournalFull),
		EphemeralQuota: int64(g.cfg.Limits.EphemeralBytes), UnusedAfter: time.Duration(g.cfg.Limits.AttachUnused),
		TaskLife: time.Duration(g.cfg.Limits.TaskLife), Project: g.cfg.FUSE.Project, Logger: g.log,
	})
	if err != nil {
		return err
	}
	g.metrics.watchLogs(g.exports.Logs)
	if err := g.openImporter(); err != nil {
		return err
	}
	return errors.Join(g.ingest.Recover(ctx), g.exports.Recover(ctx), g.importer.Recover(ctx))
}

// joins returns how this gateway takes its place among others: an etcd of its
// own it shares with nobody.
func (g *gateway) joins() func(ctx context.Context) (*catalog.Membership, error) {
	if g.records.server != nil {
		return nil
	}
	return func(ctx context.Context) (*catalog.Membership, error) {
		return g.catalog.Join(ctx, time.Duration(g.cfg.Catalog.Lease), g.cfg.API.PublicEndpoint)
	}
}

// journalFull says what a write does when a journal is full.
func journalFull(word string) journal.Full {
	if word == "fail" {
		return journal.Fail
	}
	return journal.Wait
}

// record is image.json: the record as the API shows it, for people to read.
func (g *gateway) record(_ context.Context, img catalog.Image) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, g.glance.Record(img), "", "  "); err != nil {
		return nil, fmt.Errorf("the record of image %s: %w", img.ID, err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// rules returns what client certificates may open.
func rules(clients []config.NBDClient) []exports.Rule {
	var out []exports.Rule
	for _, c := range clients {
		out = append(out, exports.Rule{Name: c.Name, Exports: c.Exports, Write: c.Mode == "rw"})
	}
	return out
}

// kick cuts NBD connections by their numbers.
func (g *gateway) kick(conns []uint64) {
	want := map[uint64]bool{}
	for _, id := range conns {
		want[id] = true
	}
	g.nbd.Kick(func(c nbd.ConnInfo) bool { return want[c.Client.ID] })
}

// openDoors makes everything that clients talk to, and lets none in yet.
func (g *gateway) openDoors(life context.Context) (err error) {
	c := nbd.Config{
		Exports: g.exports, Logger: g.log, Observer: g.metrics,
		MaxConns: g.cfg.NBD.MaxConnections, MaxConnsPerClient: g.cfg.NBD.MaxPerClient,
		HandshakeTimeout: time.Duration(g.cfg.NBD.HandshakeWithin), MaxInFlightTotal: int64(g.cfg.NBD.MaxInFlight),
		TLSRequired: g.cfg.NBD.TLS == "required", TLSFailed: func(error) { g.metrics.nbd.tlsFailed.Add(1) },
	}
	if g.nbdCerts != nil {
		c.TLS = g.nbdCerts.config()
	}
	if g.nbd, err = nbd.New(c); err != nil {
		return err
	}
	g.metrics.nbd.watch(g.nbd.Conns)
	if g.api, err = g.newAPI(); err != nil {
		return err
	}
	if err := g.mount(life); err != nil {
		return err
	}
	g.debug = &http.Server{Handler: debugHandler(g.metrics.reg, g.nbd.Conns), ReadHeaderTimeout: 10 * time.Second}
	return nil
}

// diedRecords stops the gateway with its own etcd.
func (g *gateway) diedRecords(life context.Context) error {
	select {
	case err := <-g.records.died:
		return fmt.Errorf("the embedded etcd has ended: %w", err)
	case <-life.Done():
		return nil
	}
}

// serveAll lets clients in and starts what goes on in the background.
func (g *gateway) serveAll(life context.Context) {
	for _, d := range g.doors.list {
		switch d.name {
		case doorNBD, doorSocket:
			ln := d.openToPeers()
			g.run(func() error { return g.nbd.Serve(life, ln) })
		case doorDebug:
			ln := d.open()
			g.run(func() error { return g.debug.Serve(ln) })
		case doorAPI:
			ln := d.open()
			g.run(func() error {
				if g.apiCerts != nil {
					return g.api.ServeTLS(ln, "", "") // the certificates are in TLSConfig
				}
				return g.api.Serve(ln)
			})
		}
	}
	g.run(func() error { return g.hear(life) })
	if g.keystone != nil {
		g.run(func() error { return g.keystone.Run(life) })
	}
	g.run(func() error { return g.ingest.Run(life) })
	g.run(func() error { return g.importer.Run(life) })
	for _, p := range g.places.stores {
		if p.late != nil {
			g.run(func() error { return p.late.run(life) })
			g.run(func() error { p.far.Watch(life, lookEvery); return nil })
		}
	}
	g.run(func() error { return g.exports.Run(life) })
	if g.places.cache != nil {
		g.run(func() error { return g.places.run(life, g.log) })
		g.run(func() error { return g.images.run(life) })
	}
	if g.records.died != nil {
		g.run(func() error { return g.diedRecords(life) })
	}
}

// run starts work that lasts as long as the gateway. What it returns before
// the end stops the gateway.
func (g *gateway) run(work func() error) {
	g.background.Go(func() {
		err := work()
		if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.Canceled) {
			return
		}
		select {
		case g.failed <- err:
		default: // enough is known
		}
	})
}

// newAPI makes the HTTP door: Glance's API, our own beside it, and health.
func (g *gateway) newAPI() (_ *http.Server, err error) {
	if g.policy, err = openPolicy(g.cfg, g.log); err != nil {
		return nil, err
	}
	g.own, err = platter.New(platter.Config{Catalog: g.catalog, Overlays: g.exports, Attachments: g.exports, Disks: g.exports,
		Reshaper: g.exports, Places: g.places, Adopter: g.ingest, Conns: exports.Conns{Server: g.nbd}, Policy: g.policy, Protect: g.policy.protect, Logger: g.log})
	if err != nil {
		return nil, err
	}
	g.glance, err = api.New(api.Config{
		Catalog: g.catalog, Data: g.ingest, Auth: g.authenticator(), Policy: g.policy, Protect: g.policy.protect, PublicEndpoint: g.cfg.API.PublicEndpoint,
		Listen: g.cfg.API.Listen, Hosts: g.cfg.API.AllowedHosts,
		Limits:      api.Limits{Members: g.cfg.Limits.Members, Tags: g.cfg.Limits.Tags, Properties: g.cfg.Limits.Properties},
		DiskFormats: g.cfg.Images.DiskFormats, ContainerFormats: g.cfg.Images.ContainerFormats,
		Stores: g.namedStores(), DefaultStore: g.cfg.DefaultStore, Importer: g.importer, CORS: cors(g.cfg.CORS),
		Locator: g.places, ShowDirectURL: g.cfg.Images.ShowDirectURL, ShowLocations: g.cfg.Images.ShowMultipleLocations, MaxLocations: g.cfg.Images.LocationQuota, Platter: g.own, Logger: g.log, Ready: g.ready, Ailing: g.ailing,
		Deletable: g.ingest.Deletable, Cache: g.glanceCache(), Notify: g.notify,
		Observe: func(r api.Request) { g.metrics.request(r.Method, r.Route, r.Status, r.Took) },
	})
	if err != nil {
		return nil, err
	}
	s := newHTTPServer(g.glance, g.log)
	if g.apiCerts != nil {
		s.TLSConfig = g.apiCerts.config()
	}
	return s, nil
}

// ready tells whether requests can be answered: without the catalog or the
// default store they cannot.
func (g *gateway) ready() error {
	return errors.Join(g.catalog.Ready(), g.places.ready())
}

// namedStores lists the stores for clients.
func (g *gateway) namedStores() []api.Store {
	var out []api.Store
	for name, s := range g.cfg.Stores {
		out = append(out, api.Store{ID: name, Description: s.Description, Type: s.Type, Weight: s.Weight, Default: name == g.cfg.DefaultStore,
			ReadOnly: s.Type == "http", Properties: storeProperties(s)})
	}
	return out
}
