//go:build integration

package s3_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
)

var (
	keeper  servers.Keeper
	versity = servers.Share(&keeper, func(t servers.TB) *servers.Versity {
		return servers.StartVersity(t, servers.VersityConfig{})
	})
	ceph = servers.Share(&keeper, func(t servers.TB) *servers.Ceph {
		return servers.StartCeph(t, servers.CephConfig{RGW: true, Size: ifSoak[int64](16<<30, 6<<30)})
	})
	buckets atomic.Int64
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// ifSoak returns the first value in a long run, and the second otherwise.
func ifSoak[T any](long, short T) T {
	if os.Getenv("PLATTER_SOAK") == "1" {
		return long
	}
	return short
}

// kinds are the servers that every test runs against.
var kinds = map[string]func(t testing.TB) servers.S3{
	"versitygw": func(t testing.TB) servers.S3 { return versity(t).S3 },
	"radosgw":   func(t testing.TB) servers.S3 { return ceph(t).RGW.S3 },
}

// everywhere runs a test against each server.
func everywhere(t *testing.T, test func(t *testing.T, server servers.S3)) {
	for name, server := range kinds {
		t.Run(name, func(t *testing.T) { test(t, server(t)) })
	}
}

// config returns a Config with a bucket of its own.
func config(t testing.TB, server servers.S3) s3.Config {
	t.Helper()
	bucket := fmt.Sprintf("test-%d", buckets.Add(1))
	server.MakeBucket(t, bucket)
	return s3.Config{
		Endpoint: server.URL, Bucket: bucket, AccessKey: server.AccessKey, SecretKey: server.SecretKey,
		Logger: slog.New(slog.NewTextHandler(logs{t}, nil)),
	}
}

// logs writes to a test's log.
type logs struct{ t testing.TB }

func (l logs) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func open(t testing.TB, cfg s3.Config) *s3.Store {
	t.Helper()
	s, err := s3.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	everywhere(t, func(t *testing.T, server servers.S3) {
		storetest.Far(t, func(t *testing.T) backends.Store { return open(t, config(t, server)) })
	})
}

// TestCapabilities pins what each server does: a change is news.
func TestCapabilities(t *testing.T) {
	want := map[string]string{
		"versitygw": "",
		"radosgw":   "if-match on put, crc32c, if-none-match on complete",
	}
	for name, server := range kinds {
		var missing []string
		for _, c := range open(t, config(t, server(t))).Capabilities() {
			t.Logf("%s: %-26s %v %s", name, c.Name, c.OK, c.Detail)
			if !c.OK {
				missing = append(missing, c.Name)
			}
		}
		if got := strings.Join(missing, ", "); got != want[name] {
			t.Errorf("%s does not do %q, want %q", name, got, want[name])
		}
	}
}
