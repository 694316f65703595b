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

// listeners are the sockets of all doors. They are opened before anything
// else works, so that a port in use is said at once.
type listeners struct {
	api, nbdTCP, nbdUnix, debug net.Listener // nil: switched off
}

func listen(cfg *config.Config) (*listeners, error) {
	l := &listeners{}
	var errs []error
	for _, door := range []struct {
		into      *net.Listener
		name, key string
		addr      string
	}{
		{&l.api, "API", "--api-listen", cfg.API.Listen},
		{&l.nbdTCP, "NBD", "--nbd-listen", cfg.NBD.Listen},
		{&l.debug, "debug", "--debug-listen", cfg.Debug.Listen},
	} {
		if door.addr == config.Off {
			continue
		}
		ln, err := net.Listen("tcp", door.addr)
		if err != nil {
			errs = append(errs, listenError(door.name, door.key, door.addr, err))
			continue
		}
		*door.into = ln
	}
	if cfg.NBD.Socket != config.Off {
		ln, err := listenUnix(cfg.NBD.Socket, cfg.NBD.SocketGroup)
		if err != nil {
			errs = append(errs, err)
		} else {
			l.nbdUnix = ln
		}
	}
	if err := errors.Join(errs...); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func listenError(name, key, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the %s address %s is in use by another program (see ss -ltnp): stop it, or choose another with %s, or switch the door off with %s off", name, addr, key, key)
	}
	return fmt.Errorf("cannot listen for %s on %s: %w; choose another address with %s", name, addr, err, key)
}

// maxSocketPath is the kernel's limit for the address of a socket.
const maxSocketPath = 107

// listenUnix makes the NBD socket, mode 0660. A socket file that a crash left
// behind is replaced; one that somebody answers on is not.
func listenUnix(path, group string) (net.Listener, error) {
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
	if err := errors.Join(os.Chmod(path, 0o660), chgrp(path, group)); err != nil {
		ln.Close()
		return nil, fmt.Errorf("cannot set who may use the NBD socket: %w", err)
	}
	return ln, nil
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

func (l *listeners) close() {
	for _, ln := range []net.Listener{l.api, l.nbdTCP, l.nbdUnix, l.debug} {
		if ln != nil {
			ln.Close()
		}
	}
}
