package nbdtest

import (
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"
)

// A Request is one command. Payload is that of a WRITE, or of a BLOCK_STATUS
// with PayloadLen; its length is what the header says, unless Len is set.
type Request struct {
	Flags, Cmd uint16
	Cookie     uint64
	Off        uint64
	Len        uint64
	Payload    []byte
}

// effect returns how much of the export the request is about.
func (q *Request) effect() uint64 {
	switch {
	case q.Cmd == CmdBlockStatus && q.Flags&PayloadLen != 0 && len(q.Payload) >= 8:
		return be.Uint64(q.Payload)
	case q.Len == 0:
		return uint64(len(q.Payload))
	}
	return q.Len
}

// StatusFilter returns the payload of a BLOCK_STATUS of n bytes about the
// contexts with these ids.
func StatusFilter(n uint64, ids ...uint32) []byte {
	p := be.AppendUint64(nil, n)
	for _, id := range ids {
		p = be.AppendUint32(p, id)
	}
	return p
}

// A Chunk is one simple reply, or one chunk of a structured one.
type Chunk struct {
	Cookie  uint64
	Simple  bool
	Last    bool // no other follows
	Type    uint16
	Off     uint64 // of data, a hole or an error
	Data    []byte // of ChunkOffsetData, or of a simple reply to READ
	Hole    uint32 // length of a hole
	ID      uint32 // context of Extents
	Extents []Extent
	Errno   uint32
	Text    string
}

// An Extent is one extent of a block status.
type Extent struct{ Len, Flags uint64 }

// An Error is the failure of a request.
type Error struct {
	Errno uint32
	Text  string
}

// Error says which error number came, with the server's text.
func (e *Error) Error() string { return fmt.Sprintf("errno %d: %s", e.Errno, e.Text) }

// Errno returns the error number in err, 0 for nil, and panics on any other
// error, which means that the server broke the protocol.
func Errno(err error) uint32 {
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		panic(err)
	}
	return e.Errno
}

// Append appends the request with a compact header as it is on the wire.
func (q *Request) Append(p []byte) []byte {
	p = q.begin(p, magicRequest)
	return append(be.AppendUint32(p, uint32(q.length())), q.Payload...)
}

// AppendExtended appends the request with an extended header.
func (q *Request) AppendExtended(p []byte) []byte {
	p = q.begin(p, magicExtendedRequest)
	return append(be.AppendUint64(p, q.length()), q.Payload...)
}

// begin appends what both headers begin with.
func (q *Request) begin(p []byte, magic uint32) []byte {
	p = be.AppendUint16(be.AppendUint32(p, magic), q.Flags)
	p = be.AppendUint64(be.AppendUint16(p, q.Cmd), q.Cookie)
	return be.AppendUint64(p, q.Off)
}

// length is what the header says.
func (q *Request) length() uint64 {
	if q.Len == 0 {
		return uint64(len(q.Payload))
	}
	return q.Len
}

// Send sends requests in one piece, with the headers that were agreed on.
func (c *Client) Send(requests ...Request) error {
	var p []byte
	for i := range requests {
		if c.Extended {
			p = requests[i].AppendExtended(p)
		} else {
			p = requests[i].Append(p)
		}
	}
	return c.Write(p)
}

// Receive reads one reply or chunk. lookup gives the request of a cookie.
func (c *Client) Receive(lookup func(cookie uint64) (Request, bool)) (Chunk, error) {
	p, err := c.bytes(4)
	if err != nil {
		return Chunk{}, err
	}
	switch magic := be.Uint32(p); {
	case magic == magicSimple && !c.Extended:
		return c.simple(lookup)
	case magic == magicStructured && c.Structured && !c.Extended, magic == magicExtendedReply && c.Extended:
		return c.chunk(lookup)
	default:
		return Chunk{}, fmt.Errorf("reply magic %#x", magic)
	}
}

func (c *Client) simple(lookup func(uint64) (Request, bool)) (Chunk, error) {
	p, err := c.bytes(12)
	if err != nil {
		return Chunk{}, err
	}
	k := Chunk{Simple: true, Last: true, Errno: be.Uint32(p), Cookie: be.Uint64(p[4:])}
	q, ok := lookup(k.Cookie)
	switch {
	case !ok:
		return k, fmt.Errorf("simple reply to unknown cookie %d", k.Cookie)
	case c.Structured && (q.Cmd == CmdRead || q.Cmd == CmdBlockStatus && k.Errno == 0):
		return k, fmt.Errorf("simple reply to command %d though structured ones were agreed", q.Cmd)
	case q.Cmd == CmdRead && k.Errno == 0:
		k.Data, err = c.bytes(int(q.Len))
		k.Off = q.Off
	}
	return k, errors.Join(err, checkErrno(k.Errno, true))
}

func (c *Client) chunk(lookup func(uint64) (Request, bool)) (Chunk, error) {
	size := 16
	if c.Extended {
		size = 28
	}
	h, err := c.bytes(size)
	if err != nil {
		return Chunk{}, err
	}
	flags, n := be.Uint16(h), uint64(be.Uint32(h[12:]))
	k := Chunk{Last: flags&1 != 0, Type: be.Uint16(h[2:]), Cookie: be.Uint64(h[4:])}
	q, ok := lookup(k.Cookie)
	if c.Extended {
		n = be.Uint64(h[20:])
		if off := be.Uint64(h[12:]); off != q.Off {
			return k, fmt.Errorf("chunk type %d repeats offset %d to a request at %d", k.Type, off, q.Off)
		}
	}
	if !ok || flags > 1 || n > 64<<20+8 {
		return k, fmt.Errorf("chunk type %d flags %#x of %d bytes to cookie %d (known: %v)", k.Type, flags, n, k.Cookie, ok)
	}
	p, err := c.bytes(int(n))
	if err != nil {
		return k, err
	}
	if err := k.parse(p, q, c); err != nil {
		return k, fmt.Errorf("chunk type %d of %d bytes to command %d: %w", k.Type, n, q.Cmd, err)
	}
	return k, nil
}

