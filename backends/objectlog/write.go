package objectlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
)

const (
	maxRecord = 1 << 20   // bytes of data in a record of the journal
	maxMark   = 1 << 30   // bytes that one zero mark covers
	wakeAt    = 512 << 10 // bytes queued before the sealer is woken again
)

// Zeros in fresh must be told apart by the record that they are from, or they
// could not be forgotten when that record is trimmed and a newer one, not yet
// in the store, made the same range zero. So each has a position of its own, in
// a part of the positions that no journal reaches.
const (
	markBit   = 1 << 61
	markShift = 32
	markCount = 1<<(61-markShift) - 1
)

func zeroMark(n int64) extent.Target {
	return extent.JournalTarget(markBit | (n&markCount)<<markShift)
}

// isZero tells whether the bytes at a target in fresh are zero.
func isZero(t extent.Target) bool { return t.Pos()&markBit != 0 }

// queued is a change that the sealer has not seen.
type queued struct {
	off, len int64
	target   extent.Target
	next     int64
}

// apply takes over records that the journal has, in the order in which it has
// them. The journal calls it.
func (l *Log) apply(recs []journal.Record) {
	l.mu.Lock()
	for i := range recs {
		r := &recs[i]
		switch r.Kind {
		case journal.Write:
			l.put(queued{r.Off, r.Len, extent.JournalTarget(r.Pos), r.Next})
			l.queued += r.Len
			l.counts.pending += r.Len
		case journal.Zero, journal.Discard:
			for off, end := r.Off, r.Off+r.Len; off < end; off += maxMark {
				l.put(queued{off, min(maxMark, end-off), zeroMark(l.zeros), r.Next})
				l.zeros++
			}
			l.queued += 64 // about what the journal takes for it
		}
		l.appended = r.Next
	}
	due := !l.ticking || l.queued >= wakeAt
	if !l.ticking {
		l.ticking, l.ticked = true, time.Now()
	}
	l.mu.Unlock()
	if due {
		wake(l.sealWake)
	}
	if l.cfg.Durability == Gateway && !l.dirty.Load() {
		wake(l.commitWake) // so that the next flush finds it done
	}
}

// put is part of apply, with mu held.
func (l *Log) put(q queued) {
	l.fresh.Insert(extent.Extent{Off: q.off, Len: q.len, Target: q.target}, nil)
	l.queue = append(l.queue, q)
}

// WriteAt writes to the disk.
func (l *Log) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := l.check(ctx, off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(int64(len(p)), maxRecord, l.j.MaxData())
		if err := l.write(ctx, journal.Record{Kind: journal.Write, Off: off, Len: n, Data: p[:n]}); err != nil {
			return l.wrap(fmt.Sprintf("write %d bytes at %d", n, off), err)
		}
		p, off = p[n:], off+n
	}
	return nil
}

// WriteOver is WriteAt: a log keeps exactly what was written.
func (l *Log) WriteOver(ctx context.Context, _ block.Reader, p []byte, off int64) error {
	return l.WriteAt(ctx, p, off)
}

// records is what write gives to the journal, so that it is not made anew each
// time.
var records = sync.Pool{New: func() any { return new([1]journal.Record) }}

func (l *Log) write(ctx context.Context, r journal.Record) error {
	if err := l.dead(); err != nil {
		return err
	}
	if r.Kind == journal.Write && l.cfg.Quota > 0 {
		if err := l.fits(ctx, r.Off, r.Len); err != nil {
			return err
		}
	}
	if err := l.step(ctx, StepAppend); err != nil {
		return err
	}
	recs := records.Get().(*[1]journal.Record)
	recs[0] = r
	err := l.append(ctx, recs[:])
	recs[0] = journal.Record{}
	records.Put(recs)
	if err != nil {
		return l.journalErr(err)
	}
	if err := l.step(ctx, StepAppended); err != nil {
		return err
	}
	return l.acknowledge(ctx, StepWritten)
}

// patience is how long a write waits before it looks whether a disk that was
// full still is.
const patience = time.Second

// append appends to the journal. It waits for room itself, if that is wanted,
// and so ends with the log: the journal would wait for what never comes.
func (l *Log) append(ctx context.Context, recs []journal.Record) error {
	var room <-chan struct{}
	for {
		err := l.j.Append(ctx, recs)
		if l.cfg.Full != journal.Wait || !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		if room != nil {
			t := time.NewTimer(patience)
			select {
			case <-room:
			case <-t.C:
			case <-ctx.Done():
				err = fmt.Errorf("%w, and the wait for room ended: %w", err, context.Cause(ctx))
			case <-l.life.Done():
				err = l.dead()
			}
			if t.Stop(); ctx.Err() != nil || l.life.Err() != nil {
				return err
			}
		}
		// Taken before the next try, so that no room is missed.
		l.work.Lock()
		room = l.room
		l.work.Unlock()
	}
}

// journalErr is err, and ends the log if the journal has ended.
func (l *Log) journalErr(err error) error {
	if broken := l.j.Err(); broken != nil && !l.closed.Load() {
		l.fail(fmt.Errorf("journal: %w", broken))
	}
	return err
}

// acknowledge comes last: it waits while the overlay may not be ours.
func (l *Log) acknowledge(ctx context.Context, step string) error {
	if l.cfg.Gate != nil {
		if err := l.cfg.Gate(ctx); err != nil {
			return err
		}
	}
	if err := l.step(ctx, step); err != nil {
		return err
	}
	return l.dead()
}

