package objectlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// A plan is a head that is about to be committed, and what it is made of.
type plan struct {
	head    *state
	dirty   bool
	garbage []string
	graves  map[int64]bool // that are in garbage
	flights []*flight
	job     *job // whose checkpoint it has
	drops   []*drop
}

// commit commits heads, one after the other, each with all that is ready.
func (l *Log) commit() {
	for {
		select {
		case <-l.life.Done():
			return
		case <-l.commitWake:
		}
		for {
			p := l.plan()
			if p == nil {
				break
			}
			if !l.commitHead(p) {
				return
			}
			l.settle(p)
		}
		l.work.Lock()
		l.begin()
		l.work.Unlock()
		if !l.trim() {
			return
		}
		wake(l.cleanWake)
	}
}

// plan is the next head, or nil if there is nothing to change.
func (l *Log) plan() *plan {
	l.work.Lock()
	defer l.work.Unlock()
	p := &plan{head: l.head.clone()}
	h := p.head
	h.maps = l.maps
	for _, f := range l.flights {
		if !f.uploaded || len(h.tail) == maxTail {
			break
		}
		p.flights = append(p.flights, f)
		h.tail = append(h.tail, f.ref)
		h.last = f.ref
		h.upto = max(h.upto, f.gen.upto)
	}
	l.planJob(p)
	l.planDrops(p)
	l.planGraves(p)
	was := l.dirty.Load()
	p.dirty = l.planDirty(h.upto, was)
	idle := len(l.flights) == 0 || len(p.garbage) >= maxGarbage/2
	if len(p.flights) == 0 && p.job == nil && len(p.drops) == 0 && p.dirty == was && (len(p.garbage) == 0 || !idle) {
		return nil
	}
	return p
}

// planDirty tells whether the head must say that the journal is needed. A flush
// that sees the head dirty is acknowledged: so before it is said that it is
// not, flushes are made to wait, and only then it is looked whether everything
// is in this head. With work held.
func (l *Log) planDirty(upto int64, was bool) bool {
	if l.cfg.Durability == Store && !was {
		return false // flushes do not rely on the journal
	}
	l.dirty.Store(false)
	if l.last() <= upto {
		return false
	}
	if was {
		l.dirty.Store(true)
		l.ring()
	}
	return true
}

// planJob puts a finished checkpoint and its snapshots into the head. With work
// held.
func (l *Log) planJob(p *plan) {
	if l.job == nil || !l.job.done {
		return
	}
	p.job = l.job
	h, old := p.head, p.head.base
	h.base, h.size = l.job.ref, l.job.size
	h.tail = slices.DeleteFunc(h.tail, func(r ref) bool { return r.seq <= h.base.seq })
	for _, a := range l.job.asks {
		if a.gone {
			continue
		}
		a.snap = snapshot{id: h.next, created: l.job.created, size: h.size, m: h.base, name: a.name}
		h.snaps = append(h.snaps, a.snap)
		h.next++
	}
	l.unmap(p, old)
}

// unmap makes a checkpoint garbage that the head refers to no more.
func (l *Log) unmap(p *plan, m mapRef) {
	if m.number == 0 || m == p.head.base || slices.ContainsFunc(p.head.snaps, func(s snapshot) bool { return s.m == m }) {
		return
	}
	p.garbage = append(p.garbage, m.key(l.cfg.Prefix))
}

// planDrops takes snapshots out of the head. With work held.
func (l *Log) planDrops(p *plan) {
	for _, d := range l.drops {
		if len(p.garbage) >= maxGarbage/2 {
			break // the others come next
		}
		p.drops = append(p.drops, d)
		i := slices.IndexFunc(p.head.snaps, func(s snapshot) bool { return s.id == d.id })
		if i < 0 {
			continue
		}
		m := p.head.snaps[i].m
		p.head.snaps = slices.Delete(p.head.snaps, i, i+1)
		l.unmap(p, m)
	}
}

// planGraves makes segments garbage that neither the head nor a snapshot
// refers to. With work held.
func (l *Log) planGraves(p *plan) {
	if !l.reap {
		return
	}
	pins := l.pins(p.head)
	p.graves = make(map[int64]bool)
	for _, g := range l.stored.dead {
		if len(p.garbage) == maxGarbage {
			return
		}
		if !g.needed(pins) {
			p.garbage = append(p.garbage, g.key(l.cfg.Prefix))
			p.graves[g.seq] = true
		}
	}
	l.reap = len(p.graves) > 0
}

