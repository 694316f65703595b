//go:build integration

package integration

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
	"unicode/utf8"
)

// The numbers of the NBD protocol that the checks need. They are written down
// here once more, so that a mistake in the server's own table is found.
const (
	nbdMagic   = uint64(0x4e42444d41474943)
	nbdOption  = uint64(0x49484156454f5054)
	nbdReply   = uint64(0x0003e889045565a9)
	nbdRequest = uint32(0x25609513)
	nbdSimple  = uint32(0x67446698)
	nbdChunk   = uint32(0x668e33ef)

	nbdLongRequest = uint32(0x21e41c71)
	nbdLongChunk   = uint32(0x6e8a278c)

	oExportName, oAbort, oList, oStartTLS, oInfo, oGo, oStructured, oListMeta, oSetMeta, oExtended = 1, 2, 3, 5, 6, 7, 8, 9, 10, 11

	rAck, rServer, rInfo, rMeta                                    = 1, 2, 3, 4
	rUnsup, rPolicy, rInvalid, rPlatform, rUnknown, rShut, rTooBig = 1<<31 + 1, 1<<31 + 2, 1<<31 + 3, 1<<31 + 4, 1<<31 + 6, 1<<31 + 7, 1<<31 + 9
	rTLS, rLong                                                    = 1<<31 + 5, 1<<31 + 10

	cRead, cWrite, cDisc, cFlush, cTrim, cCache, cZero, cStatus = 0, 1, 2, 3, 4, 5, 6, 7

	fFUA, fNoHole, fDF, fReqOne, fFast, fPayload = 1, 2, 4, 8, 16, 32

	tHas, tReadOnly, tFlush, tFUA, tRotational, tTrim, tZeroes, tDF, tMulti, tResize, tCache, tFast, tPayload = 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096

	ePERM, eIO, eNOMEM, eINVAL, eNOSPC, eOVERFLOW, eNOTSUP, eSHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108
)

const most = 32 << 20 // the most that a request carries, to clients that did not ask

// peer speaks NBD byte for byte. Whatever the server must not say ends the
// test.
type peer struct {
	t          *testing.T
	c          net.Conn
	structured bool
	long       bool        // extended headers
	tls        *tls.Config // greet starts TLS
	size       uint64
	flags      uint16
	sent       map[uint64]ask
	last       uint64
}

// ask is a request.
type ask struct {
	flags, cmd uint16
	off, n     uint64
	payload    []byte
	cookie     uint64
}

// answer is all that came for a request.
type answer struct {
	errno   uint32
	text    string
	data    []byte
	chunks  int
	holes   []run
	extents []extent
	simple  bool
	done    bool
	covered int
}

type extent struct {
	n     uint64
	state uint32
}

func dialPeer(t *testing.T, network, addr string) *peer {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := &peer{t: t, c: c, sent: map[uint64]ask{}}
	p.patience(time.Minute)
	return p
}

func (p *peer) patience(d time.Duration) { p.c.SetDeadline(time.Now().Add(d)) }

// pack makes bytes of numbers, texts and bytes.
func pack(parts ...any) []byte {
	var b []byte
	for _, v := range parts {
		switch v := v.(type) {
		case []byte:
			b = append(b, v...)
		case string: // with its length before it
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		default:
			panic(fmt.Sprintf("pack %T", v))
		}
	}
	return b
}

// send writes, and does not mind when the server has closed: what it says is
// looked at elsewhere.
func (p *peer) send(parts ...any) { p.c.Write(pack(parts...)) }

func (p *peer) bytes(n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	if k, err := io.ReadFull(p.c, b); err != nil {
		p.t.Fatalf("after %d of %d bytes: %v", k, n, err)
	}
	return b
}

func (p *peer) u16() uint16 { p.t.Helper(); return binary.BigEndian.Uint16(p.bytes(2)) }
func (p *peer) u32() uint32 { p.t.Helper(); return binary.BigEndian.Uint32(p.bytes(4)) }
func (p *peer) u64() uint64 { p.t.Helper(); return binary.BigEndian.Uint64(p.bytes(8)) }

// closed wants the server to have closed without another byte, within
// seconds.
func (p *peer) closed() {
	p.t.Helper()
	p.patience(8 * time.Second)
	n, err := p.c.Read(make([]byte, 1))
	if n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("the server did not close: %d bytes, %v", n, err)
	}
}

// leave ends the connection in good order.
func (p *peer) leave() {
	p.t.Helper()
	p.begin(ask{cmd: cDisc})
	p.closed()
}

