package cache

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Stats are counters since Open, and the state. Bytes are those of objects.
type Stats struct {
	Size, Used, Pinned int64 // bytes that may be kept, are, and of these are pinned
	Objects            int   // of which something is kept or that are being read

	Hits, Misses int64 // reads that the cache had whole, and others
	HitBytes     int64 // served from the disk
	MissBytes    int64 // served from a fetch
	FarBytes     int64 // fetched from far stores
	AheadBytes   int64 // of these, nobody had asked for them yet
	Waits        int64 // reads that waited for a fetch that was under way already
	Fetches      int64
	FarErrors    int64 // fetches that failed
	Hedges       int64 // fetches that were sent out a second time
	HedgesWon    int64 // of these, the second answer was the first
	Corrupt      int64 // grains that did not agree with their digest
	Evicted      int64 // bytes
	Skipped      int64 // bytes that were fetched and could not be kept
	Unkept       int64 // bytes that were fetched and are still to be written to the disk

	Running, Waiting int    // fetches now
	Degraded         string // why nothing is kept at present, or ""
}

// An Info tells about one object.
type Info struct {
	ID           string
	Size         int64 // of the object
	Used, Pinned int64 // bytes of it that are kept, and of these are pinned
	Readers      int
	Whole        bool      // every byte of it is kept
	Grown        time.Time // when something of it was last kept; zero: before Open
	HitBytes     int64     // since Open
	FarBytes     int64
}

// counters are what is counted for each object, so that readers of different
// objects do not meet.
type counters struct {
	hits, misses, hitBytes, missBytes, farBytes, aheadBytes atomic.Int64
	waits, fetches, farErrors, hedges, hedgesWon            atomic.Int64
	corrupt, evicted, skipped                               atomic.Int64
}

func (n *counters) all() []*atomic.Int64 {
	return []*atomic.Int64{&n.hits, &n.misses, &n.hitBytes, &n.missBytes, &n.farBytes, &n.aheadBytes,
		&n.waits, &n.fetches, &n.farErrors, &n.hedges, &n.hedgesWon, &n.corrupt, &n.evicted, &n.skipped}
}

// add adds what other has counted.
func (n *counters) add(other *counters) {
	from := other.all()
	for i, to := range n.all() {
		to.Add(from[i].Load())
	}
}

// Stats tells what the cache has done and how it is.
func (c *Cache) Stats() Stats {
	var sum counters
	c.mu.Lock()
	sum.add(&c.count)
	for _, o := range c.objects {
		sum.add(&o.count)
	}
	s := Stats{
		Size: c.cfg.Size, Used: c.space.used, Pinned: c.space.pinned, Objects: len(c.objects),
		Hits: sum.hits.Load(), Misses: sum.misses.Load(),
		HitBytes: sum.hitBytes.Load(), MissBytes: sum.missBytes.Load(),
		FarBytes: sum.farBytes.Load(), AheadBytes: sum.aheadBytes.Load(),
		Waits: sum.waits.Load(), Fetches: sum.fetches.Load(), FarErrors: sum.farErrors.Load(),
		Hedges: sum.hedges.Load(), HedgesWon: sum.hedgesWon.Load(),
		Corrupt: sum.corrupt.Load(), Evicted: sum.evicted.Load(), Skipped: sum.skipped.Load(),
	}
	c.mu.Unlock()
	s.Running, s.Waiting = c.gate.load()
	s.Unkept = c.backlog.load()
	s.Degraded = c.health.reason()
	return s
}

// List tells about every object of which the cache has something, in the
// order of their ids.
func (c *Cache) List() []Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Info, 0, len(c.objects))
	for _, o := range c.objects {
		i := Info{ID: o.id, Size: o.size, HitBytes: o.count.hitBytes.Load(), FarBytes: o.count.farBytes.Load(), Whole: o.whole(), Grown: o.grown}
		if o.session != nil {
			i.Readers = o.session.readers
		}
		for _, u := range o.units {
			i.Used += u.present.count() * grainSize
			i.Pinned += u.pinned.count() * grainSize
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.ID, b.ID) })
	return list
}
