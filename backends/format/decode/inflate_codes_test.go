package decode

import (
	"bytes"
	"compress/flate"
	"io"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// A bitWriter writes a deflate stream.
type bitWriter struct {
	out  []byte
	bits uint64
	n    uint
}

func (w *bitWriter) put(v uint64, n uint) {
	w.bits |= v << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.out = append(w.out, byte(w.bits))
		w.bits >>= 8
	}
}

// codes gives each symbol the code that its length stands for, in the order of
// its bits in the stream.
func codes(lens []uint8) []uint64 {
	var count, next [17]uint64
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	for l := range 16 {
		next[l+1] = (next[l] + count[l]) << 1
	}
	list := make([]uint64, len(lens))
	for i, l := range lens {
		if l > 0 {
			list[i] = bits.Reverse64(next[l]) >> (64 - l)
			next[l]++
		}
	}
	return list
}

// lengths makes n code lengths that leave no code unused: the codes that go on
// behind a table's primary bits begin in k places, and the longest has 15 bits.
func lengths(rng *rand.Rand, n int, primary uint, k int) []uint8 {
	var lens []uint8
	for range k {
		lens = append(lens, uint8(primary)+1, uint8(primary)+1)
	}
	for last := len(lens) - 1; lens[last] < 15; last++ {
		lens[last]++
		lens = append(lens, lens[last])
	}
	long := len(lens)
	for rest := uint(1)<<primary - uint(k); rest > 0; rest &= rest - 1 {
		lens = append(lens, uint8(primary)-uint8(bits.TrailingZeros(rest)))
	}
	for len(lens) < n {
		if i := long + rng.IntN(len(lens)-long); lens[i] < uint8(primary) {
			lens[i]++
			lens = append(lens, lens[i])
		}
	}
	rng.Shuffle(n, func(i, j int) { lens[i], lens[j] = lens[j], lens[i] })
	return lens
}

// Writers that are not ours choose codes of any shape, up to the most second
// tables that there can be.
func TestInflateAnyCodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	var f Inflater
	for round := range 274 {
		lit, dist := lengths(rng, 286, litBits, 1+round/2), lengths(rng, 30, distBits, 1+round%8)
		src, want := block(rng, lit, dist)
		std := make([]byte, len(want))
		if _, err := io.ReadFull(flate.NewReader(bytes.NewReader(src)), std); err != nil || !bytes.Equal(std, want) {
			t.Fatalf("round %d: the test is wrong: %v", round, err)
		}
		got := make([]byte, len(want))
		if err := f.Inflate(got, src); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: wrong bytes", round)
		}
	}
}

// block is a stream of one block of random literals and matches in these
// codes, and what it stands for.
func block(rng *rand.Rand, lit, dist []uint8) (src, want []byte) {
	w := &bitWriter{}
	w.put(1|2<<1, 3) // last, dynamic
	w.put(uint64(len(lit)-257), 5)
	w.put(uint64(len(dist)-1), 5)
	w.put(15, 4)
	for _, i := range codeOrder { // lengths 0 to 15 in four bits each
		if i < 16 {
			w.put(4, 3)
		} else {
			w.put(0, 3)
		}
	}
	for _, l := range append(lit[:len(lit):len(lit)], dist...) {
		w.put(uint64(bits.Reverse8(l)>>4), 4)
	}
	litCodes, distCodes := codes(lit), codes(dist)
	for len(want) < 20000 {
		c := rng.IntN(285)
		if c == 256 || c > 256 && len(want) == 0 {
			continue
		}
		if c < 256 {
			w.put(litCodes[c], uint(lit[c]))
			want = append(want, byte(c))
			continue
		}
		d := rng.IntN(30)
		e := distEntry(d)
		extra := uint(e & 63)
		back := int(e>>16) + rng.IntN(1<<extra)
		if back > len(want) {
			continue
		}
		l := literalEntry(c)
		more := rng.IntN(1 << (l & 63))
		w.put(litCodes[c], uint(lit[c]))
		w.put(uint64(more), uint(l&63))
		w.put(distCodes[d], uint(dist[d]))
		w.put(uint64(back-int(e>>16)), extra)
		for range int(l>>16) + more {
			want = append(want, want[len(want)-back])
		}
	}
	w.put(litCodes[256], uint(lit[256]))
	w.put(0, 7)
	return w.out, want
}

// What panics on another goroutine must not end the process.
func TestEachPanics(t *testing.T) {
	p := NewPool()
	caught := func() (v any) {
		defer func() { v = recover() }()
		p.Each(50, func(i int) error {
			if i == 20 {
				panic("broken")
			}
			return nil
		})
		return nil
	}()
	if caught == nil {
		t.Error("a panic in a helper was lost")
	}
	if err := p.Each(3, func(int) error { return nil }); err != nil {
		t.Error(err)
	}
}
