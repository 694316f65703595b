package delta_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

func open(t testing.TB, cfg delta.Config) *delta.Delta {
	t.Helper()
	cfg.Path = filepath.Join(t.TempDir(), "a.qcow2")
	d, err := delta.Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		if i>>14&1 == 0 {
			p[i] = byte(i*7 + i>>9)
		}
	}
	return p
}

func reader(p []byte) block.Reader { return block.FromReaderAt(bytes.NewReader(p), int64(len(p))) }

func TestDevice(t *testing.T) {
	const size = 3<<20 + 1234
	for name, base := range map[string]int{"same": size, "shorter": 1<<20 + 77, "longer": 4 << 20, "none": 0} {
		for _, volatile := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				have := pattern(base)
				d := open(t, delta.Config{Size: size, CacheSize: 1, Volatile: volatile})
				want := make([]byte, size)
				copy(want, have)
				blocktest.TestDevice(t, overlay.New(reader(have), d), want)
			})
		}
	}
	t.Run("alone", func(t *testing.T) {
		blocktest.TestDevice(t, open(t, delta.Config{Size: size}), make([]byte, size))
	})
	t.Run("empty", func(t *testing.T) {
		blocktest.TestReader(t, open(t, delta.Config{}), nil)
	})
}

func TestSnapshotReader(t *testing.T) {
	d := open(t, delta.Config{Size: 2<<20 + 5})
	want := pattern(2<<20 + 5)
	if err := d.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	id, err := d.Snapshot(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.OpenSnapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := d.WriteAt(t.Context(), make([]byte, 1<<20), 3); err != nil {
		t.Fatal(err)
	}
	blocktest.TestReader(t, s, want)
}
