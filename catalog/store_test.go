package catalog

import (
	"testing"
)

// TestSwapAfterALoss: a database that went back to its past takes with it
// what the watch had not brought yet, too.
func TestSwapAfterALoss(t *testing.T) {
	img := Image{ID: "5a4f2f1c-0000-4000-8000-000000000001", Status: StatusQueued, Visibility: VisibilityShared}
	op, err := put(preImage+img.ID, img.record())
	if err != nil {
		t.Fatal(err)
	}
	has := func(st *store) (ok bool) {
		st.read(func(s *state) { _, ok = s.images.byID[img.ID] })
		return ok
	}
	for _, c := range []struct {
		name      string
		committed int64 // the revision of the image
		read      int64 // the revision of the state that is read then
		late      bool  // the image came while the state was read
		want      bool
	}{
		{"lost", 23, 4, false, false},
		{"after the reading", 5, 4, true, true},
	} {
		at2, fresh := newState(), newState()
		at2.rev, fresh.rev = 2, c.read
		st := newStore(at2)
		if !c.late {
			st.committed([]Op{op}, c.committed)
		}
		before := st.newest()
		if c.late {
			st.committed([]Op{op}, c.committed)
		}
		if !has(st) {
			t.Fatal("what was committed is not seen")
		}
		st.swap(fresh, before)
		if has(st) != c.want {
			t.Errorf("%s: the image is there: %t", c.name, !c.want)
		}
	}
}
