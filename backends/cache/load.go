package cache

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// disk returns the files, opened now if they could not be before.
func (c *Cache) disk() (*files, error) {
	if f := c.store.Load(); f != nil {
		return f, nil
	}
	if err := c.reopen(); err != nil {
		return nil, err
	}
	return c.store.Load(), nil
}

// reopen opens the files and takes over what they have.
func (c *Cache) reopen() error {
	c.opened.Lock()
	defer c.opened.Unlock()
	if c.store.Load() != nil {
		return nil
	}
	f, err := openFiles(c.cfg.FS, c.cfg.Dir)
	if err != nil {
		return fmt.Errorf("cache: open %s: %w", c.cfg.Dir, err)
	}
	if err := c.load(f); err != nil {
		return fmt.Errorf("cache: load %s: %w", c.cfg.Dir, joinClose(err, f))
	}
	c.store.Store(f)
	return c.shrink(f)
}

// shrink evicts what is more than may be kept: the cache was larger once.
func (c *Cache) shrink(f *files) error {
	err := c.makeRoom(f, 0)
	if errors.Is(err, errGone) {
		return nil // all of it is pinned
	}
	return err
}

func joinClose(err error, f *files) error {
	f.close() // the first error is the one that counts
	return err
}

// load makes units of the descriptors. Those that make no sense are free
// places, which are emptied.
func (c *Cache) load(f *files) error {
	known, err := f.readList()
	if err != nil {
		return err
	}
	size, err := localfs.Size(f.index)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	slots := max(size-headSize, 0) / descSize
	c.space.slots = min(slots, c.space.maxSlots())
	var units []*unit
	err = f.eachDesc(slots, func(slot int64, d desc) {
		if u := c.revive(slot, d, known); u != nil {
			units = append(units, u)
			return
		}
		if !f.hollow(slot) {
			f.punch(slot, 0, unitSize) // what is left there only takes space
		}
		if slot < c.space.slots {
			c.space.free = append(c.space.free, slot)
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(units, func(a, b *unit) int { return cmp.Compare(a.stamp.Load(), b.stamp.Load()) })
	for _, u := range units {
		c.enqueue(u)
	}
	if len(known) > 2*len(c.objects)+1000 {
		return f.rewriteList(c)
	}
	return nil
}

// revive makes a unit of a descriptor, or nil. The caller holds c.mu.
func (c *Cache) revive(slot int64, d desc, known map[[16]byte]listing) *unit {
	l, ok := known[d.hash]
	if !ok || slot >= c.space.slots || d.n >= (l.size+unitSize-1)/unitSize {
		return nil
	}
	o := c.objects[l.id]
	if o == nil {
		o = newObject(c, l.id, l.size)
		c.objects[l.id] = o
	}
	o.listed, o.flat = true, o.flat || l.flat
	if o.size != l.size || o.units[d.n] != nil || o.dropped {
		return nil
	}
	u := &unit{obj: o, n: d.n, slot: slot}
	limit := int(min(o.grains()-d.n*unitGrains, unitGrains))
	for w := range d.present {
		m := span(w, 0, limit)
		u.present[w].Store(d.present[w] & m)
		u.pinned[w].Store(d.pinned[w] & d.present[w] & m)
	}
	u.stamp.Store(d.stamp)
	u.uses.Store(int32(min(d.uses, maxUses)))
	if d.main {
		u.queue = &c.space.main
	}
	o.put(u)
	return u
}

// enqueue puts a revived unit in its queue. The caller holds c.mu.
func (c *Cache) enqueue(u *unit) {
	s := &c.space
	q := u.queue
	if q == nil {
		q = &s.small
	}
	q.push(u)
	s.units++
	s.used += u.bytes()
	u.obj.kept += u.present.count()
	s.pinned += u.pinned.count() * grainSize
	if now := u.stamp.Load(); now > c.clock.Load() {
		c.clock.Store(now)
	}
}

// eachDesc reads all descriptors in order.
func (f *files) eachDesc(slots int64, each func(slot int64, d desc)) error {
	b := make([]byte, 8192*descSize)
	for slot := int64(0); slot < slots; {
		n := min(slots-slot, int64(len(b)/descSize))
		if err := readFull(f.index, b[:n*descSize], headSize+slot*descSize); err != nil {
			return err
		}
		for i := range n {
			var d desc
			if !d.parse(b[i*descSize : (i+1)*descSize]) {
				d = desc{n: -1}
			}
			each(slot+i, d)
		}
		slot += n
	}
	return nil
}

// save writes all descriptors as they are now: which units were used is not
// written while they are.
func (c *Cache) save(f *files) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.objects {
		for _, u := range o.units {
			if err := f.writeDesc(u.slot, u.desc()); err != nil {
				return err
			}
		}
	}
	return nil
}

// A listing is an entry of the list of objects: the ids that descriptors have
// only hashes of.
type listing struct {
	id   string
	size int64
	flat bool
}

// readList reads the list up to the first entry that is not whole, and cuts
// off the rest. Later entries of an object take the place of earlier ones.
func (f *files) readList() (map[[16]byte]listing, error) {
	size, err := localfs.Size(f.objects)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if err := readFull(f.objects, data, 0); err != nil {
		return nil, err
	}
	known := make(map[[16]byte]listing)
	rest := data
	for {
		l, n, ok := parseListing(rest)
		if !ok {
			break
		}
		known[newObject(nil, l.id, 0).hash] = l
		rest = rest[n:]
	}
	f.listEnd = size - int64(len(rest))
	return known, nil
}

func (l listing) append(b []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(l.id)))
	b = binary.LittleEndian.AppendUint64(b, uint64(l.size))
	flags := uint64(0)
	if l.flat {
		flags = 1
	}
	b = binary.LittleEndian.AppendUint64(b, flags)
	b = append(b, l.id...)
	binary.LittleEndian.PutUint32(b[start:], crc(b[start+4:]))
	return b
}

func parseListing(b []byte) (l listing, n int, ok bool) {
	if len(b) < idHead {
		return l, 0, false
	}
	n = int(binary.LittleEndian.Uint32(b[4:]))
	if n == 0 || n > maxID || len(b) < idHead+n || binary.LittleEndian.Uint32(b) != crc(b[4:idHead+n]) {
		return l, 0, false
	}
	l = listing{id: string(b[idHead : idHead+n]), size: int64(binary.LittleEndian.Uint64(b[8:])), flat: b[16]&1 != 0}
	return l, idHead + n, l.size >= 0
}

// list adds o to the list. The caller holds Cache.mu.
func (f *files) list(o *object) error {
	b := listing{id: o.id, size: o.size, flat: o.flat}.append(nil)
	if _, err := f.objects.WriteAt(b, f.listEnd); err != nil {
		return err
	}
	f.listEnd += int64(len(b))
	return nil
}

// rewriteList writes the list anew, with the objects that there are. If that
// is cut short, the cache has lost the rest. The caller holds c.mu.
func (f *files) rewriteList(c *Cache) error {
	if err := f.objects.Truncate(0); err != nil {
		return err
	}
	f.listEnd = 0
	var b []byte
	for _, o := range c.objects {
		b = listing{id: o.id, size: o.size, flat: o.flat}.append(b)
	}
	f.listEnd = int64(len(b))
	_, err := f.objects.WriteAt(b, 0)
	return err
}
