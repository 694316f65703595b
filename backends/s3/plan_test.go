package s3

import "testing"

func TestPlan(t *testing.T) {
	const unit, gib = defaultPart, 1 << 30
	for _, c := range []struct {
		size  int64
		parts int64
		units int // of the first
	}{
		{0, 0, 1}, {1, 1, 1}, {unit, 1, 1}, {unit + 1, 2, 1}, {156 * gib, 9984, 1}, {10_000 * unit, 10_000, 1},
		{10_000*unit + 1, 5_001, 2}, {1 << 40, 9363, 7}, {5 << 40, 9930, 33},
	} {
		p := planFor(c.size, unit)
		got := p.units(1)
		parts := (c.size + int64(got)*unit - 1) / (int64(got) * unit)
		if got != c.units || parts != c.parts {
			t.Errorf("%d bytes are %d parts of %d units, want %d of %d", c.size, parts, got, c.parts, c.units)
		}
	}
}

// TestPlanOfUnknownLength: all parts together hold the largest object, none is
// larger than S3 allows, and common images stay at one unit.
func TestPlanOfUnknownLength(t *testing.T) {
	p, total := planFor(-1, defaultPart), int64(0)
	for n := 1; n <= maxParts; n++ {
		units := p.units(n)
		if n > 1 && units < p.units(n-1) || int64(units)*defaultPart > 5<<30 {
			t.Fatalf("part %d has %d units", n, units)
		}
		if total += int64(units) * defaultPart; total <= 31<<30 && units > 1 {
			t.Fatalf("part %d, at %d bytes, has %d units already", n, total, units)
		}
	}
	if total < maxObject {
		t.Errorf("10,000 parts hold %d bytes, want %d", total, int64(maxObject))
	}
}
