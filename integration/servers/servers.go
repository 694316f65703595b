// Package servers starts the real servers that stores and the catalog talk
// to, for tests: Ceph with RBD and an object gateway, an S3 server, OpenStack
// Swift and Keystone, etcd.
//
// Every server listens on free loopback ports only, keeps its files in a
// temporary directory, and ends with the test that started it; should the test
// binary be killed, the kernel kills its servers. A server that does not come
// up ends the test with the end of its log. A program that is missing does so
// too: without it nothing would have been tested.
//
// A server for one test:
//
//	c := servers.StartCeph(t, servers.CephConfig{})
//
// A server for all tests of a binary, started by the first that asks:
//
//	var keeper servers.Keeper
//	var versity = servers.Share(&keeper, func(t servers.TB) *servers.Versity { return servers.StartVersity(t, servers.VersityConfig{}) })
//
//	func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }
//
//	func TestPut(t *testing.T) { s3 := versity(t); ... }
//
// Whoever disturbs a shared server (see [Process]) puts it right again before
// the test ends.
package servers

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// A TB is what starting a server needs of a testing.TB. Each testing.TB is
// one, and so is a [Keeper], which no test is running under.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// A Keeper keeps servers for all tests of a binary. The zero value is ready;
// it belongs into a variable of the tests.
type Keeper struct {
	mu      sync.Mutex
	cleanup []func()
}

// Run runs the tests and then stops what was started for them. It returns the
// exit code.
func (k *Keeper) Run(m *testing.M) int {
	defer k.stop()
	return m.Run()
}

// stop stops what was started, the last first.
func (k *Keeper) stop() {
	k.mu.Lock()
	cleanup := k.cleanup
	k.cleanup = nil
	k.mu.Unlock()
	for _, f := range slices.Backward(cleanup) {
		f()
	}
}

// Share returns a function that starts a server once, for the first test that
// calls it, and returns the same one to all. If it does not start, every test
// that wants it fails. What start needs may be shared too.
func Share[T any](k *Keeper, start func(t TB) T) func(t TB) T {
	try := sync.OnceValues(func() (server T, err error) {
		// Whatever ends start, be it Fatalf's Goexit, ends only its goroutine.
		done := make(chan struct{})
		t := &keeping{keeper: k, err: fmt.Errorf("the start of a shared server panicked")}
		go func() {
			defer close(done)
			server = start(t)
			t.err = nil
		}()
		<-done
		return server, t.err
	})
	return func(t TB) T {
		t.Helper()
		server, err := try()
		if err != nil {
			t.Fatalf("%v", err)
		}
		return server
	}
}

// keeping is the TB of a server that is shared.
type keeping struct {
	keeper *Keeper
	err    error
}

func (t *keeping) Helper() {}

func (t *keeping) Fatalf(format string, args ...any) {
	t.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}

func (t *keeping) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Failed says no: which test failed, and when, the end of a log does not show.
func (t *keeping) Failed() bool { return false }

func (t *keeping) Cleanup(f func()) {
	t.keeper.mu.Lock()
	defer t.keeper.mu.Unlock()
	t.keeper.cleanup = append(t.keeper.cleanup, f)
}

// need ends the test if a program is missing.
func need(t TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing; make deps installs it", p)
		}
	}
}

// tempDir makes a directory that goes with the test. Its path is short: Ceph
// keeps unix sockets in it.
func tempDir(t TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "platter-"+name+"-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// write writes a file that only its owner may read.
func write(t TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
}

// mkdir makes folders.
func mkdir(t TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatalf("%v", err)
		}
	}
}

// run runs a program to its end and returns what it wrote to its standard
// output.
func run(t TB, env []string, stdin string, name string, args ...string) string {
	t.Helper()
	out, err := try(env, stdin, name, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}
