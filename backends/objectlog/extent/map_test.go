package extent

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// check fails unless the tree is as it should be.
func check(t interface{ Fatalf(string, ...any) }, m *Map) {
	count := 0
	var end int64
	var visit func(in *inner, low, high int64)
	visit = func(in *inner, low, high int64) {
		if in.n < 1 || in.n > fanout {
			t.Fatalf("an inner node with %d children", in.n)
		}
		for i := range in.n {
			l, h := low, high
			if i > 0 {
				l = in.keys[i]
			}
			if i+1 < in.n {
				h = in.keys[i+1]
			}
			if l < low || h > high || l >= h {
				t.Fatalf("child %d of %d has [%d, %d) of [%d, %d)", i, in.n, l, h, low, high)
			}
			if in.height > 1 {
				if kid := in.kids[i].inner; kid.height != in.height-1 {
					t.Fatalf("height %d below %d", kid.height, in.height)
				}
				visit(in.kids[i].inner, l, h)
				continue
			}
			leaf := in.kids[i].leaf
			for k := range leaf.n {
				e := leaf.at(k)
				if e.Len <= 0 || e.Off < end || e.Off < l || e.End() > h || e.Target == 0 {
					t.Fatalf("extent %+v after %d in a leaf for [%d, %d)", e, end, l, h)
				}
				if k > 0 && joins(leaf.at(k-1), e) {
					t.Fatalf("%+v should be one with %+v", e, leaf.at(k-1))
				}
				end = e.End()
				count++
			}
		}
		for i := in.n; i < fanout; i++ {
			if in.kids[i] != (child{}) {
				t.Fatalf("an unused child that is kept")
			}
		}
	}
	visit(m.root, 0, math.MaxInt64)
	if count != m.Len() {
		t.Fatalf("Len = %d, there are %d", m.Len(), count)
	}
}

// A flat map is the model: the target of each unit of the disk.
type flat []Target

const unit = 512

func (f flat) insert(e Extent) (displaced flat) {
	displaced = slices.Clone(f[e.Off/unit : e.End()/unit])
	for i := range displaced {
		f[e.Off/unit+int64(i)] = e.Target.Add(int64(i) * unit)
	}
	return displaced
}

func (f flat) move(off, n int64, from, to Target) {
	for at := off; at < off+n; at += unit {
		if u := &f[at/unit]; *u != 0 && *u == from.Add(at-off) {
			*u = to.Add(at - off)
		}
	}
}

// spread writes extents, which must not overlap, into a flat map.
func spread(n int, off int64, extents ...Extent) flat {
	f := make(flat, n)
	for _, e := range extents {
		for at := e.Off; at < e.End(); at += unit {
			f[(at-off)/unit] = e.Target.Add(at - e.Off)
		}
	}
	return f
}

func (f flat) live() Live {
	l := make(Live)
	for i, u := range f {
		l.Add(Extent{int64(i), unit, u})
	}
	return l
}

// sameAs compares all ways of looking at m with the model.
func (f flat) sameAs(t interface{ Fatalf(string, ...any) }, m *Map) {
	check(t, m)
	if got := spread(len(f), 0, slices.Collect(m.All())...); !slices.Equal(got, f) {
		t.Fatalf("All differs from the model")
	}
	var at int64
	for e := range m.Lookup(0, int64(len(f))*unit) {
		if e.Off != at || e.Len < 1 {
			t.Fatalf("Lookup goes on with %+v at %d", e, at)
		}
		at = e.End()
	}
	if at != int64(len(f))*unit {
		t.Fatalf("Lookup ends at %d", at)
	}
	if got, want := fmt.Sprint(m.Count()), fmt.Sprint(f.live()); got != want {
		t.Fatalf("Count = %s, want %s", got, want)
	}
}

func target(kind, place int64) Target {
	switch kind {
	case 0:
		return ZeroTarget()
	case 1:
		return JournalTarget(place * unit)
	case 2:
		return 0
	}
	return SegmentTarget(place%7, (place*unit)%(1<<20))
}

// pair is a map with its model.
type pair struct {
	m    *Map
	f    flat
	live Live
}

