package catalog

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
	"unique"

	"github.com/google/btree"
)

// null is the number that stands for no number. It comes before all others,
// as null does.
const null = math.MinInt64

// A row is what the index keeps of an image besides its numbers. Its bits of
// text are syms; together with the columns it is the whole record.
type row struct {
	id       string // "": no image in this slot
	revision int64

	name, owner, parent           sym
	status, visibility            sym
	diskFormat, containerFormat   sym
	checksum, hashAlgo, hashValue sym
	protected, hidden             bool
	attempts                      int32
	tags                          []sym
	props                         []prop
	locations                     []Location
}

// A prop is one property of an image.
type prop struct{ key, value sym }

// numbers is one number of every image, by slot.
type numbers struct{ of []int64 }

// columns is the memory index of all images: rows, numbers by column, a B-tree
// for each sort key, a posting for each value.
type columns struct {
	syms    *symbols
	facets  *facets
	byID    map[string]slot
	rows    []row
	numbers map[Column]*numbers // times in microseconds
	trees   map[Column]*btree.BTreeG[slot]
	live    []uint64 // bitmap of the slots in use
	free    []slot
	members map[string]map[string]Member // image → project, with or without the image
}

// sortable has the columns that a listing can be sorted by.
func sortable() []Column {
	return []Column{ColumnName, ColumnStatus, ColumnContainerFormat, ColumnDiskFormat, ColumnSize,
		ColumnID, ColumnCreatedAt, ColumnUpdatedAt}
}

// numeric has the columns that are numbers.
func numeric() []Column {
	return []Column{ColumnSize, ColumnVirtualSize, ColumnMinDisk, ColumnMinRAM, ColumnCreatedAt, ColumnUpdatedAt}
}

func newColumns() *columns {
	c := &columns{
		syms:    newSymbols(),
		facets:  newFacets(),
		byID:    map[string]slot{},
		numbers: map[Column]*numbers{},
		trees:   map[Column]*btree.BTreeG[slot]{},
		members: map[string]map[string]Member{},
	}
	for _, col := range numeric() {
		c.numbers[col] = &numbers{}
	}
	for _, col := range sortable() {
		compare := c.order([]SortKey{{Column: col}}, false)
		c.trees[col] = btree.NewG(32, func(a, b slot) bool { return compare(a, b) < 0 })
	}
	return c
}

func (c *columns) len() int { return len(c.byID) }

// put adds or replaces an image.
func (c *columns) put(img Image) {
	s, ok := c.byID[img.ID]
	if ok {
		c.detach(s)
	} else {
		s = c.newSlot()
		c.byID[img.ID] = s
		c.live[s>>6] |= 1 << (s & 63)
	}
	c.fill(s, img)
	for _, tree := range c.trees {
		tree.ReplaceOrInsert(s)
	}
	c.eachFacet(s, c.facets.add)
}

// remove takes an image out.
func (c *columns) remove(id string) {
	s, ok := c.byID[id]
	if !ok {
		return
	}
	c.detach(s)
	delete(c.byID, id)
	c.rows[s] = row{}
	c.live[s>>6] &^= 1 << (s & 63)
	c.free = append(c.free, s)
}

// detach takes a slot out of trees and postings, and gives its syms back.
func (c *columns) detach(s slot) {
	for _, tree := range c.trees {
		tree.Delete(s)
	}
	c.eachFacet(s, c.facets.remove)
	c.rows[s].eachSym(c.syms.drop)
}

func (c *columns) newSlot() slot {
	if n := len(c.free); n > 0 {
		s := c.free[n-1]
		c.free = c.free[:n-1]
		return s
	}
	c.rows = append(c.rows, row{})
	if len(c.rows) > 64*len(c.live) {
		c.live = append(c.live, 0)
	}
	for _, n := range c.numbers {
		n.of = append(n.of, null)
	}
	return slot(len(c.rows) - 1)
}

