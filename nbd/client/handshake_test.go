package client

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
)

// A script is a server that says what was written down before, whatever the
// client says.
type script struct {
	net.Conn // nil: nothing else is called without a deadline
	io.Reader
}

func (s *script) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s *script) Write(p []byte) (int, error) { return len(p), nil }

func greeting(flags uint16) []byte {
	return be.AppendUint16(be.AppendUint64(be.AppendUint64(nil, magicInit), magicOption), flags)
}

func answer(kind uint32, data []byte) []byte {
	p := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicOptReply), optGo), kind)
	return append(be.AppendUint32(p, uint32(len(data))), data...)
}

func exportInfo(size uint64, flags uint16) []byte {
	return answer(repInfo, be.AppendUint16(be.AppendUint64(be.AppendUint16(nil, infoExport), size), flags))
}

func blockInfo(least, preferred, most uint32) []byte {
	p := be.AppendUint32(be.AppendUint16(nil, infoBlockSize), least)
	return answer(repInfo, be.AppendUint32(be.AppendUint32(p, preferred), most))
}

func TestHandshake(t *testing.T) {
	ack := answer(repAck, nil)
	good := exportInfo(1<<30, FlagHasFlags|FlagSendFlush)
	for _, c := range []struct {
		name string
		says [][]byte
		want Export
		fail string // a part of the error
		is   error
	}{
		{name: "an export", says: [][]byte{greeting(3), good, blockInfo(1, 4096, 32<<20), ack, []byte("the kernel's")},
			want: Export{1 << 30, 5, 1, 4096, 32 << 20}},
		{name: "sizes not told", says: [][]byte{greeting(1), good, ack}, want: Export{Size: 1 << 30, Flags: 5}},
		{name: "other information", says: [][]byte{greeting(3), answer(repInfo, []byte{0, 1, 'n'}), answer(repInfo, nil), good, answer(77, []byte("x")), ack},
			want: Export{Size: 1 << 30, Flags: 5}},

		{name: "silence", fail: "does not greet", is: io.ErrUnexpectedEOF},
		{name: "half a greeting", says: [][]byte{greeting(3)[:9]}, fail: "does not greet"},
		{name: "another protocol", says: [][]byte{[]byte("SSH-2.0-OpenSSH_9.2p1 Debian")}, fail: "no NBD server"},
		{name: "half magic", says: [][]byte{be.AppendUint64(nil, magicInit), []byte("NOTMAGIC\x00\x03")}, fail: "no NBD server"},
		{name: "before 2011", says: [][]byte{be.AppendUint64(be.AppendUint64(nil, magicInit), magicOld), make([]byte, 200)}, fail: "old form", is: errors.ErrUnsupported},
		{name: "not fixed", says: [][]byte{greeting(0)}, fail: "old form", is: errors.ErrUnsupported},
		{name: "no answer", says: [][]byte{greeting(3)}, fail: "does not answer", is: io.ErrUnexpectedEOF},
		{name: "half an answer", says: [][]byte{greeting(3), good[:25]}, fail: "cut short"},
		{name: "wrong magic", says: [][]byte{greeting(3), make([]byte, 20)}, fail: "makes no sense"},
		{name: "ack with data", says: [][]byte{greeting(3), good, answer(repAck, []byte("x"))}, fail: "makes no sense"},
		{name: "a long answer", says: [][]byte{greeting(3), append(answer(repInfo, nil)[:16], 0xff, 0xff, 0xff, 0xff)}, fail: "4294967295 bytes"},
		{name: "endless answers", says: [][]byte{greeting(3), bytes.Repeat(good, maxReplies+1)}, fail: "more than 32 replies"},
		{name: "no size", says: [][]byte{greeting(3), blockInfo(1, 4096, 1<<20), ack}, fail: "how large"},

		{name: "unknown", says: [][]byte{greeting(3), answer(repErrUnknown, []byte("say \"x\"\n"))}, fail: `no such export (the server says "say \"x\"\n")`, is: fs.ErrNotExist},
		{name: "not allowed", says: [][]byte{greeting(3), answer(repErrPolicy, nil)}, fail: "in use", is: fs.ErrPermission},
		{name: "stopping", says: [][]byte{greeting(3), answer(repErrShutdown, nil)}, fail: "try again", is: syscall.ESHUTDOWN},
		{name: "TLS only", says: [][]byte{greeting(3), answer(repErrTLSReqd, nil)}, fail: "use nbds://", is: ErrTLS},
		{name: "no GO", says: [][]byte{greeting(3), answer(repErrUnsup, nil)}, fail: "-no-optgo", is: errors.ErrUnsupported},
		{name: "another error", says: [][]byte{greeting(3), answer(1<<31+99, nil)}, fail: "error 2^31+99"},

		{name: "no flags", says: [][]byte{greeting(3), exportInfo(1<<20, 0), ack}, fail: "impossible flags"},
		{name: "too large", says: [][]byte{greeting(3), exportInfo(1<<63, 1), ack}, fail: "more than any disk"},
		{name: "odd blocks", says: [][]byte{greeting(3), good, blockInfo(3, 4096, 1<<20), ack}, fail: "impossible block sizes"},
		{name: "no largest block", says: [][]byte{greeting(3), good, blockInfo(777, 777, 0), ack}, fail: "impossible block sizes"},
		{name: "no blocks", says: [][]byte{greeting(3), good, blockInfo(0, 0, 1<<20), ack}, fail: "impossible block sizes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := bytes.NewReader(bytes.Join(c.says, nil))
			_, got, err := Handshake(&script{Reader: in}, Target{Export: "secret"}, nil)
			if c.fail == "" {
				if err != nil || got != c.want {
					t.Errorf("got %+v, %v; want %+v", got, err, c.want)
				}
				if strings.HasSuffix(string(bytes.Join(c.says, nil)), "kernel's") && in.Len() != 12 {
					t.Errorf("%d bytes are left for the kernel, of 12", in.Len())
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.fail) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want an error with %q that is %v", err, c.fail, c.is)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the name: %v", err)
			}
		})
	}
}

