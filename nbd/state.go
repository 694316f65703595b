package nbd

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"strings"
	"time"
)

// stateMagic begins the state of a connection that is handed over. Its last
// letter is the version: a server takes only the one that it makes.
const stateMagic = "NBDSTAT1"

// errState says that bytes are no state of a connection.
var errState = errors.New("its state was not made by Suspend of this version of the server, or is damaged; let its client connect again")

// A connState is what another server must know to go on with a connection.
type connState struct {
	name       string
	size       int64
	flags      uint16
	headers    headers
	agreed     bool
	minBlock   uint32
	maxPayload uint32
	contexts   []metaContext // without what they look at
	since      time.Time
	requests   int64
	read       int64
	written    int64
	failures   int64
	unread     []byte
}

// state describes the connection for another server.
func (c *conn) state() []byte {
	p := make([]byte, 0, 256+len(c.name)+len(c.in.ahead)+c.in.w-c.in.r)
	p = append(p, stateMagic...)
	p = appendText(p, c.name)
	p = be.AppendUint64(p, uint64(c.size))
	p = be.AppendUint16(p, c.flags)
	p = be.AppendUint16(p, uint16(c.headers))
	agreed := uint16(0)
	if c.agreed {
		agreed = 1
	}
	p = be.AppendUint16(p, agreed)
	p = be.AppendUint32(p, c.minBlock)
	p = be.AppendUint32(p, c.maxPayload)
	p = be.AppendUint16(p, uint16(len(c.contexts)))
	for _, m := range c.contexts {
		p = appendText(be.AppendUint32(p, m.id), m.name)
	}
	for _, n := range []int64{c.since.UnixNano(), c.requests.Load(), c.bytesRead.Load(), c.bytesWritten.Load(), c.failures.Load()} {
		p = be.AppendUint64(p, uint64(n))
	}
	p = be.AppendUint32(p, uint32(c.in.buffered()))
	p = append(append(p, c.in.buf[c.in.r:c.in.w]...), c.in.ahead...)
	return be.AppendUint32(p, checksum(p))
}

// checksum tells damaged bytes from others, not forged ones: who can hand over
// sockets is trusted.
func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func appendText(p []byte, text string) []byte {
	return append(be.AppendUint32(p, uint32(len(text))), text...)
}

// parseState reads what state has made. What it returns shares p's memory.
func parseState(p []byte) (*connState, error) {
	if len(p) < len(stateMagic)+4 || string(p[:len(stateMagic)]) != stateMagic {
		return nil, errState
	}
	body := p[:len(p)-4]
	if be.Uint32(p[len(body):]) != checksum(body) {
		return nil, errState
	}
	f := fields{rest: body[len(stateMagic):]}
	st := &connState{
		name: f.text(), size: int64(f.uint64()), flags: f.uint16(), headers: headers(min(f.uint16(), 255)),
		agreed: f.uint16() == 1, minBlock: f.uint32(), maxPayload: f.uint32(),
	}
	for n := f.uint16(); n > 0 && !f.bad; n-- {
		m := metaContext{id: f.uint32(), name: f.text()}
		switch {
		case m.name == contextAllocation:
			m.kind = kindAllocation
		case m.name == contextDepth:
			m.kind = kindDepth
		case strings.HasPrefix(m.name, contextBitmap):
			m.kind = kindBitmap
		default:
			return nil, fmt.Errorf("%w: context %q", errState, m.name)
		}
		st.contexts = append(st.contexts, m)
	}
	st.since = time.Unix(0, int64(f.uint64()))
	st.requests, st.read, st.written, st.failures = int64(f.uint64()), int64(f.uint64()), int64(f.uint64()), int64(f.uint64())
	st.unread = f.bytes(f.uint32())
	if f.bad || len(f.rest) > 0 || st.headers > headersExtended || st.size < 0 || len(st.contexts) > maxContexts ||
		bits.OnesCount32(st.minBlock) != 1 || st.maxPayload < st.minBlock || checkName(st.name) != nil {
		return nil, errState
	}
	return st, nil
}