// parse takes the payload of a chunk apart.
func (k *Chunk) parse(p []byte, q Request, c *Client) error {
	switch {
	case k.Type == ChunkNone && len(p) == 0 && k.Last:
	case k.Type == ChunkOffsetData && len(p) >= 9 && q.Cmd == CmdRead:
		k.Off, k.Data = be.Uint64(p), p[8:]
		return k.inside(uint64(len(k.Data)), q)
	case k.Type == ChunkOffsetHole && len(p) == 12 && q.Cmd == CmdRead && q.Flags&DF == 0:
		k.Off, k.Hole = be.Uint64(p), be.Uint32(p[8:])
		return k.inside(uint64(k.Hole), q)
	case k.Type == ChunkBlockStatus && !c.Extended && q.Cmd == CmdBlockStatus && len(p) >= 12 && len(p)%8 == 4:
		k.ID = be.Uint32(p)
		for p = p[4:]; len(p) > 0; p = p[8:] {
			k.Extents = append(k.Extents, Extent{uint64(be.Uint32(p)), uint64(be.Uint32(p[4:]))})
		}
		return c.checkExtents(k, q)
	case k.Type == ChunkStatus64 && c.Extended && q.Cmd == CmdBlockStatus && len(p) >= 24 && len(p) == 8+16*int(be.Uint32(p[4:])):
		k.ID = be.Uint32(p)
		for p = p[8:]; len(p) > 0; p = p[16:] {
			k.Extents = append(k.Extents, Extent{be.Uint64(p), be.Uint64(p[8:])})
		}
		return c.checkExtents(k, q)
	case k.Type == ChunkError && len(p) >= 6 || k.Type == ChunkErrorOffset && len(p) >= 14:
		return k.failure(p)
	default:
		return errors.New("malformed or out of place")
	}
	return nil
}

// failure takes an error chunk apart.
func (k *Chunk) failure(p []byte) error {
	k.Errno = be.Uint32(p)
	n := int(be.Uint16(p[4:]))
	rest := len(p) - 6
	if k.Type == ChunkErrorOffset {
		rest -= 8
	}
	if n != rest || n > 4096 || !utf8.Valid(p[6:6+n]) {
		return fmt.Errorf("text of %d bytes in a chunk of %d, or no UTF-8", n, len(p))
	}
	k.Text = string(p[6 : 6+n])
	return checkErrno(k.Errno, false)
}

// inside says whether n bytes at the chunk's offset belong to q.
func (k *Chunk) inside(n uint64, q Request) error {
	if n == 0 || k.Off < q.Off || k.Off+n > q.Off+q.Len {
		return fmt.Errorf("%d bytes at %d are not in the request of %d at %d", n, k.Off, q.Len, q.Off)
	}
	return nil
}

// checkExtents says what is wrong with the extents told for q.
func (c *Client) checkExtents(k *Chunk, q Request) error {
	most, known := uint64(0), false
	for name, id := range c.Contexts {
		if id == k.ID {
			known, most = true, highest(name)
		}
	}
	if !known {
		return fmt.Errorf("a context id %d that was never given", k.ID)
	}
	extents, length := k.Extents, q.effect()
	if q.Flags&ReqOne != 0 && (len(extents) != 1 || extents[0].Len > length) {
		return fmt.Errorf("REQ_ONE got %v", extents)
	}
	if len(extents) > 1<<20 {
		return fmt.Errorf("%d extents", len(extents))
	}
	sum := uint64(0)
	for i, e := range extents {
		switch {
		case e.Len == 0 || e.Flags > most:
			return fmt.Errorf("extent %d is %v", i, e)
		case sum >= length:
			return fmt.Errorf("extent %d begins past the request", i)
		case i > 0 && extents[i-1].Flags == e.Flags:
			return fmt.Errorf("extents %d and %d should be one", i-1, i)
		}
		sum += e.Len
	}
	if sum > c.Size-q.Off {
		return fmt.Errorf("extents of %d bytes at %d of %d", sum, q.Off, c.Size)
	}
	return nil
}

// highest returns the highest state that a context has.
func highest(context string) uint64 {
	switch {
	case context == "base:allocation":
		return 3
	case context == "qemu:allocation-depth":
		return 1<<32 - 1
	}
	return 1
}

func checkErrno(e uint32, none bool) error {
	switch e {
	case EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN:
		return nil
	case 0:
		if none {
			return nil
		}
	}
	return fmt.Errorf("errno %d is not one of the protocol's", e)
}

// calls are the requests in flight of the cooked methods.
type calls struct {
	sending sync.Mutex // held while bytes go out
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]*call
	reading bool
	err     error // that ended the reader
}

type call struct {
	q       Request
	due     map[uint32]bool // contexts that a status chunk must come for
	main    uint32          // the one of Reply.Extents
	reply   Reply
	covered []bool // bytes of the read that have come
	err     error
	done    chan struct{}
}
