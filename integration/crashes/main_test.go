//go:build integration

package crashes

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

var keeper servers.Keeper

var (
	ceph = servers.Share(&keeper, func(t servers.TB) *servers.Ceph {
		return servers.StartCeph(t, servers.CephConfig{RGW: true})
	})
	versity = servers.Share(&keeper, func(t servers.TB) *servers.Versity {
		return servers.StartVersity(t, servers.VersityConfig{})
	})
	etcd = servers.Share(&keeper, func(t servers.TB) *servers.Etcd { return servers.StartEtcd(t, 1) })
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// soaking says whether the full counts are wanted.
func soaking() bool { return os.Getenv("PLATTER_SOAK") != "" }

// times is how often something is done: a sample, or the full count.
func times(sample, full int) int {
	if soaking() {
		return full
	}
	return sample
}

// seed starts the chance of a test, and tells how to repeat it.
func seed(t *testing.T) *rand.Rand {
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("CRASH_SEED"); s != "" {
		fmt.Sscan(s, &n)
	}
	t.Logf("CRASH_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 1))
}

// place is a name for a bucket or pool that nobody else has.
func place() string { return fmt.Sprintf("crash-%08x", rand.Uint32()) }

// inVersity makes a bucket and says how a gateway is told of it.
func inVersity(t *testing.T, more ...string) []string {
	name := place()
	versity(t).MakeBucket(t, name)
	return gateway.S3Store(versity(t).S3, name, more...)
}

func inRGW(t *testing.T, more ...string) []string {
	name := place()
	ceph(t).RGW.MakeBucket(t, name)
	return gateway.S3Store(ceph(t).RGW.S3, name, more...)
}

func inSwift(t *testing.T, more ...string) []string {
	name := place()
	ceph(t).RGW.Swift.MakeContainer(t, name)
	return gateway.SwiftStore(ceph(t).RGW.Swift, name, more...)
}

func inPool(t *testing.T, more ...string) []string {
	name := place()
	ceph(t).AddPool(t, name)
	return gateway.RBDStore(ceph(t), name, more...)
}

// flags are what every gateway here has besides its store.
func flags(more ...string) []string {
	return append([]string{"--mount", "off", "--log-level", "warn", "PLATTER_LIMITS_ORPHAN_GRACE=1s", "PLATTER_CATALOG_LEASE=3s"}, more...)
}

// shared are the flags of gateways that share a catalog of their own in the
// etcd of the tests.
func shared(t *testing.T, more ...string) []string {
	return append(flags("PLATTER_CATALOG_ETCD="+strings.Join(etcd(t).Endpoints, ","), "PLATTER_CATALOG_PREFIX=/"+place()), more...)
}

// A rig is an overlay, a gateway that has it, and what was asked of it.
type rig struct {
	t       *testing.T
	g       *gateway.Gateway
	h       *history
	rng     *rand.Rand
	image   string
	overlay string
	prefix  bool // it promises a moment of the order of all writes
	slowest time.Duration
}

// newRig uploads an image and lays an overlay over it.
func newRig(t *testing.T, g *gateway.Gateway, prefix bool, format string) *rig {
	t.Helper()
	r := &rig{t: t, g: g, rng: seed(t), prefix: prefix}
	path, base := image(t, r.rng)
	if format == "qcow2" {
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", path, path+".qcow2")
		path += ".qcow2"
	}
	r.image = g.Upload(t, "base", format, path)
	r.overlay = g.NewOverlay(t, r.image, "")
	r.h = newHistory(base, prefix)
	return r
}

// image makes a raw disk that is in part empty.
func image(t *testing.T, rng *rand.Rand) (path string, base []uint64) {
	t.Helper()
	data, base := make([]byte, diskSize), make([]uint64, sectors)
	for s := range base {
		base[s] = valueZero
	}
	for b := int64(0); b < sectors; b += block {
		if rng.IntN(3) == 0 {
			continue
		}
		for s := b; s < b+block; s++ {
			stamp(data[s*sector:][:sector], baseStamp, s)
			base[s] = baseStamp
		}
	}
	path = filepath.Join(t.TempDir(), "base.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, base
}

// open opens the overlay, which must be possible within two minutes: the
// gateway has just started, or has to wait for a store.
func (r *rig) open() *nbdtest.Client {
	r.t.Helper()
	return r.openAt(r.g, 2*time.Minute)
}

func (r *rig) openAt(g *gateway.Gateway, within time.Duration) *nbdtest.Client {
	r.t.Helper()
	start := time.Now()
	for end := start.Add(within); ; time.Sleep(50 * time.Millisecond) {
		c, err := nbdtest.Open("unix", g.Socket, "overlay/"+r.overlay)
		if err == nil {
			r.slowest = max(r.slowest, time.Since(start))
			return c
		}
		if c != nil {
			c.Close()
		}
		if time.Now().After(end) {
			r.t.Fatalf("the overlay cannot be opened: %v", err)
		}
	}
}

// write lets all lanes write until what is returned is called, which waits for
// them. They end before when the connection breaks.
func (r *rig) write(c *nbdtest.Client) (stop func()) {
	done := make(chan struct{})
	var work sync.WaitGroup
	for _, l := range r.h.lanes {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), 2))
		work.Go(func() { r.h.work(c, l, rng, done) })
	}
	return func() {
		close(done)
		work.Wait()
	}
}

// read returns what the disk holds.
func (r *rig) read(c *nbdtest.Client) []uint64 {
	r.t.Helper()
	disk, err := readDisk(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return disk
}

// check compares the disk after a crash with what was promised.
func (r *rig) check(disk []uint64, p span) (cut []int) {
	r.t.Helper()
	var err error
	if r.prefix {
		cut, err = r.h.prefix(disk, p)
	} else {
		err = r.h.each(disk)
	}
	if err != nil {
		r.t.Fatalf("after the crash: %v", err)
	}
	if r.h.failed != nil {
		r.t.Fatalf("before the crash: %v", r.h.failed)
	}
	return cut
}

// settle makes what the disk holds now the beginning of a new history.
func (r *rig) settle(c *nbdtest.Client, disk []uint64) {
	r.t.Helper()
	if err := c.Flush(); err != nil {
		r.t.Fatal(err)
	}
	r.h.rebase(disk)
}

// leave closes a connection and waits until the gateway has closed the disk.
func leave(t *testing.T, c *nbdtest.Client) {
	t.Helper()
	if err := c.Disconnect(); err != nil {
		t.Error(err)
	}
	c.Close()
}

// between waits for a time of some milliseconds.
func (r *rig) between(least, most int) {
	time.Sleep(time.Duration(least+r.rng.IntN(most-least)) * time.Millisecond)
}

// tool runs a program that must succeed.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
