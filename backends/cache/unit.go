package cache

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// A bitmap has one bit for each grain of a unit. Bits are read at any time;
// who changes them holds a lock that says so, or does not care.
type bitmap [unitGrains / 64]atomic.Uint64

// span returns the bits of word w that are in [from, to).
func span(w, from, to int) uint64 {
	from, to = max(from-64*w, 0), min(to-64*w, 64)
	if from >= to {
		return 0
	}
	return ^uint64(0) >> (64 - (to - from)) << from
}

// run returns the length of the run of set bits that starts at from and ends
// at to at the latest.
func (b *bitmap) run(from, to int) int { return b.search(from, to, 0) }

// gap is run for bits that are not set.
func (b *bitmap) gap(from, to int) int { return b.search(from, to, ^uint64(0)) }

func (b *bitmap) search(from, to int, flip uint64) int {
	for i := from; i < to; i = i&^63 + 64 {
		if rest := ^(b[i/64].Load() ^ flip) >> (i % 64); rest != 0 {
			return min(i+bits.TrailingZeros64(rest), to) - from
		}
	}
	return to - from
}

// any reports whether a bit of [from, to) is set.
func (b *bitmap) any(from, to int) bool {
	for w := from / 64; w*64 < to; w++ {
		if b[w].Load()&span(w, from, to) != 0 {
			return true
		}
	}
	return false
}

// set sets [from, to) and returns how many bits were not.
func (b *bitmap) set(from, to int) (changed int64) {
	for w := from / 64; w*64 < to; w++ {
		m := span(w, from, to)
		changed += int64(bits.OnesCount64(m &^ b[w].Or(m)))
	}
	return changed
}

// clear clears [from, to) and returns how many bits were set.
func (b *bitmap) clear(from, to int) (changed int64) {
	for w := from / 64; w*64 < to; w++ {
		m := span(w, from, to)
		changed += int64(bits.OnesCount64(m & b[w].And(^m)))
	}
	return changed
}

func (b *bitmap) count() (n int64) {
	for w := range b {
		n += int64(bits.OnesCount64(b[w].Load()))
	}
	return n
}

// sums are the digests of a unit's grains.
type sums [unitGrains]atomic.Uint64

// A unit is 512 KiB of an object that have a place on the disk, of which some
// grains are there.
type unit struct {
	obj  *object
	n    int64 // it begins at n * unitSize of the object
	slot int64 // its place in the files

	present bitmap // changed under Cache.mu
	pinned  bitmap // changed under Cache.mu; always among the present
	fresh   bitmap // fetched ahead and not yet asked for

	sums  atomic.Pointer[sums] // nil until needed; changed under mu
	gone  atomic.Bool          // evicted: the place may be another's
	stamp atomic.Int64         // by Cache.clock, when it was kept or last counted as used
	uses  atomic.Int32         // how often it was used since, up to maxUses

	mu sync.Mutex // held to write to its place and its descriptor

	// Guarded by Cache.mu.
	queue      *queue
	prev, next *unit
}

// place is what the digest of a grain is bound to: the object, and where the
// grain is in it. So the bytes of another object, or of another place, never
// agree, wherever a crash may have left them.
func (o *object) place(grain int64) uint64 {
	x := o.key + uint64(grain)*0x9e3779b97f4a7c15 // splitmix64, Steele et al., OOPSLA 2014
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// digest returns the digest of a grain, the last of which may be short.
func (o *object) digest(grain int64, data []byte) uint64 {
	return xxhash.Sum64(data) ^ o.place(grain)
}

// maxUses is how many uses of a unit are told apart.
const maxUses = 3

// used counts a use of u. Uses that follow so closely that it could not
// have been evicted meanwhile are one: reading in order by small pieces must
// not look like coming back.
func (u *unit) used(c *Cache) {
	now := c.clock.Load()
	if now-u.stamp.Load() < c.space.close {
		return
	}
	u.stamp.Store(now)
	if n := u.uses.Load(); n < maxUses {
		u.uses.Store(n + 1)
	}
}

// sumRing bounds how many units have their digests in memory: 64 MiB of
// digests are those of 32 GiB of units.
type sumRing struct {
	mu   sync.Mutex
	at   int
	ring []*unit
}

const maxSums = 64 << 10

func (r *sumRing) add(u *unit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) < maxSums {
		r.ring = append(r.ring, u)
		return
	}
	r.ring[r.at].sums.Store(nil) // who uses them keeps them until then
	r.ring[r.at] = u
	r.at = (r.at + 1) % maxSums
}

// digests returns the digests of u, from the disk if need be. The caller holds
// u.mu.
func (u *unit) digests(f *files) (*sums, error) {
	if s := u.sums.Load(); s != nil {
		return s, nil
	}
	var raw [sumsSize]byte
	if err := f.readSums(u.slot, raw[:]); err != nil {
		return nil, err
	}
	s := new(sums)
	for i := range s {
		s[i].Store(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	u.sums.Store(s)
	u.obj.cache.loaded.add(u)
	return s, nil
}