// pins are the numbers of the last segments of all snapshots of h, and of
// those that are being made. With work held.
func (l *Log) pins(h *state) []int64 {
	var seqs []int64
	for _, s := range h.snaps {
		seqs = append(seqs, s.m.seq)
	}
	if l.job != nil && len(l.job.asks) > 0 {
		seqs = append(seqs, l.job.ref.seq)
	}
	return seqs
}

// commitHead commits p's head, and tries until it is done. It is false when the
// log ended.
func (l *Log) commitHead(p *plan) bool {
	h := Head{Epoch: l.cfg.Epoch, Sequence: p.head.last.seq, Dirty: p.dirty, State: p.head.encode(), Garbage: p.garbage}
	for pause := l.cfg.Retry; ; {
		if l.step(l.life, StepCommit) != nil {
			return false
		}
		err := l.cfg.Heads.Commit(l.life, h)
		if errors.Is(err, ErrFenced) {
			l.fail(fmt.Errorf("commit the head: %w", err))
			return false
		}
		if l.step(l.life, StepCommitted) != nil || err != nil && l.life.Err() != nil {
			return false
		}
		l.note(withCatalog, "commit the head", err)
		if err == nil {
			return true
		}
		if !l.pause(&pause) {
			return false
		}
	}
}

// settle takes over what was committed.
func (l *Log) settle(p *plan) {
	for _, f := range p.flights {
		l.takeOver(f)
		if f.copied == 0 {
			l.kept = append(l.kept, f.gen)
		}
		<-l.slots
	}
	l.bury(p)
	l.work.Lock()
	l.head = p.head
	l.covered = p.head.upto
	l.flights = slices.Delete(l.flights, 0, len(p.flights))
	if p.dirty {
		l.dirty.Store(true)
	}
	if p.job != nil {
		l.job, l.reap = nil, true
		if l.size != p.head.size {
			l.size, l.newSize = p.head.size, 0
		}
		for _, a := range p.job.asks {
			a.made = true
		}
	}
	for _, d := range p.drops {
		d.made = true
		l.reap = true
	}
	l.drops = slices.DeleteFunc(l.drops, func(d *drop) bool { return d.made })
	l.begin()
	l.ring()
	l.work.Unlock()
	if len(p.flights) > 0 {
		_ = l.step(l.life, StepApplied) // if it fails, the log has ended
	}
}

// atOnce is how many entries are taken over with mu held without a break.
const atOnce = 64

// unrefer notes that the disk refers to e no more. With mu held.
func (l *Log) unrefer(e extent.Extent) {
	if e.Target.Kind() != extent.Segment {
		return
	}
	l.live.Sub(e)
	l.counts.live -= e.Len
	if seq, _ := e.Target.Segment(); l.live[seq] == 0 {
		l.empty = append(l.empty, seq)
	}
}

// refer notes that the disk refers to e. With mu held.
func (l *Log) refer(e extent.Extent) {
	if e.Target.Kind() == extent.Segment {
		l.live.Add(e)
		l.counts.live += e.Len
	}
}

