//go:build integration

package swift

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/swift"
	"github.com/seed-478a8fee/platter/integration/servers"
)

var (
	keeper  servers.Keeper
	counter atomic.Int64 // for names that nobody else has

	tempauth = servers.Share(&keeper, func(t servers.TB) *servers.Swift { return servers.StartSwift(t, servers.SwiftConfig{}) })
	keystone = servers.Share(&keeper, func(t servers.TB) *servers.Swift {
		return servers.StartSwift(t, servers.SwiftConfig{Keystone: servers.StartKeystone(t)})
	})
	ceph = servers.Share(&keeper, func(t servers.TB) *servers.Ceph { return servers.StartCeph(t, servers.CephConfig{RGW: true}) })
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// A kind is one of the servers.
type kind struct {
	name    string
	account func(t testing.TB) servers.SwiftAccount
}

func kinds() []kind {
	return []kind{
		{"tempauth", func(t testing.TB) servers.SwiftAccount { t.Helper(); return tempauth(t).Account }},
		{"keystone", func(t testing.TB) servers.SwiftAccount { t.Helper(); return keystone(t).Account }},
		{"rgw", func(t testing.TB) servers.SwiftAccount { t.Helper(); return ceph(t).RGW.Swift }},
	}
}

// onEach runs a test on every kind of server.
func onEach(t *testing.T, f func(t *testing.T, a servers.SwiftAccount)) {
	t.Helper()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { f(t, k.account(t)) })
	}
}

// config is the Config of a store in a container that is made if need be.
func config(a servers.SwiftAccount) swift.Config {
	return swift.Config{
		AuthURL: a.AuthURL, User: a.User, Key: a.Key, Project: a.Project, ProjectDomain: a.Domain, UserDomain: a.Domain, Region: a.Region,
		Container: "images", CreateContainer: true, Prefix: fmt.Sprintf("test-%d/", counter.Add(1)),
	}
}

// open opens a store, by default in a prefix of its own.
func open(t testing.TB, cfg swift.Config) *swift.Store {
	t.Helper()
	s, err := swift.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
