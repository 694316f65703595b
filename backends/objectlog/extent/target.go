package extent

import "fmt"

// A Kind says what a Target is.
type Kind uint8

// The kinds of targets.
const (
	Absent  Kind = iota // nowhere: not in the map
	Zero                // the bytes are zero
	Journal             // at a position of the journal
	Segment             // in a segment
)

const (
	kindShift = 62
	offBits   = 26

	maxPos = 1<<kindShift - 1
)

// MaxSegment is the greatest number of a segment.
const MaxSegment = 1<<(kindShift-offBits) - 1

// MaxOffset is the greatest offset in a segment, in bytes.
const MaxOffset = 1<<offBits - 1

// A Target is where the bytes of an extent begin. The zero Target is Absent.
// The kind is in the upper two bits; below is the position, or the number of
// the segment above 26 bits of offset. So where bytes follow each other, their
// targets differ by their distance.
type Target uint64

// ZeroTarget returns the Target of bytes that are zero.
func ZeroTarget() Target { return Target(Zero) << kindShift }

// JournalTarget returns the Target of bytes at position pos of the journal, at
// most 1<<62 - 1.
func JournalTarget(pos int64) Target {
	if pos < 0 || pos > maxPos {
		panic(fmt.Sprintf("extent: journal position %d", pos))
	}
	return Target(Journal)<<kindShift | Target(pos)
}

// SegmentTarget returns the Target of bytes at offset off, at most MaxOffset,
// of segment id, at most MaxSegment.
func SegmentTarget(id, off int64) Target {
	if id < 0 || id > MaxSegment || off < 0 || off > MaxOffset {
		panic(fmt.Sprintf("extent: offset %d of segment %d", off, id))
	}
	return Target(Segment)<<kindShift | Target(id)<<offBits | Target(off)
}

// Kind returns what t is.
func (t Target) Kind() Kind { return Kind(t >> kindShift) }

// Pos returns the position of a Journal target.
func (t Target) Pos() int64 { return int64(t & maxPos) }

// Segment returns number and offset of a Segment target.
func (t Target) Segment() (id, off int64) {
	return int64(t&maxPos) >> offBits, int64(t & MaxOffset)
}

// Add returns the Target n bytes on: of Zero and Absent, itself.
func (t Target) Add(n int64) Target {
	if t.Kind() < Journal {
		return t
	}
	return t + Target(n)
}

// continues tells whether the n bytes at a go on at b. A segment does not go
// on in the next one, whatever the numbers say.
func continues(a Target, n int64, b Target) bool {
	if a.Kind() == Segment && (a^b)>>offBits != 0 {
		return false
	}
	return a.Add(n) == b
}

// fits tells whether n bytes can be at t.
func (t Target) fits(n int64) bool {
	switch t.Kind() {
	case Journal:
		return n <= maxPos-t.Pos()+1
	case Segment:
		_, off := t.Segment()
		return n <= MaxOffset-off+1
	}
	return true
}

// String returns the target as a person would write it.
func (t Target) String() string {
	switch t.Kind() {
	case Zero:
		return "zero"
	case Journal:
		return fmt.Sprintf("journal %d", t.Pos())
	case Segment:
		id, off := t.Segment()
		return fmt.Sprintf("segment %d+%d", id, off)
	}
	return "absent"
}

// An Extent is a run of bytes of the disk and where they are.
type Extent struct {
	Off, Len int64
	Target   Target
}

// End returns the disk offset just past the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// from returns what is left of e when it begins at off, which is inside.
func (e Extent) from(off int64) Extent {
	return Extent{off, e.End() - off, e.Target.Add(off - e.Off)}
}

// until returns what is left of e when it ends at end, which is inside.
func (e Extent) until(end int64) Extent { return Extent{e.Off, end - e.Off, e.Target} }

// clip returns the part of e inside [off, end), which it touches.
func (e Extent) clip(off, end int64) Extent {
	if e.Off < off {
		e = e.from(off)
	}
	return e.until(min(e.End(), end))
}
