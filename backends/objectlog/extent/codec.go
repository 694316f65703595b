package extent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The format: magic, which ends with the version, then blocks, then one block
// without extents that ends the map. All fixed numbers are little-endian.
//
//	block:
//	  0  uint32  bytes of the body, at most maxBody
//	  4  uint32  extents in it, at most blockSize; 0 in the last block
//	  8          body
//	  …  uint32  CRC-32C of the number of the block (uint64, from 0), the two
//	             fields and the body
//
//	body of the last block: uint64, how many extents there were in all
//
//	body of others: one byte, a shift; then for each extent, in varints,
//	  the distance from the end of the one before (in this block; at first
//	  from 0), shifted right
//	  the length, shifted right, times 4, plus the kind (1 zero, 2 journal,
//	  3 segment)
//	  journal: position minus the one where the one before ended (zigzag)
//	  segment: number minus the one of the one before (zigzag), then if that
//	  is 0 the offset minus that where the one before ended (zigzag), else
//	  the offset
//
// The shift is of 0, 9 and 12 the greatest that loses nothing. What came
// before is nothing at the start of a block: so each can be read alone.
const (
	magic     = "PLTXMAP\x01"
	blockSize = 1024
	maxBody   = 1 + blockSize*4*binary.MaxVarintLen64
)

// ErrCorrupt is the error of an encoded map that is damaged or of a version
// that is not known here.
var ErrCorrupt = errors.New("corrupt extent map")

// table returns the CRC-32C table, which hash/crc32 makes once.
func table() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func blockSum(number uint64, head, body []byte) uint32 {
	var first [8]byte
	binary.LittleEndian.PutUint64(first[:], number)
	sum := crc32.Update(0, table(), first[:])
	return crc32.Update(crc32.Update(sum, table(), head), table(), body)
}

// before is what numbers are given relative to.
type before struct {
	end, pos, id, off int64
}

// after notes e.
func (b *before) after(e Extent) {
	b.end = e.End()
	switch e.Target.Kind() {
	case Journal:
		b.pos = e.Target.Pos() + e.Len
	case Segment:
		b.id, b.off = e.Target.Segment()
		b.off += e.Len
	}
}

// Encode writes m to w: about 6 bytes an extent, in blocks that have checksums.
// It needs a block of memory, 64 KiB.
func Encode(w io.Writer, m *Map) error {
	enc := encoder{w: w}
	if _, err := io.WriteString(w, magic); err != nil {
		return fmt.Errorf("encode extent map: %w", err)
	}
	block := make([]Extent, 0, blockSize)
	for e := range m.All() {
		if block = append(block, e); len(block) == blockSize {
			enc.block(block)
			block = block[:0]
		}
	}
	if len(block) > 0 {
		enc.block(block)
	}
	enc.write(0, binary.LittleEndian.AppendUint64(enc.body[:0], uint64(m.Len())))
	if enc.err != nil {
		return fmt.Errorf("encode extent map: %w", enc.err)
	}
	return nil
}

type encoder struct {
	w      io.Writer
	body   []byte
	whole  []byte
	number uint64
	err    error
}

func (enc *encoder) block(extents []Extent) {
	if enc.err != nil {
		return
	}
	var all int64
	for _, e := range extents {
		all |= e.Off | e.Len
	}
	shift := 0
	for _, s := range [2]int{9, 12} {
		if all&(1<<s-1) == 0 {
			shift = s
		}
	}
	body := append(enc.body[:0], byte(shift))
	var b before
	for _, e := range extents {
		kind := e.Target.Kind()
		body = binary.AppendUvarint(body, uint64(e.Off-b.end)>>shift)
		body = binary.AppendUvarint(body, uint64(e.Len)>>shift<<2|uint64(kind))
		switch kind {
		case Journal:
			body = binary.AppendVarint(body, e.Target.Pos()-b.pos)
		case Segment:
			id, off := e.Target.Segment()
			body = binary.AppendVarint(body, id-b.id)
			if id == b.id {
				body = binary.AppendVarint(body, off-b.off)
			} else {
				body = binary.AppendUvarint(body, uint64(off))
			}
		}
		b.after(e)
	}
	enc.body = body
	enc.write(len(extents), body)
}

func (enc *encoder) write(count int, body []byte) {
	if enc.err != nil {
		return
	}
	p := binary.LittleEndian.AppendUint32(enc.whole[:0], uint32(len(body)))
	p = binary.LittleEndian.AppendUint32(p, uint32(count))
	p = append(p, body...)
	p = binary.LittleEndian.AppendUint32(p, blockSum(enc.number, p[:8], body))
	enc.whole = p
	enc.number++
	_, enc.err = enc.w.Write(p)
}

