//go:build integration

package rbd_test

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/rbd"
)

// holdOpen opens an image as a writer and takes no lock. When it is told to, it
// reads and says so. Debian's Python has the bindings.
const holdOpen = `
import rados, rbd, sys
cluster = rados.Rados(conffile=sys.argv[1])
cluster.connect()
io = cluster.open_ioctx(sys.argv[2])
io.set_namespace(sys.argv[3])
image = rbd.Image(io, sys.argv[4])
print("open", flush=True)
sys.stdin.readline()
image.read(0, 512)
print("alive", flush=True)
sys.stdin.readline()
`

// A holder has an image open, in a process of its own.
type holder struct {
	cmd  *exec.Cmd
	in   io.Writer
	said *bufio.Scanner
}

func hold(t *testing.T, cfg rbd.Config, image string) *holder {
	t.Helper()
	h := &holder{cmd: exec.Command("/usr/bin/python3", "-c", holdOpen, cfg.Conf, cfg.Pool, cfg.Namespace, image)}
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.kill)
	h.in, h.said = in, bufio.NewScanner(out)
	h.wants(t, "open")
	return h
}

func (h *holder) wants(t *testing.T, line string) {
	t.Helper()
	if !h.said.Scan() || h.said.Text() != line {
		t.Fatalf("who has the image open says %q, want %q", h.said.Text(), line)
	}
}

func (h *holder) kill() {
	_ = h.cmd.Process.Kill() // it may be dead already
	_ = h.cmd.Wait()         // which says so
}

// TestDeadWatcher: nobody waits for a client that died with an overlay open and
// without its lock; one that is alive is left alone.
func TestDeadWatcher(t *testing.T) {
	c, ctx := ceph(t), t.Context()
	cfg := config(t, c)
	s := open(t, cfg)
	clone(t, s, "o", sparse(8<<20), 0)
	hold(t, cfg, "o").kill()
	alive := hold(t, cfg, "o")
	watchers := func() int {
		return strings.Count(c.Command(t, "rbd", "status", cfg.Pool+"/"+cfg.Namespace+"/o"), "watcher=")
	}
	if n := watchers(); n != 2 {
		t.Fatalf("%d clients have it open, want a dead one and one that lives", n)
	}
	start := time.Now()
	d, err := s.OpenDevice(ctx, "o", rbd.DeviceConfig{Epoch: 1, Takeover: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(ctx, "one"); err != nil {
		t.Error(err)
	}
	// It took 29 s while the dead one was waited for, and its time is 30.
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("to open it and to make a snapshot took %v", took)
	}
	if n := watchers(); n != 2 {
		t.Errorf("%d clients have it open, want us and the one that lives", n)
	}
	if _, err := io.WriteString(alive.in, "\n"); err != nil {
		t.Error(err)
	}
	alive.wants(t, "alive")
	closing(t, d)
}

// TestRemoveAfterDead removes an overlay that somebody died with.
func TestRemoveAfterDead(t *testing.T) {
	c := ceph(t)
	cfg := config(t, c)
	s := open(t, cfg)
	clone(t, s, "o", sparse(1<<20), 0)
	hold(t, cfg, "o").kill()
	if err := s.Remove(t.Context(), "o"); err != nil {
		t.Error(err)
	}
}
