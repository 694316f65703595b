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
	"sync"
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
	trap    *trap // once there is etcd
	client  *clientv3.Client
	lock    *os.File
	socket  *socket
	ballast ballast
	log     *slog.Logger // hears what quiet does not let through
	closing atomic.Bool

	died chan error // what ended etcd
	stop chan struct{}
	mind sync.WaitGroup
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
	s := &Server{log: cfg.Logger, died: make(chan error, 1), stop: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	} else {
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
	s.ballast = ballast(filepath.Join(cfg.Dir, "ballast"))
	s.ballast.drop() // of one that was killed
	if s.etcd, s.trap, err = launch(ctx, etcdConfig(cfg, s.socket.path), etcdkv.Zap(cfg.Logger)); err != nil {
		return err
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err := <-s.etcd.Err():
		return err
	case <-s.trap.down:
		return remedy(cfg.Dir, s.trap.err)
	case <-time.After(cfg.StartTimeout):
		return fmt.Errorf("it is not ready after %s: is the disk slow or full?", cfg.StartTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.client, err = etcdkv.Dial(etcdkv.Config{Endpoints: []string{"unix://" + s.socket.path}, Logger: cfg.Logger}); err != nil {
		return err
	}
	s.ballast.take()
	s.mind.Go(s.watch)
	return nil
}

// watch waits for etcd to fail, until the server is closed.
func (s *Server) watch() {
	select {
	case err := <-s.etcd.Err():
		s.died <- err
	case <-s.trap.down:
		s.client.Close() // it answers nobody any more
		s.died <- s.failure()
	case <-s.stop:
	}
}

// failure says what etcd has failed of. What it has acknowledged is in its log,
// of which the next start makes what the database lacks.
func (s *Server) failure() error {
	err := s.trap.err
	if full(err) {
		return fmt.Errorf("the disk is full: make room and start again; what was acknowledged is safe: %w", err)
	}
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

// Err delivers the error that ended the server, if one does. Whoever waits for
// an answer of it gets an error then.
func (s *Server) Err() <-chan error { return s.died }

// MakeRoom gives etcd the room that was kept back on the disk, for the last
// changes before a stop. Close does it, too.
func (s *Server) MakeRoom() { s.ballast.drop() }

// Close stops the server. What was committed is on disk. If there is no room to
// bring the database up to date, the log has it, and the next start does it.
func (s *Server) Close() error {
	s.closing.Store(true)
	s.MakeRoom()
	close(s.stop)
	s.mind.Wait()
	var err error
	if s.client != nil && !s.failed() {
		err = s.client.Close()
	}
	if s.etcd != nil {
		err = errors.Join(err, s.closeEtcd())
	}
	if s.socket != nil {
		err = errors.Join(err, s.socket.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

func (s *Server) failed() bool {
	if s.trap == nil {
		return false
	}
	select {
	case <-s.trap.down:
		return true
	default:
		return false
	}
}

// closeEtcd stops etcd, unless it has failed, or fails at that: it cannot be
// stopped then, and ends with the process.
func (s *Server) closeEtcd() error {
	if !s.failed() {
		closed := make(chan struct{})
		go func() { // if etcd fails it does not end
			s.etcd.Close()
			close(closed)
		}()
		select {
		case <-closed:
			return nil
		case <-s.trap.down:
		}
	}
	err := s.failure()
	if full(err) {
		s.log.Warn("the catalog's database is not up to date; its log is, and the next start makes up for it", "err", err)
		return nil
	}
	return err
}
