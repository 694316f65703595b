package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// doorsConfig is a configuration with every door on a free port.
func doorsConfig(t *testing.T) *config.Config {
	t.Helper()
	cfg := &config.Config{}
	cfg.API.Listen, cfg.NBD.Listen, cfg.Debug.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.NBD.Socket = filepath.Join(t.TempDir(), "nbd.sock")
	return cfg
}

func TestListen(t *testing.T) {
	cfg := doorsConfig(t)
	cfg.Debug.Listen = config.Off
	l, err := listen(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if l.address(doorAPI) == "" || l.address(doorNBD) == "" || l.address(doorSocket) != cfg.NBD.Socket || l.address(doorDebug) != "" {
		t.Errorf("open are %+v", l)
	}
	info, err := os.Stat(cfg.NBD.Socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
}

// TestListenSaysEverything: all that is wrong is said at once, and nothing
// stays open.
func TestListenSaysEverything(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := doorsConfig(t)
	cfg.API.Listen = taken.Addr().String()
	cfg.Debug.Listen = "192.0.2.1:1" // not ours
	cfg.NBD.SocketGroup = "no such group"
	_, err = listen(cfg, nil)
	if err == nil {
		t.Fatal("it listens")
	}
	for _, want := range []string{
		"the API address " + taken.Addr().String() + " is in use", "--api-listen", "192.0.2.1:1", "--debug-listen", "nbd.socket_group",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if _, err := os.Lstat(cfg.NBD.Socket); err == nil {
		t.Error("the socket of a failed start is left")
	}
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a socket that somebody answers on: %v", err)
	}
	left.SetUnlinkOnClose(false) // as a crash leaves it
	left.Close()
	ln, err := listenUnix(path)
	if err != nil {
		t.Fatalf("a socket that a crash left: %v", err)
	}
	ln.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in its place: %v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Error("the file was removed")
	}
	if _, err := listenUnix(filepath.Join(t.TempDir(), strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "--nbd-socket") {
		t.Errorf("a path that is too long: %v", err)
	}
}
