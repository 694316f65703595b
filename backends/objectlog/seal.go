package objectlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// maxEntries is how many extents a segment has at most, roughly.
const maxEntries = 16 << 10

// A generation is a part of the journal that becomes one segment: what its
// records make of the disk, without what they write over themselves.
type generation struct {
	m      *extent.Map
	live   int64 // bytes of data in m
	raw    int64 // bytes of data in its records
	taken  int64 // bytes of records, roughly
	upto   int64
	born   time.Time
	pieces []extent.Extent // of m, once it is sealed
}

func (g *generation) add(q queued) {
	if g.m == nil {
		g.m, g.born = extent.New(), time.Now()
	}
	g.m.Insert(extent.Extent{Off: q.off, Len: q.len, Target: q.target}, func(e extent.Extent) {
		if !isZero(e.Target) {
			g.live -= e.Len
		}
	})
	if !isZero(q.target) {
		g.live += q.len
		g.raw += q.len
		g.taken += q.len
	}
	g.taken += 64
	g.upto = q.next
}

// full tells whether it is time for a segment: there is enough data, or more
// of it is being written over than it is worth to wait for.
func (g *generation) full(size int64) bool {
	return g.live >= size || g.taken >= 16*size || g.m != nil && g.m.Len() >= maxEntries
}

// A flight is a segment on its way to the store and to the head.
type flight struct {
	ref      ref
	entries  []entry
	object   []byte
	gen      generation // what it is made of; empty if it was copied
	copied   int64      // bytes that cleaning copied
	uploaded bool
}

// copied is what cleaning gives to the sealer.
type copied struct {
	entries []entry
	data    []byte
	done    chan struct{} // closed when it is committed
}

// seal makes segments of what is queued, one after the other.
func (l *Log) seal() {
	timer := time.NewTimer(l.cfg.MaxAge)
	timer.Stop()
	for {
		var err error
		select {
		case <-l.life.Done():
			return
		case c := <-l.copies:
			err = l.sealCopied(c)
		case <-l.j.Crowded():
			l.crowded.Store(true)
			l.urge()
			err = l.sealQueued(false)
			wake(l.commitWake)
		case <-timer.C:
			err = l.sealQueued(true)
		case <-l.sealWake:
			err = l.sealQueued(false)
		}
		if err != nil {
			if l.life.Err() == nil {
				l.fail(fmt.Errorf("seal a segment: %w", err))
			}
			return
		}
		if l.gen.m != nil {
			timer.Reset(time.Until(l.gen.born.Add(l.cfg.MaxAge)))
		}
	}
}

// urge lets all that is in the journal be sealed at once.
func (l *Log) urge() {
	upto := l.last()
	l.work.Lock()
	defer l.work.Unlock()
	l.force = max(l.force, upto)
}

