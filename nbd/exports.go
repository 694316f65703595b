package nbd

import (
	"context"
	"crypto/tls"
	"fmt"
	"iter"
	"math/bits"
	"net"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Exports is what a Server serves. Its owner provides it. Any number of
// goroutines use it at once.
type Exports interface {
	// Open opens the export called name for client c (its address,
	// transport and verified certificate). If the Export's disk is also a
	// block.Device, that client may write. The text of an error goes to the
	// client: fs.ErrNotExist says that there is no such export,
	// fs.ErrPermission that this client may not have it. A client that only
	// asks about an export opens and closes it.
	Open(ctx context.Context, c Client, name string) (Export, error)

	// List yields the exports that client c may see. An error that is
	// fs.ErrPermission says that it may see none; any other ends the list.
	List(ctx context.Context, c Client) iter.Seq2[Info, error]
}

// A Client is who is at the other end of a connection.
type Client struct {
	ID        uint64               // the connection's number, unique in its Server
	Addr      net.Addr             // as the listener gave it; never nil
	Transport string               // "unix", "tcp" or "tls"
	TLS       *tls.ConnectionState // nil without TLS
}

// An Info is one line of the list of exports.
type Info struct {
	Name, Description string
}

// An Export is an open disk and what the protocol tells about it. Only Disk
// is required.
type Export struct {
	// Disk is what the client reads. If it is a block.Device the client may
	// write.
	Disk block.Reader

	// Description is text for people.
	Description string

	// Label names the export in logs and metrics. The name that the client
	// asked for may be a secret and is never logged.
	Label string

	// MinBlock, PreferredBlock and MaxBlock are told to clients that ask:
	// powers of two (MaxBlock a multiple of MinBlock). Zero means 1, 4096 and
	// the Server's MaxRequest.
	MinBlock, PreferredBlock, MaxBlock uint32

	// MultiConn says that what one connection has written and flushed, all
	// others to the same name see. It is true of whatever nobody writes.
	MultiConn bool

	// Bitmaps tell what has changed on the disk since some point in time. They
	// are offered as metadata contexts.
	Bitmaps []Bitmap

	// Transient says that the disk is gone with the connection, so that
	// another server cannot go on with it.
	Transient bool

	// Close, if not nil, is called once, when no request uses Disk any more.
	Close func() error
}

// A Bitmap tells what has changed on a disk, as the metadata context
// qemu:dirty-bitmap:NAME.
type Bitmap struct {
	// Name is not empty. One that is no text, or longer than 4 KiB with what
	// stands before it, is not offered.
	Name string

	// Changed has Data where the disk has changed, and any other kind where it
	// has not. It is as long as the disk.
	Changed block.Mapper
}

// sizes returns the block sizes that clients are told, with limit as the most
// that a request may carry.
func (e *Export) sizes(limit uint32) (least, preferred, most uint32, err error) {
	least, preferred, most = max(e.MinBlock, 1), e.PreferredBlock, e.MaxBlock
	if most == 0 || most > limit {
		most = limit / least * least
	}
	if preferred == 0 {
		preferred = max(least, min(4096, most))
	}
	switch {
	case bits.OnesCount32(least) != 1 || least > 64<<10:
		err = fmt.Errorf("minimum block size %d is not a power of two up to 65536", least)
	case bits.OnesCount32(preferred) != 1 || preferred < max(least, 512):
		err = fmt.Errorf("preferred block size %d is not a power of two from %d", preferred, max(least, 512))
	case most < preferred || most%least != 0:
		err = fmt.Errorf("maximum block size %d is not a multiple of %d from %d", most, least, preferred)
	}
	return least, preferred, most, err
}
