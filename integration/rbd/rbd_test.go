//go:build integration

package rbd_test

import (
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
)

var (
	keeper servers.Keeper
	ceph   = servers.Share(&keeper, func(t servers.TB) *servers.Ceph { return servers.StartCeph(t, servers.CephConfig{}) })
	blue   = servers.Share(&keeper, func(t servers.TB) *servers.Ceph {
		return servers.StartCeph(t, servers.CephConfig{Bluestore: true})
	})
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// spaces counts namespaces, so that each test has one.
var spaces atomic.Int64

// config returns the Config of an empty namespace of the cluster's pool.
func config(t testing.TB, c *servers.Ceph) rbd.Config {
	t.Helper()
	space := fmt.Sprintf("ns%d", spaces.Add(1))
	c.Command(t, "rbd", "namespace", "create", c.Pool+"/"+space)
	return rbd.Config{
		Pool: c.Pool, Namespace: space, Conf: c.Conf, User: c.User, Keyring: c.Keyring,
		Timeout: 20 * time.Second,
		Logger:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// plain returns the Config of the pool's default namespace, as Glance has it.
func plain(t testing.TB, c *servers.Ceph) rbd.Config {
	cfg := config(t, c)
	cfg.Namespace = ""
	return cfg
}

func open(t testing.TB, cfg rbd.Config) *rbd.Store {
	t.Helper()
	s, err := rbd.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	storetest.Far(t, func(t *testing.T) backends.Store { return open(t, config(t, ceph(t))) })
}

func TestStoreOnBluestore(t *testing.T) {
	storetest.Far(t, func(t *testing.T) backends.Store { return open(t, config(t, blue(t))) })
}
