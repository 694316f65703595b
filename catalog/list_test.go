package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// world is a set of images and members that a model and the index both have.
type world struct {
	rng     *rand.Rand
	images  map[string]Image
	members map[string]Member
	index   *columns
}

func newWorld(seed uint64, n int) *world {
	w := &world{rand.New(rand.NewPCG(seed, 1)), map[string]Image{}, map[string]Member{}, newColumns()}
	for range n {
		w.step(n)
	}
	return w
}

func pick[T any](w *world, values ...T) T { return values[w.rng.IntN(len(values))] }

// step adds, changes or removes something.
func (w *world) step(n int) {
	id := fmt.Sprintf("id-%04d", w.rng.IntN(n))
	switch w.rng.IntN(10) {
	case 0:
		delete(w.images, id)
		w.index.remove(id)
	case 1, 2:
		m := Member{Image: id, Project: pick(w, "p1", "p2"), Status: pick(w, MemberPending, MemberAccepted, MemberRejected)}
		w.members[id+"/"+m.Project] = m
		w.index.putMember(m)
	case 3:
		project := pick(w, "p1", "p2")
		delete(w.members, id+"/"+project)
		w.index.removeMember(id, project)
	default:
		img := w.image(id)
		w.images[id] = img
		w.index.put(img)
	}
}

func (w *world) image(id string) Image {
	base := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	name, size := pick(w, "", "a", "b", "B", "z,1"), int64(w.rng.IntN(5))
	img := Image{
		ID: id, Status: pick(w, StatusQueued, StatusActive, StatusActive, StatusDeactivated),
		Visibility: pick(w, VisibilityPublic, VisibilityCommunity, VisibilityShared, VisibilityShared, VisibilityPrivate),
		Owner:      pick(w, "", "p1", "p2", "p3"), Protected: w.rng.IntN(4) == 0, Hidden: w.rng.IntN(8) == 0,
		DiskFormat: pick(w, "", "raw", "qcow2"), ContainerFormat: pick(w, "", "bare"),
		MinDisk: int64(w.rng.IntN(3)), MinRAM: int64(w.rng.IntN(3)), Checksum: pick(w, "", "c1", "c2"),
		HashAlgo: "sha512", HashValue: pick(w, "", "h1"), Parent: pick(w, "", "id-0001"),
		CreatedAt: base.Add(time.Duration(w.rng.IntN(8)) * 400 * time.Millisecond),
		UpdatedAt: base.Add(time.Duration(w.rng.IntN(8)) * time.Second), Revision: int64(w.rng.IntN(1000)),
	}
	if w.rng.IntN(5) > 0 {
		img.Name = &name
	}
	if w.rng.IntN(4) > 0 {
		img.Size, img.VirtualSize = &size, &size
		img.Locations = []Location{{Store: "s", Key: id, Size: size, Metadata: map[string]string{"m": "1"}}}
	}
	for _, tag := range []string{"t1", "t2", "t3"} {
		if w.rng.IntN(2) == 0 {
			img.Tags = append(img.Tags, tag)
		}
	}
	for _, k := range []string{"os", "arch"} {
		if w.rng.IntN(2) == 0 {
			if img.Properties == nil {
				img.Properties = map[string]string{}
			}
			img.Properties[k] = pick(w, "x", "y", "")
		}
	}
	return img
}

func (w *world) query() Query {
	q := Query{
		Viewer:       Viewer{Project: pick(w, "", "p1", "p2", "p3"), Admin: w.rng.IntN(4) == 0},
		Visibility:   pick(w, "", "", VisibilityAll, VisibilityPublic, VisibilityCommunity, VisibilityShared, VisibilityPrivate),
		MemberStatus: pick(w, "", "", MemberAll, MemberPending, MemberRejected),
		Hidden:       pick(w, HiddenNo, HiddenNo, HiddenOnly, HiddenAny),
		Limit:        pick(w, 0, 1, 3, 25), OneDir: w.rng.IntN(2) == 0,
	}
	maybe := func(f func()) {
		if w.rng.IntN(7) == 0 {
			f()
		}
	}
	maybe(func() { q.Name = []string{pick(w, "a", "", "none"), "B"} })
	maybe(func() { q.Status = []Status{StatusActive} })
	maybe(func() { q.DiskFormat = []string{"raw", "iso"} })
	maybe(func() { q.ContainerFormat = []string{"bare"} })
	maybe(func() { q.ID = []string{"id-0001", "id-0002", "id-0003", "nobody"} })
	maybe(func() { s := pick(w, "p1", "nobody", ""); q.Owner = &s })
	maybe(func() { s := "c1"; q.Checksum = &s })
	maybe(func() { s := "h1"; q.HashValue = &s })
	maybe(func() { b := w.rng.IntN(2) == 0; q.Protected = &b })
	maybe(func() { q.Tags = pick(w, []string{"t1"}, []string{"t1", "t3"}, []string{"t1", "t1"}, []string{"t9"}) })
	maybe(func() { q.Properties = map[string]string{"os": pick(w, "x", "", "nothing")} })
	maybe(func() {
		low, high := int64(1), int64(3)
		q.Ranges = []Range{{pick(w, ColumnSize, ColumnVirtualSize, ColumnMinDisk, ColumnMinRAM), pick(w, nil, &low), pick(w, nil, &high)}}
	})
	maybe(func() {
		at := time.Date(2024, 1, 1, 0, 0, w.rng.IntN(4), 0, time.UTC)
		q.Times = []TimeCond{{pick(w, ColumnCreatedAt, ColumnUpdatedAt), pick(w, OpEQ, OpNEQ, OpGT, OpGTE, OpLT, OpLTE), at}}
	})
	for range w.rng.IntN(4) {
		q.Sort = append(q.Sort, SortKey{pick(w, sortable()...), w.rng.IntN(2) == 0})
	}
	if w.rng.IntN(3) == 0 {
		q.Marker = fmt.Sprintf("id-%04d", w.rng.IntN(len(w.images)+1))
	}
	return q
}

