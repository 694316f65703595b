package delta

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// L2 tables are held in slices of 4 KiB, each of which maps 32 MiB.
const (
	sliceSize    = 4096
	sliceEntries = sliceSize / entrySize
)

// A mapping is where guest clusters are: the L1 table, and of the L2 tables
// what was used of late. Its lock is held for memory accesses only.
type mapping struct {
	sync.RWMutex
	active  *tree
	cache   cache
	l1Dirty map[int]struct{} // entries to be written

	// What was dropped from the mapping since the last flush. It may be used
	// again when the mapping without it is on the disk.
	dropped []int64 // places of clusters
	hollow  []hole
}

// A tree is an L1 table: the active one, which changes, or a snapshot's.
type tree struct {
	l1 []uint64
}

// table returns where the L2 table is that maps cluster c, or 0.
func (t *tree) table(c int64) int64 {
	return int64(t.l1[c>>tableBits] & qcow2.OffsetMask)
}

// sliceAt returns where in the file the slice is that maps c.
func sliceAt(table, c int64) int64 {
	return table + (c&(tableLen-1))*entrySize&^(sliceSize-1)
}

// inSlice returns where in its slice the entry of c is.
func inSlice(c int64) int { return int(c&(sliceEntries-1)) * entrySize }

// A slice is a piece of an L2 table, as it stands in the file or will stand
// there after the next flush.
type slice struct {
	at      int64
	loading chan struct{} // closed and nil once data is there
	used    atomic.Bool
	dirty   bool
	writing bool // a flush has a copy that is not yet in the file
	data    [sliceSize]byte
}

// A cache finds slices by where they are in the file. It keeps limit of them,
// and more only while all are dirty.
type cache struct {
	limit int
	at    map[int64]*slice
	ring  []*slice
	hand  int
	dirty []*slice
}

func (c *cache) init(limit int) {
	c.limit = max(limit, 16)
	c.at = map[int64]*slice{}
}

// place returns a slice for at that is being loaded. What it displaces was
// not used for a round of the hand.
func (c *cache) place(at int64) *slice {
	s := &slice{at: at, loading: make(chan struct{})}
	c.at[at] = s
	for tries := 0; len(c.ring) >= c.limit && tries < 2*len(c.ring); tries++ {
		c.hand = (c.hand + 1) % len(c.ring)
		old := c.ring[c.hand]
		if old.loading != nil || old.dirty || old.writing || old.used.Swap(false) {
			continue
		}
		c.remove(old)
		c.ring[c.hand] = s
		return s
	}
	c.ring = append(c.ring, s)
	return s
}

// forget drops the slices of tables that nobody uses any more. Places is
// ascending.
func (m *mapping) forget(places []int64) {
	m.Lock()
	defer m.Unlock()
	for at, s := range m.cache.at {
		if _, gone := slices.BinarySearch(places, at&^(clusterSize-1)); gone {
			delete(m.cache.at, at)
			s.at = -1
		}
	}
}

func (c *cache) remove(s *slice) {
	if c.at[s.at] == s {
		delete(c.at, s.at)
	}
}

// lookup returns the mapping of cluster c in t, the active tree if t is nil.
func (d *Delta) lookup(t *tree, c int64) (entry, error) {
	for {
		d.m.RLock()
		table := d.m.tree(t).table(c)
		if table == 0 {
			d.m.RUnlock()
			return entry{}, nil
		}
		at := sliceAt(table, c)
		if s := d.m.cache.at[at]; s != nil && s.loading == nil {
			i := inSlice(c)
			e := decodeEntry(s.data[i : i+entrySize])
			if !s.used.Load() {
				s.used.Store(true)
			}
			d.m.RUnlock()
			return e, nil
		}
		d.m.RUnlock()
		if err := d.load(at); err != nil {
			return entry{}, err
		}
	}
}

func (m *mapping) tree(t *tree) *tree {
	if t != nil {
		return t
	}
	return m.active
}

// load brings a slice into the cache, or waits for somebody who does. Whoever
// then looks for it may find it gone again, and calls load once more.
func (d *Delta) load(at int64) error {
	d.m.Lock()
	if s := d.m.cache.at[at]; s != nil {
		wait := s.loading
		d.m.Unlock()
		if wait != nil {
			<-wait
		}
		return nil
	}
	s := d.m.cache.place(at)
	d.m.Unlock()
	err := d.read(s.data[:], at)
	d.m.Lock()
	defer d.m.Unlock()
	close(s.loading)
	s.loading = nil
	if err != nil {
		d.m.cache.remove(s)
		s.at = -1
	}
	return err
}

// update replaces the active mapping of cluster c, whose L2 table exists. What
// drop names (0 for nothing) is free after the next flush. The caller holds
// the stripe of c.
func (d *Delta) update(c int64, e entry, drop int64, hollow uint32) error {
	for {
		d.m.Lock()
		at := sliceAt(d.m.active.table(c), c)
		s := d.m.cache.at[at]
		if s != nil && s.loading == nil {
			i := inSlice(c)
			e.encode(s.data[i : i+entrySize])
			s.used.Store(true)
			d.m.soil(s)
			if drop != 0 {
				d.m.dropped = append(d.m.dropped, drop)
			}
			if hollow != 0 {
				d.m.hollow = append(d.m.hollow, hole{c, hollow})
			}
			d.m.Unlock()
			return nil
		}
		d.m.Unlock()
		if err := d.load(at); err != nil {
			return err
		}
	}
}

func (m *mapping) soil(s *slice) {
	if !s.dirty {
		s.dirty = true
		m.cache.dirty = append(m.cache.dirty, s)
	}
}

// table makes sure that there is an L2 table for cluster c.
func (d *Delta) table(c int64) error {
	if d.hasTable(c) {
		return nil
	}
	d.growth.Lock()
	defer d.growth.Unlock()
	if d.hasTable(c) {
		return nil
	}
	if err := d.charge(clusterSize); err != nil {
		return err
	}
	place, err := d.refs.take(d)
	if err == nil {
		// Really written, so that a flush never lacks space for it.
		err = d.zeroCluster(place)
		if err != nil {
			d.refs.giveBack(place)
		}
	}
	if err != nil {
		d.used.Add(-clusterSize)
		return err
	}
	d.m.Lock()
	i := int(c >> tableBits)
	d.m.active.l1[i] = uint64(place) | qcow2.Copied
	d.m.l1Dirty[i] = struct{}{}
	d.m.Unlock()
	return nil
}

func (d *Delta) hasTable(c int64) bool {
	d.m.RLock()
	defer d.m.RUnlock()
	return d.m.active.table(c) != 0
}

func (d *Delta) zeroCluster(place int64) error {
	b := d.buffer.Get().(*[clusterSize]byte)
	defer d.buffer.Put(b)
	clear(b[:])
	return d.write(b[:], place)
}

func putL1(b []byte, l1 []uint64) {
	for i, e := range l1 {
		binary.BigEndian.PutUint64(b[i*8:], e)
	}
}
