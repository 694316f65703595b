package decode

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Frames of every shape, with padding and other frames behind them, decode to
// the same bytes, by the fast way or not.
func TestZstdFrames(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	p := NewPool()
	for round := range 60 {
		want := sample(rng, 1+rng.IntN(300<<10))
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(round%2 == 0),
			zstd.WithSingleSegment(round%3 == 0), zstd.WithEncoderLevel(zstd.EncoderLevel(1+round%3)))
		if err != nil {
			t.Fatal(err)
		}
		src := w.EncodeAll(want, nil)
		if n := zstdFrame(src, len(want)); n != len(src) && (round%3 == 0 || len(want) > 256) {
			t.Fatalf("round %d: a frame of %d bytes is taken for one of %d", round, len(src), n)
		}
		padded := append(bytes.Clone(src), sample(rng, rng.IntN(600))...)
		two := append(w.EncodeAll(want[:len(want)/2], nil), w.EncodeAll(want[len(want)/2:], nil)...)
		for name, s := range map[string][]byte{"alone": src, "padded": padded, "in two": two} {
			got := make([]byte, len(want))
			if err := p.Zstd(got, s); err != nil {
				t.Fatalf("round %d, %s: %v", round, name, err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("round %d, %s: wrong bytes", round, name)
			}
			half := make([]byte, len(want)/2) // a full buffer ends it
			if err := p.Zstd(half, s); err != nil || !bytes.Equal(half, want[:len(half)]) {
				t.Fatalf("round %d, %s: the first half: %v", round, name, err)
			}
		}
		if err := p.Zstd(make([]byte, len(want)+1), src); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("round %d: a short stream is accepted: %v", round, err)
		}
	}
}

// FuzzZstd compares the fast way with the slow one.
func FuzzZstd(f *testing.F) {
	rng := rand.New(rand.NewPCG(11, 12))
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(w.EncodeAll(sample(rng, 3000), nil), uint16(3000))
	p, z := NewPool(), zstdStream{}
	f.Fuzz(func(t *testing.T, src []byte, n uint16) {
		got, want := make([]byte, n), make([]byte, n)
		err := p.Zstd(got, src)
		if slow := z.stream(want, src); slow == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%v, but the stream is good", err)
		}
	})
}

func BenchmarkZstd(b *testing.B) {
	want := sample(rand.New(rand.NewPCG(1, 2)), 64<<10)
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	src := w.EncodeAll(want, nil)
	p := NewPool()
	b.SetBytes(int64(len(want)))
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Zstd(want, src); err != nil {
			b.Fatal(err)
		}
	}
}
