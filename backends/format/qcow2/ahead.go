package qcow2

import (
	"context"
	"sync"
)

const (
	aheadStreams = 8         // readers in order that are told apart, of one image
	aheadPiece   = 256 << 10 // of the disk, inflated from one read of the file
	aheadFirst   = 4         // clusters of a stream's first window, at least
)

// An ahead inflates compressed clusters before they are asked for, where
// somebody reads in order: as many streams of reads at a time as clients copy a
// disk with. Each has a window, which doubles as long as the reader keeps up
// with it; a read elsewhere gets none. What comes early is in the cache of
// clusters, so memory is bounded there, and those who come for a cluster that is
// being inflated wait for it. It takes only cores that are not needed for what
// has been asked for: a client that asks for much at a time keeps them all busy,
// and what is inflated early is copied once more.
type ahead struct {
	im   *Image
	most int64 // clusters of the largest window
	life context.Context
	end  context.CancelFunc
	all  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	ends    [aheadStreams]int64 // where reads ended that may have begun a stream
	oldest  int                 // of ends
	streams [aheadStreams]stream
	reads   int64
}

// A stream is somebody who reads in order. It counts in clusters.
type stream struct {
	next   int64 // what is read next
	done   int64 // up to where somebody inflates or has inflated, at least next
	window int64 // how far from next that is to be; 0: no stream
	read   int64 // number of the last read
}

// newAhead returns the read-ahead of im of so many bytes, or nil if the cache is
// too small for one.
func newAhead(im *Image, limit int64) *ahead {
	cs := im.f.g.ClusterSize
	all, each := im.f.clusters.Limit()
	a := &ahead{im: im, most: min(limit, all) / cs}
	if cs > each || a.most < 2 {
		return nil
	}
	a.life, a.end = context.WithCancel(context.Background())
	for i := range a.ends {
		a.ends[i] = -1 << 40 // nowhere near a read
	}
	return a
}

// close gives up what is under way and waits for it.
func (a *ahead) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.end()
	a.all.Wait()
}

// note takes down that [off, off+n) has been read. Reads that begin no cluster
// change nothing, so of small ones at random places few take the lock.
func (a *ahead) note(off, n int64) {
	bits := a.im.f.g.ClusterBits
	first, end := (off+a.im.f.g.ClusterSize-1)>>bits, (off+n-1)>>bits+1
	if first >= end {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.stream(first, end)
	if i < 0 {
		return
	}
	s := &a.streams[i]
	s.next = end
	s.done = max(s.done, end)
	if s.done-s.next > s.window/2 {
		return
	}
	s.window = min(2*s.window, a.most)
	a.hire(i)
}

// stream returns which stream a read of clusters belongs to and carries on, or
// -1. Reads may come in another order than they were sent in, by their own
// length and a little more. The caller holds the lock.
func (a *ahead) stream(first, end int64) int {
	reach := end - first + 3
	a.reads++
	lru := 0
	for i := range a.streams {
		s := &a.streams[i]
		if s.window > 0 && first <= s.next+reach && first >= s.next-4*reach {
			s.read = a.reads
			if end <= s.next { // overtaken by later ones
				return -1
			}
			return i
		}
		if s.read < a.streams[lru].read {
			lru = i
		}
	}
	for i, at := range a.ends {
		if first >= at && first <= at+reach {
			a.ends[i] = -1 << 40
			window := max(aheadFirst, end-first) / 2 // and doubled at once
			a.streams[lru] = stream{next: at, done: at, window: min(window, a.most), read: a.reads}
			return lru
		}
	}
	a.ends[a.oldest] = end
	a.oldest = (a.oldest + 1) % len(a.ends)
	return -1
}

// missed takes down that the cluster c was not in the cache. If it had been
// inflated early, it was thrown out before it was read: the windows of all who
// share the cache are too large for it. The caller does not hold the lock.
func (a *ahead) missed(c int64) {
	underWay := int64(a.im.f.clusters.Pool().Cores()) * a.piece()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.streams {
		s := &a.streams[i]
		if s.window > 1 && c >= s.next-1 && c < s.done-underWay {
			s.window /= 2
			s.done = max(c+1, s.next)
		}
	}
}

func (a *ahead) piece() int64 { return max(1, int64(aheadPiece)>>a.im.f.g.ClusterBits) }

// hire has the window of stream i filled, as far as cores are free. The caller
// holds the lock.
func (a *ahead) hire(i int) {
	s, pool := &a.streams[i], a.im.f.clusters.Pool()
	for left := s.next + s.window - s.done; left > 0 && !a.closed && pool.Engage(); left -= a.piece() {
		a.all.Go(func() {
			defer pool.Dismiss()
			a.work(i)
		})
	}
}

// work fills the window of stream i until it is full, nobody wants it, or
// those who have asked for something need the core.
func (a *ahead) work(i int) {
	defer func() {
		// What panics here does so again in the goroutine of who asks for the
		// cluster, where somebody expects it.
		_ = recover()
	}()
	for a.im.f.clusters.Pool().Spare() {
		first, end := a.take(i)
		if first >= end || a.inflate(first, end) != nil {
			return
		}
	}
}

// take returns which clusters to inflate next for stream i.
func (a *ahead) take(i int) (first, end int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.streams[i]
	bits := a.im.f.g.ClusterBits
	first = s.done
	end = min(first+a.piece(), s.next+s.window, (a.im.size-1)>>bits+1)
	if a.closed || first >= end {
		return 0, 0
	}
	s.done = end
	return first, end
}

// inflate brings clusters into the cache, those that are compressed and not yet
// there. An error is told when its cluster is asked for.
func (a *ahead) inflate(first, end int64) error {
	f, ctx := a.im.f, a.life
	var wants []want
	for c := first; c < end; c++ {
		r, err := a.im.find(ctx, c<<f.g.ClusterBits, 1)
		if err != nil {
			return err
		}
		if r.kind == packed && !f.clusters.Has(f.key(r.word)) {
			wants = append(wants, want{word: r.word})
		}
	}
	for len(wants) > 0 {
		s, n, err := f.sideBySide(wants)
		if err == nil {
			err = a.inflateSpan(wants[:n], s)
		}
		if err != nil {
			return err
		}
		wants = wants[n:]
	}
	return nil
}

func (a *ahead) inflateSpan(wants []want, s span) error {
	f := a.im.f
	src, err := f.fetch(a.life, s)
	if err != nil {
		return err
	}
	defer f.clusters.Pool().Put(src)
	for _, w := range wants {
		err := f.clusters.Early(a.life, f.key(w.word), int(f.g.ClusterSize), func(ctx context.Context, b []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f.decodeIn(b, w.word, src, s)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
