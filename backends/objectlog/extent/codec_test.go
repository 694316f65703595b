package extent

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
)

// sample makes a map of n extents or fewer, as writes of whole sectors.
func sample(seed uint64, n int) *Map {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := New()
	for i := range n {
		e := Extent{rng.Int64N(int64(n)*4) * 512, (1 + rng.Int64N(8)) * 512, 0}
		switch rng.IntN(4) {
		case 0:
			e.Target = ZeroTarget()
		case 1:
			e.Target = JournalTarget(1<<40 + int64(i)*8192)
		default:
			e.Target = SegmentTarget(int64(i/1000), int64(i%1000)*4160)
		}
		m.Insert(e, nil)
	}
	return m
}

// joined returns the extents of m as they were if neighbours were never kept
// apart by the end of a leaf.
func joined(m *Map) (all []Extent) {
	for e := range m.All() {
		if n := len(all); n > 0 && joins(all[n-1], e) {
			all[n-1].Len += e.Len
			continue
		}
		all = append(all, e)
	}
	return all
}

func encoded(t testing.TB, m *Map) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1023, 1024, 1025, 50000} {
		m := sample(uint64(n), n)
		p := encoded(t, m)
		r := bytes.NewReader(append(slices.Clone(p), "more"...))
		got, err := Decode(iotest.OneByteReader(r), 1<<40, m.Len())
		if err != nil {
			t.Fatal(err)
		}
		check(t, got)
		if !slices.Equal(joined(got), joined(m)) {
			t.Fatalf("a map of %d is another one after decoding", n)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "more" {
			t.Errorf("Decode left %q of what follows", rest)
		}
		if n > 0 {
			t.Logf("%d extents: %.1f bytes each", m.Len(), float64(len(p))/float64(m.Len()))
		}
	}
}

func TestDecodedChanges(t *testing.T) {
	m, err := Decode(bytes.NewReader(encoded(t, sample(1, 20000))), 1<<40, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{m, spread(100000, 0, slices.Collect(m.All())...), m.Count()}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 50000 {
		off := rng.Int64N(90000)
		p.insert(t, Extent{off * unit, (1 + rng.Int64N(9)) * unit, target(rng.Int64N(4), rng.Int64N(1000))})
	}
	p.check(t)
}

func TestDecodeDamaged(t *testing.T) {
	m := sample(3, 3000)
	p := encoded(t, m)
	for i := range p {
		bad := slices.Clone(p)
		bad[i] ^= 1 << (i % 8)
		if _, err := Decode(bytes.NewReader(bad), 1<<40, 1<<20); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := Decode(bytes.NewReader(p[:i]), 1<<40, 1<<20); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := Decode(bytes.NewReader(p), 1<<40, m.Len()-1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("more extents than the limit: %v", err)
	}
	if _, err := Decode(bytes.NewReader(p), 512, 1<<20); !errors.Is(err, ErrCorrupt) {
		t.Errorf("extents past the end of the disk: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Decode(iotest.ErrReader(broken), 512, 1); !errors.Is(err, broken) || errors.Is(err, ErrCorrupt) {
		t.Errorf("a reader that fails: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 1, 20} {
		f.Add(encoded(f, sample(uint64(n), n)))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		// Most changes only break a checksum, so make them right.
		if len(p) > len(magic) {
			mend(p[len(magic):])
		}
		const size, limit = 1 << 50, 5000
		m, err := Decode(bytes.NewReader(p), size, limit)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		check(t, m)
		again, err := Decode(bytes.NewReader(encoded(t, m)), size, 1<<20)
		if err != nil || !slices.Equal(joined(again), joined(m)) {
			t.Fatalf("it decodes, but does not survive another round: %v", err)
		}
	})
}

// mend gives blocks their right checksums.
func mend(p []byte) {
	for number := uint64(0); len(p) >= 12; number++ {
		n := int(p[0]) | int(p[1])<<8
		if p[2] != 0 || p[3] != 0 || len(p) < 12+n {
			return
		}
		sum := blockSum(number, p[:8], p[8:8+n])
		for i := range 4 {
			p[8+n+i] = byte(sum >> (8 * i))
		}
		p = p[12+n:]
	}
}
