package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

const (
	sector = 512
	path   = "d/a.qcow2"
)

// memory is a Reader on a slice.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), m.Size()); err != nil {
		return err
	}
	copy(p, m[off:])
	return nil
}

// stamp fills p with a pattern that tells which write it was, by sector.
func stamp(p []byte, id uint64) []byte {
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], id)
	}
	return p
}

// soak is n, and many times n for a soak test: PLATTER_SOAK=1.
func soak(n int) int {
	if os.Getenv("PLATTER_SOAK") != "" {
		return n * 40
	}
	return n
}

func newFS(t testing.TB) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
	if err := localfs.MkdirAll(fsys, "d"); err != nil {
		t.Fatal(err)
	}
	if err := fsys.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	return fsys
}

func mustCreate(t testing.TB, cfg Config) *Delta {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = path
	}
	d, err := Create(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustOpen(t testing.TB, cfg Config) *Delta {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = path
	}
	d, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// inspect audits a file as it is, without mending it.
func inspect(fsys localfs.FS, name string) (*audit, error) {
	cfg := Config{FS: fsys, Path: name}.defaults()
	f, err := fsys.Open(name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := newDelta(cfg, f, 0)
	length, err := localfs.Size(f)
	if err != nil {
		return nil, err
	}
	if err := d.readHeader(context.Background(), length); err != nil {
		return nil, err
	}
	a := &audit{d: d, length: length}
	return a, a.all(context.Background())
}

// sound is an error if the file has corruption in the sense of qemu-img check,
// or more clusters leaked than leaks.
func sound(fsys localfs.FS, name string, leaks int64) error {
	a, err := inspect(fsys, name)
	if err != nil {
		return err
	}
	if a.stale != "" {
		return fmt.Errorf("corrupt: %s", a.stale)
	}
	if a.leaks > leaks {
		return fmt.Errorf("%d clusters leaked, more than %d", a.leaks, leaks)
	}
	return nil
}

func same(ctx context.Context, r block.Reader, want []byte) error {
	got := make([]byte, len(want))
	if err := r.ReadAt(ctx, got, 0); err != nil {
		return err
	}
	if i := diff(got, want); i >= 0 {
		return fmt.Errorf("byte %d (cluster %d, sub %d) is %d, want %d", i, i>>clusterBits, i>>subBits&31, got[i], want[i])
	}
	for e, err := range block.Extents(ctx, r, 0, r.Size()) {
		if err != nil {
			return err
		}
		if e.Kind != block.Data && len(bytes.Trim(want[e.Off:e.End()], "\x00")) > 0 {
			return fmt.Errorf("extent %+v has data", e)
		}
	}
	return nil
}

func diff(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}