// Decode reads what Encode wrote, and no byte more. A map with more than limit
// extents, or one that goes past size, is ErrCorrupt. Beside the map it needs a
// block of memory, 64 KiB.
func Decode(r io.Reader, size int64, limit int) (*Map, error) {
	m, err := decode(r, size, limit)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("it ends early: %w", ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("decode extent map: %w", err)
	}
	return m, nil
}

func decode(r io.Reader, size int64, limit int) (*Map, error) {
	var head [len(magic)]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if string(head[:]) != magic {
		return nil, fmt.Errorf("it begins with %q: %w", head[:], ErrCorrupt)
	}
	b := builder{edit: 1}
	body := make([]byte, 0, 4096)
	for number, total := uint64(0), 0; ; number++ {
		var count int
		var err error
		if body, count, err = readBlock(r, number, body); err != nil {
			return nil, err
		}
		if count == 0 {
			if len(body) != 8 || binary.LittleEndian.Uint64(body) != uint64(total) {
				return nil, fmt.Errorf("the number of extents is wrong: %w", ErrCorrupt)
			}
			return b.finish(), nil
		}
		if total += count; total > limit {
			return nil, fmt.Errorf("more than %d extents: %w", limit, ErrCorrupt)
		}
		if err := decodeBlock(&b, body, count); err != nil {
			return nil, err
		}
		if b.end > size {
			return nil, fmt.Errorf("an extent ends at %d of %d bytes: %w", b.end, size, ErrCorrupt)
		}
	}
}

// readBlock reads block number into the memory of body.
func readBlock(r io.Reader, number uint64, body []byte) (_ []byte, count int, _ error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	n, count := int(binary.LittleEndian.Uint32(head[:])), int(binary.LittleEndian.Uint32(head[4:]))
	if n > maxBody || count > blockSize {
		return nil, 0, fmt.Errorf("a block of %d extents in %d bytes: %w", count, n, ErrCorrupt)
	}
	body = append(body[:0], make([]byte, n)...)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, 0, err
	}
	var sum [4]byte
	if _, err := io.ReadFull(r, sum[:]); err != nil {
		return nil, 0, err
	}
	if binary.LittleEndian.Uint32(sum[:]) != blockSum(number, head[:], body) {
		return nil, 0, fmt.Errorf("block %d: the checksum is wrong: %w", number, ErrCorrupt)
	}
	return body, count, nil
}

func decodeBlock(to *builder, body []byte, count int) error {
	r := bytes.NewReader(body)
	shift, err := r.ReadByte()
	if err != nil || shift > 12 {
		return fmt.Errorf("the shift of a block: %w", ErrCorrupt)
	}
	var b before
	for range count {
		e, err := decodeExtent(r, &b, shift)
		if err != nil {
			return err
		}
		if err := to.add(e); err != nil {
			return err
		}
		b.after(e)
	}
	if r.Len() != 0 {
		return fmt.Errorf("%d bytes left in a block: %w", r.Len(), ErrCorrupt)
	}
	return nil
}

func decodeExtent(r *bytes.Reader, b *before, shift byte) (Extent, error) {
	gap, err := readUnsigned(r, shift)
	if err != nil {
		return Extent{}, err
	}
	n, err := binary.ReadUvarint(r)
	if err != nil || n>>2 > 1<<40 {
		return Extent{}, fmt.Errorf("the length of an extent: %w", ErrCorrupt)
	}
	e := Extent{Off: b.end + gap, Len: int64(n>>2) << shift}
	switch Kind(n & 3) {
	case Zero:
		e.Target = ZeroTarget()
	case Journal:
		pos, err := readRelative(r, b.pos, maxPos)
		if err != nil {
			return Extent{}, err
		}
		e.Target = JournalTarget(pos)
	case Segment:
		id, err := readRelative(r, b.id, MaxSegment)
		if err != nil {
			return Extent{}, err
		}
		var off int64
		if id == b.id {
			off, err = readRelative(r, b.off, MaxOffset)
		} else if off, err = readUnsigned(r, 0); err == nil && off > MaxOffset {
			err = fmt.Errorf("an offset of %d: %w", off, ErrCorrupt)
		}
		if err != nil {
			return Extent{}, err
		}
		e.Target = SegmentTarget(id, off)
	}
	return e, nil
}

// readUnsigned reads a number and shifts it left, below 2^61.
func readUnsigned(r *bytes.Reader, shift byte) (int64, error) {
	v, err := binary.ReadUvarint(r)
	if err != nil || v >= 1<<(61-shift) {
		return 0, fmt.Errorf("a number in a block: %w", ErrCorrupt)
	}
	return int64(v) << shift, nil
}

// readRelative reads a number that is relative to from and at most most.
func readRelative(r *bytes.Reader, from, most int64) (int64, error) {
	v, err := binary.ReadVarint(r)
	if err != nil || v < -from || v > most-from {
		return 0, fmt.Errorf("a number in a block: %w", ErrCorrupt)
	}
	return from + v, nil
}
