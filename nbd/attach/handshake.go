package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/bits"
	"syscall"
)

// The numbers of the protocol document, in its words.
const (
	magicInit     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicOld      = 0x00420281861253   // of servers before 2011
	magicOptReply = 0x3e889045565a9

	flagFixedNewstyle = 1 << 0 // handshake flags, server's and client's
	flagNoZeroes      = 1 << 1

	optGo = 7

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

	flagHasFlags     = 1 << 0 // transmission flags
	flagReadOnly     = 1 << 1
	flagSendFlush    = 1 << 2
	flagSendFUA      = 1 << 3
	flagRotational   = 1 << 4
	flagSendTrim     = 1 << 5
	flagSendZeroes   = 1 << 6
	flagCanMultiConn = 1 << 8

	// kernelFlags are those that kernels know; the others are about replies
	// and commands that no kernel uses.
	kernelFlags = flagHasFlags | flagReadOnly | flagSendFlush | flagSendFUA | flagRotational | flagSendTrim | flagSendZeroes | flagCanMultiConn
)

// Limits, in bytes if not said otherwise.
const (
	maxName    = 4096
	maxReply   = 8 << 10
	maxReplies = 32 // how many there may be to one option

	sector        = 512
	maxSector     = 4096      // what every kernel takes
	kernelRequest = 128 << 10 // the largest request, if nobody changes the queue
)

var be = binary.BigEndian

// An export is what a server tells of one.
type export struct {
	size                        uint64
	flags                       uint16
	minimum, preferred, maximum uint32 // block sizes; zero if not told
}

// sectorSize is the size of the device's sectors.
func (e export) sectorSize() uint64 { return max(sector, uint64(e.minimum)) }

// bytes is the size of the device: whole sectors.
func (e export) bytes() uint64 { return e.size - e.size%e.sectorSize() }

// replaces tells whether a device that was made of the export old can go on
// with this one: the kernel does not take other sizes and flags.
func (e export) replaces(old export) bool {
	const kept = kernelFlags &^ (flagReadOnly | flagRotational)
	return e.bytes() == old.bytes() && e.sectorSize() <= old.sectorSize() &&
		old.flags&^e.flags&kept == 0 && e.flags&^old.flags&flagReadOnly == 0
}

// check refuses what no device can be made of.
func (e export) check() error {
	switch {
	case e.flags&flagHasFlags == 0:
		return fmt.Errorf("nbd: the server sends impossible flags %#x", e.flags)
	case e.size > math.MaxInt64:
		return fmt.Errorf("nbd: the server says the export has %d bytes, more than any disk", e.size)
	case e.maximum != 0 && (bits.OnesCount32(e.minimum) != 1 || bits.OnesCount32(e.preferred) != 1 || e.preferred < e.minimum || e.maximum < e.preferred):
		return fmt.Errorf("nbd: the server sends impossible block sizes %d, %d, %d", e.minimum, e.preferred, e.maximum)
	case e.minimum > maxSector:
		return fmt.Errorf("nbd: the export has blocks of %d bytes; the kernel takes at most %d: %w", e.minimum, maxSector, errors.ErrUnsupported)
	case e.maximum != 0 && e.maximum < kernelRequest:
		return fmt.Errorf("nbd: the server takes requests of at most %d bytes; the kernel sends %d: %w", e.maximum, kernelRequest, errors.ErrUnsupported)
	case e.bytes() == 0:
		return fmt.Errorf("nbd: the export has %d bytes, less than one sector: there is nothing to make a device of", e.size)
	}
	return nil
}

// A refusal is a reply that says no.
type refusal struct {
	code uint32
	text string // the server's words
}

func (r *refusal) Error() string {
	why := fmt.Sprintf("error 2^31+%d", r.code&^(1<<31))
	switch r.code {
	case repErrUnsup:
		why = "it does not know the option GO; use a newer server, or nbd-client with -no-optgo"
	case repErrPolicy:
		why = "not allowed, or in use by somebody else"
	case repErrTLSReqd:
		return tlsNeeded
	case repErrUnknown:
		why = "there is no such export"
	case repErrShutdown:
		why = "it is stopping; try again"
	}
	if r.text != "" {
		why += fmt.Sprintf(" (the server says %q)", r.text)
	}
	return "nbd: the server refuses the export: " + why
}

