//go:build integration

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

var (
	keeper servers.Keeper
	tables report
)

var (
	ceph = servers.Share(&keeper, func(t servers.TB) *servers.Ceph {
		return servers.StartCeph(t, servers.CephConfig{RGW: true, Size: 16 << 30})
	})
	versity = servers.Share(&keeper, func(t servers.TB) *servers.Versity {
		return servers.StartVersity(t, servers.VersityConfig{})
	})
	tempauth = servers.Share(&keeper, func(t servers.TB) *servers.Swift {
		return servers.StartSwift(t, servers.SwiftConfig{})
	})
	etcd = servers.Share(&keeper, func(t servers.TB) *servers.Etcd { return servers.StartEtcd(t, 1) })
)

func TestMain(m *testing.M) {
	code := keeper.Run(m)
	name := os.Getenv("BENCH_FILE")
	if name == "" {
		name = "bench.txt"
	}
	if err := tables.write(filepath.Join(gateway.Root(), "bin", name)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// number returns a setting of the environment.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

func rounds() int  { return number("BENCH_ROUNDS", 5) }
func seconds() int { return number("BENCH_SECONDS", 4) }

// tool runs a program that must succeed.
func tool(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// noise fills p with bytes that no format and no disk makes smaller.
func noise(p []byte, seed uint64) {
	for i := range p {
		seed = seed*6364136223846793005 + 1442695040888963407
		p[i] = byte(seed >> 56)
	}
}

// rawDisk makes a file of size bytes full of noise.
func rawDisk(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		noise(p, uint64(off))
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}
