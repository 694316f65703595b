// Package embedded runs an etcd of our own inside the process: one member,
// its data in one directory, reachable only through a unix socket there. It
// is what a gateway uses when it is not told of another etcd.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/seed-478a8fee/platter/catalog/etcdkv"
)

// A Config says how to run the server. Dir is required.
type Config struct {
	Dir          string        // made if missing; nobody else may use it
	Logger       *slog.Logger  // nil: silent
	Quota        int64         // bytes of the database; 0: 8 GiB
	Retention    time.Duration // how long old revisions are kept for watches; 0: 1 h
	StartTimeout time.Duration // 0: 1 min: a big database after a crash takes its time
	NoSync       bool          // do not wait for the disk: for tests, loses data in a crash
}

// A Server is a running etcd. Use Start.
type Server struct {
	etcd    *embed.Etcd
	client  *clientv3.Client
	lock    *os.File
	socket  *socket
	closing atomic.Bool
}

// Start starts the server, and returns when it can be used. After a crash,
// kill -9 included, it starts on what the directory holds. A directory that
// another process uses is an error that names the process.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Quota == 0 {
		cfg.Quota = 8 << 30
	}
	if cfg.Retention == 0 {
		cfg.Retention = time.Hour
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = time.Minute
	}
	s := &Server{}
	if cfg.Logger != nil {
		cfg.Logger = slog.New(quiet{cfg.Logger.Handler(), &s.closing})
	}
	if err := s.start(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: start etcd in %s: %w", cfg.Dir, err), s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, cfg Config) (err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return err
	}
	if s.socket, err = newSocket(cfg.Dir); err != nil {
		return err
	}
	if s.etcd, err = launch(ctx, etcdConfig(cfg, s.socket.path), etcdkv.Zap(cfg.Logger)); err != nil {
		return err
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err := <-s.etcd.Err():
		return err
	case <-time.After(cfg.StartTimeout):
		return fmt.Errorf("it is not ready after %s: is the disk slow or full?", cfg.StartTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
	s.client, err = etcdkv.Dial(etcdkv.Config{Endpoints: []string{"unix://" + s.socket.path}, Logger: cfg.Logger})
	return err
}

// etcdConfig is that of the only member of a cluster. Its peer address is
// never listened on or dialled; etcd wants one all the same.
func etcdConfig(cfg Config, socket string) *embed.Config {
	client := url.URL{Scheme: "unix", Path: socket}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	c := embed.NewConfig()
	c.Name = "platter"
	c.Dir = filepath.Join(cfg.Dir, "data")
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	// There is nobody to wait for: an election is over at once.
	c.TickMs, c.ElectionMs = 10, 100
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, cfg.Retention.String()
	c.QuotaBackendBytes = cfg.Quota
	c.EnableGRPCGateway = false
	c.UnsafeNoFsync = cfg.NoSync
	return c
}

// Client returns a client of the server, which Close closes.
func (s *Server) Client() *clientv3.Client { return s.client }

// Endpoint returns where other programs of this user, such as etcdctl, find
// the server.
func (s *Server) Endpoint() string { return "unix://" + s.socket.path }

// Err delivers the error that ended the server, if one does.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops the server. What was committed is on disk.
func (s *Server) Close() error {
	s.closing.Store(true)
	var err error
	if s.client != nil {
		err = s.client.Close()
	}
	if s.etcd != nil {
		s.etcd.Close()
	}
	if s.socket != nil {
		err = errors.Join(err, s.socket.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}