// FuzzServer says anything at all to a client, first in the handshake and then
// in answer to a read: neither may do more than fail.
func FuzzServer(f *testing.F) {
	ack, small := answer(repAck, nil), exportInfo(256, FlagHasFlags)
	simple := func(errno uint32, data int) []byte {
		p := be.AppendUint64(be.AppendUint32(be.AppendUint32(nil, magicSimple), errno), 1)
		return append(p, make([]byte, data)...)
	}
	for _, says := range [][][]byte{
		{greeting(3), exportInfo(1<<30, 5), blockInfo(1, 4096, 32<<20), ack},
		{greeting(1), exportInfo(4097, 0xffff), ack},
		{greeting(3), small, ack, simple(0, 512)},
		{greeting(3), small, ack, simple(5, 0)},
		{greeting(3), ack},
		{greeting(3), answer(repErrUnknown, []byte("no"))},
		{greeting(3), exportInfo(1<<40, 1), blockInfo(4096, 4096, 1<<20), exportInfo(8, 1), ack},
		{[]byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
	} {
		f.Add(bytes.Join(says, nil))
	}
	f.Fuzz(func(t *testing.T, says []byte) {
		nc, e, err := Handshake(&script{Reader: bytes.NewReader(says)}, Target{Export: "x"}, nil)
		if err != nil {
			return
		}
		if e.Size < 0 || e.Minimum > e.Preferred || e.Preferred > e.Maximum || e.Minimum&(e.Minimum-1) != 0 {
			t.Errorf("an export of %+v", e)
		}
		c := &Conn{nc: nc, size: e.Size}
		p := make([]byte, min(512, c.size))
		first := c.ReadAt(t.Context(), p, 0)
		if second := c.ReadAt(t.Context(), p, 0); c.broken != nil && first != nil && second == nil {
			t.Errorf("after %v a read works", first)
		}
	})
}
