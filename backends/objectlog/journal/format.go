package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The format is in DESIGN.md. All numbers are little-endian.
const (
	version = 1

	pageSize   = 4096
	sectorSize = 512

	stateMagic = "PLTRJRNL"
	fileMagic  = "PLTRJLOG"
	slotMagic  = "PLTRTRIM"
	recMagic   = 0x43455250 // "PREC"

	saltSize  = 16
	maxID     = 255
	stateSize = 3 * pageSize

	// recHead is the size of a record's header, which Data follows.
	recHead = 64

	// recAlign is what the position of each record is a multiple of.
	recAlign = 8

	minFileSize = 4 * pageSize
	maxFileSize = 1 << 40
)

// alignUp returns n, or the next multiple of to, a power of two.
func alignUp(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }

// crcTable returns the CRC-32C table, which hash/crc32 makes once.
func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// dataSum returns the checksum of a payload.
func dataSum(p []byte) uint32 { return crc32.Checksum(p, crcTable()) }

// salted returns the CRC-32C of salt and p: right only for who wrote it with
// the same salt.
func salted(salt, p []byte) uint32 {
	return crc32.Update(crc32.Checksum(salt, crcTable()), crcTable(), p)
}

// A state is the header of the state file: whose journal it is.
type state struct {
	Identity
	fileSize int64
	salt     [saltSize]byte // of all that belongs to this journal
}

func (s *state) encode() []byte {
	p := make([]byte, pageSize)
	copy(p, stateMagic)
	binary.LittleEndian.PutUint32(p[8:], version)
	binary.LittleEndian.PutUint32(p[12:], uint32(len(s.ID)))
	binary.LittleEndian.PutUint64(p[16:], uint64(s.Epoch))
	binary.LittleEndian.PutUint64(p[24:], uint64(s.fileSize))
	copy(p[32:], s.salt[:])
	copy(p[48:], s.ID)
	binary.LittleEndian.PutUint32(p[pageSize-4:], dataSum(p[:pageSize-4]))
	return p
}

// decodeState reads a state from a page.
func decodeState(p []byte) (*state, error) {
	if string(p[:8]) != stateMagic {
		return nil, fmt.Errorf("it begins with %q: %w", p[:8], ErrDamaged)
	}
	// The version comes first: what a newer one has its checksum over is not
	// known here.
	if v := binary.LittleEndian.Uint32(p[8:]); v != version {
		return nil, fmt.Errorf("its version is %d, known is %d: %w", v, version, ErrNewer)
	}
	if binary.LittleEndian.Uint32(p[pageSize-4:]) != dataSum(p[:pageSize-4]) {
		return nil, fmt.Errorf("the checksum of its header is wrong: %w", ErrDamaged)
	}
	n := binary.LittleEndian.Uint32(p[12:])
	s := &state{
		Identity: Identity{Epoch: int64(binary.LittleEndian.Uint64(p[16:]))},
		fileSize: int64(binary.LittleEndian.Uint64(p[24:])),
	}
	if n > maxID || s.fileSize < minFileSize || s.fileSize > maxFileSize || s.fileSize%pageSize != 0 {
		return nil, fmt.Errorf("a name of %d bytes, files of %d: %w", n, s.fileSize, ErrDamaged)
	}
	s.ID = string(p[48 : 48+n])
	copy(s.salt[:], p[32:])
	return s, nil
}

// first returns the position of the first record in file seq.
func (s *state) first(seq int64) int64 { return seq*s.fileSize + pageSize }

// seq returns the number of the file that position pos is in.
func (s *state) seq(pos int64) int64 { return pos / s.fileSize }

// A slot says how far the journal was trimmed. There are two, of one sector
// each; the newer one holds.
type slot struct {
	count  uint64
	start  int64
	synced int64 // what was on stable storage then ended here
}

func (s slot) encode(salt []byte) []byte {
	p := make([]byte, sectorSize)
	copy(p, slotMagic)
	binary.LittleEndian.PutUint64(p[8:], s.count)
	binary.LittleEndian.PutUint64(p[16:], uint64(s.start))
	binary.LittleEndian.PutUint64(p[24:], uint64(s.synced))
	binary.LittleEndian.PutUint32(p[sectorSize-4:], salted(salt, p[:sectorSize-4]))
	return p
}

