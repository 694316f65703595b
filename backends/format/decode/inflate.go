package decode

import (
	"encoding/binary"
	"math/bits"
)

// An Inflater decompresses raw deflate streams of a known size, in one go:
// the output is its own window, so nothing is copied twice. That makes it
// about twice as fast as a decoder for streams of any length. It keeps only
// tables, and can be used again at once; by one goroutine at a time.
type Inflater struct {
	lit  [1<<litBits + litSecond]uint32
	dist [1<<distBits + distSecond]uint32
	lens [320]uint8

	src  []byte
	pos  int    // of the next byte in src that is not in bits
	bits uint64 // unread bits, the next one lowest
	n    uint   // how many of bits are valid
}

const (
	litBits  = 11 // looked up in one step; longer codes take a second table
	distBits = 8

	// All second tables together. A code has at most 15 bits, and two codes at
	// least begin with the bits of a second table: were it one, the code would
	// not be complete.
	litSecond  = 286 / 2 << (15 - litBits)
	distSecond = 30 / 2 << (15 - distBits)
)

// An entry of a table. The low byte is how many bits it takes, extra ones
// included; bits 8..11 are those of the code alone. The value, in 16..31, is a
// literal, or the least of a length or distance, to which the extra bits are
// added. A special entry has its kind in bits 12..13; if it leads to a second
// table, bits 8..11 are how many bits that is looked up by, and the value is
// where it begins.
const (
	entryLiteral = 1 << 31 // in tables of literals and lengths only
	entrySpecial = 1 << 15

	specialMask = 3 << 12
	specialSub  = 0 << 12
	specialEnd  = 1 << 12
	specialBad  = 2 << 12

	entryBad = entrySpecial | specialBad | 1
)

var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	codeOrder   = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// Inflate decompresses the stream at the start of src until dst is full. A
// stream that ends earlier is ErrCorrupt; one that goes on is not.
func (f *Inflater) Inflate(dst, src []byte) error {
	f.src, f.pos, f.bits, f.n = src, 0, 0, 0
	dst = dst[:len(dst):len(dst)] // what lies behind it belongs to others
	defer func() { f.src = nil }()
	for op := 0; op < len(dst); {
		head, ok := f.take(3)
		if !ok {
			return errDeflate("ends early")
		}
		var err error
		switch head >> 1 {
		case 0:
			op, err = f.stored(dst, op)
		case 1:
			f.fixed()
			op, err = f.block(dst, op)
		case 2:
			if err = f.dynamic(); err == nil {
				op, err = f.block(dst, op)
			}
		default:
			err = errDeflate("unknown block type")
		}
		if err != nil {
			return err
		}
		if head&1 == 1 && op < len(dst) {
			return errDeflate("ends early")
		}
	}
	return nil
}

func errDeflate(what string) error { return Corrupt("deflate stream: %s", what) }

// refill brings at least 57 bits together, or all that are left.
func (f *Inflater) refill() {
	if f.pos+8 <= len(f.src) {
		f.bits |= binary.LittleEndian.Uint64(f.src[f.pos:]) << f.n
		f.pos += int((63 - f.n) >> 3)
		f.n |= 56
		return
	}
	for f.n <= 56 && f.pos < len(f.src) {
		f.bits |= uint64(f.src[f.pos]) << f.n
		f.pos++
		f.n += 8
	}
}

func (f *Inflater) take(n uint) (uint64, bool) {
	if f.n < n {
		if f.refill(); f.n < n {
			return 0, false
		}
	}
	v := f.bits & (1<<n - 1)
	f.bits >>= n
	f.n -= n
	return v, true
}

func (f *Inflater) stored(dst []byte, op int) (int, error) {
	// Whole bytes that are already in bits go back to src.
	f.pos -= int(f.n >> 3)
	f.bits, f.n = 0, 0
	if f.pos+4 > len(f.src) {
		return op, errDeflate("ends early")
	}
	n := int(binary.LittleEndian.Uint16(f.src[f.pos:]))
	if n^int(binary.LittleEndian.Uint16(f.src[f.pos+2:])) != 0xffff {
		return op, errDeflate("stored block with a wrong length")
	}
	f.pos += 4
	n = min(n, len(dst)-op)
	if f.pos+n > len(f.src) {
		return op, errDeflate("ends early")
	}
	copy(dst[op:], f.src[f.pos:f.pos+n])
	f.pos += n
	return op + n, nil
}

func (f *Inflater) fixed() {
	lens := f.lens[:288]
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	build(f.lit[:], litBits, lens, literalEntry)
	dist := f.lens[:32]
	for i := range dist {
		dist[i] = 5
	}
	build(f.dist[:], distBits, dist, distEntry)
}

