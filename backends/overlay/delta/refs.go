package delta

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"syscall"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

const (
	errNoSpace = syscall.ENOSPC

	pageBits   = clusterBits - 1 // a refcount block has 64 Ki entries of 16 bits
	pageLen    = 1 << pageBits
	sectorLen  = 256 // entries in 512 bytes
	maxCount   = 1<<16 - 1
	growthStep = 64 * clusterSize // the file is made longer by this
)

// A page is a refcount block in memory: 8 GiB of the file.
type page struct {
	at    int64 // where it is in the file, or 0
	free  int   // entries that are 0
	count [pageLen]uint16
	dirty [pageLen / sectorLen / 64]uint64
}

func (p *page) soil(i int64) {
	s := i / sectorLen
	p.dirty[s/64] |= 1 << (s % 64)
}

// counts are the refcounts of a file, by cluster. A missing page is all 0.
type counts []*page

func (c counts) get(i int64) uint16 {
	if p := i >> pageBits; p < int64(len(c)) && c[p] != nil {
		return c[p].count[i&(pageLen-1)]
	}
	return 0
}

// page returns the page of cluster i, made if need be.
func (c *counts) page(i int64) *page {
	n := int(i >> pageBits)
	for len(*c) <= n {
		*c = append(*c, nil)
	}
	if (*c)[n] == nil {
		(*c)[n] = &page{free: pageLen}
	}
	return (*c)[n]
}

// add changes the refcount of cluster i.
func (c *counts) add(i int64, by int) uint16 {
	p := c.page(i)
	k := i & (pageLen - 1)
	old := p.count[k]
	p.count[k] = uint16(int(old) + by)
	switch {
	case old == 0 && p.count[k] != 0:
		p.free--
	case old != 0 && p.count[k] == 0:
		p.free++
	}
	p.soil(k)
	return p.count[k]
}

// clone returns a copy whose pages have no place in a file.
func (c counts) clone() counts {
	out := make(counts, len(c))
	for i, p := range c {
		if p != nil {
			q := *p
			q.at, q.dirty = 0, [len(p.dirty)]uint64{}
			out[i] = &q
		}
	}
	return out
}

// find returns the first of n clusters in a row, at or after from, that are
// free here and in also. Where it makes a page, the page is all free.
func (c *counts) find(from int64, n int, also counts) int64 {
	for i, run := from, 0; ; i++ {
		p := c.page(i)
		if p.free == 0 {
			i, run = i|(pageLen-1), 0
			continue
		}
		if p.count[i&(pageLen-1)] != 0 || also.get(i) != 0 {
			run = 0
			continue
		}
		if run++; run == n {
			return i - int64(n) + 1
		}
	}
}

// end returns the cluster behind the last one in use.
func (c counts) end() int64 {
	for n := len(c) - 1; n >= 0; n-- {
		if c[n] == nil || c[n].free == pageLen {
			continue
		}
		for k := pageLen - 1; k >= 0; k-- {
			if c[n].count[k] != 0 {
				return int64(n)<<pageBits + int64(k) + 1
			}
		}
	}
	return 0
}

// refcounts are the refcounts in memory and in the file, and what follows from
// them: which clusters are free, how long the file is.
type refcounts struct {
	sync.Mutex
	counts  counts
	hint    int64 // no cluster before it is free
	length  int64 // of the file
	table   int64 // where the refcount table is
	entries int64 // how many it has room for
}

// take takes a free cluster and returns its place. The caller has charged for
// it. Its refcount is on the disk after the next sync that a flush does
// before it writes what points there.
func (r *refcounts) take(d *Delta) (int64, error) {
	r.Lock()
	defer r.Unlock()
	for {
		i := r.counts.find(r.hint, 1, nil)
		r.hint = i
		p := r.counts.page(i)
		if p.at == 0 {
			if err := r.addPage(d, p, i); err != nil {
				return 0, err
			}
			continue
		}
		if err := r.reach(d, (i+1)<<clusterBits); err != nil {
			return 0, err
		}
		r.counts.add(i, 1)
		r.hint = i + 1
		return i << clusterBits, nil
	}
}

