package decode

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

func deflate(t testing.TB, p []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(p)
	w.Close()
	return b.Bytes()
}

// sample is n bytes that compress about as programs do.
func sample(rng *rand.Rand, n int) []byte {
	p := make([]byte, 0, n+300)
	for len(p) < n {
		switch k := rng.IntN(4); {
		case k == 0 || len(p) < 20:
			for range rng.IntN(60) {
				p = append(p, byte(rng.IntN(256)))
			}
		case k == 1:
			p = append(p, bytes.Repeat([]byte{byte(rng.IntN(4))}, rng.IntN(200))...)
		default:
			from := rng.IntN(len(p))
			p = append(p, p[from:min(len(p), from+rng.IntN(80))]...)
		}
	}
	return p[:n]
}

func TestInflateEqualsStandardLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var f Inflater
	samples := 600
	if testing.Short() {
		samples = 60
	}
	for i := range samples {
		want := sample(rng, 1+rng.IntN(70000))
		src := deflate(t, want, []int{0, 1, 6, 9, flate.HuffmanOnly}[i%5])
		src = append(src, sample(rng, rng.IntN(30))...) // junk after the end does not matter
		got := make([]byte, len(want))
		if err := f.Inflate(got, src); err != nil {
			t.Fatalf("sample %d: %v", i, err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("sample %d: wrong bytes", i)
		}
		if err := f.Inflate(got[:len(got)/2], src); err != nil || !bytes.Equal(got[:len(got)/2], want[:len(got)/2]) {
			t.Fatalf("sample %d: a full buffer does not end it: %v", i, err)
		}
		if err := f.Inflate(make([]byte, len(want)+1), deflate(t, want, 6)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("sample %d: a short stream is accepted: %v", i, err)
		}
	}
}

// The fast loop must leave room for all that one turn can write: at every
// distance from the end, and nothing behind the end may change.
func TestInflateEnds(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var f Inflater
	for range 40 {
		var want []byte
		for len(want) < 1500 { // long matches after few literals
			for range rng.IntN(4) {
				want = append(want, byte(rng.IntN(256)))
			}
			if len(want) > 40 {
				from := len(want) - 17 - rng.IntN(20)
				for range 258 {
					want = append(want, want[from])
					from++
				}
			}
		}
		src := append(deflate(t, want, 9), make([]byte, 20)...)
		for n := len(want) - 600; n <= len(want); n++ {
			buf := make([]byte, n+64)
			if err := f.Inflate(buf[:n], src); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(buf[:n], want[:n]) || !bytes.Equal(buf[n:], make([]byte, 64)) {
				t.Fatalf("wrong bytes, or some behind the end, at %d", n)
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, level := range []int{0, 1, 9, flate.HuffmanOnly} {
		f.Add(deflate(f, sample(rng, 3000), level), uint16(3000))
	}
	f.Fuzz(func(t *testing.T, src []byte, n uint16) {
		var inf Inflater
		got, want := make([]byte, n), make([]byte, n)
		err := inf.Inflate(got, src)
		_, stdErr := io.ReadFull(flate.NewReader(bytes.NewReader(src)), want)
		if n > 0 && (err == nil) != (stdErr == nil) {
			t.Fatalf("ours %v, standard library %v", err, stdErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatal("bytes differ")
		}
	})
}

func TestCacheDecodesOnce(t *testing.T) {
	c := NewCache(1 << 20)
	var fills atomic.Int32
	started := make(chan struct{})
	release := make(chan struct{})
	fill := func(ctx context.Context, p []byte) error {
		if fills.Add(1) == 1 {
			close(started)
		}
		<-release
		for i := range p {
			p[i] = byte(i)
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			p := make([]byte, 10)
			if err := c.Fill(t.Context(), Key{Off: 7}, 1000, p, i, fill); err != nil || p[0] != byte(i) {
				t.Errorf("reader %d: %v, %v", i, p, err)
			}
		})
	}
	<-started
	close(release)
	wg.Wait()
	if fills.Load() != 1 || !c.Get(Key{Off: 7}, make([]byte, 4), 0) {
		t.Fatalf("decoded %d times", fills.Load())
	}
}

// One who gives up must not fail those who wait for it.
func TestCacheLeaderGivesUp(t *testing.T) {
	c := NewCache(1 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := c.Fill(ctx, Key{}, 512, make([]byte, 1), 0, func(ctx context.Context, p []byte) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("leader: %v", err)
		}
	})
	<-started
	wg.Go(func() {
		p := make([]byte, 1)
		err := c.Fill(t.Context(), Key{}, 512, p, 0, func(ctx context.Context, p []byte) error { p[0] = 9; return nil })
		if err != nil || p[0] != 9 {
			t.Errorf("waiter: %v %v", p, err)
		}
	})
	cancel()
	wg.Wait()
}

func TestCacheIsBounded(t *testing.T) {
	c := NewCache(64 << 10)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			p := make([]byte, 100)
			for range 5000 {
				k := Key{Off: rng.Int64N(300)}
				if !c.Get(k, p, 50) {
					err := c.Fill(t.Context(), k, 1024, p, 50, func(_ context.Context, b []byte) error {
						for i := range b {
							b[i] = byte(k.Off)
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
				if p[0] != byte(k.Off) || p[99] != byte(k.Off) {
					t.Errorf("cluster %d has bytes of %d", k.Off, p[0])
					return
				}
			}
		})
	}
	wg.Wait()
	var used int64
	for i := range c.shard {
		used += c.shard[i].used
	}
	if used > 64<<10 {
		t.Fatalf("%d bytes kept", used)
	}
}

func BenchmarkInflate(b *testing.B) {
	want := sample(rand.New(rand.NewPCG(1, 2)), 64<<10)
	src := deflate(b, want, 6)
	dst := make([]byte, len(want))
	var f Inflater
	b.SetBytes(int64(len(dst)))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Inflate(dst, src); err != nil {
			b.Fatal(err)
		}
	}
}
