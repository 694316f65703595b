package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Kind says what an Item is. The zero Kind is none.
type Kind uint8

// The kinds.
const (
	Lock     Kind = 1 + iota // the lock on the data directory
	Listener                 // a listening socket; Name is its door's
	Conn                     // a connection; State is what was agreed on it
)

// An Item is something open that is passed on: a descriptor, and what the next
// process must know of it. On the side that sends, Open is what is open, and
// stays so; on the side that receives it is nil and FD is a descriptor that
// the receiver owns.
type Item struct {
	Kind  Kind
	Name  string
	State []byte
	Open  syscall.Conn
	FD    int
}

// dup returns a further descriptor of what is open. It leaves the one that Go
// knows alone: os.File.Fd may change its mode, under the feet of whoever still
// uses it.
func (i *Item) dup() (int, error) {
	raw, err := i.Open.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dupErr := -1, error(nil)
	err = raw.Control(func(p uintptr) { fd, dupErr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, dupErr); err != nil {
		return -1, fmt.Errorf("duplicate %s: %w", i.Name, err)
	}
	return fd, nil
}

// File returns a received descriptor as a file, which then owns it.
func (i *Item) File() *os.File {
	f := os.NewFile(uintptr(i.FD), i.Name)
	i.FD = -1
	return f
}

// Conn returns a received connection.
func (i *Item) Conn() (net.Conn, error) {
	f := i.File()
	defer f.Close() // FileConn has its own descriptor
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("handover: a connection: %w", err)
	}
	return c, nil
}

// Listener returns a received listening socket.
func (i *Item) Listener() (net.Listener, error) {
	f := i.File()
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("handover: the socket of %s: %w", i.Name, err)
	}
	return l, nil
}

// Close gives up a descriptor that was received and not used.
func (i *Item) Close() error {
	if i.Open != nil || i.FD < 0 {
		return nil
	}
	return i.File().Close()
}
