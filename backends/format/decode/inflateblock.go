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
// compiler keeps those in registers.
func (f *Inflater) fast(dst []byte, op int) (_ int, end bool, err error) {
	src, pos, bb, n := f.src, f.pos, f.bits, f.n
	lit, dist := &f.lit, &f.dist
loop:
	for pos+8 <= len(src) && op+slack <= len(dst) {
		bb |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e := lit[bb&(1<<litBits-1)]
		if e&kindMask == kindLiteral { // up to three literals for one refill
			dst[op] = byte(e >> 16)
			op++
			bb >>= e & 15
			n -= uint(e & 15)
			if e = lit[bb&(1<<litBits-1)]; e&kindMask == kindLiteral {
				dst[op] = byte(e >> 16)
				op++
				bb >>= e & 15
				n -= uint(e & 15)
				if e = lit[bb&(1<<litBits-1)]; e&kindMask == kindLiteral {
					dst[op] = byte(e >> 16)
					op++
					bb >>= e & 15
					n -= uint(e & 15)
					continue
				}
			}
			if n < 48 { // what a match can take
				if pos+8 > len(src) {
					break
				}
				bb |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
				pos += int((63 - n) >> 3)
				n |= 56
			}
		}
		if e&kindMask == kindSub {
			bb >>= litBits
			n -= litBits
			e = lit[e>>16+uint32(bb)&(1<<(e>>8&15)-1)]
		}
		bb >>= e & 15
		n -= uint(e & 15)
		switch e & kindMask {
		case kindLiteral:
			dst[op] = byte(e >> 16)
			op++
			continue
		case kindMatch:
		case kindEnd:
			end = true
			break loop
		default:
			return op, false, errDeflate("unknown code")
		}
		extra := e >> 8 & 15
		length := int(e>>16) + int(bb&(1<<extra-1))
		bb >>= extra
		n -= uint(extra)
		e = dist[bb&(1<<distBits-1)]
		if e&kindMask == kindSub {
			bb >>= distBits
			n -= distBits
			e = dist[e>>16+uint32(bb)&(1<<(e>>8&15)-1)]
		}
		bb >>= e & 15
		n -= uint(e & 15)
		extra = e >> 8 & 15
		back := int(e>>16) + int(bb&(1<<extra-1))
		bb >>= extra
		n -= uint(extra)
		if e&kindMask != kindMatch || back > op {
			return op, false, errDeflate("match before the start")
		}
		repeat(dst[:op+length+16], op, back, length)
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
			a := binary.LittleEndian.Uint64(dst[from:])
			b := binary.LittleEndian.Uint64(dst[from+8:])
			binary.LittleEndian.PutUint64(dst[op:], a)
			binary.LittleEndian.PutUint64(dst[op+8:], b)
		}
	case back == 1:
		run := dst[op : op+length]
		c := dst[from]
		for i := range run {
			run[i] = c
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
		e, ok := f.code(f.lit[:], litBits)
		if !ok {
			return op, errDeflate("unknown code or ends early")
		}
		if e&kindMask == kindLiteral {
			dst[op] = byte(e >> 16)
			op++
			continue
		}
		if e&kindMask == kindEnd {
			return op, nil
		}
		length, ok1 := f.take(uint(e >> 8 & 15))
		d, ok2 := f.code(f.dist[:], distBits)
		extra, ok3 := f.take(uint(d >> 8 & 15))
		back := int(d>>16) + int(extra)
		if !ok1 || !ok2 || !ok3 || back > op {
			return op, errDeflate("wrong match or ends early")
		}
		end := min(op+int(e>>16)+int(length), len(dst))
		for ; op < end; op++ {
			dst[op] = dst[op-back]
		}
	}
	return op, nil
}

// code takes one code. It fails at an unknown one and at the end of src.
func (f *Inflater) code(table []uint32, primary uint) (uint32, bool) {
	f.refill()
	e := table[f.bits&(1<<primary-1)]
	if e&kindMask == kindSub {
		if f.n < primary {
			return 0, false
		}
		f.bits >>= primary
		f.n -= primary
		e = table[e>>16+uint32(f.bits)&(1<<(e>>8&15)-1)]
	}
	if e&kindMask == kindBad || uint(e&15) > f.n {
		return 0, false
	}
	f.bits >>= e & 15
	f.n -= uint(e & 15)
	return e, true
}
