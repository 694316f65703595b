package nbd

import "encoding/binary"

// The numbers of the protocol document, in its words.
const (
	magicInit       = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   = 0x3e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	flagFixedNewstyle = 1 << 0 // handshake flags, server's and client's
	flagNoZeroes      = 1 << 1
)

// Options.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10
	optExtendedHeaders = 11
)

// Replies to options.
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4

	repErrUnsup    repError = 1<<31 + 1
	repErrPolicy   repError = 1<<31 + 2
	repErrInvalid  repError = 1<<31 + 3
	repErrPlatform repError = 1<<31 + 4
	repErrUnknown  repError = 1<<31 + 6
	repErrShutdown repError = 1<<31 + 7
	repErrTooBig   repError = 1<<31 + 9
)

// A repError is the type of a reply that refuses an option.
type repError uint32

// Information about an export.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Transmission flags.
const (
	flagHasFlags        = 1 << 0
	flagReadOnly        = 1 << 1
	flagSendFlush       = 1 << 2
	flagSendFUA         = 1 << 3
	flagSendTrim        = 1 << 5
	flagSendWriteZeroes = 1 << 6
	flagSendDF          = 1 << 7
	flagCanMultiConn    = 1 << 8
	flagSendCache       = 1 << 10
	flagSendFastZero    = 1 << 11
)

// Command flags.
const (
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4
)

// Structured replies.
const (
	chunkDone = 1 << 0 // flag: the last chunk of a reply

	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkError       = 1<<15 + 1
)

// Block status, in the context base:allocation.
const (
	allocationContext = "base:allocation"
	allocationID      = 1 // how block status replies name the context
	stateHole         = 1 << 0
	stateZero         = 1 << 1
)

// Sizes in bytes.
const (
	optionSize  = 16
	requestSize = 28
	simpleSize  = 16
	chunkSize   = 20

	maxString = 4096 // names, descriptions, error texts
	maxOption = inputSize
	maxSkip   = 1 << 20 // an option longer than that ends the connection

	defaultMaxRequest = 32 << 20
)

// be is the byte order of everything on the wire.
var be = binary.BigEndian

// A request is one command of the client, and while it is in the hands of a
// worker, what the worker needs.
type request struct {
	flags  uint16
	cmd    Command
	cookie uint64
	off    uint64
	n      uint32

	conn    *conn
	payload []byte  // of a write
	held    *buffer // where payload is, if it is not in the input
	reply   *buffer // where the reply goes
	came    int64   // when it was read, on the server's clock
}

// parse reads the header p and reports whether its magic is right.
func (q *request) parse(p []byte) bool {
	*q = request{
		flags:  be.Uint16(p[4:]),
		cmd:    Command(be.Uint16(p[6:])),
		cookie: be.Uint64(p[8:]),
		off:    be.Uint64(p[16:]),
		n:      be.Uint32(p[24:]),
	}
	return be.Uint32(p) == magicRequest
}

// has reports whether the flag is set.
func (q *request) has(flag uint16) bool { return q.flags&flag != 0 }

// putSimple writes a simple reply's header to p.
func putSimple(p []byte, cookie uint64, code Errno) {
	be.PutUint32(p, magicSimple)
	be.PutUint32(p[4:], uint32(code))
	be.PutUint64(p[8:], cookie)
}

// putChunk writes the header of a chunk with n bytes of payload to p.
func putChunk(p []byte, cookie uint64, flags, kind uint16, n int) {
	be.PutUint32(p, magicStructured)
	be.PutUint16(p[4:], flags)
	be.PutUint16(p[6:], kind)
	be.PutUint64(p[8:], cookie)
	be.PutUint32(p[16:], uint32(n))
}
