package main

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/cmd/platterd/exports"
)

// The doors, by the names that a service manager may give their sockets.
const (
	doorAPI      = "api"
	doorNBD      = "nbd"
	doorSocket   = "nbd-socket"
	doorDebug    = "debug"
	doorTakeover = "takeover" // where the next gateway asks; never given from outside
)

// A door is a listening socket. It outlives the servers behind it: while there
// is none, clients wait in the kernel's queue.
type door struct {
	name    string
	ln      net.Listener // a *net.TCPListener or *net.UnixListener
	asked   string       // the address of the configuration
	foreign bool         // a service manager made it, and it stays when we are gone
}

// open lets a server in. Closing what is returned ends its Accept and leaves
// the socket as it is. There is one server at a time.
func (d *door) open() net.Listener {
	d.until(time.Time{})
	return &entrance{door: d, from: d.ln}
}

// openToPeers is open for clients of a unix socket, who are processes with a
// name.
func (d *door) openToPeers() net.Listener {
	d.until(time.Time{})
	return &entrance{door: d, from: exports.Peers(d.ln)}
}

// until sets when a waiting Accept ends.
func (d *door) until(t time.Time) {
	if s, ok := d.ln.(interface{ SetDeadline(time.Time) error }); ok {
		s.SetDeadline(t) // fails on a closed socket only, where nobody waits
	}
}

// keep makes the file of a unix socket stay when it is closed here, or not.
func (d *door) keep(stays bool) {
	if u, ok := d.ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(!stays)
	}
}

// local tells whether only this machine can reach the door.
func (d *door) local() bool {
	a, ok := d.ln.Addr().(*net.TCPAddr)
	return !ok || a.IP.IsLoopback()
}

// An entrance is a door as a server sees it.
type entrance struct {
	door   *door
	from   net.Listener
	closed atomic.Bool
}

// Accept waits for the next client.
func (e *entrance) Accept() (net.Conn, error) {
	c, err := e.from.Accept()
	if err != nil && e.closed.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, &net.OpError{Op: "accept", Net: e.Addr().Network(), Addr: e.Addr(), Err: net.ErrClosed}
	}
	return c, err
}

// Close ends Accept. The socket stays open.
func (e *entrance) Close() error {
	if !e.closed.Swap(true) {
		e.door.until(time.Unix(1, 0))
	}
	return nil
}

// Addr returns the address of the door.
func (e *entrance) Addr() net.Addr { return e.door.ln.Addr() }

// doors are the listening sockets of a process.
type doors struct {
	list     []*door
	unwanted []*door // given, and not what the configuration wants
}

// named returns the sockets of one door: none if it is switched off, several
// if a service manager made them.
func (ds *doors) named(name string) []*door {
	var out []*door
	for _, d := range ds.list {
		if d.name == name {
			out = append(out, d)
		}
	}
	return out
}

// address returns where a door is, or "" if it is switched off: as the
// configuration has it, if that says it all.
func (ds *doors) address(name string) string {
	list := ds.named(name)
	switch {
	case len(list) == 0:
		return ""
	case list[0].asked != "" && !strings.HasSuffix(list[0].asked, ":0"):
		return list[0].asked
	}
	return list[0].ln.Addr().String()
}

// drop closes what was given and is not wanted.
func (ds *doors) drop() {
	for _, d := range ds.unwanted {
		d.ln.Close()
	}
	ds.unwanted = nil
}

// handOver makes the sockets' files stay: they are somebody else's now.
func (ds *doors) handOver() {
	for _, d := range slices.Concat(ds.list, ds.unwanted) {
		d.keep(true)
	}
}

// close closes every socket; the files of those that are ours go.
func (ds *doors) close() {
	ds.drop()
	for _, d := range ds.list {
		d.ln.Close()
	}
	ds.list = nil
}
