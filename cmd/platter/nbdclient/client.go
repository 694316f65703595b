package nbdclient

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// The protocol's numbers.
const (
	magicServer   = 0x4e42444d41474943 // NBDMAGIC
	magicOption   = 0x49484156454f5054 // IHAVEOPT
	magicReply    = 0x0003e889045565a9
	magicRequest  = 0x25609513
	magicSimple   = 0x67446698
	optSTARTTLS   = 5
	optGO         = 7
	repACK        = 1
	repInfo       = 3
	repError      = 1 << 31
	errPolicy     = repError + 2
	errTLS        = repError + 5
	errUnknown    = repError + 6
	infoExport    = 0
	cmdRead       = 0
	cmdDisconnect = 2
)

const (
	maxReply = 64 << 10 // of an option; more is no answer
	maxRead  = 32 << 20 // what every server takes
	patience = 30 * time.Second
)

// A Conn is a connection with an open export. It serves one goroutine.
type Conn struct {
	nc     net.Conn
	size   int64
	cookie uint64
	broken error // what went wrong; nothing works after it
}

// Dial connects and opens the export. conf is for TLS, and may be nil without.
// fs.ErrNotExist says that there is no such export, fs.ErrPermission that this
// client may not have it.
func Dial(ctx context.Context, t Target, conf *tls.Config) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(patience))
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &Conn{nc: nc}
	if err := c.negotiate(t, conf); err != nil {
		nc.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("nbd at %s: %w", t.Address, err)
	}
	nc.SetDeadline(time.Time{})
	return c, nil
}

func (c *Conn) negotiate(t Target, conf *tls.Config) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.nc, hello[:]); err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if binary.BigEndian.Uint64(hello[:]) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption || flags&1 == 0 {
		return errors.New("what answers is no NBD server of today")
	}
	if err := c.send(binary.BigEndian.AppendUint32(nil, uint32(flags&3))); err != nil {
		return err
	}
	if t.TLS {
		if err := c.startTLS(t, conf); err != nil {
			return err
		}
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(t.Export)))
	data = append(append(data, t.Export...), 0, 0)
	size := int64(-1)
	err := c.option(optGO, data, func(p []byte) {
		if len(p) == 12 && binary.BigEndian.Uint16(p) == infoExport {
			size = int64(binary.BigEndian.Uint64(p[2:]))
		}
	})
	if err == nil && size < 0 {
		err = errors.New("the server told no size")
	}
	c.size = size
	return err
}

func (c *Conn) startTLS(t Target, conf *tls.Config) error {
	if err := c.option(optSTARTTLS, nil, nil); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	if conf = conf.Clone(); conf == nil {
		conf = &tls.Config{}
	}
	if conf.ServerName == "" {
		conf.ServerName = t.Host
	}
	secure := tls.Client(c.nc, conf)
	c.nc = secure
	return secure.Handshake()
}

// option sends one option and reads its replies up to the last. info gets what
// comes on the way.
func (c *Conn) option(opt uint32, data []byte, info func([]byte)) error {
	p := binary.BigEndian.AppendUint64(nil, magicOption)
	p = binary.BigEndian.AppendUint32(p, opt)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	if err := c.send(append(p, data...)); err != nil {
		return err
	}
	for range 1000 { // a server that only informs never ends
		kind, p, err := c.reply(opt)
		switch {
		case err != nil:
			return err
		case kind == repACK:
			return nil
		case kind == repInfo && info != nil:
			info(p)
		case kind&repError != 0:
			return refusal(kind, p)
		}
	}
	return errors.New("the server does not come to an end")
}

func (c *Conn) reply(opt uint32) (kind uint32, p []byte, err error) {
	var h [20]byte
	if _, err := io.ReadFull(c.nc, h[:]); err != nil {
		return 0, nil, fmt.Errorf("no reply: %w", err)
	}
	n := binary.BigEndian.Uint32(h[16:])
	if binary.BigEndian.Uint64(h[:]) != magicReply || binary.BigEndian.Uint32(h[8:]) != opt || n > maxReply {
		return 0, nil, errors.New("the server's reply is malformed")
	}
	p = make([]byte, n)
	_, err = io.ReadFull(c.nc, p)
	return binary.BigEndian.Uint32(h[12:]), p, err
}

// refusal makes an error of an error reply.
func refusal(kind uint32, text []byte) error {
	why := fmt.Sprintf("%q", text)
	switch kind {
	case errUnknown:
		return fmt.Errorf("there is no such export: %s: %w", why, fs.ErrNotExist)
	case errPolicy:
		return fmt.Errorf("the server refuses: %s: %w", why, fs.ErrPermission)
	case errTLS:
		return fmt.Errorf("the server wants TLS: %s; use nbds:// %w", why, fs.ErrPermission)
	}
	return fmt.Errorf("the server refuses (%#x): %s", kind, why)
}

func (c *Conn) send(p []byte) error {
	_, err := c.nc.Write(p)
	return err
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
	binary.BigEndian.PutUint32(q[:], magicRequest)
	binary.BigEndian.PutUint16(q[6:], cmdRead)
	binary.BigEndian.PutUint64(q[8:], c.cookie)
	binary.BigEndian.PutUint64(q[16:], uint64(off))
	binary.BigEndian.PutUint32(q[24:], uint32(len(p)))
	if err := c.send(q[:]); err != nil {
		return c.fail(err)
	}
	var h [16]byte
	if _, err := io.ReadFull(c.nc, h[:]); err != nil {
		return c.fail(err)
	}
	if binary.BigEndian.Uint32(h[:]) != magicSimple || binary.BigEndian.Uint64(h[8:]) != c.cookie {
		return c.fail(errors.New("the server's reply is malformed"))
	}
	if errno := binary.BigEndian.Uint32(h[4:]); errno != 0 {
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
		binary.BigEndian.PutUint32(q[:], magicRequest)
		binary.BigEndian.PutUint16(q[6:], cmdDisconnect)
		c.nc.SetDeadline(time.Now().Add(time.Second))
		c.send(q[:]) // who does not hear it sees the end
	}
	return c.nc.Close()
}
