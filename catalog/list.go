package catalog

import (
	"fmt"
	"io/fs"
	"math/bits"
	"slices"
	"time"
)

// few is the size of a term at which its members are looked at one by one
// instead of building a bitmap of all images.
const few = 512

// A term is one part of a query: an image matches if it has any of the
// facets, or, where except is set, if it lacks that one. A query is a list of
// terms that must all match.
type term struct {
	any    []*posting
	negate bool
	except *posting
}

// most returns how many images can match a term that is not negated.
func (t term) most() int {
	n := 0
	for _, p := range t.any {
		n += p.len()
	}
	return n
}

func (t term) has(s slot) bool {
	for _, p := range t.any {
		if p.has(s) {
			return true
		}
	}
	return t.negate && !t.except.has(s)
}

// andInto removes from m what does not match; tmp is as long as m.
func (t term) andInto(m, tmp []uint64) {
	clear(tmp)
	if t.negate {
		t.except.orInto(tmp)
		for w := range tmp {
			tmp[w] = ^tmp[w]
		}
	}
	for _, p := range t.any {
		p.orInto(tmp)
	}
	for w := range m {
		m[w] &= tmp[w]
	}
}

// A bound holds the images whose number is in [low, high], or, negated, is
// not. Null is in no bound.
type bound struct {
	numbers   []int64
	low, high int64
	negate    bool
}

func (b bound) has(s slot) bool {
	n := b.numbers[s]
	return n != null && (n >= b.low && n <= b.high) != b.negate
}

// andInto removes from m what does not match. It reads a whole column in
// order, which costs less than looking up rows.
func (b bound) andInto(m []uint64) {
	for w, word := range m {
		for rest := word; rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros64(rest)
			if !b.has(slot(w<<6 + i)) {
				m[w] &^= 1 << i
			}
		}
	}
}

// A plan is a query made ready for this index.
type plan struct {
	c       *columns
	terms   []term
	bounds  []bound
	keys    []SortKey
	tieDesc bool // the direction of the tie-breakers
	compare func(a, b slot) int
	after   slot // only what comes after this one
	marker  bool // there is an after
	limit   int
}

// images answers a query.
func (c *columns) images(q Query) ([]Image, error) {
	p, err := c.plan(q)
	if err != nil {
		return nil, err
	}
	slots := p.run()
	out := make([]Image, len(slots))
	for i, s := range slots {
		out[i] = c.image(s)
	}
	return out, nil
}

func (c *columns) plan(q Query) (*plan, error) {
	p := &plan{c: c, limit: q.Limit, keys: q.Sort}
	if len(p.keys) == 0 {
		p.keys = []SortKey{{ColumnCreatedAt, true}}
	}
	for _, k := range p.keys {
		if !slices.Contains(sortable(), k.Column) {
			return nil, fmt.Errorf("catalog: sort by %q: %w", k.Column, fs.ErrInvalid)
		}
	}
	// One direction given for all keys is that of the tie-breakers, too;
	// otherwise they descend.
	p.tieDesc = p.keys[0].Desc || len(p.keys) > 1 && !q.OneDir
	p.compare = c.order(p.keys, p.tieDesc)
	if q.Marker != "" {
		s, ok := c.byID[q.Marker]
		if !ok || !c.canSee(q.Viewer, s) {
			return nil, fmt.Errorf("catalog: list after %s: %w", q.Marker, ErrMarker)
		}
		p.after, p.marker = s, true
	}
	p.filter(q)
	p.visible(q)
	p.dropConstant(q)
	return p, p.numeric(q)
}

// dropConstant leaves out first keys that are the same in all that matches, as
// in "the active ones, by status and name": the tree of the next key then
// leads straight to them. The order itself stays that of all keys.
func (p *plan) dropConstant(q Query) {
	for len(p.keys) > 1 && p.constant(q, p.keys[0].Column) {
		p.keys = p.keys[1:]
	}
}

