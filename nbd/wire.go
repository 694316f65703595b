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

	magicExtendedRequest = 0x21e41c71
	magicExtendedReply   = 0x6e8a278c

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
	repErrTLSReqd  repError = 1<<31 + 5
	repErrUnknown  repError = 1<<31 + 6
	repErrShutdown repError = 1<<31 + 7
	repErrTooBig   repError = 1<<31 + 9
	repErrExtended repError = 1<<31 + 10 // extended headers are required
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
	flagStatusPayload   = 1 << 12
)

// Command flags.
const (
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4
	cmdFlagPayload  = 1 << 5 // the length is that of a payload
)

// Structured replies.
const (
	chunkDone = 1 << 0 // flag: the last chunk of a reply

	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkStatus64    = 6 // block status of extended headers
	chunkError       = 1<<15 + 1
)

// Metadata contexts, and the states that block status has in them.
const (
	contextAllocation = "base:allocation"
	stateHole         = 1 << 0
	stateZero         = 1 << 1

	contextDepth = "qemu:allocation-depth" // the state is the depth

	contextBitmap = "qemu:dirty-bitmap:" // and the bitmap's name
	stateDirty    = 1 << 0
)

// Sizes in bytes.
const (
	optionSize          = 16
	requestSize         = 28
	extendedRequestSize = 32
	simpleSize          = 16
	chunkSize           = 20
	extendedChunkSize   = 32

	maxString   = 4096 // names, descriptions, error texts
	maxOption   = inputSize
	maxSkip     = 1 << 20 // an option longer than that ends the connection
	maxQueries  = 256     // of one option about contexts
	maxContexts = 64      // chosen for one connection

	defaultMaxRequest = 32 << 20
)

// be is the byte order of everything on the wire.
var be = binary.BigEndian

// A headers is the kind of message headers that both sides use while data
// flows.
type headers uint8

const (
	headersSimple     headers = iota // compact requests, simple replies
	headersStructured                // compact requests, structured replies where they are of use
	headersExtended                  // extended requests and replies
)

// String returns the kind's name in lower case.
func (h headers) String() string {
	return [...]string{"simple", "structured", "extended"}[h]
}

// requestSize is how long the header of a request is.
func (h headers) requestSize() int {
	if h == headersExtended {
		return extendedRequestSize
	}
	return requestSize
}

// chunkSize is how long the header of a chunk is.
func (h headers) chunkSize() int {
	if h == headersExtended {
		return extendedChunkSize
	}
	return chunkSize
}

// A request is one command of the client, and while it is in the hands of a
// worker, what the worker needs.
type request struct {
	flags  uint16
	cmd    Command
	cookie uint64
	off    uint64
	n      uint64 // how much of the export it is about
	burden uint64 // how long the payload behind the header is

	conn     *conn
	contexts uint64  // those that a block status is about, by their places
	payload  []byte  // of a write
	held     *buffer // where payload is, if it is not in the input
	reply    *buffer // where the reply goes
	came     int64   // when it was read, on the server's clock
}

// parse reads the header p, of kind h, and reports whether its magic is right.
func (q *request) parse(p []byte, h headers) bool {
	*q = request{
		flags:  be.Uint16(p[4:]),
		cmd:    Command(be.Uint16(p[6:])),
		cookie: be.Uint64(p[8:]),
		off:    be.Uint64(p[16:]),
	}
	if h == headersExtended {
		q.n = be.Uint64(p[24:])
		if q.has(cmdFlagPayload) || q.cmd == CmdWrite { // QEMU's client sets no flag
			q.burden = q.n
		}
		return be.Uint32(p) == magicExtendedRequest
	}
	q.n = uint64(be.Uint32(p[24:]))
	if q.cmd == CmdWrite {
		q.burden = q.n
	}
	return be.Uint32(p) == magicRequest
}

// put writes the header that parse has read to p.
func (q *request) put(p []byte, h headers) {
	be.PutUint16(p[4:], q.flags)
	be.PutUint16(p[6:], uint16(q.cmd))
	be.PutUint64(p[8:], q.cookie)
	be.PutUint64(p[16:], q.off)
	if h == headersExtended {
		be.PutUint32(p, magicExtendedRequest)
		be.PutUint64(p[24:], q.n)
		return
	}
	be.PutUint32(p, magicRequest)
	be.PutUint32(p[24:], uint32(q.n))
}

// has reports whether the flag is set.
func (q *request) has(flag uint16) bool { return q.flags&flag != 0 }

// addSimple appends a simple reply's header to b, and room for n bytes of
// data, which it returns.
func (q *request) addSimple(b *buffer, code Errno, n int) []byte {
	p := b.grow(simpleSize + n)
	be.PutUint32(p, magicSimple)
	be.PutUint32(p[4:], uint32(code))
	be.PutUint64(p[8:], q.cookie)
	return p[simpleSize:]
}

// addChunk appends the header of a chunk to b, and room for its payload of n
// bytes, which it returns.
func (q *request) addChunk(b *buffer, h headers, flags, kind uint16, n int) []byte {
	p := b.grow(h.chunkSize() + n)
	q.putChunk(p, h, flags, kind, n)
	return p[h.chunkSize():]
}

// addError appends an error chunk, the last one of its reply, to b.
func (q *request) addError(b *buffer, h headers, code Errno, text string) {
	p := q.addChunk(b, h, chunkDone, chunkError, 6+len(text))
	be.PutUint32(p, uint32(code))
	be.PutUint16(p[4:], uint16(len(text)))
	copy(p[6:], text)
}

// putChunk writes the header of a chunk with n bytes of payload to p.
func (q *request) putChunk(p []byte, h headers, flags, kind uint16, n int) {
	be.PutUint16(p[4:], flags)
	be.PutUint16(p[6:], kind)
	be.PutUint64(p[8:], q.cookie)
	if h == headersExtended {
		be.PutUint32(p, magicExtendedReply)
		be.PutUint64(p[16:], q.off)
		be.PutUint64(p[24:], uint64(n))
		return
	}
	be.PutUint32(p, magicStructured)
	be.PutUint32(p[16:], uint32(n))
}
