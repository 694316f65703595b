package decode

import "encoding/binary"

// slack is the most that the fast loop may write in one turn: two literals,
// the longest match, and what repeat writes past a match's end.
const slack = 2 + 258 + 16

// block decodes one block of codes to dst from op on. It returns where the
// output ends: at the block's end, or where dst is full.
func (f *Inflater) block(dst []byte, op int) (int, error) {
	op, end, err := f.fast(dst, op)
	if end || err != nil {
		return op, err
	}
	return f.careful(dst, op)
}

// fast decodes while there is so much input and room for output that neither
// must be looked at for each code. The state is in local variables, since the
// compiler keeps those in registers. Each turn looks its first code up in the bits
// that are there before it reads more, which takes longer; they are nearly always
// enough. Most matches are short: 16 bytes are copied at once, and what is too
// much is written over by what follows.
func (f *Inflater) fast(dst []byte, op int) (_ int, end bool, err error) {
	src, pos, bb, n, lit, dist := f.src, f.pos, f.bits, f.n, &f.lit, &f.dist
	for pos+8 <= len(src) && op+slack <= len(dst) {
		e, few := lit[bb&(1<<litBits-1)], n < litBits
		bb |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
		pos, n = pos+int((63-n)>>3), n|56
		if few {
			e = lit[bb&(1<<litBits-1)]
		}
		if e >= entryLiteral { // up to three literals for one refill
			dst[op] = byte(e >> 16)
			op++
			bb, n = bb>>(e&63), n-uint(e&63)
			if e = lit[bb&(1<<litBits-1)]; e >= entryLiteral {
				dst[op] = byte(e >> 16)
				op++
				bb, n = bb>>(e&63), n-uint(e&63)
				if e = lit[bb&(1<<litBits-1)]; e >= entryLiteral {
					dst[op] = byte(e >> 16)
					op++
					bb, n = bb>>(e&63), n-uint(e&63)
					continue
				}
			}
			if n < 48 { // what a match can take
				if pos+8 > len(src) {
					break
				}
				bb |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
				pos, n = pos+int((63-n)>>3), n|56
			}
		}
		if e&entrySpecial != 0 {
			if e&specialMask == specialSub {
				bb, n = bb>>litBits, n-litBits
				e = lit[e>>16+uint32(bb)&(1<<(e>>8&15)-1)]
			}
			if e >= entryLiteral || e&entrySpecial != 0 {
				bb, n = bb>>(e&63), n-uint(e&63)
				if e >= entryLiteral {
					dst[op] = byte(e >> 16)
					op++
					continue
				}
				if end = e&specialMask == specialEnd; end {
					break
				}
				return op, false, errDeflate("unknown code")
			}
		}
		length := int(e>>16) + int(bb&(1<<(e&63)-1)>>(e>>8&15))
		bb, n = bb>>(e&63), n-uint(e&63)
		d := dist[bb&(1<<distBits-1)]
		if d&entrySpecial != 0 {
			if d&specialMask == specialSub {
				bb, n = bb>>distBits, n-distBits
				d = dist[d>>16+uint32(bb)&(1<<(d>>8&15)-1)]
			}
			if d&entrySpecial != 0 {
				return op, false, errDeflate("unknown code")
			}
		}
		back := int(d>>16) + int(bb&(1<<(d&63)-1)>>(d>>8&15))
		bb, n = bb>>(d&63), n-uint(d&63)
		if back > op {
			return op, false, errDeflate("match before the start")
		}
		if back >= 16 {
			*(*[16]byte)(dst[op:]) = *(*[16]byte)(dst[op-back:])
			if length > 16 {
				repeat(dst[:op+length+16], op+16, back, length-16)
			}
		} else {
			repeat(dst[:op+length+16], op, back, length)
		}
		op += length
	}
	f.pos, f.bits, f.n = pos, bb&(1<<n-1), n
	return op, end, nil
}

// repeat copies length bytes to op from back before it. It may write up to 16
// bytes more, all within dst.
func repeat(dst []byte, op, back, length int) {
	from := op - back
	switch {
	case back >= 16:
		for end := op + length; op < end; op, from = op+16, from+16 {
			*(*[16]byte)(dst[op:]) = *(*[16]byte)(dst[from:])
		}
	case back >= 8:
		for end := op + length; op < end; op, from = op+8, from+8 {
			*(*[8]byte)(dst[op:]) = *(*[8]byte)(dst[from:])
		}
	case back == 1:
		run := uint64(dst[from]) * 0x0101010101010101
		for end := op + length; op < end; op += 8 {
			binary.LittleEndian.PutUint64(dst[op:], run)
		}
	default: // overlapping: what was copied is copied again, twice as much each time
		for length > 0 {
			n := min(length, op-from)
			copy(dst[op:op+n], dst[from:from+n])
			op += n
			length -= n
		}
	}
}

// careful decodes what is left near the end of src or dst.
func (f *Inflater) careful(dst []byte, op int) (int, error) {
	for op < len(dst) {
		e, length, ok := f.code(f.lit[:], litBits)
		if !ok {
			return op, errDeflate("unknown code or ends early")
		}
		if e >= entryLiteral {
			dst[op] = byte(e >> 16)
			op++
			continue
		}
		if e&entrySpecial != 0 {
			return op, nil
		}
		_, back, ok := f.code(f.dist[:], distBits)
		if !ok || back > op {
			return op, errDeflate("wrong match or ends early")
		}
		for end := min(op+length, len(dst)); op < end; op++ {
			dst[op] = dst[op-back]
		}
	}
	return op, nil
}

// code takes one code and its extra bits, and returns its entry and what it
// stands for. It fails at an unknown one and at the end of src.
func (f *Inflater) code(table []uint32, primary uint) (e uint32, value int, ok bool) {
	f.refill()
	e = table[f.bits&(1<<primary-1)]
	if e < entryLiteral && e&(entrySpecial|specialMask) == entrySpecial|specialSub {
		if f.n < primary {
			return 0, 0, false
		}
		f.bits >>= primary
		f.n -= primary
		e = table[e>>16+uint32(f.bits)&(1<<(e>>8&15)-1)]
	}
	if e < entryLiteral && e&(entrySpecial|specialMask) == entrySpecial|specialBad || uint(e&63) > f.n {
		return 0, 0, false
	}
	took := f.bits & (1<<(e&63) - 1)
	f.bits >>= e & 63
	f.n -= uint(e & 63)
	return e, int(e>>16) + int(took>>(e>>8&15)), true
}
