//go:build integration

package far

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

var keeper servers.Keeper

var (
	ceph = servers.Share(&keeper, func(t servers.TB) *servers.Ceph {
		return servers.StartCeph(t, servers.CephConfig{RGW: true, Size: 16 << 30} /* 5 GiB by S3 and by Swift */)
	})
	versity = servers.Share(&keeper, func(t servers.TB) *servers.Versity {
		return servers.StartVersity(t, servers.VersityConfig{})
	})
	openstack = servers.Share(&keeper, func(t servers.TB) *servers.Swift {
		return servers.StartSwift(t, servers.SwiftConfig{Keystone: servers.StartKeystone(t)})
	})
	tempauth = servers.Share(&keeper, func(t servers.TB) *servers.Swift {
		return servers.StartSwift(t, servers.SwiftConfig{})
	})
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// A kind is one kind of store on one kind of server. Env makes an empty place
// of it and says how a gateway is told of it.
type kind struct {
	name   string
	engine string // how overlays are kept there
	env    func(t *testing.T, more ...string) []string
}

func kinds() []kind {
	bucket := func(s func(t *testing.T) servers.S3) func(t *testing.T, more ...string) []string {
		return func(t *testing.T, more ...string) []string {
			name := place(t)
			s(t).MakeBucket(t, name)
			return gateway.S3Store(s(t), name, more...)
		}
	}
	container := func(a func(t *testing.T) servers.SwiftAccount) func(t *testing.T, more ...string) []string {
		return func(t *testing.T, more ...string) []string {
			name := place(t)
			a(t).MakeContainer(t, name)
			return gateway.SwiftStore(a(t), name, append(more, "SEGMENT_SIZE=8MiB")...)
		}
	}
	return []kind{
		{"rbd", "rbd", func(t *testing.T, more ...string) []string {
			name := place(t)
			ceph(t).AddPool(t, name)
			return gateway.RBDStore(ceph(t), name, more...)
		}},
		{"s3 versitygw", "object-log", bucket(func(t *testing.T) servers.S3 { return versity(t).S3 })},
		{"s3 radosgw", "object-log", bucket(func(t *testing.T) servers.S3 { return ceph(t).RGW.S3 })},
		{"swift tempauth", "object-log", container(func(t *testing.T) servers.SwiftAccount { return tempauth(t).Account })},
		{"swift keystone", "object-log", container(func(t *testing.T) servers.SwiftAccount { return openstack(t).Account })},
		{"swift radosgw", "object-log", container(func(t *testing.T) servers.SwiftAccount { return ceph(t).RGW.Swift })},
	}
}

// place is a name for a bucket, container or pool of one test.
func place(t testing.TB) string {
	return fmt.Sprintf("t-%x", sha256.Sum256([]byte(t.Name())))[:16] + fmt.Sprint(rand.IntN(1e6))
}

// each runs a test on every kind of store.
func each(t *testing.T, f func(t *testing.T, k kind)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

// start starts a gateway on a store, without a FUSE tree unless it is wanted.
func start(t *testing.T, k kind, flags ...string) *gateway.Gateway {
	t.Helper()
	return gateway.Start(t, append(k.env(t), append([]string{"--log-level", "warn", "PLATTER_LIMITS_ORPHAN_GRACE=1s"}, flags...)...)...)
}

// tool runs a program that must succeed, and returns its output.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// disk makes a raw disk of size bytes with data here and there, and the same
// as qcow2, compressed in part.
func disk(t testing.TB, size int64) (raw, qcow2 string) {
	t.Helper()
	dir := t.TempDir()
	raw, qcow2 = filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	f, err := os.Create(raw)
	if err == nil {
		err = f.Truncate(size)
	}
	rng := rand.New(rand.NewPCG(uint64(size), 1))
	buf := make([]byte, 1<<20)
	for off := int64(0); err == nil && off < size; off += size / 16 {
		for i := range buf {
			buf[i] = byte(rng.Uint32())
		}
		copy(buf[1000:], bytes.Repeat([]byte("platter"), 20000))
		n := min(int64(rng.IntN(len(buf)))+1, size-off)
		_, err = f.WriteAt(buf[:n], off)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, qcow2)
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0x3c 65536 300000", "-c", "write -z 1M 128K", qcow2)
	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x3c 65536 300000", "-c", "write -z 1M 128K", raw)
	return raw, qcow2
}

// same compares a disk over NBD with a file.
func same(t testing.TB, uri, file, format string) {
	t.Helper()
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", format, uri, file)
}

// download returns the digest and the number of the bytes of an image.
func download(t testing.TB, g *gateway.Gateway, id, ranged string) (sum [32]byte, n int64) {
	t.Helper()
	req, err := http.NewRequest("GET", g.URL+"/v2/images/"+id+"/file", nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := http.StatusOK
	if ranged != "" {
		want = http.StatusPartialContent
	}
	if resp.StatusCode != want {
		t.Fatalf("download of %s, range %q: %s", id, ranged, resp.Status)
	}
	h := sha256.New()
	if n, err = io.Copy(h, resp.Body); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil)), n
}

// digest returns the digest of a part of a file.
func digest(t testing.TB, path string, off, n int64) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, off, n)); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// size returns the size of a file in bytes.
func size(t testing.TB, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}