// fill writes img into slot s, which is in no tree and no posting.
func (c *columns) fill(s slot, img Image) {
	y := c.syms
	r := row{
		id: img.ID, revision: img.Revision, owner: y.takeSet(img.Owner), parent: y.takeSet(img.Parent),
		status: y.take(string(img.Status)), visibility: y.take(string(img.Visibility)),
		diskFormat: y.takeSet(img.DiskFormat), containerFormat: y.takeSet(img.ContainerFormat),
		checksum: y.takeSet(img.Checksum), hashAlgo: y.takeSet(img.HashAlgo), hashValue: y.takeSet(img.HashValue),
		protected: img.Protected, hidden: img.Hidden, locations: img.Clone().Locations,
		attempts: int32(min(img.Attempts, math.MaxInt32)),
	}
	if img.Name != nil {
		r.name = y.take(*img.Name)
	}
	if len(img.Tags) > 0 {
		r.tags = make([]sym, len(img.Tags))
	}
	for i := range r.locations {
		r.locations[i].Store = unique.Make(r.locations[i].Store).Value()
	}
	for i, tag := range img.Tags {
		r.tags[i] = y.take(tag)
	}
	if len(img.Properties) > 0 {
		r.props = make([]prop, 0, len(img.Properties))
	}
	for k, v := range img.Properties {
		r.props = append(r.props, prop{y.take(k), y.take(v)})
	}
	c.rows[s] = r
	c.numbers[ColumnSize].of[s] = number(img.Size)
	c.numbers[ColumnVirtualSize].of[s] = number(img.VirtualSize)
	c.numbers[ColumnMinDisk].of[s] = img.MinDisk
	c.numbers[ColumnMinRAM].of[s] = img.MinRAM
	c.numbers[ColumnCreatedAt].of[s] = img.CreatedAt.UnixMicro()
	c.numbers[ColumnUpdatedAt].of[s] = img.UpdatedAt.UnixMicro()
}

// image returns what put was given.
func (c *columns) image(s slot) Image {
	r, y := &c.rows[s], c.syms
	img := Image{
		ID: r.id, Status: Status(y.text(r.status)), Visibility: Visibility(y.text(r.visibility)),
		Protected: r.protected, Hidden: r.hidden, Owner: y.text(r.owner), Parent: y.text(r.parent),
		DiskFormat: y.text(r.diskFormat), ContainerFormat: y.text(r.containerFormat),
		MinDisk: c.numbers[ColumnMinDisk].of[s], MinRAM: c.numbers[ColumnMinRAM].of[s],
		Size: pointer(c.numbers[ColumnSize].of[s]), VirtualSize: pointer(c.numbers[ColumnVirtualSize].of[s]),
		Checksum: y.text(r.checksum), HashAlgo: y.text(r.hashAlgo), HashValue: y.text(r.hashValue),
		Locations: slices.Clone(r.locations), Attempts: int(r.attempts),
		CreatedAt: time.UnixMicro(c.numbers[ColumnCreatedAt].of[s]).UTC(),
		UpdatedAt: time.UnixMicro(c.numbers[ColumnUpdatedAt].of[s]).UTC(),
		Revision:  r.revision,
	}
	if r.name != 0 {
		name := y.text(r.name)
		img.Name = &name
	}
	if len(r.tags) > 0 {
		img.Tags = make([]string, len(r.tags))
	}
	for i, tag := range r.tags {
		img.Tags[i] = y.text(tag)
	}
	if len(r.props) > 0 {
		img.Properties = make(map[string]string, len(r.props))
	}
	for _, p := range r.props {
		img.Properties[y.text(p.key)] = y.text(p.value)
	}
	for i := range img.Locations {
		img.Locations[i].Metadata = maps.Clone(img.Locations[i].Metadata)
	}
	return img
}

func number(p *int64) int64 {
	if p == nil {
		return null
	}
	return *p
}

func pointer(n int64) *int64 {
	if n == null {
		return nil
	}
	return &n
}

func (r *row) eachSym(f func(sym)) {
	for _, y := range []sym{r.name, r.owner, r.parent, r.status, r.visibility, r.diskFormat, r.containerFormat,
		r.checksum, r.hashAlgo, r.hashValue} {
		f(y)
	}
	for _, y := range r.tags {
		f(y)
	}
	for _, p := range r.props {
		f(p.key)
		f(p.value)
	}
}

