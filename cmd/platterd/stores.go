package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/far"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/http"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/swift"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// openStores opens every store of the configuration. A near one that cannot be
// opened is a mistake and ends the start; a far one may be away for a while,
// and the others are served meanwhile.
func openStores(ctx context.Context, cfg *config.Config, m *metrics, log *slog.Logger) ([]*place, error) {
	var list []*place
	for name, s := range cfg.Stores {
		list = append(list, &place{name: name, cfg: s})
	}
	sortPlaces(list)
	counts := m.watchStores(list)
	for _, p := range list {
		if !p.cfg.Far() {
			s, err := openFile(cfg.StoreDir(p.cfg), cfg)
			if err != nil {
				return nil, fmt.Errorf("store %s: %w", p.name, err)
			}
			p.store = s
			continue
		}
		p.late = newLate(p.name, func(ctx context.Context) (backends.Store, error) { return openFar(ctx, cfg, p, log) }, log)
		p.far = far.New(p.late, far.Config{
			Name: "store " + p.name, Parallel: p.cfg.Parallel, Bandwidth: int64(p.cfg.Bandwidth),
			Deadline: time.Duration(p.cfg.Timeout), Logger: log,
			Observe: func(e far.Event) { counts.observe(p.name, e) },
		})
		p.store = p.far
	}
	return list, openFirst(ctx, list, log)
}

// startWithin is how long a start waits for far stores. What has not answered
// by then may yet.
const startWithin = 5 * time.Second

// openFirst tries every far store once, all at a time, so that a start tells
// at once what is wrong.
func openFirst(ctx context.Context, list []*place, log *slog.Logger) error {
	short, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	var tried sync.WaitGroup
	for _, p := range list {
		if p.late == nil {
			continue
		}
		tried.Go(func() {
			if _, err := p.late.get(short); errors.Is(err, errNotYet) && ctx.Err() == nil {
				log.Warn("a store does not answer yet; the others are served meanwhile", "store", p.name)
			} // other errors are logged by the try itself
		})
	}
	tried.Wait()
	return ctx.Err()
}

// openFar opens a far store. Together with openFile this is the only list of
// the kinds of store there are.
func openFar(ctx context.Context, cfg *config.Config, p *place, log *slog.Logger) (backends.Store, error) {
	s := p.cfg
	log = log.With("store", p.name)
	spool := filepath.Join(cfg.DataDir, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, err
	}
	switch s.Type {
	case "s3":
		return opened(s3.Open(ctx, s3.Config{
			Endpoint: s.Endpoint, Bucket: s.Bucket, Prefix: s.Prefix, AccessKey: s.AccessKey, SecretKey: s.SecretKey,
			Region: s.Region, CAFile: s.CAFile, Logger: log,
		}))
	case "swift":
		return opened(swift.Open(ctx, swift.Config{
			AuthURL: s.AuthURL, AuthVersion: s.AuthVersion, User: s.User, Key: s.Key, Project: s.Project,
			UserDomain: s.UserDomain, ProjectDomain: s.ProjectDomain, Region: s.Region, Container: s.Container, Prefix: s.Prefix,
			CreateContainer: s.CreateContainer, SegmentSize: int64(s.SegmentSize), CAFile: s.CAFile,
			SpoolDir: spool, Guard: localfs.NewGuard(spool, int64(cfg.Limits.Reserve)), Logger: log,
		}))
	case "rbd":
		return opened(rbd.Open(ctx, rbd.Config{
			Pool: s.Pool, Conf: s.Conf, User: s.User, Keyring: s.Keyring, Trash: s.Trash, Parallel: s.Parallel,
			Timeout: time.Duration(s.Timeout), Logger: log,
		}))
	case "http":
		allow := s.Allow
		if s.Endpoint == "" && len(allow) == 0 {
			allow = []string{"*"}
		}
		return opened(http.Open(http.Config{
			Base: s.Endpoint, Allow: allow, AllowPrivate: s.AllowPrivate, CAFile: s.CAFile,
			SpoolDir: spool, SpoolSize: int64(s.SpoolSize), Guard: localfs.NewGuard(spool, int64(cfg.Limits.Reserve)), Logger: log,
		}))
	}
	return nil, fmt.Errorf("stores of type %q are not known", s.Type)
}

// opened is a store that could be opened, or no store at all: a pointer to
// nothing would look like one.
func opened[T backends.Store](s T, err error) (backends.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openFile opens a file store. It may lie on another disk than the data
// directory, so it has a guard of its own.
func openFile(dir string, cfg *config.Config) (backends.Store, error) {
	err := os.MkdirAll(dir, 0o750)
	var s backends.Store
	if err == nil {
		s, err = file.Open(file.Config{Dir: dir, Guard: localfs.NewGuard(dir, int64(cfg.Limits.Reserve))})
	}
	if err != nil {
		return nil, fmt.Errorf("%w; its dir must be a folder that this user can read and write", err)
	}
	return s, nil
}
