package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// answer is what a detector says of the part of an upload that it has seen.
type answer uint8

const (
	later answer = iota // not enough seen
	no
	yes
)

// evidence is what is kept of an upload.
type evidence struct {
	head    []byte // its beginning, at most headMax
	tail    []byte // its end, at most tailMax
	total   int64  // bytes so far
	done    bool   // nothing more will come
	part    []byte // what was asked for by capture
	partOff int64
	partLen int64
}

// have reports whether the first n bytes are there, or all that ever will be.
func (e *evidence) have(n int) bool { return len(e.head) >= n || e.done }

// at returns n bytes of the head at off, or zeros where it has none.
func (e *evidence) at(off, n int) []byte {
	if off >= 0 && off+n <= len(e.head) {
		return e.head[off : off+n]
	}
	b := make([]byte, n)
	if off >= 0 && off < len(e.head) {
		copy(b, e.head[off:])
	}
	return b
}

func (e *evidence) is(off int, magic string) bool {
	return off+len(magic) <= len(e.head) && string(e.head[off:off+len(magic)]) == magic
}

func (e *evidence) le16(off int) uint16 { return binary.LittleEndian.Uint16(e.at(off, 2)) }
func (e *evidence) le32(off int) uint32 { return binary.LittleEndian.Uint32(e.at(off, 4)) }
func (e *evidence) le64(off int) uint64 { return binary.LittleEndian.Uint64(e.at(off, 8)) }

// capture asks for n bytes at off, which may still be to come.
func (e *evidence) capture(off, n int64) {
	if e.partLen > 0 {
		return
	}
	e.partOff, e.partLen = off, n
	e.collect(e.head, 0)
}

func (e *evidence) capturing() bool { return e.partLen > 0 && int64(len(e.part)) < e.partLen }
func (e *evidence) captured() bool  { return e.partLen > 0 && int64(len(e.part)) == e.partLen }

// collect takes from p, which stands at off in the upload, what was asked for.
func (e *evidence) collect(p []byte, off int64) {
	next := e.partOff + int64(len(e.part))
	if !e.capturing() || next < off || next >= off+int64(len(p)) {
		return
	}
	p = p[next-off:]
	e.part = append(e.part, p[:min(int64(len(p)), e.partLen-int64(len(e.part)))]...)
}

// take adds the next bytes.
func (e *evidence) take(p []byte) {
	e.collect(p, e.total)
	e.total += int64(len(p))
	if n := min(headMax-len(e.head), len(p)); n > 0 {
		if len(e.head)+n > pieceMax && cap(e.head) < headMax {
			// Most uploads are that long. To grow bit by bit would take four
			// times as much, which tells where there are many at a time.
			e.head = slices.Grow(e.head, headMax-len(e.head))
		}
		e.head = append(e.head, p[:n]...)
	}
	if len(p) >= tailMax {
		e.tail = append(e.tail[:0], p[len(p)-tailMax:]...)
		return
	}
	if over := len(e.tail) + len(p) - tailMax; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
	}
	e.tail = append(e.tail, p...)
}

// A detector knows one format.
type detector struct {
	name string

	// match says whether the upload is of the format.
	match func(*evidence) answer

	// check says, of an upload that is, whether it may become an image: a
	// reason says why not. Later means that it must see more. size is that
	// of the disk, -1 if unknown.
	check func(*evidence) (size int64, a answer, reason string)
}

// detectors returns all of them. Formats that are always refused are there
// to be recognized.
func detectors() [12]detector {
	return [12]detector{
		{"qcow2", matchQcow2, checkQcow2},
		{"qcow", matchQcow1, refused("version 1 of qcow can name a backing file and is no longer maintained; convert it to qcow2")},
		{"qed", magic("QED\x00"), refused("this format can name a backing file and is no longer maintained; convert it to qcow2")},
		{"asif", magic("shdw"), refused("this format is not supported")},
		{"vmdk", matchVmdk, checkVmdk},
		{"vhd", matchVhd, checkVhd},
		{"vhdx", magic("vhdxfile"), checkVhdx},
		{"vdi", matchVdi, checkVdi},
		{"ploop", matchPloop, checkPloop},
		{"luks", magic("LUKS\xba\xbe"), checkLuks},
		{"iso", matchIso, checkIso},
		{"gpt", matchGpt, checkGpt},
	}
}

func truth(b bool) answer {
	if b {
		return yes
	}
	return no
}

func magic(m string) func(*evidence) answer {
	return func(e *evidence) answer {
		if !e.have(len(m)) {
			return later
		}
		return truth(e.is(0, m))
	}
}

