package main

import (
	"context"
	"fmt"
	"time"

	"github.com/seed-478a8fee/platter/api"
	"github.com/seed-478a8fee/platter/api/importer"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/http"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// openImporter makes what imports images, and the place for what is staged.
func (g *gateway) openImporter() error {
	c := g.cfg.Import
	staging, err := file.Open(file.Config{Dir: c.StagingDir, Guard: localfs.NewGuard(g.cfg.DataDir, int64(g.cfg.Limits.Reserve))})
	if err != nil {
		return fmt.Errorf("import.staging_dir: %w", err)
	}
	var fetch importer.Fetcher
	var remote *importer.Remote
	if *c.WebDownload || c.GlanceDownload {
		f, err := http.NewFetcher(http.FetchConfig{
			AllowedSchemes: c.AllowedSchemes, DisallowedSchemes: c.DisallowedSchemes, AllowedHosts: c.AllowedHosts,
			DisallowedHosts: c.DisallowedHosts, AllowedPorts: c.AllowedPorts, DisallowedPorts: c.DisallowedPorts, Logger: g.log,
		})
		if err != nil {
			return fmt.Errorf("import: what may be fetched: %w", err)
		}
		if *c.WebDownload {
			fetch = f
		}
		if c.GlanceDownload {
			remote = &importer.Remote{Fetch: f.OpenWith, Properties: c.GlanceDownloadProperties,
				Endpoint: func(ctx context.Context, region, iface string) (string, error) {
					return g.keystone.EndpointOf(ctx, "image", region, iface)
				}}
		}
	}
	g.importer = importer.New(importer.Config{
		Catalog: g.catalog, Bytes: g.ingest, GatewayID: g.dir.gateway,
		Staging: staging, Shared: c.StagingShared, SelfURL: c.SelfURL, SizeCap: int64(g.cfg.Limits.ImageSize),
		Fetch: fetch, Remote: remote, OneStore: len(g.cfg.Stores) == 1, Parallel: c.Parallel, TaskLife: time.Duration(g.cfg.Limits.TaskLife), Logger: g.log,
	})
	return nil
}

// cors is what the API is told of web pages.
func cors(c config.CORS) api.CORS {
	return api.CORS{
		Origins: c.AllowedOrigin, NoCredentials: c.AllowCredentials != nil && !*c.AllowCredentials,
		ExposeHeaders: c.ExposeHeaders, AllowHeaders: c.AllowHeaders, Methods: c.AllowMethods, MaxAge: c.MaxAge,
	}
}