// constant tells whether all that matches, and the marker, has one value in a
// column.
func (p *plan) constant(q Query, column Column) bool {
	var want []string
	var f field
	switch column {
	case ColumnStatus:
		f = fieldStatus
		for _, v := range q.Status {
			want = append(want, string(v))
		}
	case ColumnDiskFormat:
		f, want = fieldDiskFormat, q.DiskFormat
	case ColumnContainerFormat:
		f, want = fieldContainerFormat, q.ContainerFormat
	}
	return len(want) == 1 && (!p.marker || p.c.find(f, "", want[0]).has(p.after))
}

// filter adds the terms of plain values.
func (p *plan) filter(q Query) {
	if len(q.ID) > 0 {
		ids := &posting{}
		for _, id := range q.ID {
			if s, ok := p.c.byID[id]; ok {
				ids.add(s)
			}
		}
		p.terms = append(p.terms, term{any: []*posting{ids}})
	}
	anyOf(p, fieldName, q.Name)
	anyOf(p, fieldStatus, q.Status)
	anyOf(p, fieldDiskFormat, q.DiskFormat)
	anyOf(p, fieldContainerFormat, q.ContainerFormat)
	one(p, fieldOwner, q.Owner)
	one(p, fieldChecksum, q.Checksum)
	one(p, fieldHashAlgo, q.HashAlgo)
	one(p, fieldHashValue, q.HashValue)
	for i := range q.Tags {
		one(p, fieldTag, &q.Tags[i])
	}
	for k, v := range q.Properties {
		p.terms = append(p.terms, term{any: []*posting{p.c.find(fieldProperty, k, v)}})
	}
	if q.Protected != nil {
		p.flag(fieldProtected, *q.Protected)
	}
	if q.Hidden != HiddenAny {
		p.flag(fieldHidden, q.Hidden == HiddenOnly)
	}
}

// visible adds the terms of who may see what.
func (p *plan) visible(q Query) {
	v, project := q.Visibility, q.Viewer.Project
	community := p.c.find(fieldVisibility, "", string(VisibilityCommunity))
	var own *posting
	if project != "" {
		own = p.c.find(fieldOwner, "", project)
	}
	if v != "" && v != VisibilityAll {
		p.terms = append(p.terms, term{any: []*posting{p.c.find(fieldVisibility, "", string(v))}})
	}
	if v == "" && q.Viewer.Admin {
		p.terms = append(p.terms, term{any: []*posting{own}, negate: true, except: community})
	}
	if q.Viewer.Admin {
		return
	}
	t := term{any: []*posting{own, p.c.find(fieldVisibility, "", string(VisibilityPublic))}}
	if v != "" {
		t.any = append(t.any, community)
	}
	if project != "" {
		t.any = append(t.any, p.c.memberOf(project, q.MemberStatus)...)
	}
	p.terms = append(p.terms, t)
}

// memberOf returns the images shared with a project that it has so answered.
func (c *columns) memberOf(project string, status MemberStatus) []*posting {
	switch status {
	case "":
		status = MemberAccepted
	case MemberAll:
		return []*posting{
			c.find(fieldMember, project, string(MemberPending)),
			c.find(fieldMember, project, string(MemberAccepted)),
			c.find(fieldMember, project, string(MemberRejected)),
		}
	}
	return []*posting{c.find(fieldMember, project, string(status))}
}

// numeric adds the bounds.
func (p *plan) numeric(q Query) error {
	for _, r := range q.Ranges {
		n := p.c.numbers[r.Column]
		if n == nil || r.Column == ColumnCreatedAt || r.Column == ColumnUpdatedAt {
			return fmt.Errorf("catalog: range of %q: %w", r.Column, fs.ErrInvalid)
		}
		b := bound{numbers: n.of, low: null + 1, high: 1<<63 - 1}
		if r.Min != nil {
			b.low = *r.Min
		}
		if r.Max != nil {
			b.high = *r.Max
		}
		p.bounds = append(p.bounds, b)
	}
	for _, t := range q.Times {
		b, err := p.c.timeBound(t)
		if err != nil {
			return err
		}
		p.bounds = append(p.bounds, b)
	}
	return nil
}