// Unwrap returns what callers ask for.
func (r *refusal) Unwrap() error {
	switch r.code {
	case repErrUnsup, repErrTLSReqd, repErrBlockSizeReqd:
		return errors.ErrUnsupported
	case repErrPolicy:
		return fs.ErrPermission
	case repErrUnknown:
		return fs.ErrNotExist
	case repErrShutdown:
		return syscall.ESHUTDOWN
	case repErrInvalid, repErrPlatform:
		return syscall.EINVAL
	}
	return nil
}

const tlsNeeded = "nbd: the server wants TLS, which the kernel cannot speak: attach over the unix socket, or over TCP on loopback " +
	"or through a tunnel of the network (WireGuard, IPsec); or use nbd-client with -cacertfile, -certfile and -keyfile, " +
	"which does TLS in a process of its own and does not reconnect"

// handshake enters the export called name. It reads not one byte behind the
// handshake: those are the kernel's.
func handshake(rw io.ReadWriter, name string) (export, error) {
	e, err := greet(rw, name)
	if err != nil {
		return e, err
	}
	return e, e.check()
}

func greet(rw io.ReadWriter, name string) (e export, err error) {
	var p [18]byte
	if _, err := io.ReadFull(rw, p[:]); err != nil {
		return e, fmt.Errorf("nbd: the server does not greet: %w", short(err))
	}
	flags := uint32(be.Uint16(p[16:]))
	switch magic := be.Uint64(p[8:]); {
	case be.Uint64(p[:]) != magicInit:
		return e, errors.New("nbd: that is no NBD server")
	case magic == magicOld, magic == magicOption && flags&flagFixedNewstyle == 0:
		return e, fmt.Errorf("nbd: the server speaks an old form of the protocol: use a newer one: %w", errors.ErrUnsupported)
	case magic != magicOption:
		return e, errors.New("nbd: that is no NBD server")
	}
	q := be.AppendUint32(nil, flags&(flagFixedNewstyle|flagNoZeroes))
	q = be.AppendUint64(q, magicOption)
	q = be.AppendUint32(q, optGo)
	q = be.AppendUint32(q, uint32(4+len(name)+4))
	q = append(be.AppendUint32(q, uint32(len(name))), name...)
	q = be.AppendUint16(be.AppendUint16(q, 1), infoBlockSize)
	if _, err := rw.Write(q); err != nil {
		return e, fmt.Errorf("nbd: the server takes no request: %w", err)
	}
	told := false
	for range maxReplies {
		kind, data, err := optReply(rw)
		switch {
		case err != nil:
			return e, err
		case kind == repAck && !told:
			return e, errors.New("nbd: the server does not say how large the export is")
		case kind == repAck:
			return e, nil
		case kind&(1<<31) != 0:
			return e, &refusal{kind, string(data)}
		case kind == repInfo:
			told = e.take(data) || told
		}
	}
	return e, fmt.Errorf("nbd: the server has more than %d replies to one request", maxReplies)
}

// take takes one piece of information and tells whether it was the size.
func (e *export) take(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	switch kind, p := be.Uint16(p), p[2:]; {
	case kind == infoExport && len(p) == 10:
		e.size, e.flags = be.Uint64(p), be.Uint16(p[8:])
		return true
	case kind == infoBlockSize && len(p) == 12:
		e.minimum, e.preferred, e.maximum = be.Uint32(p), be.Uint32(p[4:]), be.Uint32(p[8:])
	}
	return false
}

// optReply reads one reply to GO.
func optReply(r io.Reader) (kind uint32, data []byte, err error) {
	var p [20]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return 0, nil, fmt.Errorf("nbd: the server does not answer: %w", short(err))
	}
	kind = be.Uint32(p[12:])
	n := be.Uint32(p[16:])
	switch {
	case be.Uint64(p[:]) != magicOptReply, be.Uint32(p[8:]) != optGo, kind == repAck && n != 0:
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

// short makes one word of the two ends that reading can find.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
