// Package trace remembers in which order an object was read for the first
// time, and reads it ahead in that order the next time.
//
// What a machine reads while it boots hardly changes from one boot to the
// next. A [Recorder] is a layer above the cache that writes down the first
// reads of an object for some minutes; [Merge] makes one [Trace] of many
// boots; [Replay] has whatever lies below fetch it ahead of the reader.
package trace

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// Grain is the unit of a Trace in bytes: ranges begin and end at multiples of
// it, but for the end of the object.
const Grain = 4 << 10

// Limits of a Trace.
const (
	MaxEncoded = 200 << 10 // bytes of an encoded one
	MaxBytes   = 1 << 30   // that it covers
	MaxBoots   = 8         // that are told apart
)

// A Range is a run of an object that was read.
type Range struct {
	Off, Len int64 // bytes
	Seen     int   // in about how many of the boots
}

// End returns the offset just past the range.
func (r Range) End() int64 { return r.Off + r.Len }

// A Trace is what the first reads of an object were, in order. No two ranges
// overlap.
type Trace struct {
	Size   int64 // of the object
	Boots  int   // how many were merged, up to MaxBoots
	Ranges []Range
}

// Bytes returns how many bytes the trace covers.
func (t Trace) Bytes() int64 {
	var sum int64
	for _, r := range t.Ranges {
		sum += r.Len
	}
	return sum
}

const (
	magic   = "PTRACE\x00\x01" // the last byte is the version
	seenLen = 4                // bits of a length that are Seen
)

// Encode returns t in its stored form, of at most MaxEncoded bytes: what was
// read last is left out if need be. The form is: magic; the size, the number
// of boots and that of ranges, as uvarints; for each range the distance in
// grains from the end of the one before, as a varint, and a uvarint of its
// length in grains shifted left by four bits and how often it was seen; the
// CRC-32C of all that in four bytes, little endian. Encode of a Trace without
// ranges is nil.
func (t Trace) Encode() []byte {
	var body []byte
	var n, last int64
	for _, r := range t.Ranges {
		first, grains := r.Off/Grain, (r.End()+Grain-1)/Grain-r.Off/Grain
		was := len(body)
		body = binary.AppendVarint(body, first-last)
		body = binary.AppendUvarint(body, uint64(grains)<<seenLen|uint64(r.Seen))
		if len(body) > MaxEncoded-64 {
			body = body[:was]
			break
		}
		last = first + grains
		n++
	}
	if n == 0 {
		return nil
	}
	b := []byte(magic)
	b = binary.AppendUvarint(b, uint64(t.Size))
	b = binary.AppendUvarint(b, uint64(t.Boots))
	b = binary.AppendUvarint(b, uint64(n))
	b = append(b, body...)
	return binary.LittleEndian.AppendUint32(b, crc(b))
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func corrupt(text string, args ...any) error {
	return fmt.Errorf("trace: %w", decode.Corrupt(text, args...))
}

// Decode reads what Encode wrote. Anything else is an error: the ranges of
// what it returns lie inside the object and do not overlap.
func Decode(data []byte) (Trace, error) {
	var t Trace
	if len(data) > MaxEncoded || len(data) < len(magic)+4 || string(data[:len(magic)]) != magic {
		return t, corrupt("%d bytes are no trace of this version", len(data))
	}
	end := len(data) - 4
	if crc(data[:end]) != binary.LittleEndian.Uint32(data[end:]) {
		return t, corrupt("the checksum is wrong")
	}
	d := decoder{b: data[len(magic):end]}
	size, boots, n := d.uvarint(), d.uvarint(), d.uvarint()
	if d.bad || size > 1<<62 || boots < 1 || boots > MaxBoots || n > uint64(len(d.b)) {
		return t, corrupt("a head of %d bytes, %d boots, %d ranges", size, boots, n)
	}
	t = Trace{Size: int64(size), Boots: int(boots), Ranges: make([]Range, 0, n)}
	var last int64
	for range n {
		delta, word := d.varint(), d.uvarint()
		first, grains := last+delta, int64(word>>seenLen)
		r := Range{Off: first * Grain, Len: grains * Grain, Seen: int(word & (1<<seenLen - 1))}
		if d.bad || first < 0 || first > t.Size/Grain || grains < 1 || grains > MaxBytes/Grain || r.Off >= t.Size ||
			r.End() >= t.Size+Grain || r.Seen < 1 || r.Seen > t.Boots {
			return Trace{}, corrupt("a range at %d of %d grains, seen %d times", first, grains, r.Seen)
		}
		r.Len = min(r.Len, t.Size-r.Off)
		t.Ranges = append(t.Ranges, r)
		last = first + grains
	}
	if len(d.b) > 0 {
		return Trace{}, corrupt("%d bytes too many", len(d.b))
	}
	if t.Bytes() > MaxBytes || overlap(t.Ranges) {
		return Trace{}, corrupt("ranges that overlap, or are too long")
	}
	return t, nil
}

func overlap(ranges []Range) bool {
	sorted := byOffset(ranges)
	for i := 1; i < len(sorted); i++ {
		if sorted[i].Off < sorted[i-1].End() {
			return true
		}
	}
	return false
}

func byOffset(ranges []Range) []Range {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	return sorted
}

// A decoder takes numbers off b. After one that is not whole it is bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) took(n int) {
	if n <= 0 {
		d.bad, n = true, len(d.b)
	}
	d.b = d.b[n:]
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.took(n)
	return v
}

// varint is bounded so that what it is added to cannot overflow.
func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.took(n)
	if v > 1<<50 || v < -1<<50 {
		d.bad = true
		return 0
	}
	return v
}
