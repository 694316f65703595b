package delta

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// What a cluster of the file is. A cluster of data has the number of its
// subclusters that hold any, plus 1.
const (
	isFree  = 0
	isTable = 254 // an L2 table
	isMeta  = 255
)

// An audit counts from the trees who refers to each cluster of a file, and
// compares with what the file says. Its memory is 3 bytes per cluster.
type audit struct {
	d      *Delta
	length int64
	counts counts
	kinds  []*[pageLen]byte
	meta   int64 // clusters of metadata
	l1     []uint64
	snaps  []*snapshot
	buf    [clusterSize]byte

	snapClusters int64

	stale  string // why the metadata must be written anew, or ""
	leaks  int64  // refcounts that are too high
	leaked []block.Extent
}

func (a *audit) kind(i int64) *byte { return bytePage(&a.kinds, i) }

// bytePage returns the byte for cluster i, made if need be.
func bytePage(pages *[]*[pageLen]byte, i int64) *byte {
	n := int(i >> pageBits)
	for len(*pages) <= n {
		*pages = append(*pages, nil)
	}
	if (*pages)[n] == nil {
		(*pages)[n] = new([pageLen]byte)
	}
	return &(*pages)[n][i&(pageLen-1)]
}

func (a *audit) all(ctx context.Context) error {
	l := a.d.layout()
	if err := a.claim("header", 0, 1); err != nil {
		return err
	}
	if err := a.refTable(l); err != nil {
		return err
	}
	var err error
	if a.l1, err = a.l1Table("L1 table", l.l1At, l.l1Entries); err != nil {
		return err
	}
	if err := a.walk(ctx, a.l1, true); err != nil {
		return err
	}
	if err := a.snapshots(ctx, l); err != nil {
		return err
	}
	if len(a.snaps) > 0 {
		if err := a.flags(ctx); err != nil {
			return err
		}
	}
	return a.compare()
}

// claim counts n clusters of metadata at at, which nobody else may have.
func (a *audit) claim(what string, at, n int64) error {
	end := (a.length + clusterSize - 1) &^ (clusterSize - 1)
	if at&(clusterSize-1) != 0 || at < 0 || at > end || n > (end-at)>>clusterBits {
		return decode.Corrupt("%s of %d clusters at %#x: not aligned, or outside the file of %d bytes", what, n, at, a.length)
	}
	for i := at >> clusterBits; i < at>>clusterBits+n; i++ {
		if k := a.kind(i); *k != isFree {
			return decode.Corrupt("%s at %#x lies over something else", what, i<<clusterBits)
		} else if *k = isMeta; what == "L2 table" {
			*k = isTable
		}
		a.counts.add(i, 1)
	}
	a.meta += n
	return nil
}

func (a *audit) refTable(l layout) error {
	if err := a.claim("refcount table", l.tableAt, l.tableSize); err != nil {
		return err
	}
	b := make([]byte, l.tableSize<<clusterBits)
	if err := a.d.read(b, l.tableAt); err != nil {
		return err
	}
	for i := 0; i < len(b); i += 8 {
		e := binary.BigEndian.Uint64(b[i:])
		if e == 0 {
			continue
		}
		if e&^qcow2.RefTableMask != 0 {
			return decode.Corrupt("refcount table entry %#x has reserved bits", e)
		}
		// A block counts something, or is past all that the file has.
		n := int64(i / 8)
		if n<<pageBits > a.length>>clusterBits+pageLen {
			return decode.Corrupt("refcount block for bytes from %d on, in a file of %d", n<<(pageBits+clusterBits), a.length)
		}
		if err := a.claim("refcount block", int64(e), 1); err != nil {
			return err
		}
		a.counts.page(n << pageBits).at = int64(e)
	}
	return nil
}

func (a *audit) l1Table(what string, at int64, entries int) ([]uint64, error) {
	if err := a.claim(what, at, clusters(int64(entries)*8)); err != nil {
		return nil, err
	}
	return a.d.readL1(at, entries)
}

