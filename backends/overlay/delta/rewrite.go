package delta

import (
	"encoding/binary"
	"slices"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// A rewrite makes new metadata beside the old: L1 and L2 tables of the active
// tree, refcounts, table of snapshots. One write to the header's sector then
// switches to it, so snapshots come and go at once, with all refcounts and
// flags that this changes. Nobody flushes meanwhile. Nobody writes either
// until the new metadata is written, but they may go on before the disk has it.
type rewrite struct {
	d       *Delta
	old     counts      // what must not be touched before the switch
	counts  counts      // what will be
	snaps   []*snapshot // that there will be
	share   bool        // the old active tree becomes a snapshot's
	release func()      // lets others write again
	held    []int64     // places that are free only after the switch, ascending
	hint    int64
	taken   []block.Extent // of new metadata
	freed   int64          // bytes of what is dropped
	need    int64          // bytes that were charged for it beforehand
	l1      []uint64
	layout  layout

	lost   []*[pageLen]byte // of clusters that may become ours alone: what a dropped tree had there
	excess []entry          // which hold more on the disk than anybody refers to
}

// newRewrite begins with all that there is, less the metadata that is
// replaced. With share the old active tables stay, for a snapshot.
func (d *Delta) newRewrite(share bool, release func()) *rewrite {
	w := &rewrite{
		d: d, old: d.refs.counts, counts: d.refs.counts.clone(), share: share, release: release,
		snaps: slices.Clone(d.snaps.list), layout: d.layout(),
	}
	l := w.layout
	w.drop(l.tableAt, l.tableSize)
	for _, p := range w.old {
		if p != nil && p.at != 0 {
			w.drop(p.at, 1)
		}
	}
	if l.snapshots > 0 {
		w.drop(l.snapshotAt, d.snaps.clusters)
	}
	if share {
		return w
	}
	w.drop(l.l1At, clusters(int64(l.l1Entries)*8))
	for _, e := range d.m.active.l1 {
		if at := int64(e & qcow2.OffsetMask); at != 0 {
			w.drop(at, 1)
		}
	}
	return w
}

// drop takes a reference from n clusters of metadata.
func (w *rewrite) drop(at, n int64) {
	for i := at >> clusterBits; i < at>>clusterBits+n; i++ {
		if w.counts.add(i, -1) == 0 {
			w.freed += clusterSize
		}
	}
}

// dropTree takes away the references of a snapshot's tree.
func (w *rewrite) dropTree(s *snapshot) error {
	l1, err := w.d.readL1(int64(s.L1Offset), int(s.L1Entries))
	if err != nil {
		return err
	}
	w.drop(int64(s.L1Offset), clusters(int64(s.L1Entries)*8))
	for _, t := range l1 {
		at := int64(t & qcow2.OffsetMask)
		if at == 0 {
			continue
		}
		w.drop(at, 1)
		err := w.d.eachEntry(at, func(e entry, _ []byte) {
			switch w.counts.add(e.host>>clusterBits, -1) {
			case 0:
				w.freed += weight(e.alloc)
			case 1:
				*bytePage(&w.lost, e.host>>clusterBits) = byte(weight(e.alloc) >> subBits)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachEntry calls f for each entry of an L2 table that has a place in the
// file, with the entry's bytes. It returns after an error of reading only.
func (d *Delta) eachEntry(at int64, f func(e entry, b []byte)) error {
	buf := d.buffer.Get().(*[clusterSize]byte)
	defer d.buffer.Put(buf)
	if err := d.read(buf[:], at); err != nil {
		return err
	}
	eachIn(buf[:], f)
	return nil
}

func eachIn(b []byte, f func(e entry, b []byte)) {
	for ; len(b) > 0; b = b[entrySize:] {
		if binary.NativeEndian.Uint64(b) != 0 {
			f(decodeEntry(b), b)
		}
	}
}

// take takes n clusters in a row that are free before and after the switch.
func (w *rewrite) take(n int) (int64, error) {
	i := w.counts.find(w.hint, n, w.old)
	if n == 1 {
		w.hint = i + 1
	}
	for k := range int64(n) {
		w.counts.add(i+k, 1)
	}
	w.taken = append(w.taken, block.Extent{Off: i << clusterBits, Len: int64(n) << clusterBits})
	return i << clusterBits, w.d.refs.reach(w.d, (i+int64(n))<<clusterBits)
}

// put writes b to clusters of its own.
func (w *rewrite) put(b []byte) (int64, error) {
	at, err := w.take(int(clusters(int64(len(b)))))
	if err == nil {
		err = w.d.write(b, at)
	}
	return at, err
}

// run writes the new metadata, switches to it and frees the old. Before the
// switch an error changes nothing. After it the caller lets go of all locks
// and calls thaw.
func (w *rewrite) run() error {
	d := w.d
	for _, step := range []func() error{w.copyTree, w.putSnapshots, w.putRefcounts} {
		if err := step(); err != nil {
			w.undo()
			return err
		}
	}
	w.adopt()
	w.release()
	if err := d.sync(); err != nil {
		return err
	}
	if err := d.switchTo(w.layout); err != nil {
		return err
	}
	d.snaps.Lock()
	d.snaps.list, d.snaps.clusters = w.snaps, clusters(int64(len(encodeSnapshots(w.snaps))))
	d.snaps.Unlock()
	w.free()
	return nil
}

// undo frees the disk space of what was written and will not be used.
func (w *rewrite) undo() {
	w.d.used.Add(-w.need)
	for _, e := range w.taken {
		w.d.punch(e.Off, e.Len)
	}
}

// adopt lets memory go ahead of the file, so that writes need not wait for the
// disk. What the old header points to must stay as it is until the switch:
// none of it is free before that, and none of it is ours to change, even if it
// will be (see Delta.ours). As nobody flushes, the file stays as it was.
func (w *rewrite) adopt() {
	d := w.d
	for k, p := range w.old {
		for i := range int64(pageLen) {
			if at := int64(k)<<pageBits + i; p != nil && p.count[i] != 0 && w.counts.get(at) == 0 {
				w.held = append(w.held, at<<clusterBits)
			}
		}
	}
	for _, at := range w.held {
		w.counts.add(at>>clusterBits, 1)
	}
	d.frozen = w
	d.m.Lock()
	d.m.active = &tree{w.l1}
	d.m.Unlock()
	d.refs.Lock()
	d.refs.counts, d.refs.hint = w.counts, 0
	d.refs.table, d.refs.entries = w.layout.tableAt, w.layout.tableSize<<clusterBits/8
	d.refs.Unlock()
	d.used.Add(-w.freed - w.need)
	for _, e := range w.taken {
		d.used.Add(e.Len)
	}
}

// ours reports whether the place of e may be written to: whether nothing on
// the disk but the mapping of this one cluster points to it. The caller shares
// the gate, and the answer holds for as long as it does.
func (d *Delta) ours(e entry) bool {
	return e.own && (d.frozen == nil || d.frozen.old.get(e.host>>clusterBits) == 0)
}

// thaw ends what adopt began, after the switch. The caller holds no lock.
// Nobody may be writing: one who thinks that a cluster is not ours copies it,
// while one who knows that it is would write to the place it was copied from.
func (d *Delta) thaw(w *rewrite) {
	d.gate.Lock()
	defer d.gate.Unlock()
	if d.frozen == w {
		d.frozen = nil
	}
}

// copyTree writes copies of the active L2 tables, with flags that agree with
// the new refcounts, and an L1 table for them.
func (w *rewrite) copyTree() error {
	d := w.d
	buf := d.buffer.Get().(*[clusterSize]byte)
	defer d.buffer.Put(buf)
	w.l1 = make([]uint64, len(d.m.active.l1))
	for i, t := range d.m.active.l1 {
		at := int64(t & qcow2.OffsetMask)
		if at == 0 {
			continue
		}
		if err := d.read(buf[:], at); err != nil {
			return err
		}
		eachIn(buf[:], w.mark)
		to, err := w.put(buf[:])
		if err != nil {
			return err
		}
		w.l1[i] = uint64(to) | qcow2.Copied
	}
	// Whole clusters, so that later writes to them need no space.
	b := make([]byte, clusters(int64(len(w.l1))*8)<<clusterBits)
	putL1(b, w.l1)
	at, err := w.put(b)
	w.layout.l1At, w.layout.l1Entries = at, len(w.l1)
	return err
}

func (w *rewrite) mark(e entry, b []byte) {
	i := e.host >> clusterBits
	if w.share {
		w.counts.add(i, 1)
	}
	had := e.own
	e.own = w.counts.get(i) == 1
	e.encode(b)
	if had || !e.own {
		return
	}
	if more := int64(*bytePage(&w.lost, i))<<subBits - weight(e.alloc); more > 0 {
		w.freed += more
		w.excess = append(w.excess, e)
	}
}

func (w *rewrite) putSnapshots() error {
	w.layout.snapshots, w.layout.snapshotAt = len(w.snaps), 0
	if len(w.snaps) == 0 {
		return nil
	}
	at, err := w.put(encodeSnapshots(w.snaps))
	w.layout.snapshotAt = at
	return err
}

func encodeSnapshots(list []*snapshot) (b []byte) {
	for _, s := range list {
		b = s.Encode(b)
	}
	return b
}

// putRefcounts comes last: it counts itself, too. Placing a block can need one
// more, for the clusters that are there.
func (w *rewrite) putRefcounts() error {
	size := max(w.layout.tableSize, int64(len(w.counts)+2)*8>>clusterBits+1)
	at, err := w.take(int(size))
	if err != nil {
		return err
	}
	for n := 0; n < len(w.counts); n++ {
		p := w.counts[n]
		if p == nil || p.at != 0 || p.free == pageLen && !w.holds(n) {
			continue
		}
		if p.at, err = w.take(1); err != nil {
			return err
		}
		n = -1
	}
	w.layout.tableAt, w.layout.tableSize = at, size
	table, b := make([]byte, size<<clusterBits), make([]byte, clusterSize)
	for n, p := range w.counts {
		if p == nil || p.at == 0 {
			continue
		}
		binary.BigEndian.PutUint64(table[n*8:], uint64(p.at))
		for k, v := range p.count {
			binary.BigEndian.PutUint16(b[2*k:], v)
		}
		if err := w.d.write(b, p.at); err != nil {
			return err
		}
		p.dirty = [len(p.dirty)]uint64{}
	}
	return w.d.write(table, at)
}

// holds reports whether page n counts something that adopt will hold. It needs
// a block then, though it counts nothing that will be.
func (w *rewrite) holds(n int) bool {
	return n < len(w.old) && w.old[n] != nil && w.old[n].free < pageLen
}

// free frees what only the old header pointed to. Readers who began before
// go on with the old tables until they are done.
func (w *rewrite) free() {
	d := w.d
	d.grace.wait()
	d.m.forget(w.held)
	d.refs.free(d, w.held)
	for _, e := range w.excess {
		_ = runs(^e.alloc, func(from, to int64) error {
			d.punch(e.host+from, to-from)
			return nil
		})
	}
}

// normalize writes the metadata anew as it should be. Nobody else uses d yet.
func (d *Delta) normalize() error {
	w := d.newRewrite(false, func() {})
	err := w.run()
	d.thaw(w)
	return err
}
