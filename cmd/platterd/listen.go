package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// A wish is a door as the configuration wants it.
type wish struct {
	name    string
	addr    string // or off
	what    string // for people
	flag    string
	listens func(addr string) (net.Listener, error)
}

func wishes(cfg *config.Config) []wish {
	tcp := func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	unix := func(path string) (net.Listener, error) {
		ln, err := listenUnix(path)
		if err != nil {
			return nil, err
		}
		if err := ownSocket(path, cfg.NBD); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		return ln, nil
	}
	return []wish{
		{doorAPI, cfg.API.Listen, "API", "--api-listen", tcp},
		{doorNBD, cfg.NBD.Listen, "NBD", "--nbd-listen", tcp},
		{doorDebug, cfg.Debug.Listen, "debug", "--debug-listen", tcp},
		{doorSocket, cfg.NBD.Socket, "NBD", "--nbd-socket", unix},
	}
}

// listen opens every door that the configuration wants and that was not given.
// It happens before anything else works, so that a port in use is said at
// once. After an error nothing that it opened is left; what was given is.
func listen(cfg *config.Config, given []*door) (*doors, error) {
	ds, opened := &doors{}, &doors{}
	var errs []error
	used := map[*door]bool{}
	for _, w := range wishes(cfg) {
		have := false
		for _, d := range given {
			if d.name != w.name || w.addr == config.Off || !d.foreign && d.asked != w.addr {
				continue
			}
			have, used[d] = true, true
			ds.list = append(ds.list, d)
			errs = append(errs, allowed(cfg, d), reown(cfg, d))
		}
		if have || w.addr == config.Off {
			continue
		}
		ln, err := w.listens(w.addr)
		if err != nil {
			errs = append(errs, listenError(w, err))
			continue
		}
		d := &door{name: w.name, ln: ln, asked: w.addr}
		ds.list, opened.list = append(ds.list, d), append(opened.list, d)
	}
	for _, d := range given {
		if !used[d] && d.name != doorTakeover {
			ds.unwanted = append(ds.unwanted, d)
		}
	}
	if err := errors.Join(errs...); err != nil {
		opened.close()
		return nil, err
	}
	return ds, nil
}

// allowed says why a socket that was given may not be served: what is refused
// in a configuration is refused here too.
func allowed(cfg *config.Config, d *door) error {
	var remedy string
	switch {
	case !d.foreign || d.local():
		return nil
	case (d.name == doorAPI || d.name == doorDebug) && cfg.Auth.Mode == "none" && !cfg.Auth.AllowUnauthenticated:
		remedy = "auth.allow_unauthenticated = true"
	case d.name == doorNBD && !cfg.NBD.AllowPlainTCP && cfg.NBD.TLS != "required":
		remedy = `nbd.tls = "required" or nbd.allow_plain_tcp = true`
	default:
		return nil
	}
	return fmt.Errorf("the service manager's socket %s for %s is not loopback and would be open to everybody: give it a loopback address, or set %s", d.ln.Addr(), d.name, remedy)
}

// reown sets who may use a socket that the process before us made.
func reown(cfg *config.Config, d *door) error {
	if d.foreign || d.name != doorSocket {
		return nil
	}
	return ownSocket(d.asked, cfg.NBD)
}

func listenError(w wish, err error) error {
	if w.name == doorSocket {
		return err // it has said everything
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the %s address %s is in use by another program (see ss -ltnp): stop it, or choose another with %s, or switch the door off with %s off", w.what, w.addr, w.flag, w.flag)
	}
	return fmt.Errorf("cannot listen for %s on %s: %w; choose another address with %s", w.what, w.addr, err, w.flag)
}

// maxSocketPath is the kernel's limit for the address of a socket.
const maxSocketPath = 107

// listenUnix makes the NBD socket. A socket file that a crash left behind is
// replaced; one that somebody answers on is not.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("the NBD socket %s is in use by another program: stop it, or choose another with --nbd-socket", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("the NBD socket's name %s is taken by something that is no socket: move it away, or choose another with --nbd-socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot replace the NBD socket that an earlier gateway left: %w", err)
		}
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the NBD socket's path %s has %d bytes and the system takes %d: choose a shorter one with --nbd-socket", path, len(path), maxSocketPath)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot make the NBD socket %s: %w; choose another with --nbd-socket", path, err)
	}
	return ln, nil
}

// ownSocket sets who may use the NBD socket.
func ownSocket(path string, cfg config.NBD) error {
	mode := os.FileMode(cfg.SocketMode)
	if mode == 0 {
		mode = 0o660
	}
	if err := errors.Join(os.Chmod(path, mode), chgrp(path, cfg.SocketGroup)); err != nil {
		return fmt.Errorf("cannot set who may use the NBD socket: %w", err)
	}
	return nil
}

func chgrp(path, group string) error {
	if group == "" {
		return nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("nbd.socket_group: %w", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, -1, gid)
}