// addPage gives a new page its place, which is the first cluster it counts.
// Nothing may point to clusters of the page before the page is on the disk.
func (r *refcounts) addPage(d *Delta, p *page, i int64) error {
	n := i >> pageBits
	if n >= r.entries {
		return fmt.Errorf("overlay %s: its refcount table is full, at %d bytes: %w", d.cfg.Path, r.entries<<(pageBits+clusterBits), errNoSpace)
	}
	at := n << (pageBits + clusterBits)
	if err := d.charge(clusterSize); err != nil {
		return err
	}
	err := r.reach(d, at+clusterSize)
	if err == nil {
		block := make([]byte, clusterSize)
		binary.BigEndian.PutUint16(block, 1)
		err = d.write(block, at)
	}
	if err == nil {
		err = d.sync()
	}
	if err == nil {
		if err = d.write(binary.BigEndian.AppendUint64(nil, uint64(at)), r.table+n*8); err != nil {
			d.breakDown(err) // the table may point to the block, or not
		}
	}
	if err != nil {
		d.used.Add(-clusterSize)
		return err
	}
	p.at = at
	r.counts.add(n<<pageBits, 1)
	return nil
}

// reach makes the file at least n bytes long, in steps.
func (r *refcounts) reach(d *Delta, n int64) error {
	if n <= r.length {
		return nil
	}
	n = (n + growthStep - 1) / growthStep * growthStep
	if err := d.f.Truncate(n); err != nil {
		return d.wrap("grow file", err)
	}
	r.length = n
	return nil
}

// giveBack frees a cluster that take returned and that nothing points to.
func (r *refcounts) giveBack(place int64) {
	r.Lock()
	defer r.Unlock()
	r.counts.add(place>>clusterBits, -1)
	r.hint = min(r.hint, place>>clusterBits)
}

// free drops one reference to each place. Those that have no other are made
// holes, before anybody can take them.
func (r *refcounts) free(d *Delta, places []int64) {
	slices.Sort(places)
	var run struct{ at, n int64 }
	flush := func() {
		if run.n > 0 {
			d.punch(run.at, run.n)
		}
		run.n = 0
	}
	for _, at := range places {
		r.Lock()
		last := r.counts.get(at>>clusterBits) == 1
		r.Unlock()
		if !last {
			continue
		}
		if run.n > 0 && run.at+run.n != at {
			flush()
		}
		if run.n == 0 {
			run.at = at
		}
		run.n += clusterSize
	}
	flush()
	for _, at := range places {
		r.giveBack(at)
	}
}

// punch frees the disk space of a range that nobody can see. That it fails
// costs space only.
func (d *Delta) punch(at, n int64) {
	if err := localfs.Punch(d.f, at, n); err != nil {
		d.cfg.Logger.Warn("free space of an overlay", "path", d.cfg.Path, "at", at, "bytes", n, "err", err)
	}
}

func (r *refcounts) dirty() bool {
	r.Lock()
	defer r.Unlock()
	for _, p := range r.counts {
		if p != nil && p.at != 0 && p.dirty != [len(p.dirty)]uint64{} {
			return true
		}
	}
	return false
}

// store writes the refcounts that changed, without a sync.
func (r *refcounts) store(d *Delta) error {
	r.Lock()
	defer r.Unlock()
	for _, p := range r.counts {
		if p == nil || p.at == 0 {
			continue
		}
		if err := p.store(d); err != nil {
			return err
		}
	}
	return nil
}

func (p *page) store(d *Delta) error {
	var b [2 * sectorLen]byte
	for w := range p.dirty {
		for p.dirty[w] != 0 {
			s := w*64 + bits.TrailingZeros64(p.dirty[w])
			for k, v := range p.count[s*sectorLen : (s+1)*sectorLen] {
				binary.BigEndian.PutUint16(b[2*k:], v)
			}
			if err := d.write(b[:], p.at+int64(s)*int64(len(b))); err != nil {
				return err
			}
			p.dirty[w] &= p.dirty[w] - 1
		}
	}
	return nil
}

// trim cuts the file behind the last cluster in use.
func (r *refcounts) trim(d *Delta) error {
	r.Lock()
	defer r.Unlock()
	end := r.counts.end() << clusterBits
	if end >= r.length {
		return nil
	}
	if err := d.f.Truncate(end); err != nil {
		return d.wrap("cut file", err)
	}
	r.length = end
	return nil
}
