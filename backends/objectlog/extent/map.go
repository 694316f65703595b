package extent

import (
	"errors"
	"io"
	"iter"
)

// A Kind says what a Target is.
type Kind uint8

// The kinds of targets.
const (
	Absent  Kind = iota // nowhere: not in the map
	Zero                // the bytes are zero
	Journal             // at a position of the journal
	Segment             // in a segment
)

// MaxSegment is the greatest number of a segment.
const MaxSegment = 1<<37 - 1

// MaxOffset is the greatest offset in a segment, in bytes.
const MaxOffset = 1<<25 - 1

// A Target is where the bytes of an extent begin. The zero Target is Absent.
type Target uint64

// ZeroTarget returns the Target of bytes that are zero.
func ZeroTarget() Target { return 0 }

// JournalTarget returns the Target of bytes at position pos of the journal, at
// most 1<<62 - 1.
func JournalTarget(pos int64) Target { return 0 }

// SegmentTarget returns the Target of bytes at offset off, at most MaxOffset,
// of segment id, at most MaxSegment.
func SegmentTarget(id, off int64) Target { return 0 }

// Kind returns what t is.
func (t Target) Kind() Kind { return 0 }

// Pos returns the position of a Journal target.
func (t Target) Pos() int64 { return 0 }

// Segment returns number and offset of a Segment target.
func (t Target) Segment() (id, off int64) { return 0, 0 }

// Add returns the Target n bytes on: of Zero and Absent, itself.
func (t Target) Add(n int64) Target { return 0 }

// An Extent is a run of bytes of the disk and where they are.
type Extent struct {
	Off, Len int64
	Target   Target
}

// End returns the disk offset just past the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// A Map maps disk ranges to targets.
type Map struct{}

// New returns an empty Map.
func New() *Map { return &Map{} }

// Insert makes e.Target the place of [e.Off, e.End()). displaced, unless nil,
// is called with each piece of an extent that this takes away, in order; it
// must not use the map. An extent whose target is Absent only takes away. An
// empty extent does nothing; a negative offset or length panics.
func (m *Map) Insert(e Extent, displaced func(Extent)) {}

// Move makes to the place of those bytes in [off, off+n) that are now at from,
// where from and to are the targets of off; all else stays. It is how bytes
// that were copied elsewhere, and may have been overwritten on the disk
// meanwhile, change places. moved, unless nil, is called with each piece that
// did, as it is now.
func (m *Map) Move(off, n int64, from, to Target, moved func(Extent)) {}

// At returns what is at off: the part from off on of the extent that covers
// it, or, up to the next extent or off+n, an Absent one. It does not go past
// off+n; n is at least 1.
func (m *Map) At(off, n int64) Extent { return Extent{} }

// Lookup yields what [off, off+n) consists of, without gaps: where no extent
// is, an Absent one. The map must not change meanwhile.
func (m *Map) Lookup(off, n int64) iter.Seq[Extent] { return func(func(Extent) bool) {} }

// All yields all extents in order of their offsets. The map must not change
// meanwhile.
func (m *Map) All() iter.Seq[Extent] { return func(func(Extent) bool) {} }

// Len returns the number of extents.
func (m *Map) Len() int { return 0 }

// Snapshot returns a Map of what m is now. Either can change without the other
// noticing.
func (m *Map) Snapshot() *Map { return &Map{} }

// Load returns the Map of extents that come in order and do not overlap, else
// an error. It is quicker and denser than to insert them.
func Load(extents iter.Seq[Extent]) (*Map, error) { return nil, errors.ErrUnsupported }

// Live counts, for each segment, the bytes that extents refer to.
type Live map[int64]int64

// Count returns how much of each segment m refers to.
func (m *Map) Count() Live { return nil }

// Add counts e, Sub takes it away; extents that are in no segment are not
// counted. A segment with nothing left is not in the map.
func (l Live) Add(e Extent) {}

// Sub takes e away.
func (l Live) Sub(e Extent) {}

// Encode writes m to w: about 6 bytes an extent, in blocks that have checksums.
// It needs a block of memory.
func Encode(w io.Writer, m *Map) error { return errors.ErrUnsupported }

// ErrCorrupt is the error of an encoded map that is damaged or of a version
// that is not known here.
var ErrCorrupt = errors.New("corrupt extent map")

// Decode reads what Encode wrote, and no byte more. A map with more than limit
// extents, or one that goes past size, is ErrCorrupt.
func Decode(r io.Reader, size int64, limit int) (*Map, error) { return nil, errors.ErrUnsupported }