func refused(reason string) func(*evidence) (int64, answer, string) {
	return func(*evidence) (int64, answer, string) { return -1, yes, reason }
}

func matchQcow2(e *evidence) answer {
	if !e.have(8) {
		return later
	}
	return truth(qcow2.Probe(e.head))
}

func matchQcow1(e *evidence) answer {
	if !e.have(8) {
		return later
	}
	return truth(e.is(0, "QFI\xfb") && !qcow2.Probe(e.head))
}

func checkQcow2(e *evidence) (int64, answer, string) {
	h, err := qcow2.DecodeHeader(e.head)
	if errors.Is(err, io.ErrUnexpectedEOF) && !e.done && len(e.head) < headMax {
		return -1, later, ""
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && !e.done {
		return -1, yes, "header extensions of more than a MiB"
	}
	if err != nil {
		return -1, yes, err.Error()
	}
	if err := h.CheckUpload(); err != nil {
		return -1, yes, err.Error()
	}
	return int64(h.Size &^ 511), yes, ""
}

func matchPloop(e *evidence) answer {
	if !e.have(16) {
		return later
	}
	return truth(e.is(0, "WithoutFreeSpace") || e.is(0, "WithouFreSpacExt"))
}

func checkPloop(e *evidence) (int64, answer, string) {
	if !e.have(64) {
		return -1, later, ""
	}
	sectors := e.le64(36)
	if e.is(0, "WithoutFreeSpace") {
		sectors &= 1<<32 - 1
	}
	cluster := e.le32(28)
	switch {
	case len(e.head) < 64:
		return -1, yes, "the header is cut off"
	case e.le32(16) != 2:
		return -1, yes, "unknown version"
	case cluster == 0 || cluster&(cluster-1) != 0 || cluster > 1<<21:
		return -1, yes, "impossible cluster size"
	case sectors > 1<<50:
		return -1, yes, "impossible disk size"
	case e.le32(44) == 0x746f6e59:
		return -1, yes, "marked as in use; close it properly first"
	case e.le64(56) != 0:
		return -1, yes, "a format extension, which is not supported"
	}
	return int64(sectors) * 512, yes, ""
}

func checkLuks(e *evidence) (int64, answer, string) {
	if !e.have(8) {
		return -1, later, ""
	}
	if !bytes.Equal(e.at(6, 2), []byte{0, 1}) {
		return -1, yes, "LUKS of another version than 1"
	}
	return -1, yes, ""
}

const isoSector = 2048

// matchIso looks where a CD or DVD says what it is. The 32 KiB before are
// anybody's, so the other detectors look at those.
func matchIso(e *evidence) answer {
	if !e.have(20 * isoSector) {
		return later
	}
	for sector := 16; sector < 20; sector++ {
		switch string(e.at(sector*isoSector+1, 5)) {
		case "CD001":
			if sector == 16 {
				return yes
			}
		case "NSR02", "NSR03":
			return yes
		}
	}
	return no
}

// checkIso returns the size of the volume, as other services do, though the
// file may be longer.
func checkIso(e *evidence) (int64, answer, string) {
	if !e.is(16*isoSector+1, "CD001") || e.at(16*isoSector, 1)[0] != 1 {
		return -1, yes, ""
	}
	return int64(e.le32(16*isoSector+80)) * int64(e.le16(16*isoSector+128)), yes, ""
}

// matchGpt looks for a partition table: an MBR, the protective one of a GPT
// included.
func matchGpt(e *evidence) answer {
	if !e.have(520) {
		return later
	}
	switch {
	case len(e.head) < 512 || !e.is(510, "\x55\xaa"):
		return no
	case e.is(514, "HdrS"): // a Linux kernel, which has the signature too
		return no
	case e.is(54, "FAT") || e.is(82, "FAT") || e.is(3, "NTFS") || e.is(3, "EXFAT"):
		return no
	}
	used := false
	for i := range 4 {
		p := e.at(446+16*i, 16)
		if p[0] != 0 && p[0] != 0x80 {
			return no
		}
		used = used || p[4] != 0
	}
	return truth(used)
}

func checkGpt(e *evidence) (int64, answer, string) {
	protective, entries := -1, 0
	for i := range 4 {
		switch e.at(446+16*i, 16)[4] {
		case 0:
			continue
		case 0xee:
			protective = i
		}
		entries++
	}
	if protective < 0 {
		return -1, yes, ""
	}
	p := e.at(446+16*protective, 16)
	if entries > 1 || protective != 0 || !strings.HasPrefix(string(p[1:4]), "\x00\x02\x00") || e.le32(446+8) != 1 {
		return -1, yes, "a protective partition that is not alone at the start of the disk"
	}
	return -1, yes, ""
}