// greet reads the greeting and answers it, and starts TLS where that is the
// transport.
func (p *peer) greet(flags uint32) *peer {
	p.t.Helper()
	if m := p.u64(); m != nbdMagic {
		p.t.Fatalf("greeting %#x", m)
	}
	if m := p.u64(); m != nbdOption {
		p.t.Fatalf("greeting goes on with %#x", m)
	}
	if f := p.u16(); f != 3 {
		p.t.Fatalf("handshake flags %#x", f)
	}
	p.send(flags)
	if p.tls != nil {
		p.want(rAck, oStartTLS)
		c := tls.Client(p.c, p.tls)
		if err := c.Handshake(); err != nil {
			p.t.Fatalf("TLS: %v", err)
		}
		p.c = c
	}
	return p
}

// option sends an option.
func (p *peer) option(opt uint32, data ...any) {
	b := pack(data...)
	p.send(nbdOption, opt, uint32(len(b)), b)
}

// reply reads one reply to an option.
func (p *peer) reply(opt uint32) (kind uint32, data []byte) {
	p.t.Helper()
	if m := p.u64(); m != nbdReply {
		p.t.Fatalf("option %d: the reply begins with %#x: out of step", opt, m)
	}
	if o := p.u32(); o != opt {
		p.t.Fatalf("option %d: a reply to option %d", opt, o)
	}
	kind, n := p.u32(), p.u32()
	if n > 8200 {
		p.t.Fatalf("option %d: a reply of %d bytes", opt, n)
	}
	data = p.bytes(int(n))
	if kind == rAck && n > 0 {
		p.t.Fatalf("option %d: an ACK with data", opt)
	}
	if kind >= 1<<31 && (n > 4096 || !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0) {
		p.t.Fatalf("option %d: the text of the error is none: %q", opt, data)
	}
	return kind, data
}

// want sends an option and wants one reply of a kind, and nothing before it.
func (p *peer) want(kind, opt uint32, data ...any) []byte {
	p.t.Helper()
	p.option(opt, data...)
	got, text := p.reply(opt)
	if got != kind {
		p.t.Fatalf("option %d is answered %#x %q, want %#x", opt, got, text, kind)
	}
	if kind >= 1<<31 && len(text) == 0 {
		p.t.Fatalf("option %d is refused without a word", opt)
	}
	return text
}

// inStep wants the negotiation to go on as if nothing had happened.
func (p *peer) inStep() {
	p.t.Helper()
	p.want(rUnsup, 77)
}

// info is what INFO and GO tell.
type info struct {
	size           uint64
	flags          uint16
	name, text     string
	named          bool
	min, pref, max uint32
	kinds          []uint16
	refused        uint32
	why            string
}

// ask asks with INFO or GO.
func (p *peer) ask(opt uint32, name string, kinds ...uint16) info {
	p.t.Helper()
	data := pack(name, uint16(len(kinds)))
	for _, k := range kinds {
		data = pack(data, k)
	}
	p.option(opt, data)
	return p.told(opt)
}

// told reads the replies to INFO or GO.
func (p *peer) told(opt uint32) (i info) {
	p.t.Helper()
	for {
		kind, data := p.reply(opt)
		switch {
		case kind == rAck:
			if len(i.kinds) == 0 || i.size == 0 && i.flags == 0 {
				p.t.Fatalf("option %d: ACK without information about the export", opt)
			}
			return i
		case kind >= 1<<31:
			if len(i.kinds) > 0 {
				p.t.Fatalf("option %d: information before the refusal %q", opt, data)
			}
			i.refused, i.why = kind, string(data)
			return i
		case kind != rInfo || len(data) < 2:
			p.t.Fatalf("option %d: reply %d %x", opt, kind, data)
		}
		k := binary.BigEndian.Uint16(data)
		i.kinds = append(i.kinds, k)
		switch rest := data[2:]; {
		case k == 0 && len(rest) == 10:
			i.size, i.flags = binary.BigEndian.Uint64(rest), binary.BigEndian.Uint16(rest[8:])
		case k == 1:
			i.name, i.named = string(rest), true
		case k == 2:
			i.text = string(rest)
		case k == 3 && len(rest) == 12:
			i.min, i.pref, i.max = binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:]), binary.BigEndian.Uint32(rest[8:])
		default:
			p.t.Fatalf("option %d: information %d of %d bytes", opt, k, len(rest))
		}
	}
}

// enter goes to an export that must be there. Somebody else may just be
// leaving it.
func (p *peer) enter(name string, kinds ...uint16) info {
	p.t.Helper()
	i := p.ask(oGo, name, kinds...)
	if i.refused != 0 {
		p.t.Fatalf("GO %s: %#x %s", name, i.refused, i.why)
	}
	p.size, p.flags = i.size, i.flags
	return i
}

// full agrees on structured replies or extended headers and base:allocation,
// and enters.
func (p *peer) full(name string, long bool) *peer {
	p.t.Helper()
	p.greet(3)
	if long {
		p.lengthen()
	} else {
		p.structure()
	}
	p.setMeta(name, "base:allocation")
	p.enter(name)
	return p
}

