package objectlog

import (
	"errors"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/overlay"
)

func TestDevice(t *testing.T) {
	for _, size := range []int64{1, 700, 200_001, 3 << 20} {
		r := newRig(t, size)
		l := r.create(t)
		blocktest.TestDevice(t, l, make([]byte, size))
		want := content(t, l)
		if err := l.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		blocktest.TestReader(t, l, want)
		id, err := l.Snapshot(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.OpenSnapshot(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		blocktest.TestReader(t, s, want)
		if err := errors.Join(s.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		l = r.open(t)
		blocktest.TestReader(t, l, want)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := r.leaks(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

var _ overlay.Delta = (*Log)(nil)
