//go:build integration

package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// qemuNBD serves a disk by qemu-nbd until stop.
func qemuNBD(t testing.TB, name, image string, args ...string) (s side, stop func()) {
	t.Helper()
	path, tidy := socket(t)
	args = append(args, "-t", "-x", "k", "-e", "16", "-k", path, image)
	return served(t, side{name: name, uri: "nbd+unix:///k?socket=" + path, socket: path, export: "k"}, tidy, "qemu-nbd", args...)
}

// nbdkit serves by nbdkit until stop; args are its filters, its plugin and
// what that wants.
func nbdkit(t testing.TB, name string, args ...string) (s side, stop func()) {
	t.Helper()
	path, tidy := socket(t)
	args = append([]string{"-f", "-U", path}, args...)
	return served(t, side{name: name, uri: "nbd+unix:///?socket=" + path, socket: path}, tidy, "nbdkit", args...)
}

// socket returns a name for a socket that is short enough.
func socket(t testing.TB) (path string, tidy func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "platter-bench-")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "s"), func() { os.RemoveAll(dir) }
}

// served starts the program that serves s and waits until its socket is there.
func served(t testing.TB, s side, tidy func(), program string, args ...string) (_ side, stop func()) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		tidy()
		t.Fatal(err)
	}
	stop = func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(os.Interrupt) // qemu-nbd says good-bye to a cluster
			_ = cmd.Wait()
		}
		tidy()
	}
	t.Cleanup(stop)
	s.pid = cmd.Process.Pid
	for range 500 {
		if _, err := os.Stat(s.socket); err == nil {
			return s, stop
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s %v does not answer: %s", program, args, said.String())
	return side{}, nil
}
