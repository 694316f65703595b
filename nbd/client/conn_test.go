package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"iter"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// shelf has one export, and one that nobody may have.
type shelf struct{ data []byte }

func (s shelf) Open(_ context.Context, _ nbd.Client, name string) (nbd.Export, error) {
	switch name {
	case "disk":
		return nbd.Export{Disk: block.FromReaderAt(bytes.NewReader(s.data), int64(len(s.data)))}, nil
	case "secret":
		return nbd.Export{}, fs.ErrPermission
	}
	return nbd.Export{}, fs.ErrNotExist
}

func (shelf) List(context.Context, nbd.Client) iter.Seq2[nbd.Info, error] {
	return func(func(nbd.Info, error) bool) {}
}

// serve starts our server on a socket, or on a port of this machine with TLS,
// and returns its address.
func serve(t *testing.T, cfg nbd.Config) string {
	t.Helper()
	s, err := nbd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	network, addr := "unix", filepath.Join(t.TempDir(), "s")
	if cfg.TLS != nil {
		network, addr = "tcp", "127.0.0.1:0"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-done); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestRead(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	path := serve(t, nbd.Config{Exports: shelf{data}})
	target, err := ParseURI("nbd+unix:///disk?socket=" + path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Size() != int64(len(data)) {
		t.Errorf("size %d", c.Size())
	}
	for _, at := range []struct {
		off int64
		n   int
	}{{0, 1}, {7, 4096}, {100, 1 << 20}, {int64(len(data)) - 3, 3}} {
		p := make([]byte, at.n)
		if err := c.ReadAt(t.Context(), p, at.off); err != nil || !bytes.Equal(p, data[at.off:at.off+int64(at.n)]) {
			t.Errorf("read %+v: %v", at, err)
		}
	}
	if err := c.ReadAt(t.Context(), make([]byte, 2), int64(len(data))-1); !errors.Is(err, block.ErrBounds) {
		t.Errorf("read past the end: %v", err)
	}
	for name, want := range map[string]error{"nothing": fs.ErrNotExist, "secret": fs.ErrPermission} {
		target.Export = name
		if _, err := Dial(t.Context(), target, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.ReadAt(ctx, make([]byte, 1), 0); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("read after cancel: %v", err)
	}
}

// TestBadServers dials servers that stop at some point of the handshake, or
// never do.
func TestBadServers(t *testing.T) {
	info := answer(repInfo, nil)
	for name, c := range map[string]struct {
		says []byte
		want string
	}{
		"no NBD":     {[]byte(strings.Repeat("HTTP/1.1", 3)), "no NBD server"},
		"never ends": {append(greeting(3), bytes.Repeat(info, 1000)...), "more than 32 replies"},
		"hangs up":   {greeting(3), "does not answer"},
		"wants TLS":  {append(greeting(3), answer(repErrTLSReqd, nil)...), "wants TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				nc.Write(c.says)
				nc.(*net.UnixConn).CloseWrite()
				nc.SetReadDeadline(time.Now().Add(time.Minute))
				for buf := make([]byte, 1024); err == nil; {
					_, err = nc.Read(buf)
				}
			}()
			_, err = Dial(t.Context(), Target{Network: "unix", Address: l.Addr().String(), Export: "x"}, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestTLS reads over TLS from a server that takes nothing else.
func TestTLS(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 64)
	ca := nbdtest.NewAuthority(t, "an authority")
	target := Target{Network: "tcp", Export: "disk"}
	target.Address = serve(t, nbd.Config{Exports: shelf{data}, TLS: ca.Server(t, tls.NoClientCert), TLSRequired: true})
	if _, err := Dial(t.Context(), target, nil); !errors.Is(err, ErrTLS) {
		t.Errorf("without TLS: %v", err)
	}
	target.TLS, target.Host = true, "localhost"
	if _, err := Dial(t.Context(), target, nil); err == nil || !strings.Contains(err.Error(), "TLS with the server") {
		t.Errorf("from an authority that is not known: %v", err)
	}
	conf, err := LoadTLS(ca.Folder(t, "client", nbdtest.Subject{Name: "a client"}))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), target, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 100)
	if err := c.ReadAt(t.Context(), p, 10); err != nil || !bytes.Equal(p, data[10:110]) {
		t.Errorf("read: %v", err)
	}
	target.Network, target.Address = "unix", serve(t, nbd.Config{Exports: shelf{data}})
	if _, err := Dial(t.Context(), target, conf); err == nil || !strings.Contains(err.Error(), "refuses TLS") {
		t.Errorf("a server without TLS: %v", err)
	}
}

func TestParseURI(t *testing.T) {
	for in, want := range map[string]Target{
		"nbd://h/e":                            {"tcp", "h:10809", "h", false, "e"},
		"nbd://h:1/attach/a%20b":               {"tcp", "h:1", "h", false, "attach/a b"},
		"nbds://[::1]:5":                       {"tcp", "[::1]:5", "::1", true, ""},
		"nbd+unix:///overlay/x?socket=%2Fs%20": {"unix", "/s ", "", false, "overlay/x"},
	} {
		if got, err := ParseURI(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"http://h/e", "nbd:///e", "nbd+unix:///e", "nbd+vsock://2/e", "nbd://h:x/secret", "nbd://%zz/secret"} {
		if got, err := ParseURI(in); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}
