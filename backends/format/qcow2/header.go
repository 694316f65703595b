package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"strings"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// Magic is what every qcow2 file (and every file of its ancestor, version 1)
// begins with.
const Magic = 0x514649fb

// Lengths of the header's fixed part.
const (
	headerV2   = 72  // version 2 ends here; its extensions follow at once
	headerV3   = 104 // version 3 has at least this
	headerFull = 112 // what we know and write: with the compression type
)

// Limits of what a header may ask for. They are those of QEMU.
const (
	MinClusterBits   = 9
	MaxClusterBits   = 21
	MaxL1Bytes       = 32 << 20
	MaxRefTableBytes = 8 << 20
	MaxSnapshots     = 65536
	maxSnapshotTable = 64 << 20
	maxSnapshotExtra = 1024
	maxBackingName   = 1023
	minExtendedBits  = 14 // extended L2 needs clusters of at least 1<<14
)

// Incompatible features: whoever does not know a bit must not open the image.
const (
	Dirty        = 1 << 0 // refcounts are stale; the mapping is good
	CorruptBit   = 1 << 1 // metadata is broken: never write
	DataFile     = 1 << 2 // guest data lies in another file
	CompressType = 1 << 3 // CompressionType is not 0
	ExtendedL2   = 1 << 4 // L2 entries of 16 bytes, with 32 subclusters
	knownBits    = Dirty | CorruptBit | DataFile | CompressType | ExtendedL2
)

// LazyRefcounts is a compatible feature: refcounts may be written late, with
// Dirty set meanwhile.
const LazyRefcounts = 1 << 0

// Autoclear features: a writer that does not know a bit clears it.
const (
	BitmapsValid = 1 << 0 // the bitmaps extension is up to date
	DataFileRaw  = 1 << 1 // the data file can be read as raw
)

// Types of header extensions.
const (
	ExtEnd           = 0
	ExtBackingFormat = 0xe2792aca
	ExtFeatureNames  = 0x6803f857
	ExtBitmaps       = 0x23852875
	ExtLUKS          = 0x0537be77
	ExtDataFile      = 0x44415441
)

// Compression types.
const (
	Zlib = 0
	Zstd = 1
)

// An Extension is one header extension. Unknown ones are kept as they are, so
// that a header which is written again loses nothing.
type Extension struct {
	Type uint32
	Data []byte
}

// A Header is the header of a qcow2 file. Offsets and sizes are in bytes
// unless the name says otherwise. In a version 2 header the fields from
// Incompatible on do not exist; decoding gives them the values that version 2
// implies.
type Header struct {
	Version          uint32
	BackingOffset    uint64
	ClusterBits      uint32
	Size             uint64
	Crypt            uint32
	L1Entries        uint32
	L1Offset         uint64
	RefTableOffset   uint64
	RefTableClusters uint32
	Snapshots        uint32
	SnapshotsOffset  uint64
	Incompatible     uint64
	Compatible       uint64
	Autoclear        uint64
	RefcountOrder    uint32
	CompressionType  uint8
	Extra            []byte // of the fixed part, what we do not know
	Extensions       []Extension
	Backing          string // the claim of a backing file: text from a stranger
}

// ClusterSize returns the number of bytes in a cluster.
func (h *Header) ClusterSize() int64 { return 1 << h.ClusterBits }

// Extended reports whether L2 entries have 16 bytes and clusters 32
// subclusters.
func (h *Header) Extended() bool { return h.Incompatible&ExtendedL2 != 0 }

// BackingFormat returns the format that the header claims for the backing
// file, or "".
func (h *Header) BackingFormat() string {
	e, _ := h.Extension(ExtBackingFormat)
	return string(e)
}

// Extension returns the data of the first header extension of type t.
func (h *Header) Extension(t uint32) ([]byte, bool) {
	for _, e := range h.Extensions {
		if e.Type == t {
			return e.Data, true
		}
	}
	return nil, false
}

// SetExtension replaces the header extension of type t, or adds it.
func (h *Header) SetExtension(t uint32, data []byte) {
	for i := range h.Extensions {
		if h.Extensions[i].Type == t {
			h.Extensions[i].Data = data
			return
		}
	}
	h.Extensions = append(h.Extensions, Extension{t, data})
}

// ReadHeader reads and decodes the header of the file r. It checks its form,
// not yet what it says: see Header.Check.
func ReadHeader(ctx context.Context, r block.Reader) (*Header, error) {
	head := make([]byte, min(4096, r.Size()))
	if err := r.ReadAt(ctx, head, 0); err != nil {
		return nil, fmt.Errorf("qcow2: read header: %w", err)
	}
	h, err := DecodeHeader(head)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(head) < 4096 {
		return h, wrap("header", err)
	}
	// Only a header with many extensions, or a backing name far back, is
	// longer. Its cluster size is known to be one by now.
	full := make([]byte, min(int64(1)<<be32(head[20:]), r.Size()))
	if err := r.ReadAt(ctx, full, 0); err != nil {
		return nil, fmt.Errorf("qcow2: read header: %w", err)
	}
	h, err = DecodeHeader(full)
	return h, wrap("header", err)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("qcow2: %s: %w", what, err)
}

