package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// snapshotChunk is how much of the table is read at once: more than its
// longest entry.
const snapshotChunk = 256 << 10

// snapshots calls yield with each entry of the file's table, and where it
// ends, until yield returns false.
func (f *file) snapshots(ctx context.Context, yield func(e SnapshotEntry, end int64) bool) error {
	if f.h.Snapshots == 0 {
		return nil
	}
	start := f.h.SnapshotsOffset
	if start%uint64(f.g.ClusterSize) != 0 || start == 0 || !f.inside(start, snapshotFixed) {
		return decode.Corrupt("qcow2: snapshot table at %d: not a place in a file of %d bytes", start, f.size)
	}
	off := int64(start)
	var b []byte
	for i := range f.h.Snapshots {
		e, n, err := DecodeSnapshot(b)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			b = make([]byte, min(snapshotChunk, f.size-off))
			if err := f.r.ReadAt(ctx, b, off); err != nil {
				return fmt.Errorf("qcow2: read snapshot table: %w", err)
			}
			e, n, err = DecodeSnapshot(b)
		}
		if err != nil {
			return fmt.Errorf("qcow2: snapshot %d of %d: %w", i+1, f.h.Snapshots, err)
		}
		off += int64(n)
		if off-int64(start) > maxSnapshotTable {
			return decode.Unsupported("qcow2: snapshot table of more than %d bytes", maxSnapshotTable)
		}
		b = b[min(n, len(b)):] // the padding of the last one may be missing
		if !yield(e, min(off, f.size)) {
			return nil
		}
	}
	return nil
}

// Snapshots returns the internal snapshots, in the order of the file.
func (im *Image) Snapshots(ctx context.Context) ([]SnapshotEntry, error) {
	var all []SnapshotEntry
	err := im.f.snapshots(ctx, func(e SnapshotEntry, _ int64) bool {
		all = append(all, e)
		return true
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Snapshot returns the disk as the internal snapshot has it that has the id,
// or else the name, idOrName. If there is none the error is fs.ErrNotExist.
// The disk may have another size than the active one. It shares file and
// caches with im.
func (im *Image) Snapshot(ctx context.Context, idOrName string) (*Image, error) {
	var found *SnapshotEntry
	err := im.f.snapshots(ctx, func(e SnapshotEntry, _ int64) bool {
		if e.ID == idOrName || found == nil && e.Name == idOrName {
			found = &e
		}
		return e.ID != idOrName
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("qcow2: snapshot %q: %w", idOrName, fs.ErrNotExist)
	}
	size, err := im.f.snapshotSize(found)
	if err != nil {
		return nil, err
	}
	return im.f.image(size, found.L1Offset, int64(found.L1Entries))
}

// snapshotSize returns the size of the disk of e, once it is plausible.
func (f *file) snapshotSize(e *SnapshotEntry) (int64, error) {
	size := e.DiskSize
	if size == 0 {
		size = f.h.Size
	}
	if size > 1<<63-1-uint64(f.g.ClusterSize) || uint64(e.L1Entries)*8 > MaxL1Bytes {
		return 0, decode.Corrupt("qcow2: snapshot %q: disk of %d bytes, L1 table of %d entries", e.ID, size, e.L1Entries)
	}
	return int64(size), nil
}
