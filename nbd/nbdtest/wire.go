package nbdtest

import "encoding/binary"

// Options.
const (
	OptExportName      = 1
	OptAbort           = 2
	OptList            = 3
	OptStartTLS        = 5
	OptInfo            = 6
	OptGo              = 7
	OptStructuredReply = 8
	OptListMetaContext = 9
	OptSetMetaContext  = 10
	OptExtendedHeaders = 11
)

// Replies to options.
const (
	RepAck         = 1
	RepServer      = 2
	RepInfo        = 3
	RepMetaContext = 4

	RepErrUnsup    = 1<<31 + 1
	RepErrPolicy   = 1<<31 + 2
	RepErrInvalid  = 1<<31 + 3
	RepErrPlatform = 1<<31 + 4
	RepErrTLSReqd  = 1<<31 + 5
	RepErrUnknown  = 1<<31 + 6
	RepErrShutdown = 1<<31 + 7
	RepErrTooBig   = 1<<31 + 9
	RepErrExtended = 1<<31 + 10
)

// Information about an export.
const (
	InfoExport      = 0
	InfoName        = 1
	InfoDescription = 2
	InfoBlockSize   = 3
)

// Handshake and client flags.
const (
	FixedNewstyle = 1 << 0
	NoZeroes      = 1 << 1
)

// Transmission flags.
const (
	HasFlags        = 1 << 0
	ReadOnly        = 1 << 1
	SendFlush       = 1 << 2
	SendFUA         = 1 << 3
	Rotational      = 1 << 4
	SendTrim        = 1 << 5
	SendWriteZeroes = 1 << 6
	SendDF          = 1 << 7
	CanMultiConn    = 1 << 8
	SendResize      = 1 << 9
	SendCache       = 1 << 10
	SendFastZero    = 1 << 11
	StatusPayload   = 1 << 12
)

// Commands.
const (
	CmdRead        = 0
	CmdWrite       = 1
	CmdDisc        = 2
	CmdFlush       = 3
	CmdTrim        = 4
	CmdCache       = 5
	CmdWriteZeroes = 6
	CmdBlockStatus = 7
)

// Command flags.
const (
	FUA        = 1 << 0
	NoHole     = 1 << 1
	DF         = 1 << 2
	ReqOne     = 1 << 3
	FastZero   = 1 << 4
	PayloadLen = 1 << 5
)

// Chunks of structured replies.
const (
	ChunkNone        = 0
	ChunkOffsetData  = 1
	ChunkOffsetHole  = 2
	ChunkBlockStatus = 5
	ChunkStatus64    = 6
	ChunkError       = 1<<15 + 1
	ChunkErrorOffset = 1<<15 + 2
)

// Error numbers.
const (
	EPERM     = 1
	EIO       = 5
	ENOMEM    = 12
	EINVAL    = 22
	ENOSPC    = 28
	EOVERFLOW = 75
	ENOTSUP   = 95
	ESHUTDOWN = 108
)

const (
	magicInit       = 0x4e42444d41474943
	magicOption     = 0x49484156454f5054
	magicOptReply   = 0x3e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	magicExtendedRequest = 0x21e41c71
	magicExtendedReply   = 0x6e8a278c
)

var be = binary.BigEndian

// String returns s as the protocol has names: its length and its bytes.
func String(s string) []byte {
	return append(be.AppendUint32(nil, uint32(len(s))), s...)
}