func (f *Inflater) dynamic() error {
	v, ok := f.take(14)
	if !ok {
		return errDeflate("ends early")
	}
	nlit, ndist, ncode := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if nlit > 286 || ndist > 30 {
		return errDeflate("too many codes")
	}
	var code [19]uint8
	for _, i := range codeOrder[:ncode] {
		v, ok := f.take(3)
		if !ok {
			return errDeflate("ends early")
		}
		code[i] = uint8(v)
	}
	if !build(f.dist[:], 7, code[:], codeEntry) {
		return errDeflate("wrong code lengths")
	}
	if err := f.lengths(nlit + ndist); err != nil {
		return err
	}
	if f.lens[256] == 0 {
		return errDeflate("block without an end")
	}
	if !build(f.lit[:], litBits, f.lens[:nlit], literalEntry) || !build(f.dist[:], distBits, f.lens[nlit:nlit+ndist], distEntry) {
		return errDeflate("wrong codes")
	}
	return nil
}

// lengths reads n code lengths into f.lens, themselves coded with the table
// that stands in f.dist.
func (f *Inflater) lengths(n int) error {
	for i := 0; i < n; {
		f.refill()
		e := f.dist[f.bits&127]
		if e&entrySpecial != 0 || uint(e&63) > f.n {
			return errDeflate("wrong code lengths")
		}
		f.bits >>= e & 63
		f.n -= uint(e & 63)
		symbol := e >> 16
		if symbol < 16 {
			f.lens[i] = uint8(symbol)
			i++
			continue
		}
		extra, base := [3]uint{2, 3, 7}[symbol-16], [3]int{3, 3, 11}[symbol-16]
		v, ok := f.take(extra)
		run := base + int(v)
		if !ok || run > n-i || symbol == 16 && i == 0 {
			return errDeflate("wrong code lengths")
		}
		var l uint8
		if symbol == 16 {
			l = f.lens[i-1]
		}
		for range run {
			f.lens[i] = l
			i++
		}
	}
	return nil
}

// literalEntry returns the entry of a literal or length; the bits of its code are
// still to be added. So do distEntry and codeEntry.
func literalEntry(symbol int) uint32 {
	switch {
	case symbol < 256:
		return entryLiteral | uint32(symbol)<<16
	case symbol == 256:
		return entrySpecial | specialEnd
	case symbol < 286:
		return uint32(lengthBase[symbol-257])<<16 | uint32(lengthExtra[symbol-257])
	}
	return entrySpecial | specialBad
}

func distEntry(symbol int) uint32 {
	switch {
	case symbol < 4:
		return uint32(symbol+1) << 16
	case symbol < 30:
		extra := uint32(symbol/2 - 1)
		return (uint32(2+symbol&1)<<extra+1)<<16 | extra
	}
	return entrySpecial | specialBad
}

func codeEntry(symbol int) uint32 { return uint32(symbol) << 16 }

// build fills a table of 1<<primary entries, and the second tables behind
// it, from code lengths. It reports whether the lengths make a prefix code:
// a complete one, or none or a single one of one bit.
func build(table []uint32, primary uint, lens []uint8, entry func(int) uint32) bool {
	var count [16]int
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	left, longest := 1, uint(0)
	for l := 1; l < 16; l++ {
		left = left<<1 - count[l]
		if left < 0 {
			return false
		}
		if count[l] > 0 {
			longest = uint(l)
		}
	}
	if left > 0 && longest > 1 {
		return false
	}
	for i := range table[:1<<primary] {
		table[i] = entryBad
	}
	var next [16]uint32
	for l := 1; l < 15; l++ {
		next[l+1] = (next[l] + uint32(count[l])) << 1
	}
	free := uint32(1) << primary
	for symbol, l := range lens {
		if l == 0 {
			continue
		}
		code := bits.Reverse32(next[l]) >> (32 - l)
		next[l]++
		free = place(table, primary, longest, free, uint(l), code, entry(symbol))
	}
	return true
}

// place puts the entry e of one code into the table, wherever the bits that
// follow the code do not matter. It returns where the next second table goes.
func place(table []uint32, primary, longest uint, free uint32, l uint, code, e uint32) uint32 {
	if l <= primary {
		e += uint32(l) * 0x101
		for i := code; i < 1<<primary; i += 1 << l {
			table[i] = e
		}
		return free
	}
	first := code & (1<<primary - 1)
	width := longest - primary
	if t := table[first]; t&(entryLiteral|entrySpecial|specialMask) != entrySpecial|specialSub {
		table[first] = entrySpecial | specialSub | uint32(primary) | uint32(width)<<8 | free<<16
		for i := range uint32(1) << width {
			table[free+i] = entryBad
		}
		free += 1 << width
	}
	sub := table[table[first]>>16:]
	e += uint32(l-primary) * 0x101
	for i := code >> primary; i < 1<<width; i += 1 << (l - primary) {
		sub[i] = e
	}
	return free
}