func (p *peer) structure() {
	p.t.Helper()
	p.want(rAck, oStructured)
	p.structured = true
}

// lengthen agrees on extended headers.
func (p *peer) lengthen() {
	p.t.Helper()
	p.want(rAck, oExtended)
	p.long = true
}

// meta asks about contexts and returns their names and ids.
func (p *peer) meta(opt uint32, name string, queries ...string) map[string]uint32 {
	p.t.Helper()
	data := pack(name, uint32(len(queries)))
	for _, q := range queries {
		data = pack(data, q)
	}
	p.option(opt, data)
	got := map[string]uint32{}
	for {
		kind, data := p.reply(opt)
		if kind == rAck {
			return got
		}
		if kind != rMeta || len(data) < 5 {
			p.t.Fatalf("option %d: reply %#x %q", opt, kind, data)
		}
		name := string(data[4:])
		if _, twice := got[name]; twice {
			p.t.Fatalf("option %d: %s twice", opt, name)
		}
		got[name] = binary.BigEndian.Uint32(data)
	}
}

func (p *peer) setMeta(name string, queries ...string) map[string]uint32 {
	p.t.Helper()
	return p.meta(oSetMeta, name, queries...)
}

// begin sends requests in one piece.
func (p *peer) begin(asks ...ask) {
	var b []byte
	for i := range asks {
		b = append(b, p.wire(&asks[i])...)
	}
	p.c.Write(b)
}

// wire notes a request and returns it as bytes.
func (p *peer) wire(a *ask) []byte {
	if a.cmd == cWrite && a.n == 0 {
		a.n = uint64(len(a.payload))
	}
	if a.cookie == 0 {
		p.last++
		a.cookie = p.last * 0x9e3779b97f4a7c15
	}
	p.sent[a.cookie] = *a
	return append(p.head(a.flags, a.cmd, a.cookie, a.off, a.n), a.payload...)
}

// head is a request's header as it was agreed on. A write says that it has a
// payload.
func (p *peer) head(flags, cmd uint16, cookie, off, n uint64) []byte {
	if !p.long {
		return pack(nbdRequest, flags, cmd, cookie, off, uint32(n))
	}
	if cmd == cWrite {
		flags |= fPayload
	}
	return pack(nbdLongRequest, flags, cmd, cookie, off, n)
}

// stream sends requests while the caller reads replies, then does what end
// says. The caller waits for what it returns.
func (p *peer) stream(end func(), asks ...ask) (sent chan struct{}) {
	var b []byte
	for i := range asks {
		b = append(b, p.wire(&asks[i])...)
	}
	sent = make(chan struct{})
	go func() {
		defer close(sent)
		p.c.Write(b)
		end()
	}()
	return sent
}

// do sends a request and returns its answer.
func (p *peer) do(a ask) answer {
	p.t.Helper()
	p.begin(a)
	for cookie, got := range p.collect(1) {
		if a.cookie != 0 && cookie != a.cookie {
			p.t.Fatalf("cookie %#x came back as %#x", a.cookie, cookie)
		}
		return got
	}
	return answer{}
}

// fails wants a request to be refused with errno, and the connection to go
// on.
func (p *peer) fails(errno uint32, a ask) {
	p.t.Helper()
	if got := p.do(a); got.errno != errno {
		p.t.Errorf("command %d flags %#x of %d bytes at %d: errno %d %q, want %d", a.cmd, a.flags, a.n, a.off, got.errno, got.text, errno)
	}
	p.alive()
}

// works wants a request to succeed.
func (p *peer) works(a ask) answer {
	p.t.Helper()
	got := p.do(a)
	if got.errno != 0 {
		p.t.Fatalf("command %d flags %#x of %d bytes at %d: errno %d %q", a.cmd, a.flags, max(a.n, uint64(len(a.payload))), a.off, got.errno, got.text)
	}
	return got
}

// survives wants a request to be answered somehow, and the connection to go
// on.
func (p *peer) survives(a ask) answer {
	p.t.Helper()
	got := p.do(a)
	p.alive()
	return got
}

func (p *peer) read(off uint64, n int) []byte {
	p.t.Helper()
	return p.works(ask{cmd: cRead, off: off, n: uint64(n)}).data
}

func (p *peer) write(off uint64, data []byte, flags uint16) {
	p.t.Helper()
	p.works(ask{cmd: cWrite, flags: flags, off: off, payload: data})
}

func (p *peer) alive() {
	p.t.Helper()
	if n := len(p.read(0, 512)); n != 512 {
		p.t.Fatalf("a read of 512 bytes gave %d", n)
	}
}

// status returns the extents of a range.
func (p *peer) status(flags uint16, off, n uint64) []extent {
	p.t.Helper()
	return p.works(ask{cmd: cStatus, flags: flags, off: off, n: n}).extents
}