// timeBound turns a comparison of seconds into one of microseconds.
func (c *columns) timeBound(t TimeCond) (bound, error) {
	if t.Column != ColumnCreatedAt && t.Column != ColumnUpdatedAt {
		return bound{}, fmt.Errorf("catalog: compare %q with a time: %w", t.Column, fs.ErrInvalid)
	}
	first := t.Time.Unix() * int64(time.Second/time.Microsecond)
	last := first + int64(time.Second/time.Microsecond) - 1
	b := bound{numbers: c.numbers[t.Column].of, low: null + 1, high: 1<<63 - 1}
	switch t.Op {
	case OpEQ, OpNEQ:
		b.low, b.high, b.negate = first, last, t.Op == OpNEQ
	case OpGT:
		b.low = last + 1
	case OpGTE:
		b.low = first
	case OpLT:
		b.high = first - 1
	case OpLTE:
		b.high = last
	default:
		return bound{}, fmt.Errorf("catalog: compare %s with operator %q: %w", t.Column, t.Op, fs.ErrInvalid)
	}
	return b, nil
}

// find returns the posting of a facet by its texts; nil if there is none.
func (c *columns) find(f field, key, value string) *posting {
	k := facet{field: f}
	ok := true
	if f == fieldProperty || f == fieldMember {
		k.key, ok = c.syms.find(key)
	}
	if !ok {
		return nil
	}
	if k.value, ok = c.syms.find(value); !ok {
		return nil
	}
	return c.facets.get(k)
}

func anyOf[T ~string](p *plan, f field, values []T) {
	if len(values) == 0 {
		return
	}
	var t term
	for _, v := range values {
		t.any = append(t.any, p.c.find(f, "", string(v)))
	}
	p.terms = append(p.terms, t)
}

func one(p *plan, f field, value *string) {
	if value != nil {
		p.terms = append(p.terms, term{any: []*posting{p.c.find(f, "", *value)}})
	}
}

func (p *plan) flag(f field, want bool) {
	have := p.c.facets.get(facet{field: f})
	if want {
		p.terms = append(p.terms, term{any: []*posting{have}})
	} else {
		p.terms = append(p.terms, term{negate: true, except: have})
	}
}

// run returns the slots of the answer, in order. The rarest term decides how:
// few images are looked at one by one; otherwise bitmaps tell exactly which
// images match, and either the tree of the sort key is walked until there are
// enough, or, where that would take longer, the matches are sorted.
func (p *plan) run() []slot {
	if p.limit <= 0 {
		p.limit = p.c.len()
	}
	if t, ok := p.rarest(); ok && t.most() <= few {
		return p.top(p.oneByOne(t))
	}
	m, n := p.bitmap()
	if walk := p.limit * (p.c.len() / max(n, 1)); walk < n {
		if found, ok := p.walk(m, 8*walk+8*few); ok {
			return found
		}
	}
	return p.top(appendSlots(make([]slot, 0, n), m))
}

// rarest returns the term that the fewest images can match. Negated ones do not
// count: they match nearly all.
func (p *plan) rarest() (best term, ok bool) {
	for _, t := range p.terms {
		if !t.negate && (!ok || t.most() < best.most()) {
			best, ok = t, true
		}
	}
	return best, ok
}

// oneByOne returns what matches all terms, starting from the members of t.
func (p *plan) oneByOne(t term) []slot {
	var list []slot
	for _, posting := range t.any {
		list = posting.appendTo(list)
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(s slot) bool { return !p.matches(s) })
}

func (p *plan) matches(s slot) bool {
	for _, t := range p.terms {
		if !t.has(s) {
			return false
		}
	}
	for _, b := range p.bounds {
		if !b.has(s) {
			return false
		}
	}
	return true
}