func decodeSlot(p, salt []byte) (slot, bool) {
	if string(p[:8]) != slotMagic || binary.LittleEndian.Uint32(p[sectorSize-4:]) != salted(salt, p[:sectorSize-4]) {
		return slot{}, false
	}
	return slot{
		count:  binary.LittleEndian.Uint64(p[8:]),
		start:  int64(binary.LittleEndian.Uint64(p[16:])),
		synced: int64(binary.LittleEndian.Uint64(p[24:])),
	}, true
}

// A fileHead is the header of a file of records.
type fileHead struct {
	seq    int64
	salt   [saltSize]byte // of its records; another each time the file is used
	before int64          // where the records of the file before end
	synced int64          // what was on stable storage then ended here
}

func (h *fileHead) encode(s *state) []byte {
	p := make([]byte, pageSize)
	copy(p, fileMagic)
	binary.LittleEndian.PutUint32(p[8:], version)
	binary.LittleEndian.PutUint64(p[16:], uint64(s.Epoch))
	binary.LittleEndian.PutUint64(p[24:], uint64(h.seq))
	binary.LittleEndian.PutUint64(p[32:], uint64(h.before))
	binary.LittleEndian.PutUint64(p[40:], uint64(h.synced))
	copy(p[48:], h.salt[:])
	binary.LittleEndian.PutUint32(p[sectorSize-4:], salted(s.salt[:], p[:sectorSize-4]))
	return p
}

func decodeFileHead(p []byte, s *state) (fileHead, bool) {
	if string(p[:8]) != fileMagic || binary.LittleEndian.Uint32(p[sectorSize-4:]) != salted(s.salt[:], p[:sectorSize-4]) {
		return fileHead{}, false
	}
	h := fileHead{
		seq:    int64(binary.LittleEndian.Uint64(p[24:])),
		before: int64(binary.LittleEndian.Uint64(p[32:])),
		synced: int64(binary.LittleEndian.Uint64(p[40:])),
	}
	copy(h.salt[:], p[48:])
	return h, true
}

// A recHeader is the header of a record.
type recHeader struct {
	kind   Kind
	size   uint32 // of the payload
	sum    uint32 // of the payload
	at     int64  // its own position
	prev   int64  // where the record before ends, or at if it is the file's first
	off, n int64  // on the disk
	synced int64  // what was on stable storage when it was written ended here
}

// next returns where the record ends.
func (h *recHeader) next() int64 { return alignUp(h.at+recHead+int64(h.size), recAlign) }

func (h *recHeader) append(p, salt []byte) []byte {
	from := len(p)
	p = binary.LittleEndian.AppendUint32(p, recMagic)
	p = append(p, byte(h.kind), 0, 0, 0)
	p = binary.LittleEndian.AppendUint32(p, h.size)
	p = binary.LittleEndian.AppendUint32(p, h.sum)
	for _, v := range [5]int64{h.at, h.prev, h.off, h.n, h.synced} {
		p = binary.LittleEndian.AppendUint64(p, uint64(v))
	}
	p = binary.LittleEndian.AppendUint32(p, 0)
	return binary.LittleEndian.AppendUint32(p, salted(salt, p[from:]))
}

// decodeRecHeader reads a header; false is that there is none.
func decodeRecHeader(p, salt []byte) (recHeader, bool) {
	if binary.LittleEndian.Uint32(p) != recMagic || binary.LittleEndian.Uint32(p[60:]) != salted(salt, p[:60]) {
		return recHeader{}, false
	}
	number := func(i int) int64 { return int64(binary.LittleEndian.Uint64(p[i:])) }
	h := recHeader{
		kind: Kind(p[4]),
		size: binary.LittleEndian.Uint32(p[8:]),
		sum:  binary.LittleEndian.Uint32(p[12:]),
		at:   number(16), prev: number(24), off: number(32), n: number(40), synced: number(48),
	}
	return h, true
}

func (h *recHeader) record(data []byte) Record {
	return Record{Kind: h.kind, Off: h.off, Len: h.n, Data: data, Pos: h.at + recHead, Next: h.next()}
}
