package extent

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
)

const million = 1 << 20

// scattered makes a map of n extents of 4 KiB, written in random order, none
// next to its neighbour at the target.
func scattered(n int) *Map {
	rng := rand.New(rand.NewPCG(1, 1))
	m := New()
	for i, at := range rng.Perm(n) {
		m.Insert(Extent{int64(at) * 4096, 4096, SegmentTarget(int64(i/1000), int64(i%1000)*4160)}, nil)
	}
	return m
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func TestMemory(t *testing.T) {
	before := heap()
	m := scattered(million)
	random := float64(heap()-before) / float64(m.Len())
	again, err := Load(m.All())
	if err != nil {
		t.Fatal(err)
	}
	n := m.Len()
	runtime.KeepAlive(m)
	m = nil
	loaded := float64(heap()-before) / float64(n)
	runtime.KeepAlive(again)
	t.Logf("bytes per extent: %.1f written in random order, %.1f loaded", random, loaded)
	if random > 32 || loaded > 25 {
		t.Errorf("bytes per extent: %.1f written in random order, %.1f loaded; at most 32 and 25", random, loaded)
	}
}

func BenchmarkInsertOver(b *testing.B) {
	m := scattered(million)
	rng := rand.New(rand.NewPCG(2, 1))
	var pos int64
	var freed int64
	b.ReportAllocs()
	for b.Loop() {
		pos += 4160
		m.Insert(Extent{rng.Int64N(million) * 4096, 4096, JournalTarget(pos)}, func(e Extent) { freed += e.Len })
	}
}

func BenchmarkInsertAcross(b *testing.B) {
	m := scattered(million)
	rng := rand.New(rand.NewPCG(2, 1))
	var pos int64
	b.ReportAllocs()
	for b.Loop() {
		pos += 4160
		m.Insert(Extent{rng.Int64N(million*8-8) * 512, 4096, JournalTarget(pos)}, nil)
	}
}

func BenchmarkInsertSequential(b *testing.B) {
	m := New()
	var pos int64
	b.ReportAllocs()
	for b.Loop() {
		m.Insert(Extent{pos * 4096, 4096, JournalTarget(pos * 4160)}, nil)
		pos++
	}
}

func BenchmarkInsertAfterSnapshot(b *testing.B) {
	m := scattered(million)
	rng := rand.New(rand.NewPCG(2, 1))
	var pos int64
	b.ReportAllocs()
	for b.Loop() {
		m.Snapshot()
		pos += 4160
		m.Insert(Extent{rng.Int64N(million) * 4096, 4096, JournalTarget(pos)}, nil)
	}
}

func BenchmarkAt(b *testing.B) {
	m := scattered(million)
	rng := rand.New(rand.NewPCG(2, 1))
	b.ReportAllocs()
	for b.Loop() {
		if m.At(rng.Int64N(million)*4096, 4096).Target == 0 {
			b.Fatal("absent")
		}
	}
}

func BenchmarkLookup64K(b *testing.B) {
	m := scattered(million)
	rng := rand.New(rand.NewPCG(2, 1))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range m.Lookup(rng.Int64N(million-16)*4096, 64<<10) {
			n++
		}
		if n != 16 {
			b.Fatal(n)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	m := scattered(million)
	b.ReportAllocs()
	for b.Loop() {
		if err := Encode(io.Discard, m); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/million, "ns/extent")
}

func BenchmarkDecode(b *testing.B) {
	p := encoded(b, scattered(million))
	b.ReportAllocs()
	b.ReportMetric(float64(len(p))/million, "bytes/extent")
	for b.Loop() {
		if _, err := Decode(bytes.NewReader(p), 1<<40, million); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/million, "ns/extent")
}