// Zero makes a range read as zeros.
func (l *Log) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	if err := l.check(ctx, off, n); err != nil {
		return err
	}
	if mode.Keeps() && l.cfg.Quota > 0 {
		if err := block.RefuseSlow(mode); err != nil {
			return l.wrap("zero", err)
		}
		return l.writeZeros(ctx, off, n)
	}
	kind := journal.Zero
	if mode == block.ZeroAny {
		kind = journal.Discard
	}
	return l.zero(ctx, kind, off, n)
}

func (l *Log) zero(ctx context.Context, kind journal.Kind, off, n int64) error {
	if n == 0 || l.allZero(off, n) {
		// Nothing to do, if the disk is still ours.
		return l.wrap("zero", l.acknowledge(ctx, StepWritten))
	}
	return l.wrap(fmt.Sprintf("zero %d bytes at %d", n, off), l.write(ctx, journal.Record{Kind: kind, Off: off, Len: n}))
}

// zeroBlock is what writeZeros writes.
var zeroBlock [64 << 10]byte

// writeZeros keeps the space of a range in the quota by filling it.
func (l *Log) writeZeros(ctx context.Context, off, n int64) error {
	for n > 0 {
		piece := min(n, int64(len(zeroBlock)))
		if err := l.WriteAt(ctx, zeroBlock[:piece], off); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	return nil
}

// allZero tells whether a range is known to be zeros already.
func (l *Log) allZero(off, n int64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for end := off + n; off < end; {
		p := l.place(off, end-off)
		if p.kind != isZeros {
			return false
		}
		off += p.n
	}
	return true
}

// ZeroOver makes a range read as zeros, whatever is below.
func (l *Log) ZeroOver(ctx context.Context, _ block.Reader, off, n int64, mode block.ZeroMode) error {
	return l.Zero(ctx, off, n, mode)
}

// Discard makes a range read as zeros and frees its space.
func (l *Log) Discard(ctx context.Context, off, n int64) error {
	if err := l.check(ctx, off, n); err != nil {
		return err
	}
	return l.zero(ctx, journal.Discard, off, n)
}

// Flush returns when all writes that returned before are as durable as
// Config.Durability says.
func (l *Log) Flush(ctx context.Context) error {
	if err := l.check(ctx, 0, 0); err != nil {
		return err
	}
	if err := l.dead(); err != nil {
		return l.wrap("flush", err)
	}
	return l.wrap("flush", l.flush(ctx))
}

func (l *Log) flush(ctx context.Context) error {
	upto := l.last()
	if l.cfg.Durability == Store {
		if err := l.cover(ctx, upto); err != nil {
			return err
		}
		return l.acknowledge(ctx, StepFlushed)
	}
	if err := l.step(ctx, StepSync); err != nil {
		return err
	}
	if err := l.j.Sync(ctx); err != nil {
		return l.journalErr(err)
	}
	if err := l.step(ctx, StepSynced); err != nil {
		return err
	}
	// What the journal alone has must not be acknowledged before the catalog
	// says so: another gateway would take the overlay without it.
	if !l.dirty.Load() {
		wake(l.commitWake)
		if err := l.wait(ctx, func() bool { return l.dirty.Load() || l.covered >= upto }); err != nil {
			return err
		}
	}
	return l.acknowledge(ctx, StepFlushed)
}

// last returns where the last record ends that a flush has to cover.
func (l *Log) last() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.appended
}

// cover returns when the head has all records up to position upto.
func (l *Log) cover(ctx context.Context, upto int64) error {
	return l.wait(ctx, func() bool {
		if l.covered >= upto {
			return true
		}
		if l.force < upto {
			l.force = upto
			wake(l.sealWake)
		}
		return false
	})
}

// Drain returns when everything written before is in the store and, if nobody
// wrote meanwhile, the head says that no journal is needed.
func (l *Log) Drain(ctx context.Context) error {
	if err := l.check(ctx, 0, 0); err != nil {
		return err
	}
	upto := l.last()
	err := l.cover(ctx, upto)
	if err == nil && l.dirty.Load() {
		wake(l.commitWake)
		err = l.wait(ctx, func() bool { return !l.dirty.Load() || l.last() != upto })
	}
	return l.wrap("drain", err)
}

// fits is syscall.ENOSPC if n bytes at off would exceed the quota. What is
// counted beforehand is too high while something was written over and is not
// in the store yet; so before it says no it waits until that is settled.
func (l *Log) fits(ctx context.Context, off, n int64) error {
	for settled := false; ; settled = true {
		l.mu.RLock()
		used, upto := l.usage(), l.appended
		grows := int64(math.MaxInt64)
		if used+n > l.cfg.Quota {
			grows = l.growth(off, n)
		}
		l.mu.RUnlock()
		if used+min(n, grows) <= l.cfg.Quota || grows == 0 {
			return nil
		}
		if settled {
			return fmt.Errorf("its quota of %d bytes is used up; discard, delete snapshots or raise the quota: %w", l.cfg.Quota, syscall.ENOSPC)
		}
		if err := l.cover(ctx, upto); err != nil {
			return err
		}
	}
}

// growth is how much of [off, off+n) holds no data. With mu held.
func (l *Log) growth(off, n int64) (grows int64) {
	for end := off + n; off < end; {
		p := l.place(off, end-off)
		if p.kind == isZeros || p.kind == isAbsent {
			grows += p.n
		}
		off += p.n
	}
	return grows
}

// usage is Usage with mu held: what the head has, what only snapshots have, and
// all data in the journal that is not in the store.
func (l *Log) usage() int64 {
	return l.counts.live + l.counts.pinned + l.counts.pending
}

// Usage returns how many bytes of data the disk and its snapshots hold. Data
// that was written over counts until the store has what came after it.
func (l *Log) Usage() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.usage()
}
