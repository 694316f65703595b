//go:build integration

package takeover

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/servers"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

var keeper servers.Keeper

var (
	versity = servers.Share(&keeper, func(t servers.TB) *servers.Versity {
		return servers.StartVersity(t, servers.VersityConfig{})
	})
	ceph = servers.Share(&keeper, func(t servers.TB) *servers.Ceph {
		return servers.StartCeph(t, servers.CephConfig{})
	})
	etcd = servers.Share(&keeper, func(t servers.TB) *servers.Etcd { return servers.StartEtcd(t, 3) })
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// times is how often something is done: a sample, or the full count.
func times(sample, full int) int {
	if os.Getenv("PLATTER_SOAK") != "" {
		return full
	}
	return sample
}

const diskSize = 64 << 20

// image makes a disk of random bytes, raw and qcow2 in turn.
func image(t *testing.T, format string) string {
	t.Helper()
	data := make([]byte, diskSize)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(data); i += 4096 {
		copy(data[i:], fmt.Sprint(i, " ", rng.Uint64()))
	}
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if format == "raw" {
		return path
	}
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", format, path, path+"."+format)
	return path + "." + format
}

// tool runs a program that must succeed.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try runs a program that may fail.
func try(t testing.TB, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// port returns the port of an address.
func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// A running is a program in the background.
type running struct {
	name string
	cmd  *exec.Cmd
	out  bytes.Buffer
	err  error
	done chan struct{}
}

// launch starts a program that ends with the test at the latest.
func launch(t *testing.T, name string, args ...string) *running {
	t.Helper()
	r := &running{name: name, cmd: exec.Command(name, args...), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.cmd.Dir = t.TempDir()
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.err = r.cmd.Wait(); close(r.done) }()
	t.Cleanup(func() { r.cmd.Process.Kill(); <-r.done })
	return r
}

// runs reports whether it still does.
func (r *running) runs() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// fio writes random blocks and reads them back until it is told to end; it
// ends with an error when anything is wrong.
func fio(t *testing.T, uri string) *running {
	t.Helper()
	args := []string{"--name=load", "--ioengine=nbd", "--uri=" + uri, "--rw=randwrite", "--size=48m", "--bsrange=512-64k", "--blockalign=512",
		"--norandommap", "--serialize_overlap=1", "--iodepth=16", "--fsync=256", "--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1",
		"--time_based", "--runtime=1h", "--rate_iops=2000", "--thread"}
	return launch(t, "fio", args...)
}

// sound asks fio to end, which must not have done so yet, and checks what it
// has said.
func (r *running) sound(t *testing.T) {
	t.Helper()
	if !r.runs() {
		t.Fatalf("fio has ended too soon: %v\n%s", r.err, r.out.Bytes())
	}
	r.cmd.Process.Signal(os.Interrupt)
	select {
	case <-r.done:
	case <-time.After(3 * time.Minute):
		t.Fatal("fio does not end")
	}
	if out := r.out.String(); !strings.Contains(out, "err= 0") || strings.Contains(out, "verify:") || strings.Contains(out, "error") {
		t.Fatalf("fio: %v\n%s", r.err, out)
	}
}

// A watcher reads and writes one block after the other, with one connection or
// one after the other, and notes the longest time that one took.
type watcher struct {
	t       *testing.T
	network string
	addr    string
	name    string
	tls     *tls.Config // nil: without
	returns bool        // it may connect again

	worst atomic.Int64 // nanoseconds, since last asked
	count atomic.Int64
	back  atomic.Int64 // connections after the first
	end   context.CancelFunc
	done  sync.WaitGroup
	err   error
}

// watch starts a watcher on [from, from+4096) of an export, where nobody else
// writes.
func (w *watcher) start(from uint64, extended bool) {
	ctx, end := context.WithCancel(context.Background())
	w.end = end
	w.t.Cleanup(func() { end(); w.done.Wait() })
	c, err := w.connect(extended)
	if err != nil {
		w.t.Fatal(err)
	}
	w.done.Go(func() { w.err = w.work(ctx, c, from, extended) })
}

func (w *watcher) connect(extended bool) (*nbdtest.Client, error) {
	c, err := nbdtest.Dial(w.network, w.addr)
	if err == nil && w.tls != nil {
		err = c.StartTLS(w.tls)
	}
	switch {
	case err != nil:
	case extended:
		err = c.EnterExtended(w.name)
	default:
		err = c.Enter(w.name)
	}
	return c, err
}

func (w *watcher) work(ctx context.Context, c *nbdtest.Client, from uint64, extended bool) error {
	defer func() { c.Close() }()
	block, written := make([]byte, 4096), 0
	begin := time.Now() // of the block under way
	for n := 1; ctx.Err() == nil; {
		copy(block, fmt.Sprintf("block %d of %d  ", n, from))
		err := c.WriteAt(block, from, 0)
		if err == nil {
			written = n
			var got []byte
			if got, err = c.Read(from, len(block), 0); err == nil && !bytes.Equal(got, block) {
				return fmt.Errorf("after %d blocks %.40q was read and %.40q written", n, got, block)
			}
		}
		if err != nil {
			if !w.returns {
				return fmt.Errorf("after %d blocks: %w", written, err)
			}
			c.Close()
			for c, err = w.connect(extended); err != nil; c, err = w.connect(extended) {
				if c != nil {
					c.Close()
				}
				if ctx.Err() != nil || time.Since(begin) > 3*time.Minute {
					return fmt.Errorf("cannot connect again: %w", err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			w.back.Add(1)
			continue
		}
		took := int64(time.Since(begin))
		w.worst.Store(max(w.worst.Load(), took))
		w.count.Add(1)
		n++
		begin = time.Now()
		time.Sleep(time.Millisecond)
	}
	return c.Disconnect()
}

// stalled returns the longest time since the last call, once the block under
// way is done.
func (w *watcher) stalled() time.Duration {
	w.t.Helper()
	n := w.count.Load()
	for end := time.Now().Add(2 * time.Minute); w.count.Load() < n+2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("no block was written for two minutes")
		}
	}
	return time.Duration(w.worst.Swap(0))
}

// stop ends it; it must have gone well.
func (w *watcher) stop() {
	w.t.Helper()
	w.end()
	w.done.Wait()
	if w.err != nil {
		w.t.Errorf("a client of %s over %s: %v", w.name, w.network, w.err)
	}
}

// stalls tells about a number of times.
func stalls(list []time.Duration) string {
	s := slices.Sorted(slices.Values(list))
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return fmt.Sprintf("median %.0f ms, longest %.0f ms of %d", ms(s[len(s)/2]), ms(s[len(s)-1]), len(s))
}
