//go:build integration

package far

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/proxy"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

const (
	bootDisk = 1 << 30               // bytes of the disk that is booted from
	think    = 3 * time.Second       // what a guest computes while it boots
	farAway  = 20 * time.Millisecond // to the first byte of a store
	farWidth = 100 << 20             // bytes a second from a store
	rounds   = 3                     // of which the best counts: machines are shared
)

// A read is one request of a guest.
type read struct{ off, n int64 }

// recorded returns what a Debian guest read of its disk while it booted.
func recorded(t testing.TB) (list []read, bytes int64) {
	t.Helper()
	f, err := os.Open(filepath.Join(gateway.Root(), "backends", "disk", "testdata", "boot.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var r read
		if _, err := fmt.Sscan(s.Text(), &r.off, &r.n); err == nil {
			list, bytes = append(list, r), bytes+r.n
		}
	}
	if len(list) < 100 {
		t.Fatalf("only %d reads are recorded", len(list))
	}
	return list, bytes
}

// bootable makes a disk that has data wherever the guest reads, and around.
func bootable(t testing.TB, reads []read) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "boot.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(bootDisk); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, r := range reads {
		p := make([]byte, r.n+128<<10)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		if _, err := f.WriteAt(p[:min(int64(len(p)), bootDisk-r.off)], r.off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// replay boots: it reads what the guest read, in its order and with its pauses
// in between, over one connection to a socket.
func replay(ctx context.Context, socket, export string, reads []read) (time.Duration, error) {
	start := time.Now()
	c, err := nbdtest.Open("unix", socket, export)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var thought time.Duration
	for i, r := range reads {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if _, err := c.Read(uint64(r.off), int(r.n), 0); err != nil {
			return 0, err
		}
		// The pauses add up to think, however late each of them ends.
		due := think * time.Duration(i+1) / time.Duration(len(reads))
		slept := time.Now()
		time.Sleep(due - thought)
		thought += time.Since(slept)
	}
	return time.Since(start), nil
}

// peer starts an NBD server on a socket of its own.
func peer(t *testing.T, socket string, line ...string) {
	t.Helper()
	cmd := exec.Command(line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	within(t, time.Minute, strings.Join(line, " ")+" listens", func() bool {
		c, err := nbdtest.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// best is the best of some rounds.
func best(t *testing.T, prepare func(), boot func() (time.Duration, error)) time.Duration {
	t.Helper()
	var least time.Duration
	for range rounds {
		prepare()
		took, err := boot()
		if err != nil {
			t.Fatal(err)
		}
		if least == 0 || took < least {
			least = took
		}
	}
	return least
}

// TestBoot replays a guest's boot through a store with 20 ms to the first byte
// and 100 MB/s, beside other programs that do the same over HTTP.
func TestBoot(t *testing.T) {
	gateway.Need(t, "nbdkit", "qemu-nbd")
	reads, asked := recorded(t)
	path := bootable(t, reads)
	none := func() {}
	var table []string
	row := func(what string, took time.Duration, local time.Duration, far int64) {
		table = append(table, fmt.Sprintf("%s\t%.2f s\t%.2f\t%.2f", what, took.Seconds(), took.Seconds()/local.Seconds(), float64(far)/float64(asked)))
	}

	near := gateway.Start(t, "--mount", "off", "--log-level", "error")
	nearID := near.Upload(t, "boot", "raw", path)
	local := best(t, none, func() (time.Duration, error) { return replay(t.Context(), near.Socket, nearID, reads) })
	row("a local file", local, local, 0)

	v := versity(t)
	v.MakeBucket(t, "boot")
	p := proxy.Start(t, v.URL, proxy.Config{})
	g := gateway.Start(t, append(gateway.S3Store(v.S3.At(p.URL), "boot"), "--mount", "off", "--log-level", "error")...)
	id := g.Upload(t, "boot", "raw", path)
	p.SetLatency(farAway)
	p.SetBandwidth(farWidth)
	forget := func() { g.Call(t, "DELETE", "/platter/v1/cache/images/"+id, "", 204) }
	boot := func() (time.Duration, error) { return replay(t.Context(), g.Socket, id, reads) }

	forget()
	before := received(p)
	first, err := boot() // teaches
	if err != nil {
		t.Fatal(err)
	}
	cold := received(p) - before
	row("S3, the first boot", first, local, cold)
	if cold*2 > asked*3 {
		t.Errorf("the first boot read %d bytes of the store for %d that were asked for", cold, asked)
	}
	before = received(p)
	second := best(t, none, boot)
	row("S3, again on this gateway", second, local, received(p)-before)
	if n := received(p) - before; n > 0 {
		t.Errorf("the second boot read %d bytes of the store", n)
	}
	within(t, time.Minute, "the trace is kept", func() bool {
		_, status, err := g.Ask("GET", "/platter/v1/images/"+id+"/trace", "")
		return err == nil && status == 200
	})
	before = received(p)
	traced := best(t, forget, boot)
	row("S3, cold, with a trace", traced, local, (received(p)-before)/rounds)
	if traced > 2*local { // 1.1 times, on a machine with nothing else to do
		t.Errorf("a cold boot with a trace takes %v, from a local file %v", traced, local)
	}
	one := (received(p) - before) / rounds
	clones(t, g, p, id, reads, forget, one)
	others(t, path, reads, local, row)
	print(t, len(reads), table)
}

// clones boots sixteen machines at once from one image: they read what one
// does.
func clones(t *testing.T, g *gateway.Gateway, p *proxy.Proxy, id string, reads []read, forget func(), one int64) {
	t.Helper()
	forget()
	before := received(p)
	var machines errgroup.Group
	for range 16 {
		machines.Go(func() error {
			_, err := replay(t.Context(), g.Socket, "ephemeral/"+id, reads)
			return err
		})
	}
	if err := machines.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := received(p) - before; n*10 > one*12 {
		t.Errorf("16 clones read %d bytes of the store, one reads %d", n, one)
	}
}

// others boots through the programs that people use for this today.
func others(t *testing.T, path string, reads []read, local time.Duration, row func(string, time.Duration, time.Duration, int64)) {
	t.Helper()
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(path))))
	t.Cleanup(server.Close)
	p := proxy.Start(t, server.URL, proxy.Config{Latency: farAway, Bandwidth: farWidth})
	url := p.URL + "/" + filepath.Base(path)
	dir := t.TempDir()
	for name, line := range map[string][]string{
		"nbdkit curl, cache and readahead": {"nbdkit", "-f", "-U", "SOCKET", "--filter=cache", "--filter=readahead", "curl", url},
		"qemu-nbd over HTTP":               {"qemu-nbd", "-r", "-t", "-e", "8", "-k", "SOCKET", "--image-opts", "driver=raw,file.driver=http,file.url=" + url},
	} {
		socket := filepath.Join(dir, line[0]+".sock")
		line[slices.Index(line, "SOCKET")] = socket
		peer(t, socket, line...)
		before := received(p)
		took, err := replay(t.Context(), socket, "", reads)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		row(name+", the first boot", took, local, received(p)-before)
		before = received(p)
		if took, err = replay(t.Context(), socket, "", reads); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		row(name+", again", took, local, received(p)-before)
	}
}

func print(t *testing.T, reads int, rows []string) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "boot from\ttime\tof a local file's\tbytes read of those asked for")
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	w.Flush()
	t.Logf("a guest that reads %d times and thinks for %v; a store with %v to the first byte and %d MB/s\n%s",
		reads, think, farAway, farWidth>>20, b.String())
}
