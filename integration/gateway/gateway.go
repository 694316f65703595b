// Package gateway starts the real platterd, as a process of its own, for
// tests that use it from outside.
package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/port"
)

// A Gateway is a running platterd with a data directory of its own.
type Gateway struct {
	Dir    string // data directory
	URL    string // of the API
	Debug  string // URL of the debug listener
	Socket string // NBD
	NBD    string // NBD, HOST:PORT
	Mount  string // FUSE tree

	// Wrap is a command that starts the daemon in its turn; none by default.
	Wrap []string

	flags []string
	env   []string
	cmd   *exec.Cmd
	done  chan struct{}
	mu    sync.Mutex
	log   bytes.Buffer
}

// Binary returns the path of platterd or platter. "make build" puts them in
// bin; a test that finds none fails.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Root(), "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// Root returns the folder of the repository.
func Root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}

// Start starts platterd with further flags and waits until it is ready. It is
// stopped at the end of the test, which fails if it does not stop cleanly.
func Start(t testing.TB, flags ...string) *Gateway {
	t.Helper()
	g := New(t, flags...)
	g.Run(t)
	return g
}

// New prepares a gateway without starting it. NAME=value among the flags goes
// into its environment.
func New(t testing.TB, flags ...string) *Gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "platter-test-") // short, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	api, nbd, debug := port.Addr(t), port.Addr(t), port.Addr(t)
	g := &Gateway{
		Dir: dir, URL: "http://" + api, Debug: "http://" + debug, NBD: nbd,
		Socket: filepath.Join(dir, "nbd.sock"), Mount: filepath.Join(dir, "mnt"),
		flags: []string{"--data-dir", dir, "--api-listen", api, "--nbd-listen", nbd, "--debug-listen", debug},
	}
	for _, f := range flags {
		if strings.Contains(f, "=") && !strings.HasPrefix(f, "-") {
			g.env = append(g.env, f)
		} else {
			g.flags = append(g.flags, f)
		}
	}
	t.Cleanup(func() {
		if g.cmd != nil {
			g.Stop(t)
		}
		if t.Failed() {
			t.Logf("log of platterd:\n%s", tail(g.Log(), 12<<10))
		}
		os.RemoveAll(dir)
	})
	return g
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// Run starts the process and waits until it is ready.
func (g *Gateway) Run(t testing.TB) {
	t.Helper()
	g.Launch(t)
	g.WaitReady(t)
}

// Launch starts the process and does not wait for it.
func (g *Gateway) Launch(t testing.TB) {
	t.Helper()
	line := append(append(slices.Clone(g.Wrap), Binary(t, "platterd")), g.flags...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), g.env...)
	cmd.Stdout, cmd.Stderr = g, g
	// Should the test itself be killed, the gateway ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	g.cmd, g.done = cmd, done
}

// WaitReady waits until /readyz says yes, at most three minutes.
func (g *Gateway) WaitReady(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(g.URL + "/readyz")
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
		select {
		case <-g.done:
			t.Fatalf("platterd ended before it was ready (%v):\n%s", g.cmd.ProcessState, tail(g.Log(), 8<<10))
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("platterd is not ready after three minutes: %v\n%s", err, tail(g.Log(), 8<<10))
		}
	}
}

// Write takes the process's output.
func (g *Gateway) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(p)
}

// Log returns what the process has said so far, over all its starts.
func (g *Gateway) Log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

// PID returns the process's id.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Done is closed when the process has ended.
func (g *Gateway) Done() <-chan struct{} { return g.done }

// ExitCode returns the process's exit code once it has ended.
func (g *Gateway) ExitCode() int { return g.cmd.ProcessState.ExitCode() }

// Kill ends the process as kill -9 does, and waits until it is gone.
func (g *Gateway) Kill(t testing.TB) {
	t.Helper()
	if err := g.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-g.done
	g.cmd = nil
}

// Stop asks the process to stop and waits until it has, at most a minute.
func (g *Gateway) Stop(t testing.TB) {
	t.Helper()
	cmd := g.cmd
	g.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop platterd: %v", err)
	}
	select {
	case <-g.done:
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("platterd stopped with %v:\n%s", cmd.ProcessState, tail(g.Log(), 8<<10))
		}
	case <-time.After(time.Minute):
		cmd.Process.Signal(syscall.SIGQUIT)
		<-g.done
		t.Errorf("platterd did not stop within a minute; its stacks:\n%s", tail(g.Log(), 32<<10))
	}
}

// Export returns the URI of an export on the unix socket.
func (g *Gateway) Export(name string) string {
	return "nbd+unix:///" + name + "?socket=" + g.Socket
}

// Command runs a program with the environment that every client of the gateway
// needs, and returns its standard output. A failure ends the test.
func (g *Gateway) Command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := g.Try(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try is Command for what may fail: the error holds what the program said.
func (g *Gateway) Try(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PLATTER_URL="+g.URL,
		"OS_AUTH_TYPE=none", "OS_ENDPOINT="+g.URL, "OS_IMAGE_URL="+g.URL, "OS_AUTH_URL=", "PYTHONWARNINGS=ignore")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, tail(stdout.String(), 4096), tail(stderr.String(), 4096))
	}
	return stdout.String(), nil
}

// Need ends the test if a program is missing: on a machine without it nothing
// would have been tested.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing; make deps installs it", p)
		}
	}
}
