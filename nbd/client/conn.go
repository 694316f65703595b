package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

const (
	magicRequest = 0x25609513
	magicSimple  = 0x67446698

	cmdRead       = 0
	cmdDisconnect = 2
)

const (
	maxRead  = 32 << 20 // bytes; what every server takes
	patience = 30 * time.Second
)

// A Conn is a connection with an open export. It serves one goroutine.
type Conn struct {
	nc     net.Conn
	size   int64
	cookie uint64
	broken error // what went wrong; nothing works after it
}

// Dial connects and opens the export, as [Connect] does, within 30 s.
func Dial(ctx context.Context, t Target, conf *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience,
		fmt.Errorf("nbd: the server has not finished the handshake within %v: is there an NBD server?", patience))
	defer cancel()
	nc, e, err := Connect(ctx, t, conf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Address, err)
	}
	return &Conn{nc: nc, size: e.Size}, nil
}

// Size returns the export's size in bytes.
func (c *Conn) Size() int64 { return c.size }

// ReadAt fills p with the export's bytes at off; at most 32 MiB at once.
func (c *Conn) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), c.size); err != nil {
		return err
	}
	if len(p) > maxRead {
		return fmt.Errorf("read of %d bytes at once: %w", len(p), syscall.EINVAL)
	}
	if c.broken != nil || len(p) == 0 {
		return c.broken
	}
	stop := context.AfterFunc(ctx, func() { c.nc.SetDeadline(time.Unix(1, 0)) })
	err := c.read(p, off)
	if !stop() {
		err = ctx.Err() // the deadline stays, so the connection is of no more use
		c.broken = err
	}
	return err
}

func (c *Conn) read(p []byte, off int64) error {
	c.cookie++
	var q [28]byte
	be.PutUint32(q[:], magicRequest)
	be.PutUint16(q[6:], cmdRead)
	be.PutUint64(q[8:], c.cookie)
	be.PutUint64(q[16:], uint64(off))
	be.PutUint32(q[24:], uint32(len(p)))
	if err := say(c.nc, q[:]); err != nil {
		return c.fail(err)
	}
	var h [16]byte
	if _, err := io.ReadFull(c.nc, h[:]); err != nil {
		return c.fail(err)
	}
	if be.Uint32(h[:]) != magicSimple || be.Uint64(h[8:]) != c.cookie {
		return c.fail(errors.New("the server's reply is malformed"))
	}
	if errno := be.Uint32(h[4:]); errno != 0 {
		return fmt.Errorf("read of %d bytes at %d over NBD: %w", len(p), off, syscall.Errno(errno))
	}
	if _, err := io.ReadFull(c.nc, p); err != nil {
		return c.fail(err)
	}
	return nil
}

func (c *Conn) fail(err error) error {
	c.broken = fmt.Errorf("nbd: the connection has broken: %w", err)
	return c.broken
}

// Close says goodbye and closes the connection.
func (c *Conn) Close() error {
	if c.broken == nil {
		var q [28]byte
		be.PutUint32(q[:], magicRequest)
		be.PutUint16(q[6:], cmdDisconnect)
		c.nc.SetDeadline(time.Now().Add(time.Second))
		say(c.nc, q[:]) // who does not hear it sees the end
	}
	return c.nc.Close()
}