// bitmap returns the set of all that matches, and its size.
func (p *plan) bitmap() ([]uint64, int) {
	m, tmp := slices.Clone(p.c.live), make([]uint64, len(p.c.live))
	for _, t := range p.terms {
		t.andInto(m, tmp)
	}
	for _, b := range p.bounds {
		b.andInto(m)
	}
	return m, countBits(m)
}

// walk goes along the tree of the first sort key, from the marker on, and takes
// what is in m, until there are enough and, with more keys than that one, the
// images that share the last value of it are all seen. It gives up after
// steps images: the matches then lie at the far end of the order.
func (p *plan) walk(m []uint64, steps int) ([]slot, bool) {
	alone, same := len(p.keys) == 1 && p.keys[0].Desc == p.tieDesc, p.c.by(p.keys[0].Column)
	found := make([]slot, 0, p.limit)
	enough := func(s slot) bool {
		return len(found) >= p.limit && (alone || same(s, found[len(found)-1]) != 0)
	}
	if p.marker && !alone {
		// The tree may have images before the marker that the other keys put
		// after it.
		p.along(!p.keys[0].Desc, func(s slot) bool {
			if has(m, s) && p.compare(s, p.after) > 0 {
				found = append(found, s)
			}
			steps--
			return steps > 0 && same(s, p.after) == 0
		})
	}
	p.along(p.keys[0].Desc, func(s slot) bool {
		if has(m, s) && !(p.marker && p.compare(s, p.after) <= 0) {
			if enough(s) {
				return false
			}
			found = append(found, s)
		}
		steps--
		return steps > 0 && !(alone && len(found) == p.limit)
	})
	return p.top(found), steps > 0
}

// along visits the tree of the first sort key, in one direction, from the
// marker if there is one.
func (p *plan) along(desc bool, visit func(slot) bool) {
	tree := p.c.trees[p.keys[0].Column]
	switch {
	case desc && p.marker:
		tree.DescendLessOrEqual(p.after, visit)
	case desc:
		tree.Descend(visit)
	case p.marker:
		tree.AscendGreaterOrEqual(p.after, visit)
	default:
		tree.Ascend(visit)
	}
}

func has(m []uint64, s slot) bool { return m[s>>6]&(1<<(s&63)) != 0 }

// top returns the first matches after the marker, in order.
func (p *plan) top(list []slot) []slot {
	if p.marker {
		list = slices.DeleteFunc(list, func(s slot) bool { return p.compare(s, p.after) <= 0 })
	}
	if len(list) <= p.limit || p.limit > len(list)/4 {
		slices.SortFunc(list, p.compare)
		return list[:min(p.limit, len(list))]
	}
	// Keep the best seen so far, sorted: most images lose to the last of them
	// at the first comparison.
	best := make([]slot, 0, p.limit+1)
	for _, s := range list {
		if len(best) == p.limit && p.compare(s, best[p.limit-1]) > 0 {
			continue
		}
		i, _ := slices.BinarySearchFunc(best, s, p.compare)
		if best = slices.Insert(best, i, s); len(best) > p.limit {
			best = best[:p.limit]
		}
	}
	return best
}

// canSee tells whether a viewer may see the image in s, by whatever way it
// came to know of it. Listings are stricter.
func (c *columns) canSee(v Viewer, s slot) bool {
	r := &c.rows[s]
	return c.mayKnow(v, r.id, Visibility(c.syms.text(r.visibility)), c.syms.text(r.owner))
}

func (c *columns) mayKnow(v Viewer, id string, visibility Visibility, owner string) bool {
	switch {
	case v.Admin, owner == "", visibility == VisibilityPublic, visibility == VisibilityCommunity:
		return true
	case v.Project == "":
		return false
	case owner == v.Project:
		return true
	}
	_, member := c.members[id][v.Project]
	return visibility == VisibilityShared && member
}
