package delta

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// A machine does random things to a Delta and to a slice of bytes, and
// compares. Now and then it looks at the file as a stranger would.
type machine struct {
	fs    *crashfs.FS
	d     *Delta
	below memory
	want  []byte
	snaps map[string][]byte // over nothing
	alone []byte            // the disk without its base
	open  map[string]block.ReadCloser
	diffs map[string]*diffs
	quota int64
	id    byte
}

const modelSize = 4*clusterSize + 5000

func (m *machine) config() Config {
	return Config{FS: m.fs, Path: path, Size: modelSize, CacheSize: 1, Quota: m.quota}
}

func (m *machine) span(t *rapid.T) (int64, int64) {
	unit := rapid.SampledFrom([]int64{1, 512, subSize, clusterSize}).Draw(t, "unit")
	off := rapid.Int64Range(0, modelSize/unit).Draw(t, "off") * unit
	n := rapid.Int64Range(0, min((modelSize-off)/unit, 3*clusterSize/unit)).Draw(t, "n") * unit
	if rapid.IntRange(0, 9).Draw(t, "to the end") == 0 {
		n = modelSize - off
	}
	return off, n
}

// write does what f says, if there is space.
func (m *machine) write(t *rapid.T, err error, off, n int64, b byte) {
	if m.quota > 0 && errors.Is(err, errNoSpace) {
		// Old bytes, new bytes or both: take over what it is.
		m.adopt(t, off, n, b)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{m.want, m.alone} {
		for i := off; i < off+n; i++ {
			p[i] = b
		}
	}
}

func (m *machine) adopt(t *rapid.T, off, n int64, b byte) {
	got := make([]byte, n)
	if err := m.d.ReadOver(context.Background(), m.below, got, off); err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		if v != m.want[off+int64(i)] && v != b {
			t.Fatalf("byte %d is %d, neither old %d nor new %d", off+int64(i), v, m.want[off+int64(i)], b)
		}
	}
	copy(m.want[off:], got)
	if err := m.d.ReadAt(context.Background(), m.alone, 0); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Write(t *rapid.T) {
	off, n := m.span(t)
	m.id++
	p := make([]byte, n)
	for i := range p {
		p[i] = m.id
	}
	m.touch(off, n)
	m.write(t, m.d.WriteOver(context.Background(), m.below, p, off), off, n, m.id)
	m.coverUp(t, off, n)
}

func (m *machine) Zero(t *rapid.T) {
	off, n := m.span(t)
	mode := block.ZeroMode(rapid.IntRange(0, 2).Draw(t, "mode"))
	m.touch(off, n)
	m.write(t, m.d.ZeroOver(context.Background(), m.below, off, n, mode), off, n, 0)
	m.coverUp(t, off, n)
}

// coverUp brings alone up to date: what was copied from below has become part
// of the Delta.
func (m *machine) coverUp(t *rapid.T, off, n int64) {
	from, to := max(off&^(subSize-1), 0), min((off+n+2*subSize)&^(subSize-1), modelSize)
	if err := m.d.ReadAt(context.Background(), m.alone[from:to], from); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Discard(t *rapid.T) {
	off, n := m.span(t)
	m.touch(off, n)
	if err := m.d.Discard(context.Background(), off, n); err != nil {
		if m.quota > 0 && errors.Is(err, errNoSpace) {
			return
		}
		t.Fatal(err)
	}
	// What had data is zero, what had none is as before.
	if err := m.d.ReadAt(context.Background(), m.alone, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, n)
	if err := m.d.ReadOver(context.Background(), m.below, got, off); err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		if v != m.want[off+int64(i)] && v != 0 {
			t.Fatalf("byte %d is %d after discard, was %d", off+int64(i), v, m.want[off+int64(i)])
		}
	}
	copy(m.want[off:], got)
}

func (m *machine) Flush(t *rapid.T) {
	if err := m.d.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := sound(m.fs, path, 1<<60); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Snapshot(t *rapid.T) {
	id, err := m.d.Snapshot(context.Background(), rapid.StringN(0, 20, 60).Draw(t, "name"))
	if m.quota > 0 && errors.Is(err, errNoSpace) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.snaps[id] = slices.Clone(m.alone)
	m.diffs[id] = &diffs{want: slices.Clone(m.want), m: m.changes(t, id)}
	if m.open[id], err = m.d.OpenSnapshot(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if err := sound(m.fs, path, 0); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) DeleteSnapshot(t *rapid.T) {
	live := m.d.Snapshots()
	if len(live) == 0 {
		t.Skip("none")
	}
	id := rapid.SampledFrom(live).Draw(t, "snapshot").ID
	if r := m.open[id]; r != nil {
		if err := m.d.DeleteSnapshot(context.Background(), id); err == nil {
			t.Fatal("deleted while open")
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	delete(m.open, id)
	if err := m.d.DeleteSnapshot(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	delete(m.snaps, id)
	if _, err := m.diffs[id].m.Extent(context.Background(), 0, modelSize); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("changes since a snapshot that was deleted: ", err)
	}
	if _, err := m.d.Changes(context.Background(), id); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("changes since no snapshot: ", err)
	}
	delete(m.diffs, id)
	if err := sound(m.fs, path, 0); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Reopen(t *rapid.T) {
	clear(m.open)
	usage := m.d.Usage()
	if err := m.d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sound(m.fs, path, 0); err != nil {
		t.Fatal(err)
	}
	m.stranger(t)
	var err error
	if m.d, err = Open(context.Background(), m.config()); err != nil {
		t.Fatal(err)
	}
	for id, k := range m.diffs {
		k.m = m.changes(t, id)
	}
	if now := m.d.Usage(); now > usage || now < 0 {
		t.Fatalf("%d bytes used, after opening again %d", usage, now)
	}
}

// stranger reads the file with the reader that knows nothing of us.
func (m *machine) stranger(t *rapid.T) {
	ctx := context.Background()
	f, err := m.fs.Open(path, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := localfs.Size(f)
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(ctx, block.FromReaderAt(f, size))
	if err != nil {
		t.Fatal(err)
	}
	tail := make([]byte, -modelSize&511) // sizes are rounded up to sectors
	if err := same(ctx, img, append(slices.Clone(m.alone), tail...)); err != nil {
		t.Fatal("as read by package qcow2: ", err)
	}
	for id, want := range m.snaps {
		s, err := img.Snapshot(ctx, id)
		if err == nil {
			err = same(ctx, s, append(slices.Clone(want), tail...))
		}
		if err != nil {
			t.Fatalf("snapshot %s, as read by package qcow2: %v", id, err)
		}
	}
}

func (m *machine) Check(t *rapid.T) {
	got := make([]byte, modelSize)
	if err := m.d.ReadOver(context.Background(), m.below, got, 0); err != nil {
		t.Fatal(err)
	}
	if i := diff(got, m.want); i >= 0 {
		t.Fatalf("byte %d (cluster %d) is %d, want %d", i, i>>clusterBits, got[i], m.want[i])
	}
	if err := same(context.Background(), m.d, m.alone); err != nil {
		t.Fatal(err)
	}
	for id, want := range m.snaps {
		if r := m.open[id]; r != nil {
			if err := same(context.Background(), r, want); err != nil {
				t.Fatalf("snapshot %s: %v", id, err)
			}
		}
		m.diffs[id].check(t, m.want)
	}
}

func runModel(t *rapid.T, fsys *crashfs.FS, quota int64) {
	below := make(memory, modelSize)
	for i := range below {
		if i>>15&1 == 0 {
			below[i] = 255
		}
	}
	m := &machine{
		fs: fsys, below: below, want: slices.Clone(below), alone: make([]byte, modelSize),
		snaps: map[string][]byte{}, open: map[string]block.ReadCloser{}, diffs: map[string]*diffs{}, quota: quota,
	}
	var err error
	if m.d, err = Create(context.Background(), m.config()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.d.f.Close() }()
	t.Repeat(map[string]func(*rapid.T){
		"": m.Check, "write": m.Write, "write2": m.Write, "zero": m.Zero, "discard": m.Discard, "flush": m.Flush,
		"snapshot": m.Snapshot, "delete snapshot": m.DeleteSnapshot, "reopen": m.Reopen,
	})
}

func TestModel(t *testing.T) {
	for range soak(1) {
		rapid.Check(t, func(rt *rapid.T) { runModel(rt, newFS(t), 0) })
	}
}

func TestModelQuota(t *testing.T) {
	for range soak(1) {
		rapid.Check(t, func(rt *rapid.T) { runModel(rt, newFS(t), 7*clusterSize) })
	}
}
