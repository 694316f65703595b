package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

const (
	// bufSize is how much is written with one call at most, but for the
	// middle of large payloads, which are written from where they are.
	bufSize = 128 << 10

	// bigData is from which size on a payload is not copied.
	bigData = 64 << 10

	// maxBatch is how much of several requests is written in one go.
	maxBatch = 4 << 20

	// patience is how long an Append waits before it looks whether a disk
	// that was full still is.
	patience = time.Second
)

// A request is one Append. What is not the caller's is guarded by Journal.mu,
// until it is done.
type request struct {
	recs []Record
	sums []uint32 // of the payloads
	next int      // the first record that is not written
	err  error
	done bool

	taken  bool  // being written
	gone   error // why the caller does not want to wait any more
	oneSum [1]uint32

	// wake tells one who waits in the queue that the request is done, or
	// else that it is on him to write.
	wake chan struct{}
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Append appends recs, in this order and with none of others between, and sets
// Pos and Next of each. They can be read when it returns, and are certain when
// a later Sync does. After an error a few of them, from the first on, may be
// there. If ctx ends while Append waits for room it gives up.
func (j *Journal) Append(ctx context.Context, recs []Record) error {
	if err := j.checkRecords(recs); err != nil || len(recs) == 0 {
		return err
	}
	r := j.requests.Get().(*request)
	r.recs, r.sums = recs, r.oneSum[:0]
	for i := range recs {
		r.sums = append(r.sums, dataSum(recs[i].Data))
	}
	j.mu.Lock()
	if err := j.usable(); err != nil {
		j.mu.Unlock()
		return err
	}
	j.queue = append(j.queue, r)
	waits := j.leading
	j.leading = true
	j.mu.Unlock()
	if !waits || j.queued(ctx, r) {
		j.lead(ctx, r)
	}
	err := r.err
	*r = request{wake: r.wake}
	j.requests.Put(r)
	return err
}

func (j *Journal) checkRecords(recs []Record) error {
	if j.readOnly {
		return fmt.Errorf("journal %s: append to an old one: %w", j.cfg.Dir, errors.ErrUnsupported)
	}
	for i := range recs {
		r := &recs[i]
		data := int64(len(r.Data))
		ok := r.Off >= 0 && r.Len >= 0 && r.Len <= math.MaxInt64-r.Off && data <= j.MaxData()
		switch r.Kind {
		case Write:
			ok = ok && data == r.Len
		case Zero, Discard:
			ok = ok && data == 0
		case Mark:
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("journal %s: append a record of kind %d, %d bytes at %d with %d of data, of %d at most: %w",
				j.cfg.Dir, r.Kind, r.Len, r.Off, data, j.MaxData(), fs.ErrInvalid)
		}
	}
	return nil
}

// queued waits in the queue until r is done, which is false, or has come to
// the front, and it is on the caller to write.
func (j *Journal) queued(ctx context.Context, r *request) bool {
	select {
	case <-r.wake:
		return !r.done
	case <-ctx.Done():
	}
	j.mu.Lock()
	if i := slices.Index(j.queue, r); i > 0 && !r.taken {
		r.gone = context.Cause(ctx)
		j.finish(r, r.gone)
		j.mu.Unlock()
		return false
	}
	// Written already, or being written, or about to be called.
	r.gone = context.Cause(ctx)
	j.mu.Unlock()
	<-r.wake
	return !r.done
}

// lead writes r, which is first in the queue, and whatever can be written with
// it, and makes who is next the first.
func (j *Journal) lead(ctx context.Context, r *request) {
	for !r.done {
		j.mu.Lock()
		room := j.room
		j.mu.Unlock()
		j.writing.Lock()
		err := j.writeBatch(r)
		j.writing.Unlock()
		if errors.Is(err, errNoRoom) {
			err = j.wait(ctx, room, err)
		}
		if err != nil {
			j.mu.Lock()
			j.finish(r, err)
			j.mu.Unlock()
		}
	}
	j.mu.Lock()
	if j.leading = len(j.queue) > 0; j.leading {
		j.queue[0].wake <- struct{}{}
	}
	j.mu.Unlock()
}

// wait waits for room, if that is wanted.
func (j *Journal) wait(ctx context.Context, room chan struct{}, full error) error {
	select {
	case j.crowded <- struct{}{}:
	default:
	}
	if j.cfg.Full == Fail {
		return fmt.Errorf("%w: %w", full, syscall.ENOSPC)
	}
	again := time.NewTimer(patience)
	defer again.Stop()
	select {
	case <-room:
	case <-again.C:
	case <-ctx.Done():
		return fmt.Errorf("%w, and the wait for it ended: %w", full, context.Cause(ctx))
	}
	return nil
}

// makeRoom wakes those who wait for room. It needs j.mu.
func (j *Journal) makeRoom() {
	close(j.room)
	j.room = make(chan struct{})
}

// finish takes r out of the queue. It needs j.mu.
func (j *Journal) finish(r *request, err error) {
	if i := slices.Index(j.queue, r); i >= 0 {
		j.queue = slices.Delete(j.queue, i, i+1)
	}
	r.done, r.err = true, err
}

// A place is a part of a request that is written: recs[from:to].
type place struct {
	r        *request
	from, to int
}

// writeBatch writes the request that is first in the queue, by its leader, and
// those behind it that can go along. If there is no room for the first it is
// errNoRoom. It needs j.writing.
func (j *Journal) writeBatch(leader *request) error {
	f, places, err := j.take()
	if err == nil && len(places) == 0 {
		if err = j.rotate(); err == nil {
			f, places, err = j.take()
		}
	}
	if err != nil {
		return err
	}
	tail, err := j.put(f, places)
	if err != nil {
		return j.giveUp(f, leader, places, err)
	}
	last := places[len(places)-1]
	j.mu.Lock()
	j.tail, j.written = tail, last.r.recs[last.to-1].Next
	f.end = j.written
	j.mu.Unlock()
	if j.cfg.Apply != nil {
		j.cfg.Apply(j.applied)
	}
	clear(j.applied)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range places {
		p.r.next, p.r.taken = p.to, false
		if p.to < len(p.r.recs) {
			continue
		}
		j.finish(p.r, nil)
		if p.r != leader {
			p.r.wake <- struct{}{}
		}
	}
	clear(places)
	return nil
}

// giveUp is what becomes of requests that could not be written.
func (j *Journal) giveUp(f *file, leader *request, places []place, err error) error {
	full := isFull(err)
	if !full {
		err = j.fail(fmt.Errorf("journal %s: write: %w", j.cfg.Dir, err))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// Parts of the records may be there. They must never be found behind
	// others that come to the same place: what follows goes into a new file.
	f.old = true
	for _, p := range places {
		p.r.taken = false
		if p.r != leader && p.r.gone != nil {
			j.finish(p.r, p.r.gone)
			p.r.wake <- struct{}{}
		}
	}
	clear(places)
	if full {
		return j.noRoom(err, "write")
	}
	return err
}

// take chooses, from the front of the queue, what fits into the file that is
// appended to: nothing if that is full.
func (j *Journal) take() (*file, []place, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return nil, nil, err
	}
	places := j.places[:0]
	f := j.last()
	if f == nil || f.old {
		return nil, nil, nil
	}
	// One that ended with the file would end where the next one begins.
	at, limit := j.tail, (f.head.seq+1)*j.state.fileSize-recAlign
	for _, r := range j.queue {
		p := place{r: r, from: r.next, to: r.next}
		for p.to < len(r.recs) {
			end := alignUp(at+recHead+int64(len(r.recs[p.to].Data)), recAlign)
			if end > limit || end-j.tail > maxBatch && at > j.tail {
				break
			}
			at = end
			p.to++
		}
		if p.to > p.from {
			r.taken = true
			places = append(places, p)
		}
		if p.to < len(r.recs) {
			break
		}
	}
	j.places = places
	return f, places, nil
}

// put writes places to the end of f, and returns where the next record goes.
func (j *Journal) put(f *file, places []place) (tail int64, _ error) {
	j.mu.Lock()
	tail = j.tail
	h := recHeader{prev: f.end, synced: j.synced}
	j.mu.Unlock()
	base := f.head.seq * j.state.fileSize
	o := output{f: f.f, at: tail - base, buf: j.buf[:0]}
	j.applied = j.applied[:0]
	for _, p := range places {
		for i := p.from; i < p.to; i++ {
			r := &p.r.recs[i]
			h.kind, h.size, h.sum = r.Kind, uint32(len(r.Data)), p.r.sums[i]
			h.at, h.off, h.n = tail, r.Off, r.Len
			o.buf = h.append(o.buf, f.head.salt[:])
			o.data(r.Data)
			o.pad(recAlign)
			r.Pos, r.Next = tail+recHead, h.next()
			tail, h.prev = r.Next, r.Next
			j.applied = append(j.applied, *r)
		}
	}
	// Whole pages: the next write to this one finds it in memory, also where
	// the file was used before, and need not read it.
	o.pad(pageSize)
	o.flush()
	if j.buf = o.buf; cap(j.buf) > 2*bufSize {
		j.buf = nil
	}
	return tail, o.err
}

// An output writes to a file, in order and in large pieces.
type output struct {
	f   localfs.File
	at  int64 // where buf goes
	buf []byte
	err error
}

// data appends p, which is not copied, but for its ends, if it is large.
func (o *output) data(p []byte) {
	if len(p) >= bigData {
		cur := o.at + int64(len(o.buf))
		head := alignUp(cur, pageSize) - cur
		o.buf = append(o.buf, p[:head]...)
		o.flush()
		whole := (int64(len(p)) - head) &^ (pageSize - 1)
		o.write(p[head : head+whole])
		p = p[head+whole:]
	}
	if o.buf = append(o.buf, p...); len(o.buf) >= bufSize {
		o.flush()
	}
}

// pad appends zeros up to a multiple of n.
func (o *output) pad(n int64) {
	cur := o.at + int64(len(o.buf))
	for range alignUp(cur, n) - cur {
		o.buf = append(o.buf, 0)
	}
}

func (o *output) flush() {
	o.write(o.buf)
	o.buf = o.buf[:0]
}

func (o *output) write(p []byte) {
	if o.err != nil || len(p) == 0 {
		return
	}
	_, o.err = o.f.WriteAt(p, o.at)
	o.at += int64(len(p))
}
