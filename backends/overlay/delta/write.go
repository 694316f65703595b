package delta

import (
	"context"
	"errors"

	"github.com/seed-478a8fee/platter/backends/block"
)

// WriteAt writes to the disk as it is without a base.
func (d *Delta) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.WriteOver(ctx, nil, p, off)
}

// WriteOver writes to the disk that the Delta makes of below. Below is read
// only for the rest of the first and the last 4 KiB, if they are new.
func (d *Delta) WriteOver(ctx context.Context, below block.Reader, p []byte, off int64) error {
	return d.writeOver(ctx, below, p, off, d.put)
}

// A storer writes bytes to a place in the file.
type storer func(p []byte, at int64) error

func (d *Delta) writeOver(ctx context.Context, below block.Reader, p []byte, off int64, store storer) error {
	if err := d.check(ctx, off, int64(len(p))); err != nil {
		return err
	}
	if err := d.relieve(ctx); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(int64(len(p)), clusterSize-off&(clusterSize-1))
		err := d.writeGated(ctx, below, p[:n], off, store)
		if errors.Is(err, errNoSpace) && d.reclaim(ctx) {
			err = d.writeGated(ctx, below, p[:n], off, store)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (d *Delta) writeGated(ctx context.Context, below block.Reader, p []byte, off int64, store storer) error {
	d.gate.RLock()
	defer d.gate.RUnlock()
	if err := d.writable(); err != nil {
		return err
	}
	done, err := d.overwrite(p, off, store)
	if done || err != nil {
		return err
	}
	lock := d.lockOf(off >> clusterBits)
	lock.Lock()
	defer lock.Unlock()
	return d.allocate(ctx, &patch{c: off >> clusterBits, in: off & (clusterSize - 1), p: p, below: below, store: store})
}

// overwrite writes p, which is in one cluster, if it has its place already.
// This takes no lock for long and changes no metadata.
func (d *Delta) overwrite(p []byte, off int64, store storer) (bool, error) {
	turn := d.grace.enter()
	defer d.grace.leave(turn)
	e, err := d.lookup(nil, off>>clusterBits)
	if err != nil {
		return false, err
	}
	in := off & (clusterSize - 1)
	subs := mask(in, in+int64(len(p)))
	if !d.ours(e) || e.alloc&subs != subs {
		return false, nil
	}
	return true, store(p, e.host+in)
}

// A patch is one write to one cluster whose mapping it changes.
type patch struct {
	c     int64
	old   entry
	place int64 // where the cluster will be
	in    int64 // where in the cluster p begins
	p     []byte
	subs  uint32 // that p touches
	below block.Reader
	store storer
}

func (w *patch) end() int64 { return w.in + int64(len(w.p)) }

// moves reports whether the cluster gets another place than it has.
func (w *patch) moves() bool { return w.place != w.old.host }

// allocate writes what w says and maps it. The caller holds the stripe and
// shares the gate, so nobody else moves or frees the cluster.
func (d *Delta) allocate(ctx context.Context, w *patch) error {
	w.subs = mask(w.in, w.end())
	var err error
	if w.old, err = d.lookup(nil, w.c); err != nil {
		return err
	}
	if err := d.table(w.c); err != nil {
		return err
	}
	e := entry{host: w.old.host, own: true, alloc: w.old.alloc | w.subs, zero: w.old.zero &^ w.subs}
	cost := weight(w.subs &^ w.old.alloc)
	if !w.old.own { // the old place stays, it is a snapshot's
		cost = weight(e.alloc)
	}
	if err := d.charge(cost); err != nil {
		return err
	}
	if !d.ours(w.old) {
		if e.host, err = d.refs.take(d); err != nil {
			d.used.Add(-cost)
			return err
		}
	}
	w.place = e.host
	err = d.fillCluster(ctx, w)
	if err == nil {
		drop := int64(0)
		if w.moves() {
			drop = w.old.host
		}
		err = d.update(w.c, e, drop, 0)
	}
	if err != nil {
		d.used.Add(-cost)
		if w.moves() {
			d.refs.giveBack(w.place)
		}
	}
	return err
}

// fillCluster writes p to its place, and with it what the new mapping says is
// there too: the rest of the first and last subcluster, and if the cluster
// moves its other data.
func (d *Delta) fillCluster(ctx context.Context, w *patch) error {
	from, to := w.in, w.end()
	first, last := from>>subBits, (to-1)>>subBits
	if d.partial(w, first) {
		from = first << subBits
	}
	if d.partial(w, last) {
		to = (last + 1) << subBits
	}
	if from == w.in && to == w.end() {
		if err := w.store(w.p, w.place+w.in); err != nil {
			return err
		}
		return d.move(w, nil)
	}
	b := d.buffer.Get().(*[clusterSize]byte)
	defer d.buffer.Put(b)
	if err := d.fill(ctx, w, b[from:w.in], from); err != nil {
		return err
	}
	copy(b[w.in:], w.p)
	if err := d.fill(ctx, w, b[w.end():to], w.end()); err != nil {
		return err
	}
	if err := d.write(b[from:to], w.place+from); err != nil {
		return err
	}
	return d.move(w, b)
}

// partial reports whether the write leaves bytes of subcluster i to be
// brought to its place.
func (d *Delta) partial(w *patch, i int64) bool {
	return w.moves() || w.old.alloc>>i&1 == 0
}

// fill reads bytes of one subcluster as they were before the write. Behind the
// end of the disk they are zeros.
func (d *Delta) fill(ctx context.Context, w *patch, p []byte, in int64) error {
	inside := min(int64(len(p)), max(d.size-w.c<<clusterBits-in, 0))
	clear(p[inside:])
	p = p[:inside]
	if len(p) == 0 {
		return nil
	}
	switch kind, _ := w.old.run(int(in >> subBits)); kind {
	case block.Data:
		return d.read(p, w.old.host+in)
	case block.Zero:
		clear(p)
		return nil
	}
	return readBelow(ctx, w.below, p, w.c<<clusterBits+in)
}

// move copies the data that w does not touch, if the cluster moves. It may
// use b.
func (d *Delta) move(w *patch, b *[clusterSize]byte) error {
	keep := w.old.alloc &^ w.subs
	if !w.moves() || keep == 0 {
		return nil
	}
	if b == nil {
		b = d.buffer.Get().(*[clusterSize]byte)
		defer d.buffer.Put(b)
	}
	return runs(keep, func(from, to int64) error {
		if err := d.read(b[from:to], w.old.host+from); err != nil {
			return err
		}
		return d.write(b[from:to], w.place+from)
	})
}
