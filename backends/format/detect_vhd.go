package format

import (
	"encoding/binary"
)

// matchVhd knows dynamic disks by the copy of the footer at their start, and
// fixed ones by the footer alone.
func matchVhd(e *evidence) answer {
	switch {
	case e.is(0, "conectix"):
		return yes
	case !e.done:
		return later
	}
	return truth(vhdFooter(e) != nil)
}

// vhdFooter returns the last sector of a finished upload if it is a footer.
func vhdFooter(e *evidence) []byte {
	if len(e.tail) < 512 || e.total < 1024 {
		return nil
	}
	b := e.tail[len(e.tail)-512:]
	if string(b[:8]) != "conectix" || !vhdSum(b, 64) {
		return nil
	}
	return b
}

// vhdSum checks the checksum at off, the ones' complement of the sum of all
// other bytes.
func vhdSum(b []byte, off int) bool {
	var sum uint32
	for i, c := range b {
		if i < off || i >= off+4 {
			sum += uint32(c)
		}
	}
	return ^sum == binary.BigEndian.Uint32(b[off:])
}

const (
	vhdFixed   = 2
	vhdDynamic = 3
	vhdMaxBAT  = 1 << 22 // entries of the block table
)

func checkVhd(e *evidence) (int64, answer, string) {
	if !e.is(0, "conectix") {
		b := vhdFooter(e)
		if binary.BigEndian.Uint32(b[60:]) != vhdFixed {
			return -1, yes, "no fixed disk, but only a footer at the end"
		}
		return vhdSize(b), yes, ""
	}
	if !e.have(512) {
		return -1, later, ""
	}
	b := e.at(0, 512)
	switch {
	case !vhdSum(b, 64):
		return -1, yes, "wrong checksum of the footer's copy"
	case binary.BigEndian.Uint32(b[60:]) != vhdDynamic:
		return -1, yes, "a disk that needs its parent, or of an unknown type"
	case binary.BigEndian.Uint32(b[12:])>>16 != 1:
		return -1, yes, "unknown version"
	}
	off := binary.BigEndian.Uint64(b[16:])
	if off < 512 || off > headMax-1024 {
		return -1, yes, "impossible place of the dynamic header"
	}
	if !e.have(int(off) + 1024) {
		return -1, later, ""
	}
	if reason := checkVhdDynamic(e.at(int(off), 1024), vhdSize(b)); reason != "" {
		return -1, yes, reason
	}
	if !e.done {
		return -1, later, ""
	}
	if vhdFooter(e) == nil {
		return -1, yes, "no footer at the end: cut off?"
	}
	return vhdSize(b), yes, ""
}

func checkVhdDynamic(d []byte, size int64) string {
	entries, block := int64(binary.BigEndian.Uint32(d[28:])), int64(binary.BigEndian.Uint32(d[32:]))
	switch {
	case string(d[:8]) != "cxsparse" || !vhdSum(d, 36):
		return "damaged dynamic header"
	case block < 512 || block > 256<<20 || block&(block-1) != 0:
		return "impossible block size"
	case entries > vhdMaxBAT || entries*block < size:
		return "impossible block table"
	}
	return ""
}

// vhdSize is the size of the disk: what the footer says outright if its
// creator means it, otherwise what the geometry says.
func vhdSize(b []byte) int64 {
	current := int64(binary.BigEndian.Uint64(b[48:]) &^ (1 << 63))
	switch string(b[28:32]) {
	case "qem2", "win ", "d2v ", "tap\x00", "CTXS", "wa\x00\x00":
		return current
	}
	c, h, s := int64(binary.BigEndian.Uint16(b[56:])), int64(b[58]), int64(b[59])
	if c == 65535 && h == 16 && s == 255 {
		return current
	}
	return c * h * s * 512
}

// GUIDs of vhdx, as they stand in the file.
const (
	vhdxMetadata = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"
	vhdxParams   = "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b"
	vhdxSize     = "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8"
	vhdxSector   = "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f"
	vhdxParent   = "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c"
)

const vhdxRegions = 192 << 10

func checkVhdx(e *evidence) (int64, answer, string) {
	if !e.have(vhdxRegions + 64<<10) {
		return -1, later, ""
	}
	if e.partLen == 0 {
		off, n, ok := vhdxRegion(e)
		if !ok {
			return -1, yes, "no metadata region in its region table"
		}
		e.capture(off, n)
	}
	if !e.captured() && !e.done {
		return -1, later, ""
	}
	if !e.captured() {
		return -1, yes, "metadata region behind the end of the file: cut off?"
	}
	return vhdxItems(e.part)
}

// vhdxRegion finds the metadata in the first region table, or the second.
func vhdxRegion(e *evidence) (off, n int64, ok bool) {
	for _, table := range []int{vhdxRegions, vhdxRegions + 64<<10} {
		if !e.is(table, "regi") {
			continue
		}
		for i := range min(int(e.le32(table+8)), 2047) {
			entry := table + 16 + 32*i
			if e.is(entry, vhdxMetadata) {
				off, n = int64(e.le64(entry+16)), int64(e.le32(entry+24))
				return off, min(n, captureMax), off >= 1<<20 && off < 1<<50 && n >= 64<<10
			}
		}
	}
	return 0, 0, false
}

func vhdxItems(part []byte) (int64, answer, string) {
	m := evidence{head: part, done: true}
	if !m.is(0, "metadata") || m.le16(10) > 2047 {
		return -1, yes, "damaged metadata"
	}
	size, block, sector := uint64(0), uint32(0), uint32(0)
	for i := range int(m.le16(10)) {
		entry := 32 + 32*i
		at := int(m.le32(entry + 16))
		switch string(m.at(entry, 16)) {
		case vhdxParams:
			block = m.le32(at)
			if m.le32(at+4)&2 != 0 {
				return -1, yes, "a disk that needs its parent"
			}
		case vhdxSize:
			size = m.le64(at)
		case vhdxSector:
			sector = m.le32(at)
		case vhdxParent:
			return -1, yes, "a disk that needs its parent"
		}
	}
	switch {
	case block < 1<<20 || block > 256<<20 || block&(block-1) != 0:
		return -1, yes, "impossible block size"
	case sector != 512 && sector != 4096:
		return -1, yes, "impossible sector size"
	case size == 0 || size > 64<<40 || size%uint64(sector) != 0:
		return -1, yes, "impossible disk size"
	}
	return int64(size), yes, ""
}

func matchVdi(e *evidence) answer {
	if !e.have(68) {
		return later
	}
	return truth(e.is(64, "\x7f\x10\xda\xbe"))
}

func checkVdi(e *evidence) (int64, answer, string) {
	if !e.have(512) {
		return -1, later, ""
	}
	size, blocks := e.le64(368), uint64(e.le32(384))
	switch {
	case len(e.head) < 512:
		return -1, yes, "the header is cut off"
	case e.le32(68) != 0x00010001:
		return -1, yes, "unknown version"
	case e.le32(76) != 1 && e.le32(76) != 2:
		return -1, yes, "a disk that needs its parent, or of an unknown type"
	case string(e.at(424, 32)) != string(make([]byte, 32)):
		return -1, yes, "a link to another image"
	case e.le32(376) != 1<<20 || e.le32(360) != 512:
		return -1, yes, "impossible block or sector size"
	case blocks > 0x3fffffff || size > blocks<<20:
		return -1, yes, "impossible disk size"
	}
	return int64(size), yes, ""
}