// DecodeHeader decodes the header at the start of head. If head ends too
// early the error is io.ErrUnexpectedEOF and ErrCorrupt: a whole first cluster
// is always enough.
func DecodeHeader(head []byte) (*Header, error) {
	h, length, err := decodeFixed(head)
	if err != nil {
		return nil, err
	}
	end := h.ClusterSize()
	size := int64(0)
	if h.BackingOffset != 0 {
		size = int64(be32(head[16:]))
		if size > maxBackingName || h.BackingOffset > uint64(end-size) || h.BackingOffset < uint64(length) {
			return nil, decode.Corrupt("backing name of %d bytes at %d", size, h.BackingOffset)
		}
		end = int64(h.BackingOffset)
	}
	if err := h.decodeExtensions(head, length, end); err != nil {
		return nil, err
	}
	if h.BackingOffset != 0 {
		if int64(len(head)) < end+size {
			return nil, short("backing name")
		}
		h.Backing = string(head[end : end+size])
	}
	return h, nil
}

// decodeFixed decodes what stands before the extensions, and returns where
// they begin.
func decodeFixed(b []byte) (h *Header, length int64, err error) {
	if len(b) < headerV2 {
		return nil, 0, short("fixed part")
	}
	if be32(b) != Magic {
		return nil, 0, decode.Corrupt("not a qcow2 file")
	}
	h = &Header{
		Version: be32(b[4:]), BackingOffset: be64(b[8:]), ClusterBits: be32(b[20:]), Size: be64(b[24:]),
		Crypt: be32(b[32:]), L1Entries: be32(b[36:]), L1Offset: be64(b[40:]),
		RefTableOffset: be64(b[48:]), RefTableClusters: be32(b[56:]),
		Snapshots: be32(b[60:]), SnapshotsOffset: be64(b[64:]), RefcountOrder: 4,
	}
	if h.Version != 2 && h.Version != 3 {
		return nil, 0, decode.Unsupported("version %d", h.Version)
	}
	if h.ClusterBits < MinClusterBits || h.ClusterBits > MaxClusterBits {
		return nil, 0, decode.Corrupt("cluster size of 2^%d bytes", h.ClusterBits)
	}
	if h.Version == 2 {
		return h, headerV2, nil
	}
	if len(b) < headerV3 {
		return nil, 0, short("fixed part")
	}
	h.Incompatible, h.Compatible, h.Autoclear = be64(b[72:]), be64(b[80:]), be64(b[88:])
	h.RefcountOrder = be32(b[96:])
	length = int64(be32(b[100:]))
	if length < headerV3 || length > h.ClusterSize() || length%8 != 0 {
		return nil, 0, decode.Corrupt("header length %d", length)
	}
	if int64(len(b)) < length {
		return nil, 0, short("fixed part")
	}
	if length >= headerFull {
		h.CompressionType = b[104]
		h.Extra = append([]byte(nil), b[headerFull:length]...)
	}
	return h, length, nil
}

func (h *Header) decodeExtensions(b []byte, off, end int64) error {
	for off+8 <= end {
		if int64(len(b)) < off+8 {
			return short("extensions")
		}
		t, n := be32(b[off:]), int64(be32(b[off+4:]))
		off += 8
		if t == ExtEnd {
			return nil
		}
		if n > end-off {
			return decode.Corrupt("extension %#x of %d bytes at %d", t, n, off)
		}
		if int64(len(b)) < off+n {
			return short("extensions")
		}
		h.Extensions = append(h.Extensions, Extension{t, append([]byte(nil), b[off:off+n]...)})
		off += (n + 7) &^ 7
	}
	return nil
}

func short(what string) error {
	return decode.Corrupt("%s cut off: %w", what, io.ErrUnexpectedEOF)
}

