package attach

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
)

// A script is a server that says what was written down before, whatever the
// client says.
type script struct {
	io.Reader
	heard bytes.Buffer
}

func (s *script) Write(p []byte) (int, error) { return s.heard.Write(p) }

func greeting(flags uint16) []byte {
	return be.AppendUint16(be.AppendUint64(be.AppendUint64(nil, magicInit), magicOption), flags)
}

func reply(kind uint32, data []byte) []byte {
	p := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicOptReply), optGo), kind)
	return append(be.AppendUint32(p, uint32(len(data))), data...)
}

func exportInfo(size uint64, flags uint16) []byte {
	return reply(repInfo, be.AppendUint16(be.AppendUint64(be.AppendUint16(nil, infoExport), size), flags))
}

func blockInfo(least, preferred, most uint32) []byte {
	p := be.AppendUint32(be.AppendUint16(nil, infoBlockSize), least)
	return reply(repInfo, be.AppendUint32(be.AppendUint32(p, preferred), most))
}

func TestHandshake(t *testing.T) {
	ack := reply(repAck, nil)
	good := exportInfo(1<<30, flagHasFlags|flagSendFlush)
	for _, c := range []struct {
		name string
		says [][]byte
		want export
		fail string // a part of the error
		is   error
	}{
		{name: "an export", says: [][]byte{greeting(3), good, blockInfo(1, 4096, 32<<20), ack, []byte("the kernel's")},
			want: export{1 << 30, 5, 1, 4096, 32 << 20}},
		{name: "sizes not told", says: [][]byte{greeting(1), good, ack}, want: export{size: 1 << 30, flags: 5}},
		{name: "other information", says: [][]byte{greeting(3), reply(repInfo, []byte{0, 1, 'n'}), reply(repInfo, nil), good, reply(77, []byte("x")), ack},
			want: export{size: 1 << 30, flags: 5}},

		{name: "silence", fail: "does not greet", is: io.ErrUnexpectedEOF},
		{name: "half a greeting", says: [][]byte{greeting(3)[:9]}, fail: "does not greet"},
		{name: "another protocol", says: [][]byte{[]byte("SSH-2.0-OpenSSH_9.2p1 Debian")}, fail: "no NBD server"},
		{name: "half magic", says: [][]byte{be.AppendUint64(nil, magicInit), []byte("NOTMAGIC\x00\x03")}, fail: "no NBD server"},
		{name: "before 2011", says: [][]byte{be.AppendUint64(be.AppendUint64(nil, magicInit), magicOld), make([]byte, 200)}, fail: "old form", is: errors.ErrUnsupported},
		{name: "not fixed", says: [][]byte{greeting(0)}, fail: "old form", is: errors.ErrUnsupported},
		{name: "no answer", says: [][]byte{greeting(3)}, fail: "does not answer", is: io.ErrUnexpectedEOF},
		{name: "half an answer", says: [][]byte{greeting(3), good[:25]}, fail: "cut short"},
		{name: "wrong magic", says: [][]byte{greeting(3), make([]byte, 20)}, fail: "makes no sense"},
		{name: "ack with data", says: [][]byte{greeting(3), good, reply(repAck, []byte("x"))}, fail: "makes no sense"},
		{name: "a long answer", says: [][]byte{greeting(3), append(reply(repInfo, nil)[:16], 0xff, 0xff, 0xff, 0xff)}, fail: "4294967295 bytes"},
		{name: "endless answers", says: [][]byte{greeting(3), bytes.Repeat(good, maxReplies+1)}, fail: "more than 32 replies"},
		{name: "no size", says: [][]byte{greeting(3), blockInfo(1, 4096, 1<<20), ack}, fail: "how large"},

		{name: "unknown", says: [][]byte{greeting(3), reply(repErrUnknown, []byte("say \"x\"\n"))}, fail: `no such export (the server says "say \"x\"\n")`, is: fs.ErrNotExist},
		{name: "not allowed", says: [][]byte{greeting(3), reply(repErrPolicy, nil)}, fail: "in use", is: fs.ErrPermission},
		{name: "stopping", says: [][]byte{greeting(3), reply(repErrShutdown, nil)}, fail: "try again", is: syscall.ESHUTDOWN},
		{name: "TLS only", says: [][]byte{greeting(3), reply(repErrTLSReqd, nil)}, fail: "nbd-client with -cacertfile", is: errors.ErrUnsupported},
		{name: "no GO", says: [][]byte{greeting(3), reply(repErrUnsup, nil)}, fail: "-no-optgo", is: errors.ErrUnsupported},
		{name: "another error", says: [][]byte{greeting(3), reply(1<<31+99, nil)}, fail: "error 2^31+99"},

		{name: "no flags", says: [][]byte{greeting(3), exportInfo(1<<20, 0), ack}, fail: "impossible flags"},
		{name: "too large", says: [][]byte{greeting(3), exportInfo(1<<63, 1), ack}, fail: "more than any disk"},
		{name: "empty", says: [][]byte{greeting(3), exportInfo(511, 1), ack}, fail: "less than one sector"},
		{name: "odd blocks", says: [][]byte{greeting(3), good, blockInfo(3, 4096, 1<<20), ack}, fail: "impossible block sizes"},
		{name: "no blocks", says: [][]byte{greeting(3), good, blockInfo(0, 0, 1<<20), ack}, fail: "impossible block sizes"},
		{name: "large blocks", says: [][]byte{greeting(3), good, blockInfo(64<<10, 64<<10, 1<<20), ack}, fail: "at most 4096", is: errors.ErrUnsupported},
		{name: "small requests", says: [][]byte{greeting(3), good, blockInfo(1, 4096, 64<<10), ack}, fail: "at most 65536", is: errors.ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := bytes.NewReader(bytes.Join(c.says, nil))
			got, err := handshake(&script{Reader: in}, "secret")
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

// FuzzHandshake lets a server say anything: the handshake ends, and what it
// takes for an export is one that a device can be made of.
func FuzzHandshake(f *testing.F) {
	ack := reply(repAck, nil)
	for _, says := range [][][]byte{
		{greeting(3), exportInfo(1<<30, 5), blockInfo(1, 4096, 32<<20), ack},
		{greeting(1), exportInfo(4097, 0xffff), ack},
		{greeting(3), reply(repErrUnknown, []byte("no"))},
		{greeting(3), exportInfo(1<<40, 1), blockInfo(4096, 4096, 1<<20), exportInfo(8, 1), ack},
		{[]byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
	} {
		f.Add(bytes.Join(says, nil))
	}
	f.Fuzz(func(t *testing.T, says []byte) {
		e, err := handshake(&script{Reader: bytes.NewReader(says)}, "x")
		if err != nil {
			return
		}
		if s := e.sectorSize(); s < 512 || s > 4096 || s&(s-1) != 0 {
			t.Errorf("sectors of %d bytes", s)
		}
		if e.bytes() == 0 || e.bytes()%e.sectorSize() != 0 || int64(e.bytes()) < 0 {
			t.Errorf("a device of %d bytes", e.bytes())
		}
		if !e.replaces(e) {
			t.Errorf("%+v does not replace itself", e)
		}
	})
}

func TestReplaces(t *testing.T) {
	old := export{size: 1 << 20, flags: flagHasFlags | flagSendFlush | flagSendTrim, minimum: 1}
	for _, c := range []struct {
		name   string
		change func(e *export)
		want   bool
	}{
		{"the same", func(e *export) {}, true},
		{"another size", func(e *export) { e.size -= 512 }, false},
		{"a new ability", func(e *export) { e.flags |= flagSendFUA }, true},
		{"what no kernel knows", func(e *export) { e.flags |= 1 << 10 }, true},
		{"an ability less", func(e *export) { e.flags &^= flagSendTrim }, false},
		{"read-only now", func(e *export) { e.flags |= flagReadOnly }, false},
		{"larger blocks", func(e *export) { e.minimum = 4096 }, false},
		{"blocks within a sector", func(e *export) { e.minimum = 512 }, true},
	} {
		e := old
		c.change(&e)
		if got := e.replaces(old); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// exports has one disk, called "disk".
type exports struct{ multi bool }

type zeros int64

func (z zeros) Size() int64 { return int64(z) }

func (z zeros) ReadAt(ctx context.Context, p []byte, off int64) error {
	clear(p)
	return block.CheckRange(off, int64(len(p)), int64(z))
}

func (x exports) Open(ctx context.Context, c nbd.Client, name string) (nbd.Export, error) {
	if name != "disk" {
		return nbd.Export{}, fs.ErrNotExist
	}
	return nbd.Export{Disk: zeros(1<<20 + 700), MultiConn: x.multi}, nil
}

func (x exports) List(ctx context.Context, c nbd.Client) iter.Seq2[nbd.Info, error] {
	return func(func(nbd.Info, error) bool) {}
}

// serve starts our server and says how it is reached.
func serve(t *testing.T, x exports) Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := nbd.New(nbd.Config{Exports: x})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
	return configured(t, Config{Network: "unix", Address: path, Export: "disk"})
}

func configured(t *testing.T, c Config) Config {
	t.Helper()
	c, err := c.prepare()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpen(t *testing.T) {
	cfg := serve(t, exports{multi: true})
	links, e, err := cfg.open(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(links)
	if len(links) != 3 || e.bytes() != 1<<20+512 || e.flags&flagReadOnly == 0 || e.flags&flagCanMultiConn == 0 {
		t.Errorf("%d connections to %+v", len(links), e)
	}
	if lost, err := dead(links); err != nil || len(lost) != 0 {
		t.Errorf("dead: %v, %v", lost, err)
	}
	// The kernel leaves a socket so.
	if err := syscall.Shutdown(int(links[1].Fd()), syscall.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if lost, err := dead(links); err != nil || len(lost) != 1 || lost[0] != 1 {
		t.Errorf("dead: %v, %v; want the second", lost, err)
	}

	cfg.Export = "other"
	if _, _, err := cfg.open(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown export: %v", err)
	}
}

func TestOpenOneOnly(t *testing.T) {
	cfg := serve(t, exports{})
	links, _, err := cfg.open(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	closeAll(links)
	if _, _, err := cfg.open(t.Context(), 2); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("two connections: %v", err)
	}
}

// TestSilentServer dials one that takes connections and says nothing, or not
// enough.
func TestSilentServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for says := []byte(nil); ; says = greeting(3) {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write(says)
			defer c.Close()
		}
	}()
	cfg := configured(t, Config{Network: "unix", Address: path, HandshakeTimeout: 50 * time.Millisecond})
	for range 2 {
		start := time.Now()
		_, _, err := cfg.open(t.Context(), 1)
		if err == nil || !strings.Contains(err.Error(), "within 50ms") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := cfg.open(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	cfg.Address += "-not"
	if _, _, err := cfg.open(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is the gateway running") {
		t.Errorf("no server: %v", err)
	}
}
