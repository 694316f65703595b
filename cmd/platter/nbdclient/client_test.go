package nbdclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
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

func serve(t *testing.T, data []byte) string {
	t.Helper()
	s, err := nbd.New(nbd.Config{Exports: shelf{data}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
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
	return path
}

func TestRead(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	path := serve(t, data)
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

// TestHostileServers: what a server says is bounded in size and time.
func TestHostileServers(t *testing.T) {
	hello := "NBDMAGICIHAVEOPT\x00\x03"
	reply := func(kind, n string) string { return "\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07" + kind + n }
	for name, c := range map[string]struct{ says, want string }{
		"no NBD":        {strings.Repeat("HTTP/1.1", 3), "no NBD server"},
		"old style":     {"NBDMAGICIHAVEOPT\x00\x00", "no NBD server"},
		"huge reply":    {hello + reply("\x00\x00\x00\x03", "\xff\xff\xff\xff"), "malformed"},
		"other option":  {hello + strings.Replace(reply("\x00\x00\x00\x01", "\x00\x00\x00\x00"), "\x07", "\x08", 1), "malformed"},
		"no size":       {hello + reply("\x00\x00\x00\x01", "\x00\x00\x00\x00"), "told no size"},
		"never ends":    {hello + strings.Repeat(reply("\x00\x00\x00\x03", "\x00\x00\x00\x00"), 1001), "come to an end"},
		"hangs up":      {hello, "no reply"},
		"wants TLS":     {hello + reply("\x80\x00\x00\x05", "\x00\x00\x00\x00"), "wants TLS"},
		"negative size": {hello + reply("\x00\x00\x00\x03", "\x00\x00\x00\x0c") + "\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x01" + reply("\x00\x00\x00\x01", "\x00\x00\x00\x00"), "told no size"},
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
				fmt.Fprint(nc, c.says)
				nc.(*net.UnixConn).CloseWrite()
				nc.SetReadDeadline(time.Now().Add(5 * time.Second))
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
