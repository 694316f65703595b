//go:build integration

package etcdkv_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/catalogtest"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
	"github.com/seed-478a8fee/platter/integration/port"
)

// A cluster is three members of Debian's etcd, on loopback.
type cluster struct {
	t       *testing.T
	program string
	dir     string
	client  []string // URLs
	peer    []string
	process []*exec.Cmd
}

func newCluster(t *testing.T) *cluster {
	program, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatalf("this test needs the program etcd (Debian: apt-get install etcd-server): %v", err)
	}
	c := &cluster{t: t, program: program, dir: t.TempDir(), process: make([]*exec.Cmd, 3)}
	for range 3 {
		c.client = append(c.client, "http://"+port.Addr(t))
		c.peer = append(c.peer, "http://"+port.Addr(t))
	}
	t.Cleanup(func() {
		for i := range c.process {
			c.kill(i)
		}
	})
	for i := range 3 {
		c.start(i)
	}
	return c
}

func (c *cluster) start(i int) {
	var members []string
	for n, peer := range c.peer {
		members = append(members, fmt.Sprintf("m%d=%s", n, peer))
	}
	log, err := os.OpenFile(filepath.Join(c.dir, fmt.Sprintf("m%d.log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(c.program, "--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(c.dir, fmt.Sprintf("m%d", i)),
		"--listen-client-urls", c.client[i], "--advertise-client-urls", c.client[i],
		"--listen-peer-urls", c.peer[i], "--initial-advertise-peer-urls", c.peer[i],
		"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new", "--logger", "zap")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.process[i] = cmd
}

// kill is kill -9.
func (c *cluster) kill(i int) {
	if cmd := c.process[i]; cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
		c.process[i] = nil
	}
}

func (c *cluster) signal(i int, sig syscall.Signal) {
	if err := c.process[i].Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) dial() *clientv3.Client {
	client, err := etcdkv.Dial(etcdkv.Config{Endpoints: c.client})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// leader waits until there is one, and returns which member it is.
func (c *cluster) leader(client *clientv3.Client) int {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for i, url := range c.client {
			if c.process[i] == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			s, err := client.Status(ctx, url)
			cancel()
			if err == nil && s.Leader == s.Header.MemberId {
				return i
			}
		}
	}
	c.t.Fatal("the cluster has no leader")
	return -1
}

func TestCluster(t *testing.T) {
	c := newCluster(t)
	client := c.dial()
	c.leader(client)
	var n atomic.Int64
	t.Run("Suite", func(t *testing.T) {
		catalogtest.Test(t, func(testing.TB) catalog.KV { return etcdkv.New(client, fmt.Sprintf("/suite/%d", n.Add(1))) })
	})
	for name, disturb := range map[string]func(t *testing.T, leader int) (undo func()){
		"LeaderStopped": func(_ *testing.T, leader int) func() {
			c.signal(leader, syscall.SIGSTOP)
			return func() { c.signal(leader, syscall.SIGCONT) }
		},
		"LeaderKilled": func(_ *testing.T, leader int) func() {
			c.kill(leader)
			return func() { c.start(leader) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			kv := etcdkv.New(client, fmt.Sprintf("/test/%d", n.Add(1)))
			survives(t, kv, func() func() { return disturb(t, c.leader(client)) })
			c.leader(client)
		})
	}
	t.Run("AllKilledAndCompacted", func(t *testing.T) { testAllKilled(t, c, client) })
}

// survives writes and reads while the cluster is disturbed: what was
// acknowledged stays, reads never fail, and writes come back by themselves.
func survives(t *testing.T, kv catalog.KV, disturb func() (undo func())) {
	ctx := t.Context()
	cat := catalogtest.Start(t, kv, catalog.Config{})
	img, err := cat.CreateImage(ctx, catalog.Image{})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var working sync.WaitGroup
	var acked, tried, failed atomic.Int64
	working.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := cat.Image(ctx, img.ID); err != nil {
				t.Errorf("a read: %v", err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	working.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			tried.Add(1)
			_, err := cat.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.MinDisk++; return nil })
			switch {
			case err == nil:
				acked.Add(1)
			case errors.Is(err, catalog.ErrUnavailable), errors.Is(err, catalog.ErrConflict):
				failed.Add(1)
			default:
				t.Errorf("a write: %v", err)
				return
			}
		}
	})
	moves := func(what string) {
		before, begun := acked.Load(), time.Now()
		for acked.Load() < before+20 {
			if time.Since(begun) > 40*time.Second {
				t.Fatalf("%s: %d writes acknowledged in 40 s", what, acked.Load()-before)
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("%s: 20 writes after %s", what, time.Since(begun).Round(time.Millisecond))
	}
	moves("before")
	undo := disturb()
	moves("during")
	undo()
	moves("after")
	close(stop)
	working.Wait()
	got, err := cat.Image(ctx, img.ID)
	if err != nil || got.MinDisk < acked.Load() || got.MinDisk > tried.Load() {
		t.Errorf("%d writes acknowledged of %d (%d failed), the record has %d, %v", acked.Load(), tried.Load(), failed.Load(), got.MinDisk, err)
	}
	t.Logf("%d writes acknowledged, %d failed, none lost", acked.Load(), failed.Load())
}

// testAllKilled takes the whole cluster away, and when it is back, lets it
// forget what a gateway has missed.
func testAllKilled(t *testing.T, c *cluster, client *clientv3.Client) {
	ctx := t.Context()
	kv := etcdkv.New(client, "/killed")
	cat := catalogtest.Start(t, kv, catalog.Config{})
	img, err := cat.CreateImage(ctx, catalog.Image{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.process {
		c.kill(i)
	}
	begun := time.Now()
	if _, err := cat.CreateImage(ctx, catalog.Image{}); !errors.Is(err, catalog.ErrUnavailable) || time.Since(begun) > 10*time.Second {
		t.Errorf("a write without etcd: %v after %s, want ErrUnavailable soon", err, time.Since(begun))
	}
	if _, err := cat.Image(ctx, img.ID); err != nil {
		t.Errorf("a read without etcd: %v", err)
	}
	if err := cat.Ready(); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("ready without etcd: %v", err)
	}
	for i := range c.process {
		c.start(i)
	}
	// Another client writes and compacts, most likely before the gateway's
	// watch is back; either way the gateway must end up with everything.
	other := etcdkv.New(c.dial(), "/killed")
	wait(t, "etcd is back", func() bool { _, err := other.Get(ctx, "img/"+img.ID); return err == nil })
	rev, err := other.Commit(ctx, catalog.Txn{Then: []catalog.Op{{Key: "img/late", Value: []byte(`{"v":1,"status":"queued","visibility":"shared"}`)}}})
	if err == nil {
		rev, err = other.Commit(ctx, catalog.Txn{Then: []catalog.Op{{Key: "img/" + img.ID, Delete: true}}})
	}
	if err == nil {
		err = other.Compact(ctx, rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the gateway has what it missed", func() bool {
		_, errLate := cat.Image(ctx, "late")
		_, errGone := cat.Image(ctx, img.ID)
		return errLate == nil && errGone != nil && cat.Ready() == nil
	})
	if _, err := cat.CreateImage(ctx, catalog.Image{}); err != nil {
		t.Errorf("a write after etcd came back: %v", err)
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	begun := time.Now()
	for ; !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begun) > 40*time.Second {
			t.Fatalf("not within 40 s: %s", what)
		}
	}
	t.Logf("%s after %s", what, time.Since(begun).Round(time.Millisecond))
}
