package attach

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"math"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/client"
)

// TestCheck: what no device can be made of is refused, and of what is left one
// can be.
func TestCheck(t *testing.T) {
	good := export{Size: 1 << 30, Flags: client.FlagHasFlags, Minimum: 1, Preferred: 4096, Maximum: 32 << 20}
	for _, c := range []struct {
		name   string
		change func(e *export)
		bytes  int64  // of the device
		fail   string // a part of the error
		is     error
	}{
		{name: "an export", change: func(*export) {}, bytes: 1 << 30},
		{name: "sizes not told", change: func(e *export) { e.Minimum, e.Preferred, e.Maximum = 0, 0, 0 }, bytes: 1 << 30},
		{name: "half a sector more", change: func(e *export) { e.Size += 256 }, bytes: 1 << 30},
		{name: "half a large sector more", change: func(e *export) { e.Minimum, e.Size = 4096, e.Size+2048 }, bytes: 1 << 30},
		{name: "the largest", change: func(e *export) { e.Size = math.MaxInt64 }, bytes: math.MaxInt64 - 511},
		{name: "empty", change: func(e *export) { e.Size = 511 }, fail: "less than one sector"},
		{name: "large blocks", change: func(e *export) { e.Minimum, e.Preferred = 64<<10, 64<<10 }, fail: "at most 4096", is: errors.ErrUnsupported},
		{name: "small requests", change: func(e *export) { e.Maximum = 64 << 10 }, fail: "at most 65536", is: errors.ErrUnsupported},
	} {
		e := good
		c.change(&e)
		err := e.check()
		switch {
		case c.fail == "" && (err != nil || e.bytes() != c.bytes || !e.replaces(e)):
			t.Errorf("%s: a device of %d bytes, %v", c.name, e.bytes(), err)
		case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail) || c.is != nil && !errors.Is(err, c.is)):
			t.Errorf("%s: got %v, want an error with %q that is %v", c.name, err, c.fail, c.is)
		}
	}
}

func TestReplaces(t *testing.T) {
	old := export{Size: 1 << 20, Flags: client.FlagHasFlags | client.FlagSendFlush | client.FlagSendTrim, Minimum: 1}
	for _, c := range []struct {
		name   string
		change func(e *export)
		want   bool
	}{
		{"the same", func(e *export) {}, true},
		{"another size", func(e *export) { e.Size -= 512 }, false},
		{"a new ability", func(e *export) { e.Flags |= client.FlagSendFUA }, true},
		{"what no kernel knows", func(e *export) { e.Flags |= 1 << 10 }, true},
		{"an ability less", func(e *export) { e.Flags &^= client.FlagSendTrim }, false},
		{"read-only now", func(e *export) { e.Flags |= client.FlagReadOnly }, false},
		{"larger blocks", func(e *export) { e.Minimum = 4096 }, false},
		{"blocks within a sector", func(e *export) { e.Minimum = 512 }, true},
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
	if len(links) != 3 || e.bytes() != 1<<20+512 || e.Flags&client.FlagReadOnly == 0 || e.Flags&client.FlagCanMultiConn == 0 {
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
		for says := ""; ; says = "NBDMAGICIHAVEOPT\x00\x03" {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, says)
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