func (p *pair) insert(t interface{ Fatalf(string, ...any) }, e Extent) {
	want := p.f.insert(e)
	var got []Extent
	end := e.Off
	p.m.Insert(e, func(d Extent) {
		if d.Off < end || d.End() > e.End() || d.Len < 1 || d.Target == 0 {
			t.Fatalf("displaced %+v after %d by %+v", d, end, e)
		}
		end = d.End()
		got = append(got, d)
		p.live.Sub(d)
	})
	p.live.Add(e)
	if !slices.Equal(spread(len(want), e.Off, got...), want) {
		t.Fatalf("%+v displaced %+v", e, got)
	}
}

func (p *pair) lookup(t interface{ Fatalf(string, ...any) }, off, n int64) {
	if got := spread(int(n/unit), off, slices.Collect(p.m.Lookup(off, n))...); !slices.Equal(got, p.f[off/unit:(off+n)/unit]) {
		t.Fatalf("Lookup of %d at %d differs from the model", n, off)
	}
	e := p.m.At(off, n)
	if e.Off != off || e.Len < 1 || e.Len > n || e.Target != p.f[off/unit] {
		t.Fatalf("At(%d, %d) = %+v, want %v", off, n, e, p.f[off/unit])
	}
}

func (p *pair) snapshot() *pair {
	live := make(Live)
	for k, v := range p.live {
		live[k] = v
	}
	return &pair{p.m.Snapshot(), slices.Clone(p.f), live}
}

func (p *pair) check(t interface{ Fatalf(string, ...any) }) {
	p.f.sameAs(t, p.m)
	if got, want := fmt.Sprint(p.live), fmt.Sprint(p.f.live()); got != want {
		t.Fatalf("live bytes by displacement are %s, want %s", got, want)
	}
}

func TestModelSmall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const units = 40
		all := []*pair{{New(), make(flat, units), make(Live)}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			p := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
			off := rapid.Int64Range(0, units-1).Draw(t, "off")
			n := rapid.Int64Range(1, units-off).Draw(t, "n")
			to := target(rapid.Int64Range(0, 3).Draw(t, "kind"), rapid.Int64Range(0, 20).Draw(t, "place"))
			switch rapid.IntRange(0, 6).Draw(t, "op") {
			case 0:
				if len(all) < 4 {
					all = append(all, p.snapshot())
				}
			case 1:
				from := p.f[off]
				if to.Kind() >= Journal && from.Kind() >= Journal {
					p.f.move(off*unit, n*unit, from, to)
					p.m.Move(off*unit, n*unit, from, to, func(e Extent) {
						p.live.Sub(Extent{e.Off, e.Len, from.Add(e.Off - off*unit)})
						p.live.Add(e)
					})
				}
			case 2:
				p.lookup(t, off*unit, n*unit)
			default:
				p.insert(t, Extent{off * unit, n * unit, to})
			}
		}
		for _, p := range all {
			p.check(t)
		}
	})
}

// TestModelDeep makes trees of several levels grow and shrink.
func TestModelDeep(t *testing.T) {
	const units = 60000
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 1))
		all := []*pair{{New(), make(flat, units), make(Live)}}
		for step := range 60000 {
			p := all[rng.IntN(len(all))]
			most := []int64{1, 1, 1, 4, 100, 3000}[rng.IntN(6)]
			if step/8000%2 == 0 {
				most = 1
			}
			off := rng.Int64N(units)
			n := 1 + rng.Int64N(min(most, units-off))
			switch k := rng.IntN(1000); {
			case k == 0 && step > 20000:
				if len(all) == 3 {
					all = slices.Delete(all, 1, 2)
				}
				all = append(all, p.snapshot())
			case k < 50:
				p.lookup(t, off*unit, n*unit)
			default:
				p.insert(t, Extent{off * unit, n * unit, target(rng.Int64N(4), rng.Int64N(1000))})
			}
			if step%10000 == 9999 {
				for _, p := range all {
					p.check(t)
				}
			}
		}
		for _, p := range all {
			p.insert(t, Extent{0, units * unit, 0})
			p.check(t)
			if p.m.Len() != 0 || p.m.root.height != 1 || p.m.root.n != 1 {
				t.Fatalf("an empty map has %d extents, height %d", p.m.Len(), p.m.root.height)
			}
		}
	}
}

