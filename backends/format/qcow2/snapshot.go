package qcow2

import (
	"encoding/binary"
	"time"

	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// A SnapshotEntry is one entry of a file's table of internal snapshots.
type SnapshotEntry struct {
	ID, Name    string
	L1Offset    uint64
	L1Entries   uint32
	Created     time.Time
	GuestClock  time.Duration
	VMStateSize uint64
	DiskSize    uint64 // 0 where the file does not say: that of the active disk
	Icount      uint64 // instruction counter; ^0 if unknown
	Extra       []byte // of the extra data, what we do not know
}

const snapshotFixed = 40

// DecodeSnapshot decodes the entry at the start of b and returns how many
// bytes it takes, padding included. If b ends too early the error is
// io.ErrUnexpectedEOF and ErrCorrupt.
func DecodeSnapshot(b []byte) (e SnapshotEntry, n int, err error) {
	if len(b) < snapshotFixed {
		return e, 0, short("snapshot entry")
	}
	idLen, nameLen := int(binary.BigEndian.Uint16(b[12:])), int(binary.BigEndian.Uint16(b[14:]))
	extra := be32(b[36:])
	if extra > maxSnapshotExtra {
		return e, 0, decode.Corrupt("snapshot entry with %d bytes of extra data", extra)
	}
	n = snapshotFixed + int(extra) + idLen + nameLen
	if len(b) < n {
		return e, 0, short("snapshot entry")
	}
	e = SnapshotEntry{
		L1Offset: be64(b), L1Entries: be32(b[8:]),
		Created:     time.Unix(int64(be32(b[16:])), int64(be32(b[20:]))).UTC(),
		GuestClock:  time.Duration(be64(b[24:])),
		VMStateSize: uint64(be32(b[32:])), Icount: ^uint64(0),
	}
	e.decodeExtra(b[snapshotFixed : snapshotFixed+int(extra)])
	rest := b[snapshotFixed+int(extra) : n]
	e.ID, e.Name = string(rest[:idLen]), string(rest[idLen:])
	return e, (n + 7) &^ 7, nil
}

func (e *SnapshotEntry) decodeExtra(x []byte) {
	if len(x) >= 8 {
		e.VMStateSize = be64(x)
	}
	if len(x) >= 16 {
		e.DiskSize = be64(x[8:])
	}
	if len(x) >= 24 {
		e.Icount = be64(x[16:])
		e.Extra = append([]byte(nil), x[24:]...)
	}
}

// Encode appends the entry to b, padded to a multiple of 8 bytes.
func (e *SnapshotEntry) Encode(b []byte) []byte {
	be := binary.BigEndian
	start := len(b)
	b = be.AppendUint64(b, e.L1Offset)
	b = be.AppendUint32(b, e.L1Entries)
	b = be.AppendUint16(b, uint16(len(e.ID)))
	b = be.AppendUint16(b, uint16(len(e.Name)))
	b = be.AppendUint32(b, uint32(e.Created.Unix()))
	b = be.AppendUint32(b, uint32(e.Created.Nanosecond()))
	b = be.AppendUint64(b, uint64(e.GuestClock))
	b = be.AppendUint32(b, uint32(min(e.VMStateSize, 1<<32-1)))
	b = be.AppendUint32(b, uint32(24+len(e.Extra)))
	b = be.AppendUint64(b, e.VMStateSize)
	b = be.AppendUint64(b, e.DiskSize)
	b = be.AppendUint64(b, e.Icount)
	b = append(b, e.Extra...)
	b = append(b, e.ID...)
	b = append(b, e.Name...)
	return append(b, make([]byte, -(len(b)-start)&7)...)
}
