package storetest

import (
	"strconv"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

// Benchmark measures a store: small objects, a long one by 1 MiB, and the
// reading of it.
func Benchmark(b *testing.B, open func(b *testing.B) backends.Store) {
	b.Run("create-4k", func(b *testing.B) { small(b, open(b)) })
	b.Run("write", func(b *testing.B) { long(b, open(b)) })
	b.Run("read", func(b *testing.B) {
		s := open(b)
		if err := Put(b.Context(), s, "k", -1, Bytes(1, 32<<20)); err != nil {
			b.Fatal(err)
		}
		r, err := s.Open(b.Context(), "k")
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		blocktest.Benchmark(b, r)
	})
}

func small(b *testing.B, s backends.Store) {
	data := Bytes(1, 4096)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if err := Put(b.Context(), s, strconv.Itoa(i), int64(len(data)), data); err != nil {
			b.Fatal(err)
		}
	}
}

func long(b *testing.B, s backends.Store) {
	data := Bytes(1, 1<<20)
	const n = 64
	b.SetBytes(n << 20)
	b.ReportAllocs()
	for b.Loop() {
		w, err := s.Create(b.Context(), "k", -1)
		if err != nil {
			b.Fatal(err)
		}
		for range n {
			if _, err := w.Write(data); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := s.Delete(b.Context(), "k"); err != nil {
			b.Fatal(err)
		}
	}
}
