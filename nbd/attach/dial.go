package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/nbd/client"
)

// open opens n connections that are past the handshake. They must agree about
// the export.
func (c Config) open(ctx context.Context, n int) (links []*os.File, e export, err error) {
	defer func() {
		if err != nil {
			closeAll(links)
			links = nil
		}
	}()
	for i := range n {
		f, got, err := c.dial(ctx)
		if err != nil {
			return links, e, err
		}
		links = append(links, f)
		if i == 0 {
			e = got
		}
		if got != e {
			return links, e, errChanged(e, got)
		}
		if n > 1 && e.Flags&client.FlagCanMultiConn == 0 {
			return links, e, fmt.Errorf("nbd: the server does not say that several connections to this export see the same (CAN_MULTI_CONN): use one connection: %w", errors.ErrUnsupported)
		}
	}
	return links, e, nil
}

// errChanged says that an export is not what it was.
func errChanged(was, is export) error {
	return fmt.Errorf("nbd: the export was of %d bytes with flags %#x and is of %d bytes with flags %#x: it is another disk; detach it and attach again",
		was.Size, was.Flags, is.Size, is.Flags)
}

// dial opens one connection and enters the export.
func (c Config) dial(ctx context.Context) (*os.File, export, error) {
	within, cancel := context.WithTimeoutCause(ctx, c.HandshakeTimeout,
		fmt.Errorf("nbd: the server has not finished the handshake within %v: is there an NBD server at %s?", c.HandshakeTimeout, c.Address))
	defer cancel()
	conn, told, err := client.Connect(within, client.Target{Network: c.Network, Address: c.Address, Export: c.Export}, nil)
	if errors.Is(err, client.ErrTLS) {
		err = errTLS
	}
	if err != nil {
		return nil, export{}, err
	}
	defer conn.Close() // the kernel gets a duplicate
	e := export(told)
	if err := e.check(); err != nil {
		return nil, e, err
	}
	f, err := duplicate(conn)
	return f, e, err
}

// duplicate returns the socket of a connection without the machinery that Go
// has around it: that would wake this process up for each reply that the
// kernel gets.
func duplicate(conn net.Conn) (*os.File, error) {
	s, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("nbd: a connection of type %T has no socket", conn)
	}
	f, err := s.File()
	if err != nil {
		return nil, fmt.Errorf("nbd: duplicate a socket: %w", err)
	}
	return f, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // the kernel has its own
	}
}

// dead returns the indexes of the sockets that are closed in both directions.
// The kernel leaves a socket so when it gives it up.
func dead(links []*os.File) ([]int, error) {
	if len(links) == 0 {
		return nil, nil
	}
	fds := make([]unix.PollFd, len(links))
	for i, f := range links {
		fds[i].Fd = int32(f.Fd())
	}
	for {
		_, err := unix.Poll(fds, 0) // that a peer hangs up is always told
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("nbd: look after sockets: %w", err)
		}
	}
	var list []int
	for i, p := range fds {
		if p.Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			list = append(list, i)
		}
	}
	return list, nil
}
