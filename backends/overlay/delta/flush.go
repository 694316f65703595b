package delta

import (
	"context"
	"encoding/binary"
	"slices"
)

// A hole is a set of subclusters of cluster c that have no data any more,
// while the cluster stays.
type hole struct {
	c    int64
	subs uint32
}

// A flight is one flush that several callers wait for.
type flight struct {
	done chan struct{}
	err  error
}

// Flush returns when what was written before is on stable storage. Callers
// that come while one flush runs share the next.
func (d *Delta) Flush(ctx context.Context) error {
	if err := d.check(ctx, 0, 0); err != nil || d.cfg.Volatile {
		return err
	}
	return d.share(ctx)
}

// share runs a flush that begins after the call, or waits for one. It holds
// no lock that a flush wants.
func (d *Delta) share(ctx context.Context) error {
	d.next.Lock()
	if f := d.next.flight; f != nil {
		d.next.Unlock()
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f := &flight{done: make(chan struct{})}
	d.next.flight = f
	d.next.Unlock()

	d.flushing.Lock()
	defer d.flushing.Unlock()
	d.next.Lock()
	d.next.flight = nil // who comes now may have written after we begin
	d.next.Unlock()
	f.err = d.flushLocked()
	close(f.done)
	return f.err
}

func (d *Delta) flush() error {
	d.flushing.Lock()
	defer d.flushing.Unlock()
	return d.flushLocked()
}

// A batch is what one flush takes from memory to the file.
type batch struct {
	l1      map[int]uint64
	slices  []*slice
	copies  []byte // of the slices, one after the other
	dropped []int64
	hollow  []hole
}

// flushLocked writes in an order in which each state that a loss of power can
// leave is a good file: first refcounts go up, data and empty tables are
// there; then the mapping points to them; then what the mapping let go is
// freed.
func (d *Delta) flushLocked() error {
	if err := d.writable(); err != nil {
		return err
	}
	b := d.collect()
	err := d.refs.store(d)
	if err == nil {
		err = d.sync()
	}
	if err == nil && (len(b.l1) > 0 || len(b.slices) > 0) {
		err = d.storeMapping(b)
		if err == nil {
			err = d.sync()
		}
	}
	d.finish(b, err)
	return err
}

// collect copies the mapping as it is now. All that it points to has been
// written, so the next sync covers it.
func (d *Delta) collect() *batch {
	b := new(batch)
	d.m.Lock()
	b.dropped, d.m.dropped = d.m.dropped, nil
	b.hollow, d.m.hollow = d.m.hollow, nil
	if len(d.m.l1Dirty) > 0 {
		b.l1 = make(map[int]uint64, len(d.m.l1Dirty))
		for i := range d.m.l1Dirty {
			b.l1[i] = d.m.active.l1[i]
		}
		clear(d.m.l1Dirty)
	}
	b.slices, d.m.cache.dirty = d.m.cache.dirty, nil
	d.m.Unlock()
	if len(b.slices) == 0 {
		return b
	}
	slices.SortFunc(b.slices, func(x, y *slice) int { return int((x.at - y.at) >> 12) })
	b.copies = make([]byte, 0, len(b.slices)*sliceSize)
	for chunk := range slices.Chunk(b.slices, 32) { // others want the lock, too
		d.m.Lock()
		for _, s := range chunk {
			b.copies = append(b.copies, s.data[:]...)
			s.dirty, s.writing = false, true
		}
		d.m.Unlock()
	}
	return b
}

// storeMapping writes neighbouring slices at once, then the L1 table.
func (d *Delta) storeMapping(b *batch) error {
	for i := 0; i < len(b.slices); {
		j := i + 1
		for j < len(b.slices) && b.slices[j].at == b.slices[j-1].at+sliceSize {
			j++
		}
		if err := d.write(b.copies[i*sliceSize:j*sliceSize], b.slices[i].at); err != nil {
			return err
		}
		i = j
	}
	l1 := d.l1At()
	for i, e := range b.l1 {
		if err := d.write(binary.BigEndian.AppendUint64(nil, e), l1+int64(i)*8); err != nil {
			return err
		}
	}
	return nil
}

// finish frees what the mapping on the disk no longer points to, or after an
// error puts everything back to be written.
func (d *Delta) finish(b *batch, err error) {
	d.m.Lock()
	for _, s := range b.slices {
		s.writing = false
		if err != nil {
			d.m.soil(s)
		}
	}
	if err != nil {
		for i := range b.l1 {
			d.m.l1Dirty[i] = struct{}{}
		}
		d.m.dropped = append(d.m.dropped, b.dropped...)
		d.m.hollow = append(d.m.hollow, b.hollow...)
	}
	d.m.Unlock()
	if err != nil {
		return
	}
	if len(b.dropped) > 0 {
		d.grace.wait()
		d.refs.free(d, b.dropped)
	}
	for _, h := range b.hollow {
		d.punchHole(h)
	}
}

// punchHole frees subclusters that are still without data. A cluster that
// somebody is changing is left alone: it is only space.
func (d *Delta) punchHole(h hole) {
	lock := d.lockOf(h.c)
	if !lock.TryLock() {
		return
	}
	defer lock.Unlock()
	e, err := d.lookup(nil, h.c)
	if err != nil || e.host == 0 || !e.own {
		return
	}
	_ = runs(h.subs&^e.alloc, func(from, to int64) error {
		d.punch(e.host+from, to-from)
		return nil
	})
}

// relieve flushes when more waits in memory than should.
func (d *Delta) relieve(ctx context.Context) error {
	d.m.RLock()
	full := len(d.m.cache.dirty) > d.m.cache.limit/2 || len(d.m.dropped) > 2048 || len(d.m.hollow) > 16384
	d.m.RUnlock()
	if !full {
		return nil
	}
	return d.share(ctx)
}

// reclaim frees what waits to be freed, and tells whether there was anything.
// While a snapshot is being deleted its space waits for that.
func (d *Delta) reclaim(ctx context.Context) bool {
	d.gate.RLock()
	d.m.RLock()
	waits := len(d.m.dropped) > 0 || d.frozen != nil
	d.m.RUnlock()
	d.gate.RUnlock()
	return waits && d.share(ctx) == nil
}
