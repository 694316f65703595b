package catalog

import (
	"math/bits"
	"slices"
)

// A slot is the place of an image in the index. Slots are used again.
type slot uint32

// sparse is the number of slots up to which a posting is a sorted list; above,
// it is a bitmap. A list of that length is as big as the bitmap of 130,000
// images, and is changed by moving a few KiB at most.
const sparse = 4096

// A posting is the set of images that have one value. A nil posting is empty.
type posting struct {
	list []slot // sorted; nil when bits is used
	bits []uint64
	n    int // members, when bits is used
}

func (p *posting) len() int {
	if p == nil {
		return 0
	}
	return p.n + len(p.list)
}

func (p *posting) has(s slot) bool {
	if p == nil {
		return false
	}
	if p.bits == nil {
		_, ok := slices.BinarySearch(p.list, s)
		return ok
	}
	w := int(s >> 6)
	return w < len(p.bits) && p.bits[w]&(1<<(s&63)) != 0
}

func (p *posting) add(s slot) {
	if p.bits != nil {
		p.setBit(s)
		return
	}
	if n := len(p.list); n == 0 || p.list[n-1] < s { // as while loading
		p.list = append(p.list, s)
	} else if i, ok := slices.BinarySearch(p.list, s); !ok {
		p.list = slices.Insert(p.list, i, s)
	}
	if len(p.list) > sparse {
		list := p.list
		p.list, p.bits = nil, make([]uint64, list[len(list)-1]>>6+1)
		for _, s := range list {
			p.setBit(s)
		}
	}
}

func (p *posting) setBit(s slot) {
	w := int(s >> 6)
	if w >= len(p.bits) {
		p.bits = append(p.bits, make([]uint64, w+1-len(p.bits))...)
	}
	if p.bits[w]&(1<<(s&63)) == 0 {
		p.bits[w] |= 1 << (s & 63)
		p.n++
	}
}

func (p *posting) remove(s slot) {
	if !p.has(s) {
		return
	}
	if p.bits == nil {
		i, _ := slices.BinarySearch(p.list, s)
		p.list = slices.Delete(p.list, i, i+1)
		return
	}
	p.bits[s>>6] &^= 1 << (s & 63)
	if p.n--; p.n < sparse/2 { // well below the way up, so as not to flap
		p.list, p.bits, p.n = appendSlots(make([]slot, 0, p.n), p.bits), nil, 0
	}
}

// orInto adds the posting to a bitmap long enough for every slot.
func (p *posting) orInto(m []uint64) {
	if p == nil {
		return
	}
	for w, b := range p.bits {
		m[w] |= b
	}
	for _, s := range p.list {
		m[s>>6] |= 1 << (s & 63)
	}
}

// appendTo appends the members to list, in order.
func (p *posting) appendTo(list []slot) []slot {
	if p == nil {
		return list
	}
	if p.bits == nil {
		return append(list, p.list...)
	}
	return appendSlots(list, p.bits)
}

// appendSlots appends the members of a bitmap to list, in order.
func appendSlots(list []slot, m []uint64) []slot {
	for w, b := range m {
		for ; b != 0; b &= b - 1 {
			list = append(list, slot(w<<6+bits.TrailingZeros64(b)))
		}
	}
	return list
}

func countBits(m []uint64) int {
	n := 0
	for _, b := range m {
		n += bits.OnesCount64(b)
	}
	return n
}

// A facet is a value that images can be asked for: a field, and what is in
// it. For a property, key is its name.
type facet struct {
	field field
	key   sym
	value sym
}

// A field is what a facet is a value of.
type field uint8

const (
	fieldName field = iota
	fieldStatus
	fieldVisibility
	fieldProtected
	fieldHidden
	fieldOwner
	fieldDiskFormat
	fieldContainerFormat
	fieldChecksum
	fieldHashAlgo
	fieldHashValue
	fieldTag
	fieldProperty
	fieldMember // of shared images: key is the project, value its status
)

// facets has the posting of each facet. Most values that only one image has
// (names, checksums) never get a second one, so those cost a word.
type facets struct {
	single map[facet]slot
	many   map[facet]*posting
}

func newFacets() *facets {
	return &facets{single: map[facet]slot{}, many: map[facet]*posting{}}
}

func (f *facets) add(k facet, s slot) {
	if p := f.many[k]; p != nil {
		p.add(s)
		return
	}
	other, ok := f.single[k]
	if !ok {
		f.single[k] = s
		return
	}
	if other == s {
		return
	}
	delete(f.single, k)
	f.many[k] = &posting{list: []slot{min(s, other), max(s, other)}}
}

func (f *facets) remove(k facet, s slot) {
	p := f.many[k]
	if p == nil {
		if other, ok := f.single[k]; ok && other == s {
			delete(f.single, k)
		}
		return
	}
	p.remove(s)
	if p.len() == 1 {
		f.single[k] = p.appendTo(nil)[0]
		delete(f.many, k)
	}
}

// get returns the posting of k, nil if empty.
func (f *facets) get(k facet) *posting {
	if p := f.many[k]; p != nil {
		return p
	}
	if s, ok := f.single[k]; ok {
		return &posting{list: []slot{s}}
	}
	return nil
}
