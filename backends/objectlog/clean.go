package objectlog

import (
	"cmp"
	"errors"
	"slices"

	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// How much is cleaned, and when. See DESIGN.md.
const (
	maxDead    = 30  // percent of stored bytes that may be dead
	maxSmall   = 16  // segments less than half full that there may be
	maxVictims = 256 // at a time
	cleanAhead = 4   // segments that one search makes
)

// clean copies what lives in segments that are mostly dead, so that these can
// be deleted.
func (l *Log) clean() {
	bad := make(map[int64]bool) // segments that cannot be read
	for {
		select {
		case <-l.life.Done():
			return
		case <-l.cleanWake:
		}
		for l.cleanSome(bad) {
		}
	}
}

// cleanSome cleans a few segments, if it is time. It tells whether it did.
func (l *Log) cleanSome(bad map[int64]bool) bool {
	victims := l.victims(bad)
	if len(victims) == 0 {
		return false
	}
	l.mu.Lock()
	m := l.stored.m.Snapshot()
	l.mu.Unlock()
	var pieces []extent.Extent
	for e := range m.All() {
		if e.Target.Kind() != extent.Segment {
			continue
		}
		if seq, _ := e.Target.Segment(); victims[seq].seq > 0 {
			pieces = append(pieces, e)
		}
	}
	did := false
	for len(pieces) > 0 {
		n, bytes := 0, int64(0)
		for n < len(pieces) && n < maxEntries && bytes < l.cfg.SegmentSize {
			bytes += pieces[n].Len
			n++
		}
		c := l.copy(pieces[:n], victims, bad)
		if c != nil && !l.send(c) {
			return false
		}
		did = did || c != nil
		pieces = pieces[n:]
	}
	return did
}

// send has c sealed and waits until it is committed. It is false when the log
// ended.
func (l *Log) send(c *copied) bool {
	select {
	case l.copies <- c:
	case <-l.life.Done():
		return false
	}
	select {
	case <-c.done:
	case <-l.life.Done():
	}
	return l.life.Err() == nil
}

// victims chooses what to clean: the segments with the least life in them, if
// too much of all is dead, or too many are small. Those that a snapshot needs
// would not go away, and those behind the last checkpoint are needed to read
// the log.
func (l *Log) victims(bad map[int64]bool) map[int64]ref {
	l.work.Lock()
	base := l.head.base.seq
	newest := slices.Max(append(l.pins(l.head), 0))
	l.work.Unlock()
	l.mu.RLock()
	defer l.mu.RUnlock()
	c, full := l.counts, l.cfg.SegmentSize
	dead := c.payload - c.live
	if c.small < maxSmall && (dead < 2*full || dead*100 < c.payload*maxDead) || c.pending > l.cfg.JournalLimit/2 {
		return nil
	}
	var all []ref
	for seq, r := range l.stored.segs {
		if seq > newest && seq <= base && !bad[seq] && l.live[seq] > 0 && l.live[seq] < full*3/4 {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b ref) int {
		return cmp.Or(cmp.Compare(l.live[a.seq], l.live[b.seq]), cmp.Compare(a.seq, b.seq))
	})
	out := make(map[int64]ref)
	var live, payload int64
	for _, r := range all {
		if len(out) == maxVictims || live+l.live[r.seq] > cleanAhead*full {
			break
		}
		live, payload = live+l.live[r.seq], payload+r.payload
		out[r.seq] = r
	}
	// It must be worth it, or it would never end.
	made := int(live/full) + 1
	if payload-live < full/2*int64(made) && len(out) < made+maxSmall/2 {
		return nil
	}
	return out
}

// copy reads pieces of the disk, in order, out of victims. What cannot be read
// is left out, and with it the whole segment, now and later; nil is that there
// is nothing.
func (l *Log) copy(pieces []extent.Extent, victims map[int64]ref, bad map[int64]bool) *copied {
	pieces = slices.DeleteFunc(slices.Clone(pieces), func(e extent.Extent) bool {
		seq, _ := e.Target.Segment()
		return bad[seq]
	})
	c := &copied{done: make(chan struct{})}
	found := make([]place, 0, len(pieces))
	var at int64
	for _, e := range pieces {
		seq, off := e.Target.Segment()
		found = append(found, place{off: at, n: e.Len, kind: inSegment, at: off, seg: victims[seq]})
		c.entries = append(c.entries, entry{off: e.Off, len: e.Len, kind: kindCopy, from: e.Target})
		at += e.Len
	}
	c.data = make([]byte, at)
	slices.SortFunc(found, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.seg.seq, b.seg.seq), cmp.Compare(a.at, b.at))
	})
	for some := range slices.Chunk(found, some) {
		l.src.ahead(some)
		for _, f := range some {
			err := l.src.read(l.life, f.seg, c.data[f.off:][:f.n], f.at)
			switch {
			case err == nil:
			case errors.Is(err, ErrCorrupt):
				l.cfg.Logger.Error("a segment of an overlay cannot be cleaned", "overlay", l.cfg.ID, "key", f.seg.key(l.cfg.Prefix), "err", err)
				bad[f.seg.seq] = true
				return l.copy(pieces, victims, bad)
			default:
				// Gone since it was chosen, or the store is away: later.
				return nil
			}
		}
	}
	if len(c.entries) == 0 {
		return nil
	}
	return c
}
