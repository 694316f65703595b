package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// given makes a listening socket as a service manager would pass it.
func given(t *testing.T, network, addr, name string) givenSocket {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	g := givenSocket{name: name}
	raw.Control(func(fd uintptr) { g.fd, err = unix.Dup(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	return g
}

// TestGiven: a name or an address says what a socket is for; what is given is
// not opened again, and a socket's file stays when it is closed.
func TestGiven(t *testing.T) {
	cfg := doorsConfig(t)
	list, err := doorsOf(cfg, []givenSocket{
		given(t, "tcp", "127.0.0.1:0", "api"),
		given(t, "tcp", "127.0.0.1:0", "api"), // two addresses, one door
		given(t, "tcp", "127.0.0.1:0", "nbd"),
		given(t, "unix", cfg.NBD.Socket, "platterd.socket"),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(cfg, list)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.named(doorAPI)) != 2 || !l.named(doorNBD)[0].foreign || !l.named(doorSocket)[0].foreign || l.named(doorDebug)[0].foreign {
		t.Errorf("the doors are %+v", l.list)
	}
	if got := l.address(doorSocket); got != cfg.NBD.Socket {
		t.Errorf("the socket is at %s", got)
	}
	l.close()
	if _, err := net.Dial("unix", cfg.NBD.Socket); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the file of the socket: %v", err) // there, and nobody listens
	}
}

// TestGivenByAddress: without names the configuration's addresses count.
func TestGivenByAddress(t *testing.T) {
	cfg := doorsConfig(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.NBD.Listen = ln.Addr().String()
	ln.Close()
	list, err := doorsOf(cfg, []givenSocket{given(t, "tcp", cfg.NBD.Listen, "")})
	if err != nil || list[0].name != doorNBD {
		t.Fatalf("%+v %v", list, err)
	}
	list[0].ln.Close()
}

// TestGivenWrongly: what cannot be used is refused with a way out.
func TestGivenWrongly(t *testing.T) {
	cfg := doorsConfig(t)
	cfg.Auth.Mode = "none"
	for _, k := range []struct {
		name, want string
		socket     func() givenSocket
		change     func(*config.Config)
	}{
		{name: "unknown", want: "FileDescriptorName", socket: func() givenSocket { return given(t, "tcp", "127.0.0.1:0", "web") }},
		{name: "off", want: "--debug-listen off", socket: func() givenSocket { return given(t, "tcp", "127.0.0.1:0", "debug") },
			change: func(c *config.Config) { c.Debug.Listen = config.Off }},
		{name: "open to all", want: "allow_unauthenticated", socket: func() givenSocket { return given(t, "tcp", "0.0.0.0:0", "api") }},
		{name: "plain", want: "allow_plain_tcp", socket: func() givenSocket { return given(t, "tcp", "0.0.0.0:0", "nbd") }},
		{name: "no socket", want: "ListenStream", socket: func() givenSocket {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			return givenSocket{fd: fd, name: "api"}
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := *cfg
			c.NBD.Socket = filepath.Join(t.TempDir(), "s")
			if k.change != nil {
				k.change(&c)
			}
			list, err := doorsOf(&c, []givenSocket{k.socket()})
			if err == nil {
				_, err = listen(&c, list)
				for _, d := range list {
					d.ln.Close()
				}
			}
			if err == nil || !strings.Contains(err.Error(), k.want) {
				t.Errorf("%v should say %q", err, k.want)
			}
		})
	}
}

// TestDoorsOpenAgain: a client that comes while no server is behind a door is
// served by the next one.
func TestDoorsOpenAgain(t *testing.T) {
	cfg := doorsConfig(t)
	l, err := listen(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	d := l.named(doorSocket)[0]
	for range 3 {
		in := d.openToPeers()
		ended := make(chan error)
		go func() { _, err := in.Accept(); ended <- err }()
		in.Close()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "closed") {
			t.Fatalf("Accept of a closed entrance: %v", err)
		}
		c, err := net.Dial("unix", cfg.NBD.Socket)
		if err != nil {
			t.Fatal(err)
		}
		in = d.openToPeers()
		if got, err := in.Accept(); err != nil {
			t.Fatal(err)
		} else {
			got.Close()
		}
		in.Close()
		c.Close()
	}
}
