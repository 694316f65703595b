package objectlog

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// The format of a checkpoint; DESIGN.md has it as a table.
const (
	mapMagic  = "PLTRMAP1"
	mapHeader = 128
	mapRow    = refLen + 8
)

// A disk is what the log up to some segment makes: where each byte is, and
// which segments there are.
type disk struct {
	seq  int64 // the last segment
	size int64
	m    *extent.Map
	segs map[int64]ref // those that the disk may refer to
	dead []grave       // those that it does not, and that some snapshot may
}

// A grave is a segment that the disk refers to no more, since the head whose
// last segment is death. The snapshots from its own number up to before death
// may.
type grave struct {
	ref
	death int64
}

// needed tells whether a snapshot at one of seqs may refer to the segment.
func (g grave) needed(seqs []int64) bool {
	return slices.ContainsFunc(seqs, func(s int64) bool { return g.seq <= s && s < g.death })
}

// encodeMap writes a checkpoint of d.
func encodeMap(w io.Writer, id digest, r mapRef, d *disk) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 256<<10)
	p := append(make([]byte, 0, mapHeader), mapMagic...)
	p = le.AppendUint64(p, uint64(r.epoch))
	p = le.AppendUint64(p, uint64(r.number))
	p = append(p, id[:]...)
	for _, v := range []int64{d.seq, d.size, int64(len(d.segs)), int64(len(d.dead)), int64(d.m.Len())} {
		p = le.AppendUint64(p, uint64(v))
	}
	out.Write(pad(p, mapHeader)) // errors of a bufio.Writer stay until Flush
	seqs := make([]int64, 0, len(d.segs))
	for seq := range d.segs {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		out.Write(le.AppendUint64(d.segs[seq].append(p[:0]), 0))
	}
	for _, g := range d.dead {
		out.Write(le.AppendUint64(g.append(p[:0]), uint64(g.death)))
	}
	if err := extent.Encode(out, d.m); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// counter is a Writer that only counts and keeps the last 32 bytes, which are
// a checkpoint's digest.
type counter struct {
	n    int64
	last digest
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	if len(p) >= len(c.last) {
		copy(c.last[:], p[len(p)-len(c.last):])
	}
	return len(p), nil
}

// loadMap reads the checkpoint r from the store.
func loadMap(ctx context.Context, s backends.Store, prefix string, id digest, r mapRef) (*disk, error) {
	key := r.key(prefix)
	o, err := s.Open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	defer o.Close()
	d, err := decodeMap(ctx, o, id, r)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w", key, err)
	}
	return d, nil
}

// decodeMap reads a checkpoint. What it returns is checked as a whole: digest,
// order, and that every extent is inside a segment of the table.
func decodeMap(ctx context.Context, o block.Reader, id digest, r mapRef) (*disk, error) {
	if o.Size() != r.length || r.length < mapHeader+sha256.Size {
		return nil, corrupt("%d bytes, want %d", o.Size(), r.length)
	}
	body := r.length - sha256.Size
	sum := sha256.New()
	in := bufio.NewReaderSize(io.TeeReader(io.NewSectionReader(block.ReaderAt(ctx, o), 0, body), sum), int(min(body, 1<<20)))
	d, err := decodeBody(in, id, r, body)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, extent.ErrCorrupt):
		return nil, corrupt("%v", err)
	case err != nil:
		return nil, err
	}
	if n, err := in.Discard(1); n > 0 || !errors.Is(err, io.EOF) {
		return nil, corrupt("it goes on behind its end")
	}
	if err := sealed(ctx, o, sum, r); err != nil {
		return nil, err
	}
	return d, d.check()
}

// sealed checks the digest at the end of a checkpoint.
func sealed(ctx context.Context, o block.Reader, sum hash.Hash, r mapRef) error {
	var stored digest
	if err := o.ReadAt(ctx, stored[:], r.length-int64(len(stored))); err != nil {
		return err
	}
	if got := digest(sum.Sum(nil)); got != stored || got != r.digest {
		return corrupt("its digest is not the one that was committed")
	}
	return nil
}