// sealQueued takes over what is queued and seals what is full, and the rest as
// well if it is due or somebody waits for it.
func (l *Log) sealQueued(due bool) error {
	l.mu.Lock()
	batch := l.queue
	l.queue, l.queued, l.spare = l.spare[:0], 0, nil
	l.mu.Unlock()
	for i, q := range batch {
		l.gen.add(q)
		// Never in the midst of a record.
		if last := i+1 == len(batch) || batch[i+1].next != q.next; last && l.gen.full(l.cfg.SegmentSize) {
			if err := l.finish(); err != nil {
				return err
			}
		}
	}
	l.mu.Lock()
	l.spare = batch[:0]
	l.mu.Unlock()
	l.work.Lock()
	forced := l.force > l.sealed
	l.work.Unlock()
	if (due || forced) && l.gen.m != nil {
		if err := l.finish(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.ticking = l.gen.m != nil || len(l.queue) > 0
	again := l.gen.m == nil && len(l.queue) > 0
	l.mu.Unlock()
	if again {
		wake(l.sealWake)
	}
	return nil
}

// finish makes a segment of the generation and sends it on its way.
func (l *Log) finish() error {
	select {
	case l.slots <- struct{}{}:
	case <-l.life.Done():
		return l.life.Err()
	}
	f := &flight{gen: l.gen}
	l.gen = generation{}
	var payload int64
	for e := range f.gen.m.All() {
		f.gen.pieces = append(f.gen.pieces, e)
		f.entries = appendEntry(f.entries, e)
		if !isZero(e.Target) {
			payload += e.Len
		}
	}
	f.gen.m = nil
	f.object = make([]byte, metaLen(len(f.entries), payload)+payload)
	at := f.object[int64(len(f.object))-payload:]
	for _, e := range f.gen.pieces {
		if isZero(e.Target) {
			continue
		}
		if err := l.j.ReadAt(at[:e.Len], e.Target.Pos()); err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		at = at[e.Len:]
	}
	l.launch(f, payload)
	return nil
}

// appendEntry adds e, of a generation, to a table. Neighbours on the disk are
// neighbours in the payload.
func appendEntry(to []entry, e extent.Extent) []entry {
	kind := byte(kindData)
	if isZero(e.Target) {
		kind = kindZero
	}
	if k := len(to) - 1; k >= 0 && to[k].kind == kind && to[k].off+to[k].len == e.Off {
		to[k].len += e.Len
		return to
	}
	return append(to, entry{off: e.Off, len: e.Len, kind: kind})
}

// sealCopied makes a segment of what cleaning copied.
func (l *Log) sealCopied(c *copied) error {
	select {
	case l.slots <- struct{}{}:
	case <-l.life.Done():
		return l.life.Err()
	}
	payload := int64(len(c.data))
	f := &flight{entries: c.entries, copied: payload}
	f.object = make([]byte, metaLen(len(f.entries), payload)+payload)
	copy(f.object[int64(len(f.object))-payload:], c.data)
	l.launch(f, payload)
	l.wg.Go(func() {
		seq := f.ref.seq
		_ = l.wait(l.life, func() bool { return l.head.last.seq >= seq }) // the log ended, and c with it
		close(c.done)
	})
	return nil
}

// launch gives f its number and begins to upload it.
func (l *Log) launch(f *flight, payload int64) {
	if f.copied == 0 {
		l.sealed = f.gen.upto
	}
	l.work.Lock()
	size := l.size
	l.work.Unlock()
	h := header{
		epoch: l.cfg.Epoch, seq: l.seq.seq + 1, id: l.src.id,
		prevEpoch: l.seq.epoch, prevSeq: l.seq.seq, prev: l.seq.digest,
		size: size, journal: l.j.Identity().Epoch, upto: l.sealed,
	}
	f.ref = encodeMeta(f.object, int64(len(f.object))-payload, h, f.entries)
	l.seq = f.ref
	l.work.Lock()
	l.flights = append(l.flights, f)
	l.work.Unlock()
	l.wg.Go(func() {
		if l.upload(f) {
			wake(l.commitWake)
		}
	})
}

// upload stores f, for as long as it takes.
func (l *Log) upload(f *flight) bool {
	key := f.ref.key(l.cfg.Prefix)
	ok := l.store(key, int64(len(f.object)), func(w io.Writer) error {
		_, err := w.Write(f.object)
		return err
	}, func(ctx context.Context, r block.Reader) (bool, error) {
		return holds(ctx, r, f.object)
	})
	if !ok {
		return false
	}
	l.uploaded.Add(int64(len(f.object)))
	l.cleaned.Add(f.copied)
	l.work.Lock()
	f.uploaded, f.object = true, nil
	l.work.Unlock()
	return true
}

// store makes the object key, and tries until it is there. It is false when
// the log ended.
func (l *Log) store(key string, size int64, write func(io.Writer) error, same func(context.Context, block.Reader) (bool, error)) bool {
	for pause := l.cfg.Retry; ; {
		if l.step(l.life, StepPut+" "+key) != nil {
			return false
		}
		err := l.put1(key, size, write)
		if errors.Is(err, fs.ErrExist) {
			err = l.exists(key, same)
		}
		if l.step(l.life, StepStored+" "+key) != nil || l.life.Err() != nil {
			return false
		}
		l.note(withStore, "store "+key, err)
		if err == nil {
			return true
		}
		if !l.pause(&pause) {
			return false
		}
	}
}

func (l *Log) put1(key string, size int64, write func(io.Writer) error) error {
	w, err := l.cfg.Store.Create(l.life, key, size)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := write(w); err != nil {
		return err
	}
	return w.Commit(l.life)
}

// exists is nil if the object that is there already is what we would store:
// the answer of an earlier try was lost. If it is something else, somebody
// writes under our epoch.
func (l *Log) exists(key string, same func(context.Context, block.Reader) (bool, error)) error {
	r, err := l.cfg.Store.Open(l.life, key)
	if err != nil {
		return err
	}
	defer r.Close()
	ok, err := same(l.life, r)
	if err == nil && !ok {
		err = fmt.Errorf("object %s is there and is not ours: %w", key, ErrFenced)
		l.fail(err)
	}
	return err
}

// holds tells whether r is p.
func holds(ctx context.Context, r block.Reader, p []byte) (bool, error) {
	if r.Size() != int64(len(p)) {
		return false, nil
	}
	buf := make([]byte, min(len(p), 1<<20))
	for off := 0; off < len(p); off += len(buf) {
		buf = buf[:min(len(buf), len(p)-off)]
		if err := r.ReadAt(ctx, buf, int64(off)); err != nil {
			return false, err
		}
		if !bytes.Equal(buf, p[off:off+len(buf)]) {
			return false, nil
		}
	}
	return true, nil
}