// list is what Images must answer, said as plainly as possible.
func (w *world) list(q Query) ([]string, bool) {
	keys := slices.Clone(q.Sort)
	if len(keys) == 0 {
		keys = []SortKey{{ColumnCreatedAt, true}}
	}
	desc := keys[0].Desc || len(keys) > 1 && !q.OneDir
	keys = append(keys, SortKey{ColumnCreatedAt, desc}, SortKey{ColumnID, desc})
	compare := func(a, b Image) int {
		for _, k := range keys {
			n := strings.Compare(sortText(a, k.Column), sortText(b, k.Column))
			if k.Desc {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return 0
	}
	after, found := w.images[q.Marker]
	if q.Marker != "" && (!found || !w.canSee(q.Viewer, after)) {
		return nil, false
	}
	var list []Image
	for _, img := range w.images {
		if w.lists(q, img) && wants(q, img) && (q.Marker == "" || compare(img, after) > 0) {
			list = append(list, img)
		}
	}
	slices.SortFunc(list, compare)
	ids := []string{}
	for _, img := range list {
		if q.Limit == 0 || len(ids) < q.Limit {
			ids = append(ids, img.ID)
		}
	}
	return ids, true
}

// sortText is a text that sorts as the column does.
func sortText(i Image, c Column) string {
	null := func(s string) string {
		if s == "" {
			return ""
		}
		return "+" + s
	}
	switch c {
	case ColumnName:
		if i.Name == nil {
			return ""
		}
		return "+" + *i.Name
	case ColumnStatus:
		return string(i.Status)
	case ColumnDiskFormat:
		return null(i.DiskFormat)
	case ColumnContainerFormat:
		return null(i.ContainerFormat)
	case ColumnSize:
		if i.Size == nil {
			return ""
		}
		return fmt.Sprintf("+%020d", *i.Size)
	case ColumnCreatedAt:
		return i.CreatedAt.Format("2006-01-02T15:04:05.000000")
	case ColumnUpdatedAt:
		return i.UpdatedAt.Format("2006-01-02T15:04:05.000000")
	}
	return i.ID
}

func (w *world) canSee(v Viewer, i Image) bool {
	_, member := w.members[i.ID+"/"+v.Project]
	return v.Admin || i.Owner == "" || i.Owner == v.Project || i.Visibility == VisibilityPublic ||
		i.Visibility == VisibilityCommunity || i.Visibility == VisibilityShared && member
}

func (w *world) lists(q Query, i Image) bool {
	v := q.Viewer
	own := v.Project != "" && i.Owner == v.Project
	m, member := w.members[i.ID+"/"+v.Project]
	accepted := member && i.Visibility == VisibilityShared && (q.MemberStatus == MemberAll || m.Status == cmp.Or(q.MemberStatus, MemberAccepted))
	switch q.Visibility {
	case "":
		return v.Admin && i.Visibility != VisibilityCommunity || own || i.Visibility == VisibilityPublic || accepted
	case VisibilityAll:
	default:
		if i.Visibility != q.Visibility {
			return false
		}
	}
	return v.Admin || own || i.Visibility == VisibilityPublic || i.Visibility == VisibilityCommunity || accepted
}

func wants(q Query, i Image) bool {
	in := func(list []string, s string) bool { return len(list) == 0 || s != "" && slices.Contains(list, s) }
	is := func(want *string, s string) bool { return want == nil || s != "" && s == *want }
	if len(q.Name) > 0 && (i.Name == nil || !slices.Contains(q.Name, *i.Name)) {
		return false
	}
	for _, tag := range q.Tags {
		if !slices.Contains(i.Tags, tag) {
			return false
		}
	}
	for k, v := range q.Properties {
		if have, ok := i.Properties[k]; !ok || have != v {
			return false
		}
	}
	for _, r := range q.Ranges {
		n := map[Column]*int64{ColumnSize: i.Size, ColumnVirtualSize: i.VirtualSize, ColumnMinDisk: &i.MinDisk, ColumnMinRAM: &i.MinRAM}[r.Column]
		if n == nil || r.Min != nil && *n < *r.Min || r.Max != nil && *n > *r.Max {
			return false
		}
	}
	for _, t := range q.Times {
		at := i.CreatedAt
		if t.Column == ColumnUpdatedAt {
			at = i.UpdatedAt
		}
		n := at.Truncate(time.Second).Compare(t.Time)
		if !map[Operator]bool{OpEQ: n == 0, OpNEQ: n != 0, OpGT: n > 0, OpGTE: n >= 0, OpLT: n < 0, OpLTE: n <= 0}[t.Op] {
			return false
		}
	}
	return in(q.ID, i.ID) && in(q.DiskFormat, i.DiskFormat) && in(q.ContainerFormat, i.ContainerFormat) &&
		(len(q.Status) == 0 || slices.Contains(q.Status, i.Status)) && is(q.Owner, i.Owner) && is(q.Checksum, i.Checksum) &&
		is(q.HashValue, i.HashValue) && (q.Protected == nil || *q.Protected == i.Protected) &&
		(q.Hidden == HiddenAny || i.Hidden == (q.Hidden == HiddenOnly))
}

// TestImagesAgainstModel compares the index with the plain words above, for
// sizes on both sides of what makes the index choose another way.
func TestImagesAgainstModel(t *testing.T) {
	for seed, n := range []int{3, 40, 400, 3000, 12000} {
		w := newWorld(uint64(seed), n)
		for range 300 {
			w.step(n)
			q := w.query()
			want, ok := w.list(q)
			images, err := w.index.images(q)
			if ok != (err == nil) || !ok && !errors.Is(err, ErrMarker) {
				t.Fatalf("%d images, %+v: %v, want success %v", n, q, err, ok)
			}
			got := []string{}
			for _, img := range images {
				got = append(got, img.ID)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d images, %+v:\n got %v\nwant %v", n, q, got, want)
			}
		}
	}
}

// TestIndexKeepsEverything checks that an image comes out as it went in, and
// that an emptied index holds nothing back.
func TestIndexKeepsEverything(t *testing.T) {
	w := newWorld(7, 2000)
	for id, want := range w.images {
		got := w.index.image(w.index.byID[id])
		if g, h := fmt.Sprintf("%+v", plain(got)), fmt.Sprintf("%+v", plain(want)); g != h {
			t.Fatalf("image\n %s\ncame out as\n %s", h, g)
		}
	}
	for id := range w.images {
		w.index.remove(id)
	}
	for _, m := range w.members {
		w.index.removeMember(m.Image, m.Project)
	}
	c := w.index
	if len(c.byID)+len(c.members)+len(c.syms.byText)+len(c.facets.single) != 0 || countBits(c.live) != 0 {
		t.Errorf("left: %d ids, %d members, %d symbols %v, %d facets", len(c.byID), len(c.members), len(c.syms.byText), c.syms.byText, len(c.facets.single))
	}
	for k, p := range c.facets.many {
		if p.len() != 0 {
			t.Errorf("posting %v has %d members left", k, p.len())
		}
	}
	for col, tree := range c.trees {
		if tree.Len() != 0 {
			t.Errorf("tree %s has %d left", col, tree.Len())
		}
	}
}

// plain has values where an image has pointers.
func plain(i Image) []any {
	name, size := "null", int64(-1)
	if i.Name != nil {
		name = "=" + *i.Name
	}
	if i.Size != nil {
		size = *i.Size
	}
	i.Name, i.Size, i.VirtualSize = nil, nil, nil
	return []any{name, size, i}
}

func TestImagesRefuses(t *testing.T) {
	c := newColumns()
	for _, q := range []Query{
		{Sort: []SortKey{{Column: ColumnMinDisk}}},
		{Sort: []SortKey{{Column: "owner"}}},
		{Ranges: []Range{{Column: ColumnCreatedAt}}},
		{Ranges: []Range{{Column: ColumnName}}},
		{Times: []TimeCond{{Column: ColumnSize, Op: OpEQ}}},
		{Times: []TimeCond{{Column: ColumnCreatedAt, Op: "in"}}},
	} {
		if _, err := c.images(q); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v, want fs.ErrInvalid", q, err)
		}
	}
}
