package client

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
)

// The numbers of the protocol document, in its words.
const (
	magicInit     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicOld      = 0x00420281861253   // of servers before 2011
	magicOptReply = 0x3e889045565a9

	flagFixedNewstyle = 1 << 0 // handshake flags, server's and client's
	flagNoZeroes      = 1 << 1

	optStartTLS = 5
	optGo       = 7

	repAck  = 1
	repInfo = 3

	repErrUnsup         = 1<<31 + 1
	repErrPolicy        = 1<<31 + 2
	repErrInvalid       = 1<<31 + 3
	repErrPlatform      = 1<<31 + 4
	repErrTLSReqd       = 1<<31 + 5
	repErrUnknown       = 1<<31 + 6
	repErrShutdown      = 1<<31 + 7
	repErrBlockSizeReqd = 1<<31 + 8

	infoExport    = 0
	infoBlockSize = 3
)

// Transmission flags, in Export.Flags.
const (
	FlagHasFlags     = 1 << 0
	FlagReadOnly     = 1 << 1
	FlagSendFlush    = 1 << 2
	FlagSendFUA      = 1 << 3
	FlagRotational   = 1 << 4
	FlagSendTrim     = 1 << 5
	FlagSendZeroes   = 1 << 6
	FlagCanMultiConn = 1 << 8
)

// MaxName is how long the name of an export may be, in bytes.
const MaxName = 4096

const (
	maxReply   = 8 << 10 // bytes
	maxReplies = 32      // how many there may be to one option
)

var be = binary.BigEndian

// An Export is what a server tells of one.
type Export struct {
	Size                        int64 // in bytes
	Flags                       uint16
	Minimum, Preferred, Maximum uint32 // block sizes in bytes; zero if not told
}

// check refuses what no server can mean.
func (e Export) check() error {
	switch {
	case e.Flags&FlagHasFlags == 0:
		return fmt.Errorf("nbd: the server sends impossible flags %#x", e.Flags)
	case e.Size < 0:
		return fmt.Errorf("nbd: the server says the export has %d bytes, more than any disk", uint64(e.Size))
	case e.Minimum|e.Preferred|e.Maximum != 0 && (bits.OnesCount32(e.Minimum) != 1 || bits.OnesCount32(e.Preferred) != 1 || e.Preferred < e.Minimum || e.Maximum < e.Preferred):
		return fmt.Errorf("nbd: the server sends impossible block sizes %d, %d, %d", e.Minimum, e.Preferred, e.Maximum)
	}
	return nil
}

// Handshake enters the export that t names on a connection that is new. What
// it returns is nc itself, or TLS over it if t says so; conf is for that, and
// may be nil without. It reads not one byte behind the handshake. How long it
// may take is for the caller to say, with a deadline.
func Handshake(nc net.Conn, t Target, conf *tls.Config) (net.Conn, Export, error) {
	if len(t.Export) > MaxName {
		return nil, Export{}, fmt.Errorf("nbd: the name of the export has %d bytes: the protocol allows %d", len(t.Export), MaxName)
	}
	if err := greet(nc); err != nil {
		return nil, Export{}, err
	}
	if t.TLS {
		secure, err := startTLS(nc, t.Host, conf)
		if err != nil {
			return nil, Export{}, err
		}
		nc = secure
	}
	data := append(be.AppendUint32(nil, uint32(len(t.Export))), t.Export...)
	data = be.AppendUint16(be.AppendUint16(data, 1), infoBlockSize)
	var e Export
	told := false
	if err := option(nc, optGo, data, func(p []byte) { told = e.take(p) || told }); err != nil {
		return nil, Export{}, err
	}
	if !told {
		return nil, Export{}, errors.New("nbd: the server does not say how large the export is")
	}
	return nc, e, e.check()
}

// greet hears the server's greeting and answers it.
func greet(rw io.ReadWriter) error {
	var p [18]byte
	if _, err := io.ReadFull(rw, p[:]); err != nil {
		return fmt.Errorf("nbd: the server does not greet: %w", short(err))
	}
	flags := uint32(be.Uint16(p[16:]))
	switch magic := be.Uint64(p[8:]); {
	case be.Uint64(p[:]) != magicInit:
		return errors.New("nbd: that is no NBD server")
	case magic == magicOld, magic == magicOption && flags&flagFixedNewstyle == 0:
		return fmt.Errorf("nbd: the server speaks an old form of the protocol: use a newer one: %w", errors.ErrUnsupported)
	case magic != magicOption:
		return errors.New("nbd: that is no NBD server")
	}
	return say(rw, be.AppendUint32(nil, flags&(flagFixedNewstyle|flagNoZeroes)))
}

// startTLS goes over to TLS. Nothing that came before it counts.
func startTLS(nc net.Conn, host string, conf *tls.Config) (net.Conn, error) {
	if err := option(nc, optStartTLS, nil, func([]byte) {}); err != nil {
		return nil, err
	}
	if conf = conf.Clone(); conf == nil {
		conf = &tls.Config{}
	}
	if conf.ServerName == "" {
		conf.ServerName = host
	}
	secure := tls.Client(nc, conf)
	if err := secure.Handshake(); err != nil {
		return nil, fmt.Errorf("nbd: TLS with the server: %w", err)
	}
	return secure, nil
}

// option sends one option and reads the replies to it up to the last. info
// gets what the server tells on the way.
func option(rw io.ReadWriter, opt uint32, data []byte, info func(p []byte)) error {
	q := be.AppendUint32(be.AppendUint64(nil, magicOption), opt)
	if err := say(rw, append(be.AppendUint32(q, uint32(len(data))), data...)); err != nil {
		return err
	}
	for range maxReplies {
		kind, p, err := reply(rw, opt)
		switch {
		case err != nil:
			return err
		case kind == repAck:
			return nil
		case kind&(1<<31) != 0:
			return &refusal{opt, kind, string(p)}
		case kind == repInfo:
			info(p)
		}
	}
	return fmt.Errorf("nbd: the server has more than %d replies to one request", maxReplies)
}

// take takes one piece of information and tells whether it was the size.
func (e *Export) take(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	switch kind, p := be.Uint16(p), p[2:]; {
	case kind == infoExport && len(p) == 10:
		e.Size, e.Flags = int64(be.Uint64(p)), be.Uint16(p[8:]) // check refuses what wraps
		return true
	case kind == infoBlockSize && len(p) == 12:
		e.Minimum, e.Preferred, e.Maximum = be.Uint32(p), be.Uint32(p[4:]), be.Uint32(p[8:])
	}
	return false
}

// reply reads one reply to an option.
func reply(r io.Reader, opt uint32) (kind uint32, data []byte, err error) {
	var p [20]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return 0, nil, fmt.Errorf("nbd: the server does not answer: %w", short(err))
	}
	kind = be.Uint32(p[12:])
	n := be.Uint32(p[16:])
	switch {
	case be.Uint64(p[:]) != magicOptReply, be.Uint32(p[8:]) != opt, kind == repAck && n != 0:
		return 0, nil, errors.New("nbd: the server's answer makes no sense")
	case n > maxReply:
		return 0, nil, fmt.Errorf("nbd: the server's answer has %d bytes, more than %d", n, maxReply)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("nbd: the server's answer is cut short: %w", short(err))
	}
	return kind, data, nil
}

func say(w io.Writer, p []byte) error {
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("nbd: the server takes no request: %w", err)
	}
	return nil
}

// short makes one word of the two ends that reading can find.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
