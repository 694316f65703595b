package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// firstGiven is the first descriptor of a service manager, as sd_listen_fds(3)
// has it.
const firstGiven = 3

// activated returns the sockets that a service manager has opened for this
// process. A name that is a door's says which one it is for, and else its
// address does. The variables are removed, or programs that we start would
// think themselves meant.
func activated(cfg *config.Config) ([]*door, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // not for us
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("LISTEN_FDS is %q and should be a small number: see sd_listen_fds(3)", count)
	}
	given := make([]givenSocket, n)
	for i, name := range slices.Collect(strings.SplitSeq(names, ":")) {
		if i < n {
			given[i].name = name
		}
	}
	for i := range given {
		given[i].fd = firstGiven + i
	}
	return doorsOf(cfg, given)
}

// A givenSocket is a descriptor with the name that its unit gave it, if any.
type givenSocket struct {
	fd   int
	name string
}

// doorsOf makes doors of sockets. It owns the descriptors.
func doorsOf(cfg *config.Config, given []givenSocket) ([]*door, error) {
	var list []*door
	var errs []error
	for _, g := range given {
		unix.CloseOnExec(g.fd)
		ln, err := listenerOf(g.fd)
		if err != nil {
			errs = append(errs, fmt.Errorf("descriptor %d (%s) of the service manager: %w", g.fd, g.name, err))
			continue
		}
		d := &door{ln: ln, foreign: true}
		d.keep(true)
		list = append(list, d)
		if d.name, err = meant(cfg, g.name, ln.Addr()); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		for _, d := range list {
			d.ln.Close()
		}
		return nil, err
	}
	return list, nil
}

// listenerOf makes a listener of a descriptor, and owns that.
func listenerOf(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "socket")
	if f == nil {
		return nil, errors.New("no descriptor")
	}
	defer f.Close() // FileListener has its own
	if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, fmt.Errorf("it is no listening stream socket (Accept=no, ListenStream=): %w", errors.Join(err, unix.EINVAL))
	}
	return net.FileListener(f)
}

// meant returns the door that a socket is for.
func meant(cfg *config.Config, name string, addr net.Addr) (string, error) {
	_, local := addr.(*net.UnixAddr)
	switch name {
	case doorNBD, doorSocket:
		if local {
			return doorSocket, unlessOff(cfg, doorSocket, addr)
		}
		return doorNBD, unlessOff(cfg, doorNBD, addr)
	case doorAPI, doorDebug:
		return name, unlessOff(cfg, name, addr)
	}
	for _, w := range wishes(cfg) {
		if w.addr != config.Off && sameAddress(w, addr) {
			return w.name, nil
		}
	}
	return "", fmt.Errorf("the service manager's socket %s belongs to no door: give it a name (FileDescriptorName=api, nbd, nbd-socket or debug), or an address of the configuration", addr)
}

func unlessOff(cfg *config.Config, name string, addr net.Addr) error {
	for _, w := range wishes(cfg) {
		if w.name == name && w.addr == config.Off {
			return fmt.Errorf("the service manager gives the socket %s to a door that the configuration switches off: remove the one or the other (%s off)", addr, w.flag)
		}
	}
	return nil
}

// sameAddress tells whether a socket is where the configuration wants it.
func sameAddress(w wish, addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.UnixAddr:
		return w.name == doorSocket && a.Name == w.addr
	case *net.TCPAddr:
		if w.name == doorSocket {
			return false
		}
		want, err := net.ResolveTCPAddr("tcp", w.addr)
		if err != nil || want.Port != a.Port {
			return false
		}
		anywhere := want.IP == nil || want.IP.IsUnspecified()
		return want.IP.Equal(a.IP) || anywhere && a.IP.IsUnspecified()
	}
	return false
}