// takeOver makes the disk refer to a segment that was committed.
func (l *Log) takeOver(f *flight) {
	at := int64(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored.segs[f.ref.seq] = f.ref
	l.counts.add(f.ref, l.cfg.SegmentSize)
	for i, e := range f.entries {
		if i%atOnce == atOnce-1 { // let readers in between
			l.mu.Unlock()
			l.mu.Lock()
		}
		at = applyEntry(l.stored.m, f.ref.seq, e, at, l.unrefer, l.refer)
	}
	l.stored.seq = f.ref.seq
	l.counts.pending -= f.gen.raw
	if l.live[f.ref.seq] == 0 {
		l.empty = append(l.empty, f.ref.seq)
	}
}

// bury moves segments that the disk refers to no more to the graves, unless
// they are needed to read the log from the last checkpoint on, and forgets the
// graves that became garbage.
func (l *Log) bury(p *plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.stored
	death := p.head.last.seq
	if death == l.resized {
		death++
	}
	if len(p.graves) > 0 {
		d.dead = slices.DeleteFunc(d.dead, func(g grave) bool {
			if p.graves[g.seq] {
				l.counts.pinned -= g.payload
			}
			return p.graves[g.seq]
		})
	}
	l.empty = slices.DeleteFunc(l.empty, func(seq int64) bool {
		r, there := d.segs[seq]
		if !there || l.live[seq] > 0 {
			return true
		}
		if seq > p.head.base.seq {
			return false
		}
		delete(d.segs, seq)
		d.dead = append(d.dead, grave{r, death})
		l.counts.sub(r, l.cfg.SegmentSize)
		l.counts.pinned += r.payload
		l.reap = true
		return true
	})
}

// trim gives back the space of the journal that holds what the store has, once
// it is half full; until then it is the quickest place to read from. It is
// false when the log ended.
func (l *Log) trim() bool {
	st, limit := l.j.Stats(), l.cfg.JournalLimit
	crowded := l.crowded.Swap(false)
	if used := st.End - st.Start; len(l.kept) == 0 || !crowded && used < limit/2 {
		return true
	}
	if l.step(l.life, StepTrim) != nil {
		return false
	}
	var upto int64
	n := 0
	for _, g := range l.kept {
		if !crowded && st.End-g.upto < limit/4 {
			break
		}
		l.forget(g.pieces)
		upto = g.upto
		n++
	}
	l.kept = slices.Delete(l.kept, 0, n)
	if n > 0 {
		if err := l.j.Trim(upto); err != nil {
			l.fail(fmt.Errorf("trim the journal: %w", err))
			return false
		}
		l.work.Lock()
		close(l.room)
		l.room = make(chan struct{})
		l.work.Unlock()
	}
	return l.step(l.life, StepTrimmed) == nil
}

// forget takes pieces out of fresh where they are still what is there.
func (l *Log) forget(pieces []extent.Extent) {
	for piece := range slices.Chunk(pieces, atOnce) {
		l.mu.Lock()
		for _, e := range piece {
			l.fresh.Move(e.Off, e.Len, e.Target, 0, nil)
		}
		l.mu.Unlock()
	}
}

// A job is a checkpoint that is being made.
type job struct {
	ref     mapRef
	disk    *disk
	size    int64  // of the disk
	asks    []*ask // for snapshots that it is for
	created int64
	done    bool
}

// begin begins a checkpoint if a snapshot waits for one that can be had now, or
// the head lists many segments. With work held, by the committer.
func (l *Log) begin() {
	if l.job != nil || l.life.Err() != nil {
		return
	}
	var asks []*ask
	l.asks = slices.DeleteFunc(l.asks, func(a *ask) bool {
		ready := a.upto <= l.covered
		if ready && !a.gone {
			asks = append(asks, a)
		}
		return ready
	})
	resizes := l.newSize != 0 && len(l.flights) == 0
	if len(asks) == 0 && !resizes && !l.longTail() {
		return
	}
	if resizes {
		l.cut(l.newSize)
	}
	l.mu.Lock()
	d := l.stored
	frozen := &disk{seq: d.seq, size: d.size, m: d.m.Snapshot(), segs: maps.Clone(d.segs), dead: slices.Clone(d.dead)}
	l.mu.Unlock()
	j := &job{disk: frozen, size: frozen.size, asks: asks, created: l.cfg.Now().UnixNano()}
	j.ref = mapRef{number: l.maps, epoch: l.cfg.Epoch, seq: frozen.seq}
	l.job = j
	l.maps++
	l.wg.Go(func() { l.checkpoint(j) })
}

// longTail tells whether it is time for a checkpoint: recovery reads what the
// head lists. A large map is written less often.
func (l *Log) longTail() bool {
	h := l.head
	var bytes int64
	for _, r := range h.tail {
		bytes += r.payload
	}
	n := len(h.tail)
	return n >= maxTail/2 || n >= 32 && bytes >= 4*h.base.length
}

// checkpoint stores the checkpoint j and tells the committer.
func (l *Log) checkpoint(j *job) {
	var c counter
	if err := encodeMap(&c, l.src.id, j.ref, j.disk); err != nil {
		l.fail(fmt.Errorf("encode a checkpoint: %w", err))
		return
	}
	j.ref.length, j.ref.digest = c.n, c.last
	if !l.storeMap(j.ref, j.disk) {
		return
	}
	l.work.Lock()
	j.done, j.disk = true, nil
	l.work.Unlock()
	wake(l.commitWake)
}