func decodeBody(in io.Reader, id digest, r mapRef, length int64) (*disk, error) {
	p := make([]byte, mapHeader)
	if _, err := io.ReadFull(in, p); err != nil {
		return nil, err
	}
	c := &cursor{p: p}
	magic := string(c.bytes(len(mapMagic)))
	epoch, number, owner := c.i64(), c.i64(), c.digest()
	d := &disk{seq: c.i64(), size: c.i64()}
	segs, dead, extents := c.i64(), c.i64(), c.i64()
	if magic != mapMagic || c.bad || epoch != r.epoch || number != r.number || d.seq != r.seq || owner != id {
		return nil, corrupt("a header of something else")
	}
	// No row and no extent is shorter than that, so memory is bounded by what
	// is really there.
	if segs > length/mapRow || dead > length/mapRow || extents > length/2 {
		return nil, corrupt("%d segments and %d extents in %d bytes", segs+dead, extents, length)
	}
	d.segs = make(map[int64]ref)
	row := make([]byte, mapRow)
	for i := range segs + dead {
		if _, err := io.ReadFull(in, row); err != nil {
			return nil, err
		}
		c := &cursor{p: row}
		g := grave{c.ref(), c.i64()}
		if c.bad || g.seq > d.seq || (i < segs) != (g.death == 0) {
			return nil, corrupt("row %d of the table of segments", i)
		}
		if i < segs {
			d.segs[g.seq] = g.ref
		} else {
			d.dead = append(d.dead, g)
		}
	}
	var err error
	d.m, err = extent.Decode(in, d.size, int(extents))
	return d, err
}

// check is an error if an extent of d is not inside a segment of d.
func (d *disk) check() error {
	for e := range d.m.All() {
		switch e.Target.Kind() {
		case extent.Zero:
		case extent.Segment:
			seq, off := e.Target.Segment()
			if r, ok := d.segs[seq]; !ok || e.Len > r.payload-off {
				return corrupt("%d bytes at %d of the disk are at %d of segment %d, which has not so much", e.Len, e.Off, off, seq)
			}
		default:
			return corrupt("%d bytes at %d of the disk are in no segment", e.Len, e.Off)
		}
	}
	return nil
}

// apply makes the changes of the segment m, which is the next one. displaced is
// told of what the disk does not refer to any more, moved of what is new.
func (d *disk) apply(r ref, m *meta, displaced, moved func(extent.Extent)) error {
	if r.seq != d.seq+1 {
		return corrupt("segment %d after segment %d", r.seq, d.seq)
	}
	d.segs[r.seq] = r
	applyEntries(d.m, r.seq, m.entries, displaced, moved)
	d.seq = r.seq
	return nil
}

// applyEntries makes m what it is after the entries of segment seq, whose
// bytes are one after the other in the payload. Copied bytes change places only
// where they still are at the place that they were copied from.
func applyEntries(m *extent.Map, seq int64, entries []entry, displaced, moved func(extent.Extent)) {
	at := int64(0)
	for _, e := range entries {
		at = applyEntry(m, seq, e, at, displaced, moved)
	}
}

func applyEntry(m *extent.Map, seq int64, e entry, at int64, displaced, moved func(extent.Extent)) int64 {
	x := extent.Extent{Off: e.off, Len: e.len, Target: extent.ZeroTarget()}
	if e.kind != kindZero {
		x.Target = extent.SegmentTarget(seq, at)
		at += e.len
	}
	if e.kind == kindCopy {
		m.Move(e.off, e.len, e.from, x.Target, func(to extent.Extent) {
			if displaced != nil {
				displaced(extent.Extent{Off: to.Off, Len: to.Len, Target: e.from.Add(to.Off - e.off)})
			}
			if moved != nil {
				moved(to)
			}
		})
		return at
	}
	m.Insert(x, displaced)
	if moved != nil {
		moved(x)
	}
	return at
}

// loadDisk reads from the store what the head s says the disk is.
func loadDisk(ctx context.Context, src *source, s *state) (*disk, error) {
	d := &disk{size: s.size, m: extent.New(), segs: make(map[int64]ref)}
	if s.base.number > 0 {
		var err error
		if d, err = loadMap(ctx, src.store, src.prefix, src.id, s.base); err != nil {
			return nil, err
		}
		if d.size != s.size {
			return nil, corrupt("a checkpoint of a disk of %d bytes for one of %d", d.size, s.size)
		}
	}
	metas, err := src.metas(ctx, s.tail)
	if err != nil {
		return nil, err
	}
	for i, r := range s.tail {
		m := metas[i]
		if i > 0 && (m.prev != s.tail[i-1].digest || m.prevSeq != r.seq-1) {
			return nil, corrupt("segment %d does not follow segment %d", r.seq, r.seq-1)
		}
		if m.size > s.size {
			return nil, corrupt("segment %d is of a disk of %d bytes", r.seq, m.size)
		}
		if err := d.apply(r, m, nil, nil); err != nil {
			return nil, err
		}
	}
	return d, nil
}