// eachFacet calls f for every facet that the image in s has.
func (c *columns) eachFacet(s slot, f func(facet, slot)) {
	r := &c.rows[s]
	f(facet{field: fieldStatus, value: r.status}, s)
	f(facet{field: fieldVisibility, value: r.visibility}, s)
	for _, k := range []facet{{field: fieldName, value: r.name}, {field: fieldOwner, value: r.owner},
		{field: fieldDiskFormat, value: r.diskFormat}, {field: fieldContainerFormat, value: r.containerFormat},
		{field: fieldChecksum, value: r.checksum}, {field: fieldHashAlgo, value: r.hashAlgo},
		{field: fieldHashValue, value: r.hashValue}} {
		if k.value != 0 {
			f(k, s)
		}
	}
	if r.protected {
		f(facet{field: fieldProtected}, s)
	}
	if r.hidden {
		f(facet{field: fieldHidden}, s)
	}
	for _, tag := range r.tags {
		f(facet{field: fieldTag, value: tag}, s)
	}
	for _, p := range r.props {
		f(facet{field: fieldProperty, key: p.key, value: p.value}, s)
	}
	if c.shared(r) {
		for _, m := range c.members[r.id] {
			f(c.memberFacet(m), s)
		}
	}
}

func (c *columns) shared(r *row) bool { return c.syms.text(r.visibility) == string(VisibilityShared) }

// memberFacet is made of syms that putMember has taken.
func (c *columns) memberFacet(m Member) facet {
	project, _ := c.syms.find(m.Project)
	status, _ := c.syms.find(string(m.Status))
	return facet{fieldMember, project, status}
}

// putMember adds or replaces a member, whether its image is there or not.
func (c *columns) putMember(m Member) {
	c.removeMember(m.Image, m.Project)
	if c.members[m.Image] == nil {
		c.members[m.Image] = map[string]Member{}
	}
	c.syms.take(m.Project)
	c.syms.take(string(m.Status))
	c.members[m.Image][m.Project] = m
	if s, ok := c.byID[m.Image]; ok && c.shared(&c.rows[s]) {
		c.facets.add(c.memberFacet(m), s)
	}
}

// removeMember takes a member out.
func (c *columns) removeMember(image, project string) {
	m, ok := c.members[image][project]
	if !ok {
		return
	}
	f := c.memberFacet(m)
	if s, ok := c.byID[image]; ok {
		c.facets.remove(f, s)
	}
	c.syms.drop(f.key)
	c.syms.drop(f.value)
	if delete(c.members[image], project); len(c.members[image]) == 0 {
		delete(c.members, image)
	}
}

// order returns the comparison of a list sorted by keys, with created_at and
// id appended as needed, in direction tieDesc.
func (c *columns) order(keys []SortKey, tieDesc bool) func(a, b slot) int {
	keys = slices.Clone(keys)
	for _, tie := range []Column{ColumnCreatedAt, ColumnID} {
		if !slices.ContainsFunc(keys, func(k SortKey) bool { return k.Column == tie }) {
			keys = append(keys, SortKey{tie, tieDesc})
		}
	}
	compares := make([]func(a, b slot) int, len(keys))
	for i, k := range keys {
		f := c.by(k.Column)
		if k.Desc {
			compares[i] = func(a, b slot) int { return f(b, a) }
		} else {
			compares[i] = f
		}
	}
	return func(a, b slot) int {
		for _, f := range compares {
			if n := f(a, b); n != 0 {
				return n
			}
		}
		return 0
	}
}

// by returns the comparison of one column, ascending.
func (c *columns) by(col Column) func(a, b slot) int {
	text := func(of func(*row) sym) func(a, b slot) int {
		return func(a, b slot) int { return c.syms.compare(of(&c.rows[a]), of(&c.rows[b])) }
	}
	switch col {
	case ColumnID:
		return func(a, b slot) int { return cmp.Compare(c.rows[a].id, c.rows[b].id) }
	case ColumnName:
		return text(func(r *row) sym { return r.name })
	case ColumnStatus:
		return text(func(r *row) sym { return r.status })
	case ColumnDiskFormat:
		return text(func(r *row) sym { return r.diskFormat })
	case ColumnContainerFormat:
		return text(func(r *row) sym { return r.containerFormat })
	}
	n := c.numbers[col]
	return func(a, b slot) int { return cmp.Compare(n.of[a], n.of[b]) }
}
