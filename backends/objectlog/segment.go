package objectlog

import (
	"crypto/sha256"

	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// The format of a segment; DESIGN.md has it as a table.
const (
	segmentMagic = "PLTRSEG1"
	headerLen    = 192
	headerDigest = 160 // where the digest is
	entryLen     = 24
	partSize     = 64 << 10 // of payload, with a digest of its own
	payloadAlign = 512
	maxMeta      = 4 << 20 // bytes before the payload
	maxPayload   = 24 << 20
	kindData     = 0 // of an entry, in the upper two bits of its third word
	kindZero     = 1
	kindCopy     = 2
	kindShift    = 62
	copyShift    = 26 // of the source's number, above the offset in it
)

// A ref says which segment is meant and how to check that it is the one.
type ref struct {
	seq, epoch int64
	meta       int64 // bytes before the payload
	payload    int64 // bytes
	digest     digest
}

const refLen = 56

func (r ref) key(prefix string) string { return segmentKey(prefix, r.epoch, r.seq) }

func (r ref) append(p []byte) []byte {
	p = le.AppendUint64(p, uint64(r.seq))
	p = le.AppendUint64(p, uint64(r.epoch))
	p = le.AppendUint32(p, uint32(r.meta))
	p = le.AppendUint32(p, uint32(r.payload))
	return append(p, r.digest[:]...)
}

func (c *cursor) ref() ref {
	r := ref{seq: c.i64(), epoch: c.i64(), meta: c.u32(), payload: c.u32(), digest: c.digest()}
	if r.seq < 1 || r.seq > extent.MaxSegment || r.epoch < 1 || r.meta < headerLen || r.meta > maxMeta || r.payload > maxPayload {
		c.bad = true
	}
	return r
}

// An entry is one row of a segment's extent table: a range of the disk whose
// bytes are the next ones of the payload, or zero.
type entry struct {
	off, len int64
	kind     byte
	from     extent.Target // of kindCopy: where the bytes were copied from
}

// A header is what a segment says about itself.
type header struct {
	epoch, seq int64
	id         digest // of the overlay's ID
	prevEpoch  int64
	prevSeq    int64
	prev       digest
	size       int64 // of the disk
	journal    int64 // epoch of the journal
	upto       int64 // position in it up to which all is in here or in earlier segments
}

// parts is how many parts a payload of n bytes has.
func parts(n int64) int64 { return (n + partSize - 1) / partSize }

// metaLen is how long a segment is before its payload.
func metaLen(entries int, payload int64) int64 {
	n := headerLen + int64(entries)*entryLen + parts(payload)*sha256.Size
	return (n + payloadAlign - 1) &^ (payloadAlign - 1)
}

// encodeMeta fills object, whose payload is already behind meta bytes, with
// what stands before it, and returns how to refer to it.
func encodeMeta(object []byte, meta int64, h header, entries []entry) ref {
	payload := object[meta:]
	p := append(object[:0], segmentMagic...)
	for _, v := range []int64{h.epoch, h.seq} {
		p = le.AppendUint64(p, uint64(v))
	}
	p = append(p, h.id[:]...)
	p = le.AppendUint64(p, uint64(h.prevEpoch))
	p = le.AppendUint64(p, uint64(h.prevSeq))
	p = append(p, h.prev[:]...)
	for _, v := range []int64{h.size, h.journal, h.upto} {
		p = le.AppendUint64(p, uint64(v))
	}
	p = le.AppendUint32(p, uint32(len(entries)))
	p = le.AppendUint32(p, uint32(meta))
	p = le.AppendUint32(p, uint32(len(payload)))
	p = pad(p, headerLen)
	for _, e := range entries {
		p = le.AppendUint64(p, uint64(e.off))
		p = le.AppendUint64(p, uint64(e.len))
		word := uint64(e.kind) << kindShift
		if e.kind == kindCopy {
			seq, off := e.from.Segment()
			word |= uint64(seq)<<copyShift | uint64(off)
		}
		p = le.AppendUint64(p, word)
	}
	for i := int64(0); i < int64(len(payload)); i += partSize {
		sum := sha256.Sum256(payload[i:min(i+partSize, int64(len(payload)))])
		p = append(p, sum[:]...)
	}
	p = pad(p, int(meta))
	d := metaDigest(p)
	copy(object[headerDigest:], d[:])
	return ref{seq: h.seq, epoch: h.epoch, meta: meta, payload: int64(len(payload)), digest: d}
}

// pad lengthens p to n bytes with zeros.
func pad(p []byte, n int) []byte {
	from := len(p)
	p = p[:n]
	clear(p[from:])
	return p
}

// metaDigest is the digest of a segment: of all that stands before the
// payload, but for the digest itself. Digests of the payload are in there.
func metaDigest(meta []byte) (d digest) {
	h := sha256.New()
	h.Write(meta[:headerDigest])
	h.Write(meta[headerDigest+len(d):])
	h.Sum(d[:0])
	return d
}

// A meta is what a segment has before its payload, checked.
type meta struct {
	header
	entries []entry
	sums    []byte
}

// decodeMeta reads the first r.meta bytes of the segment r.
func decodeMeta(p []byte, r ref) (*meta, error) {
	if int64(len(p)) != r.meta || r.meta < headerLen {
		return nil, corrupt("segment %d: %d bytes before the payload, want %d", r.seq, len(p), r.meta)
	}
	if metaDigest(p) != r.digest {
		return nil, corrupt("segment %d: its digest is not the one that was committed", r.seq)
	}
	c := &cursor{p: p}
	magic := string(c.bytes(len(segmentMagic)))
	m := &meta{}
	m.epoch, m.seq, m.id = c.i64(), c.i64(), c.digest()
	m.prevEpoch, m.prevSeq, m.prev = c.i64(), c.i64(), c.digest()
	m.size, m.journal, m.upto = c.i64(), c.i64(), c.i64()
	count, length, payload := c.u32(), c.u32(), c.u32()
	if magic != segmentMagic || c.bad || m.epoch != r.epoch || m.seq != r.seq || length != r.meta || payload != r.payload {
		return nil, corrupt("segment %d of epoch %d: a header of something else", r.seq, r.epoch)
	}
	if count > maxMeta/entryLen || metaLen(int(count), payload) != length {
		return nil, corrupt("segment %d: %d entries do not fit", r.seq, count)
	}
	c.p = p[headerLen:]
	if err := m.decodeEntries(c, int(count), payload); err != nil {
		return nil, err
	}
	m.sums = c.bytes(int(parts(payload)) * sha256.Size)
	return m, nil
}

// decodeEntries reads the table: rows in order of the disk that do not overlap
// and take up the payload exactly.
func (m *meta) decodeEntries(c *cursor, count int, payload int64) error {
	m.entries = make([]entry, 0, count)
	var end, sum int64
	for range count {
		e := entry{off: c.i64(), len: c.i64()}
		word := uint64(0)
		if b := c.bytes(8); b != nil {
			word = le.Uint64(b)
		}
		e.kind = byte(word >> kindShift)
		word &= 1<<kindShift - 1
		switch {
		case e.kind == kindCopy:
			seq := int64(word >> copyShift)
			if seq < 1 || seq >= m.seq {
				return corrupt("segment %d: bytes copied from segment %d", m.seq, seq)
			}
			e.from = extent.SegmentTarget(seq, int64(word&(1<<copyShift-1)))
		case e.kind > kindCopy || word != 0:
			return corrupt("segment %d: an entry of an unknown kind", m.seq)
		}
		if c.bad || e.len < 1 || e.off < end || e.len > m.size-e.off {
			return corrupt("segment %d: entry %d+%d is out of order or outside the disk", m.seq, e.off, e.len)
		}
		end = e.off + e.len
		if e.kind != kindZero {
			if sum += e.len; sum > payload {
				break
			}
		}
		m.entries = append(m.entries, e)
	}
	if sum != payload {
		return corrupt("segment %d: its entries do not take up its payload", m.seq)
	}
	return nil
}