// Encode returns the header as it stands at the start of a file: fixed part,
// extensions, backing name. BackingOffset is set to where the name stands.
// A header that does not fit into the first cluster is fs.ErrInvalid.
func (h *Header) Encode() ([]byte, error) {
	b := make([]byte, headerV2, 512)
	if h.Version >= 3 {
		b = b[:headerFull]
		binary.BigEndian.PutUint64(b[72:], h.Incompatible)
		binary.BigEndian.PutUint64(b[80:], h.Compatible)
		binary.BigEndian.PutUint64(b[88:], h.Autoclear)
		binary.BigEndian.PutUint32(b[96:], h.RefcountOrder)
		b[104] = h.CompressionType
		b = append(b, h.Extra...)
		binary.BigEndian.PutUint32(b[100:], uint32(len(b)))
	}
	for _, e := range h.Extensions {
		b = binary.BigEndian.AppendUint32(b, e.Type)
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Data)))
		b = append(b, e.Data...)
		b = append(b, make([]byte, -len(e.Data)&7)...)
	}
	b = append(b, make([]byte, 8)...) // end of the extensions
	h.BackingOffset = 0
	if h.Backing != "" {
		h.BackingOffset = uint64(len(b))
		b = append(b, h.Backing...)
	}
	if len(h.Backing) > maxBackingName || int64(len(b)) > h.ClusterSize() {
		return nil, fmt.Errorf("qcow2: header of %d bytes, backing name of %d: more than the first cluster or %d: %w",
			len(b), len(h.Backing), maxBackingName, fs.ErrInvalid)
	}
	h.encodeV2(b)
	return b, nil
}

func (h *Header) encodeV2(b []byte) {
	p32, p64 := binary.BigEndian.PutUint32, binary.BigEndian.PutUint64
	p32(b, Magic)
	p32(b[4:], h.Version)
	p64(b[8:], h.BackingOffset)
	p32(b[16:], uint32(len(h.Backing)))
	p32(b[20:], h.ClusterBits)
	p64(b[24:], h.Size)
	p32(b[32:], h.Crypt)
	p32(b[36:], h.L1Entries)
	p64(b[40:], h.L1Offset)
	p64(b[48:], h.RefTableOffset)
	p32(b[56:], h.RefTableClusters)
	p32(b[60:], h.Snapshots)
	p64(b[64:], h.SnapshotsOffset)
}

// Check returns an error if the header contradicts itself or exceeds a limit
// (ErrCorrupt), or asks for what we do not serve: an unknown incompatible
// feature, an external data file, encryption (errors.ErrUnsupported). It does
// not look at the file.
func (h *Header) Check() error {
	if err := h.checkFeatures(); err != nil {
		return err
	}
	g := h.Geometry()
	switch {
	case h.RefcountOrder > 6:
		return decode.Corrupt("refcounts of 2^%d bits", h.RefcountOrder)
	case h.Size > 1<<63-1-uint64(g.ClusterSize):
		return decode.Corrupt("disk of %d bytes", h.Size)
	case uint64(h.L1Entries)*8 > MaxL1Bytes:
		return decode.Unsupported("L1 table of %d entries, more than %d", h.L1Entries, MaxL1Bytes/8)
	case uint64(h.L1Entries) < uint64(g.L1Need(int64(h.Size))):
		return decode.Corrupt("L1 table of %d entries for a disk of %d bytes", h.L1Entries, h.Size)
	case uint64(h.RefTableClusters)<<h.ClusterBits > MaxRefTableBytes:
		return decode.Unsupported("refcount table of %d clusters", h.RefTableClusters)
	case h.Snapshots > MaxSnapshots:
		return decode.Unsupported("%d snapshots, more than %d", h.Snapshots, MaxSnapshots)
	}
	return nil
}

func (h *Header) checkFeatures() error {
	if unknown := h.Incompatible &^ knownBits; unknown != 0 {
		return decode.Unsupported("unknown incompatible feature %s", h.featureName(bits.TrailingZeros64(unknown)))
	}
	switch {
	case h.Incompatible&DataFile != 0:
		return decode.Unsupported("external data file")
	case h.Crypt != 0:
		return decode.Unsupported("encryption (method %d)", h.Crypt)
	case h.Incompatible&CompressType == 0 && h.CompressionType != Zlib,
		h.Incompatible&CompressType != 0 && h.CompressionType == Zlib:
		return decode.Corrupt("compression type %d does not agree with its feature bit", h.CompressionType)
	case h.CompressionType > Zstd:
		return decode.Unsupported("compression type %d", h.CompressionType)
	case h.Extended() && h.ClusterBits < minExtendedBits:
		return decode.Corrupt("extended L2 entries with clusters of %d bytes", h.ClusterSize())
	}
	return nil
}

// featureName looks an incompatible bit up in the image's own table of names,
// which serves only for messages.
func (h *Header) featureName(bit int) string {
	table, _ := h.Extension(ExtFeatureNames)
	for ; len(table) >= 48; table = table[48:] {
		if table[0] == 0 && int(table[1]) == bit {
			name, _, _ := strings.Cut(string(table[2:48]), "\x00")
			return fmt.Sprintf("%d (%q)", bit, name)
		}
	}
	return fmt.Sprint(bit)
}

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }
