package exports

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/nbd"
)

// A PeerAddr is who is at the other end of a unix socket.
type PeerAddr struct {
	PID int // 0: unknown
	UID int
}

// Network returns "unix".
func (a PeerAddr) Network() string { return "unix" }

// String names the process.
func (a PeerAddr) String() string {
	if a.PID == 0 {
		return "a process on this machine"
	}
	if name := command(a.PID); name != "" {
		return fmt.Sprintf("%s (process %d)", name, a.PID)
	}
	return fmt.Sprintf("process %d", a.PID)
}

// command returns the name of a process, fit for a line of text.
func command(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' {
			return -1
		}
		return c
	}, string(b))
}

// Peers returns l so that the connections it accepts say which process they
// come from, if l is a unix socket. With it, all connections of one process
// may share an overlay that they open by name.
func Peers(l net.Listener) net.Listener {
	if u, ok := l.(*net.UnixListener); ok {
		return &peerListener{u}
	}
	return l
}

type peerListener struct{ l *net.UnixListener }

// Accept waits for the next connection.
func (p *peerListener) Accept() (net.Conn, error) {
	c, err := p.l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return PeerConn(c), nil
}

// Close closes the listener.
func (p *peerListener) Close() error { return p.l.Close() }

// Addr returns the listener's address.
func (p *peerListener) Addr() net.Addr { return p.l.Addr() }

// PeerConn returns c so that it says which process it comes from, if it is a
// connection of a unix socket. One that another process has accepted and
// handed over says the same as there.
func PeerConn(c net.Conn) net.Conn {
	if u, ok := c.(*net.UnixConn); ok {
		return &peerConn{UnixConn: u, addr: peerOf(u)}
	}
	return c
}

// A peerConn is a connection with an address that says something. It keeps
// all that a UnixConn can do.
type peerConn struct {
	*net.UnixConn
	addr net.Addr // a PeerAddr
}

// RemoteAddr returns who is at the other end.
func (c *peerConn) RemoteAddr() net.Addr { return c.addr }

// peerOf asks the kernel who connected. What it does not say stays 0.
func peerOf(c *net.UnixConn) PeerAddr {
	var addr PeerAddr
	raw, err := c.SyscallConn()
	if err != nil {
		return addr
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			addr = PeerAddr{PID: int(cred.Pid), UID: int(cred.Uid)}
		}
	})
	return addr
}

// ownerOf says who owns what a client opens by name, and whether other
// connections of that owner can be told: a process is known on the socket, a
// TCP connection stands for itself.
func ownerOf(c nbd.Client) (owner string, shares bool) {
	if a, ok := c.Addr.(PeerAddr); ok && a.PID != 0 {
		return "process " + strconv.Itoa(a.PID), true
	}
	return "connection " + strconv.FormatUint(c.ID, 10), false
}

// clientName is how people call a client.
func clientName(c nbd.Client) string {
	if c.Addr == nil || c.Addr.String() == "" || c.Addr.String() == "@" {
		return "connection " + strconv.FormatUint(c.ID, 10) + " of the " + c.Transport + " socket"
	}
	if name := peerName(c); name != "" {
		return fmt.Sprintf("%.64q at %s", name, c.Addr)
	}
	return c.Addr.String()
}