func (d *Delta) readL1(at int64, entries int) ([]uint64, error) {
	b := make([]byte, entries*8)
	if err := d.read(b, at); err != nil {
		return nil, err
	}
	l1 := make([]uint64, entries)
	for i := range l1 {
		l1[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	return l1, nil
}

// walk counts a tree. In the active one no cluster may be there twice; what
// snapshots share must be of one kind.
func (a *audit) walk(ctx context.Context, l1 []uint64, active bool) error {
	for _, e := range l1 {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := int64(e & qcow2.OffsetMask)
		if e&qcow2.L1Reserved != 0 || at == 0 && e != 0 {
			return decode.Corrupt("L1 entry %#x", e)
		}
		if at == 0 {
			continue
		}
		shared := !active && at&(clusterSize-1) == 0 && at < a.length && *a.kind(at >> clusterBits) == isTable
		if shared {
			a.stale = "two snapshots share an L2 table"
			a.counts.add(at>>clusterBits, 1)
		} else if err := a.claim("L2 table", at, 1); err != nil {
			return err
		}
		if active && e&qcow2.Copied == 0 {
			a.stale = "an active L2 table is not marked as ours alone"
		}
		if err := a.table(at, active); err != nil {
			return err
		}
	}
	return nil
}

func (a *audit) table(at int64, active bool) error {
	if err := a.d.read(a.buf[:], at); err != nil {
		return err
	}
	for b := a.buf[:]; len(b) > 0; b = b[entrySize:] {
		if binary.NativeEndian.Uint64(b)|binary.NativeEndian.Uint64(b[8:]) == 0 {
			continue
		}
		if err := checkEntry(b); err != nil {
			return err
		}
		e := decodeEntry(b)
		if e.host == 0 {
			continue
		}
		if err := a.data(e, active); err != nil {
			return err
		}
		if active && !e.own && a.d.layout().snapshots == 0 {
			a.stale = "a cluster is not marked as ours alone"
		}
	}
	return nil
}

func (a *audit) data(e entry, active bool) error {
	i := e.host >> clusterBits
	if e.host >= a.length {
		return decode.Corrupt("cluster at %#x, behind the end of the file of %d bytes", e.host, a.length)
	}
	k := a.kind(i)
	if *k >= isTable || active && *k != isFree {
		return decode.Corrupt("cluster at %#x lies over something else", e.host)
	}
	if a.counts.get(i) == maxCount {
		return decode.Unsupported("cluster at %#x is in more than %d snapshots", e.host, maxCount)
	}
	a.counts.add(i, 1)
	*k = max(*k, byte(weight(e.alloc)>>subBits)+1)
	return nil
}

func (a *audit) snapshots(ctx context.Context, l layout) error {
	if l.snapshots == 0 {
		return nil
	}
	list, n, err := a.readSnapshots(l)
	if err != nil {
		return err
	}
	if err := a.claim("snapshot table", l.snapshotAt, clusters(n)); err != nil {
		return err
	}
	for _, s := range list {
		if s.L1Entries > qcow2.MaxL1Bytes/8 || (s.diskSize(a.d)+1<<spanBits-1)>>spanBits > int64(s.L1Entries) {
			return decode.Corrupt("snapshot %s has an L1 table of %d entries for %d bytes", s.ID, s.L1Entries, s.diskSize(a.d))
		}
		l1, err := a.l1Table("L1 table of snapshot "+s.ID, int64(s.L1Offset), int(s.L1Entries))
		if err != nil {
			return err
		}
		if err := a.walk(ctx, l1, false); err != nil {
			return err
		}
	}
	a.snaps, a.snapClusters = list, clusters(n)
	return nil
}

// readSnapshots decodes the snapshot table, whose length stands nowhere.
func (a *audit) readSnapshots(l layout) (list []*snapshot, n int64, err error) {
	if l.snapshotAt <= 0 || l.snapshotAt >= a.length {
		return nil, 0, decode.Corrupt("snapshot table at %#x of %d bytes", l.snapshotAt, a.length)
	}
	b := make([]byte, min(a.length-l.snapshotAt, 64<<20))
	if err := a.d.read(b, l.snapshotAt); err != nil {
		return nil, 0, err
	}
	for range l.snapshots {
		e, used, err := qcow2.DecodeSnapshot(b[min(n, int64(len(b))):])
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, 0, decode.Corrupt("snapshot table of more than %d bytes", len(b))
		}
		if err != nil {
			return nil, 0, err
		}
		list = append(list, &snapshot{SnapshotEntry: e})
		n += int64(used)
	}
	return list, n, nil
}

// flags looks whether the active tree says rightly which clusters are its own.
func (a *audit) flags(ctx context.Context) error {
	for _, e := range a.l1 {
		at := int64(e & qcow2.OffsetMask)
		if at == 0 || a.stale != "" {
			continue
		}
		if err := errors.Join(ctx.Err(), a.d.read(a.buf[:], at)); err != nil {
			return err
		}
		for b := a.buf[:]; len(b) > 0; b = b[entrySize:] {
			if e := decodeEntry(b); e.host != 0 && e.own != (a.counts.get(e.host>>clusterBits) == 1) {
				a.stale = "a cluster is marked wrongly as ours alone or as shared"
			}
		}
	}
	return nil
}

// compare marks as dirty what the file counts differently.
func (a *audit) compare() error {
	for n, p := range a.counts {
		if p == nil {
			continue
		}
		p.dirty = [len(p.dirty)]uint64{}
		if p.at == 0 && p.free < pageLen {
			a.stale = "a refcount block is missing"
		}
		if p.at == 0 {
			continue
		}
		if err := a.d.read(a.buf[:], p.at); err != nil {
			return err
		}
		for k, want := range p.count {
			if have := binary.BigEndian.Uint16(a.buf[2*k:]); have != want {
				a.differ(p, int64(n)<<pageBits+int64(k), have, want)
			}
		}
	}
	return nil
}

func (a *audit) differ(p *page, i int64, have, want uint16) {
	p.soil(i & (pageLen - 1))
	if have < want {
		// Never the work of a crash of ours. The mapping is what counts.
		a.stale = "a refcount is too low"
		return
	}
	a.leaks++
	at := i << clusterBits
	if want != 0 || at >= a.length {
		return
	}
	if n := len(a.leaked); n > 0 && a.leaked[n-1].End() == at {
		a.leaked[n-1].Len += clusterSize
		return
	}
	a.leaked = append(a.leaked, block.Extent{Off: at, Len: clusterSize})
}

// used is what Usage says of the file.
func (a *audit) used() int64 {
	n := a.meta << clusterBits
	for _, p := range a.kinds {
		if p == nil {
			continue
		}
		for _, k := range p {
			if k > isFree && k < isTable {
				n += int64(k-1) << subBits
			}
		}
	}
	return n
}