func TestSequentialBecomesOne(t *testing.T) {
	m := New()
	rng := rand.New(rand.NewPCG(1, 1))
	const n = 100000
	for _, i := range rng.Perm(n) {
		m.Insert(Extent{int64(i) * 4096, 4096, JournalTarget(rng.Int64N(1<<40) * 2)}, nil)
	}
	if m.Len() < n*9/10 {
		t.Fatalf("%d extents", m.Len())
	}
	m.Insert(Extent{0, n * 4096, JournalTarget(1 << 20)}, nil)
	if m.Len() > 2 {
		t.Fatalf("one extent over all others is %d", m.Len())
	}
	check(t, m)

	m = New()
	for i := range int64(n) {
		m.Insert(Extent{i * 4096, 4096, SegmentTarget(i/1024, i%1024*4096)}, nil)
	}
	if want := (n + 1023) / 1024; m.Len() != want {
		t.Fatalf("%d extents, want %d", m.Len(), want)
	}
}

func TestLongExtents(t *testing.T) {
	const size = 1 << 46
	m := New()
	m.Insert(Extent{0, size, ZeroTarget()}, nil)
	m.Insert(Extent{1 << 40, 4096, JournalTarget(7)}, nil)
	m.Insert(Extent{1<<41 + 512, 1 << 40, 0}, nil)
	check(t, m)
	var zero, absent int64
	for e := range m.Lookup(0, size) {
		switch e.Target.Kind() {
		case Zero:
			zero += e.Len
		case Absent:
			absent += e.Len
		}
	}
	if absent != 1<<40 || zero != size-1<<40-4096 {
		t.Fatalf("%d zero, %d absent", zero, absent)
	}
	again, err := Load(m.All())
	if err != nil || again.Len() != m.Len() {
		t.Fatalf("Load of %d = %d, %v", m.Len(), again.Len(), err)
	}
}

func TestSegmentsDoNotJoin(t *testing.T) {
	m := New()
	m.Insert(Extent{0, 4096, SegmentTarget(5, MaxOffset+1-4096)}, nil)
	m.Insert(Extent{4096, 4096, SegmentTarget(6, 0)}, nil)
	if m.Len() != 2 {
		t.Fatalf("the end of a segment and the start of the next are one extent")
	}
}

func TestPanics(t *testing.T) {
	for name, e := range map[string]Extent{
		"negative offset": {-1, 10, ZeroTarget()},
		"negative length": {1, -1, ZeroTarget()},
		"overflow":        {math.MaxInt64 - 1, 2, ZeroTarget()},
		"segment's end":   {0, 2, SegmentTarget(0, MaxOffset)},
		"journal's end":   {0, 2, JournalTarget(maxPos)},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("Insert of %+v did not panic", e)
				}
			}()
			New().Insert(e, nil)
		})
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		t    Target
		want string
	}{
		{0, "absent"},
		{ZeroTarget().Add(9), "zero"},
		{JournalTarget(maxPos - 1).Add(1), "journal 4611686018427387903"},
		{SegmentTarget(MaxSegment, MaxOffset), "segment 68719476735+67108863"},
		{SegmentTarget(3, 4).Add(5), "segment 3+9"},
	} {
		if got := c.t.String(); got != c.want {
			t.Errorf("String = %q, want %q", got, c.want)
		}
	}
	if pos := JournalTarget(1 << 50).Pos(); pos != 1<<50 {
		t.Errorf("Pos = %d", pos)
	}
}

// TestSnapshotRace reads a snapshot while the map changes, for the race
// detector.
func TestSnapshotRace(t *testing.T) {
	m := New()
	rng := rand.New(rand.NewPCG(1, 1))
	change := func() {
		for range 2000 {
			m.Insert(Extent{rng.Int64N(5000) * 4096, 4096, JournalTarget(rng.Int64N(1<<40) * 2)}, nil)
		}
	}
	change()
	for range 5 {
		s := m.Snapshot()
		var want bytes.Buffer
		if err := Encode(&want, s); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			var got bytes.Buffer
			err := Encode(&got, s)
			if err == nil && !bytes.Equal(got.Bytes(), want.Bytes()) {
				err = fmt.Errorf("a snapshot changed")
			}
			done <- err
		}()
		change()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
