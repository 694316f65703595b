package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// A memory is a disk in memory that knows which of its sectors were written.
type memory struct {
	mu      sync.RWMutex
	data    []byte
	kinds   []block.Kind // of each sector
	flushes atomic.Int64
	before  func(op string, off, n int64) error // asked before every call
}

const sector = 512

func newMemory(size int) *memory {
	m := &memory{data: make([]byte, size), kinds: make([]block.Kind, (size+sector-1)/sector)}
	for i := range m.kinds {
		m.kinds[i] = block.Absent
	}
	return m
}

func (m *memory) Size() int64 { return int64(len(m.data)) }

func (m *memory) ask(ctx context.Context, op string, off, n int64) error {
	if m.before != nil {
		if err := m.before(op, off, n); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return block.CheckRange(off, n, m.Size())
}

func (m *memory) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := m.ask(ctx, "read", off, int64(len(p))); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.data[off:])
	return nil
}

func (m *memory) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := m.ask(ctx, "write", off, int64(len(p))); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	m.mark(off, int64(len(p)), block.Data)
	return nil
}

func (m *memory) Flush(ctx context.Context) error {
	if err := m.ask(ctx, "flush", 0, 0); err != nil {
		return err
	}
	m.flushes.Add(1)
	return nil
}

func (m *memory) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	if err := m.ask(ctx, "zero", off, n); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	kind := block.Absent
	if mode.Keeps() {
		kind = block.Zero
	}
	// Only whole sectors change their kind.
	first, last := (off+sector-1)/sector, (off+n)/sector
	for i := first; i < last; i++ {
		m.kinds[i] = kind
	}
	return nil
}

func (m *memory) Discard(ctx context.Context, off, n int64) error {
	return m.Zero(ctx, off, n, block.ZeroAny)
}

func (m *memory) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := m.ask(ctx, "extent", off, n); err != nil {
		return block.Extent{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	kind, end := m.kinds[off/sector], off
	for end < off+n && m.kinds[end/sector] == kind {
		end = (end/sector + 1) * sector
	}
	return block.Extent{Off: off, Len: min(end, off+n) - off, Kind: kind}, nil
}

func (m *memory) mark(off, n int64, kind block.Kind) {
	for i := off / sector; n > 0 && i <= (off+n-1)/sector; i++ {
		m.kinds[i] = kind
	}
}

// readOnly hides that a disk can be written.
type readOnly struct{ d *memory }

func (r readOnly) Size() int64 { return r.d.Size() }
func (r readOnly) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.d.ReadAt(ctx, p, off)
}
func (r readOnly) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return r.d.Extent(ctx, off, n)
}

// exports is a fixed set of exports.
type exports struct {
	mu     sync.Mutex
	byName map[string]nbd.Export
	opened map[string]int
	open   int // how many are open now
	before func(ctx context.Context, name string) error
	seen   func(c nbd.Client)
	secure string // the export that wants TLS
}

func (x *exports) Open(ctx context.Context, c nbd.Client, name string) (nbd.Export, error) {
	if x.seen != nil {
		x.seen(c)
	}
	if x.secure != "" && x.secure == name && c.TLS == nil {
		return nbd.Export{}, fmt.Errorf("export %s: %w", name, nbd.ErrTLSRequired)
	}
	if x.before != nil {
		if err := x.before(ctx, name); err != nil {
			return nbd.Export{}, err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.byName[name]
	if !ok {
		return e, errors.Join(errors.New("no export of that name; LIST shows them"), fs.ErrNotExist)
	}
	if x.opened == nil {
		x.opened = map[string]int{}
	}
	x.opened[name]++
	x.open++
	e.Close = func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.open--
		return nil
	}
	return e, nil
}

func (x *exports) List(context.Context, nbd.Client) iter.Seq2[nbd.Info, error] {
	return func(yield func(nbd.Info, error) bool) {
		names := make([]string, 0, len(x.byName))
		for name := range x.byName {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if !yield(nbd.Info{Name: name, Description: x.byName[name].Description}, nil) {
				return
			}
		}
	}
}

func (x *exports) stillOpen() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.open
}

const diskSize = 8<<20 + 1536 // not a multiple of the preferred block size

// aServer is a running server and what it serves: "rw", "ro", "4k" and "".
type aServer struct {
	*nbd.Server
	exports *exports
	disk    *memory
	socket  string
}

// serve runs a server on a unix socket until the test ends.
func serve(t testing.TB, change ...func(*nbd.Config)) *aServer {
	t.Helper()
	disk := newMemory(diskSize)
	a := &aServer{disk: disk, exports: &exports{byName: map[string]nbd.Export{
		"":   {Disk: readOnly{disk}, Label: "default", MultiConn: true},
		"rw": {Disk: disk, Label: "rw", Description: "read and write", MultiConn: true},
		"ro": {Disk: readOnly{disk}, Label: "ro", Description: "only reading ☺"},
		"4k": {Disk: disk, Label: "4k", MinBlock: 4096, PreferredBlock: 65536, MaxBlock: 1 << 20},
	}}}
	cfg := nbd.Config{Exports: a.exports}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if a.Server, err = nbd.New(cfg); err != nil {
		t.Fatal(err)
	}
	a.socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- a.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if n := a.exports.stillOpen(); n != 0 {
			t.Errorf("%d exports were never closed", n)
		}
	})
	return a
}

// dial returns a client that has greeted.
func (a *aServer) dial(t testing.TB) *nbdtest.Client {
	t.Helper()
	c, err := nbdtest.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	nc := c.Conn
	nc.SetDeadline(time.Now().Add(3 * time.Minute))
	t.Cleanup(func() { nc.Close() }) // and does not keep c
	return c
}

// enter returns a client in an export, with structured replies and contexts.
func (a *aServer) enter(t testing.TB, name string) *nbdtest.Client {
	t.Helper()
	c := a.dial(t)
	if err := c.Enter(name); err != nil {
		t.Fatal(err)
	}
	return c
}

// extended returns a client in an export, with extended headers and all
// contexts.
func (a *aServer) extended(t testing.TB, name string) *nbdtest.Client {
	t.Helper()
	c := a.dial(t)
	if err := c.EnterExtended(name); err != nil {
		t.Fatal(err)
	}
	return c
}

// simple returns a client in an export, without structured replies.
func (a *aServer) simple(t testing.TB, name string) *nbdtest.Client {
	t.Helper()
	c := a.dial(t)
	if _, err := c.Go(name); err != nil {
		t.Fatal(err)
	}
	return c
}

// alive fails the test if the server does not serve a newcomer.
func (a *aServer) alive(t testing.TB) {
	t.Helper()
	c := a.enter(t, "ro")
	if _, err := c.Read(0, 4096, 0); err != nil {
		t.Fatalf("a newcomer is not served: %v", err)
	}
	c.Close()
}

// pattern returns n bytes that are different everywhere.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ byte(i>>16)*17 ^ seed
	}
	return p
}

func mustEqual(t testing.TB, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Fatalf("%d bytes, want %d; they differ at %d", len(got), len(want), at)
	}
}

func want(t testing.TB, err error, errno uint32) {
	t.Helper()
	if got := nbdtest.Errno(err); got != errno {
		t.Fatalf("errno %d (%v), want %d", got, err, errno)
	}
}

// dialRaw returns a client that has not greeted yet.
func dialRaw(t testing.TB, a *aServer) *nbdtest.Client {
	t.Helper()
	nc, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(3 * time.Minute))
	t.Cleanup(func() { nc.Close() })
	return nbdtest.New(nc)
}
