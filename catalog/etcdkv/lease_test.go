//go:build integration

package etcdkv_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/catalogtest"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
)

// leaseTime is short for a gateway and long for an election.
const leaseTime = 6 * time.Second

func join(t *testing.T, kv catalog.KV, id string, ttl time.Duration) (*catalog.Catalog, *catalog.Membership) {
	t.Helper()
	c := catalogtest.Start(t, kv, catalog.Config{GatewayID: id})
	m, err := c.Join(t.Context(), ttl, "http://"+id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return c, m
}

func TestLeases(t *testing.T) {
	c := newCluster(t)
	client := c.dial()
	c.leader(client)
	t.Run("OneMemberStops", func(t *testing.T) { testOneStops(t, c, etcdkv.New(client, "/one")) })
	t.Run("AllStopForAWhile", func(t *testing.T) { testAllStop(t, c, etcdkv.New(client, "/while")) })
	t.Run("AllRestart", func(t *testing.T) { testAllRestart(t, c, etcdkv.New(client, "/restart")) })
	t.Run("GatewayStops", func(t *testing.T) { testGatewayStops(t, c, etcdkv.New(client, "/paused")) })
}

// testOneStops: a gateway whose etcd loses a member, its leader too, goes on.
func testOneStops(t *testing.T, c *cluster, kv *etcdkv.KV) {
	_, m := join(t, kv, "a", 2*leaseTime)
	leader := c.leader(c.dial())
	for i := range 3 {
		c.signal((leader+i)%3, syscall.SIGSTOP)
		for begun := time.Now(); time.Since(begun) < leaseTime; time.Sleep(20 * time.Millisecond) {
			if !m.Valid() {
				t.Errorf("member %d of 3 (leader %d): not valid %s after it stopped", (leader+i)%3, leader, time.Since(begun))
				break
			}
		}
		c.signal((leader+i)%3, syscall.SIGCONT)
		leader = c.leader(c.dial())
	}
}

// testAllStop: without etcd a gateway stops before its time is over, and goes
// on when etcd confirms the same lease.
func testAllStop(t *testing.T, c *cluster, kv *etcdkv.KV) {
	const leaseTime = 2 * leaseTime
	_, m := join(t, kv, "a", leaseTime)
	begun := time.Now()
	for i := range 3 {
		c.signal(i, syscall.SIGSTOP)
	}
	for m.Valid() {
		time.Sleep(time.Millisecond)
	}
	lapsed := time.Since(begun)
	time.Sleep(leaseTime / 50)
	if m.Valid() || lapsed >= leaseTime {
		t.Errorf("valid without etcd: lapsed after %s", lapsed)
	}
	for i := range 3 {
		c.signal(i, syscall.SIGCONT)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := m.Wait(ctx)
	t.Logf("lapsed after %s of a lease of %s, back after %s: %v", lapsed, leaseTime, time.Since(begun), err)
	select {
	case <-m.Lost():
		if !errors.Is(err, catalog.ErrLeaseGone) {
			t.Errorf("lost, and wait says %v", err)
		}
		if _, err := kv.Get(ctx, "gw/a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("lost, and its record is there: %v", err)
		}
	default:
		if err != nil || !m.Valid() {
			t.Errorf("wait: %v, valid %t", err, m.Valid())
		}
	}
}

// testAllRestart: leases outlive an etcd that is killed and started again.
func testAllRestart(t *testing.T, c *cluster, kv *etcdkv.KV) {
	_, m := join(t, kv, "a", leaseTime)
	for i := range 3 {
		c.kill(i)
	}
	for m.Valid() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(leaseTime) // etcd gives all leases their whole time when it starts
	for i := range 3 {
		c.start(i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if err := m.Wait(ctx); err != nil || !m.Valid() {
		t.Errorf("wait: %v, valid %t", err, m.Valid())
	}
}

// testGatewayStops stops a gateway's process for longer than its lease: the
// first thing that it says then is that it is not valid.
func testGatewayStops(t *testing.T, c *cluster, kv *etcdkv.KV) {
	watcher := catalogtest.Start(t, kv, catalog.Config{GatewayID: "watcher"})
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestGatewayProcess$")
		cmd.Env = append(os.Environ(), "PLATTER_TEST_GATEWAY="+strings.Join(c.client, ","))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		answers := bufio.NewScanner(out)
		ask := func(what string) string {
			fmt.Fprintln(in, what)
			answers.Scan()
			return answers.Text()
		}
		if got := ask("valid?"); got != "valid" {
			t.Fatalf("round %d: the gateway says %q", round, got)
		}
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		wait(t, "all of it has stopped", func() bool { return stopped(cmd.Process.Pid) })
		fmt.Fprintln(in, "valid?") // waits in the pipe, so that nothing else comes before
		wait(t, "the others see it gone", func() bool {
			list, err := watcher.Gateways(t.Context())
			return err == nil && len(list) == 0
		})
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		answers.Scan()
		if got := answers.Text(); got != "not valid" {
			t.Errorf("round %d: a gateway that slept says %q", round, got)
		}
		wait(t, "it knows that its lease has ended", func() bool { return ask("lost?") == "lost" })
		in.Close()
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// stopped tells whether all threads of a process have stopped.
func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, stat := range stats {
		text, e := os.ReadFile(stat)
		if _, state, _ := strings.Cut(string(text), ") "); e != nil || !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return err == nil && len(stats) > 0
}

// TestGatewayProcess is the process of testGatewayStops: for each line it says
// whether it is valid. Run by itself it does nothing.
func TestGatewayProcess(t *testing.T) {
	endpoints := os.Getenv("PLATTER_TEST_GATEWAY")
	if endpoints == "" {
		return
	}
	client, err := etcdkv.Dial(etcdkv.Config{Endpoints: strings.Split(endpoints, ",")})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, m := join(t, etcdkv.New(client, "/paused"), "sleeper", 3*time.Second)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch valid := m.Valid(); {
		case valid:
			fmt.Println("valid")
		case lines.Text() == "lost?" && closed(m.Lost()):
			fmt.Println("lost")
		default:
			fmt.Println("not valid")
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
