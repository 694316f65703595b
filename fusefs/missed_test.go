package fusefs

import (
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func TestMissed(t *testing.T) {
	lib, images := shelfOf(t, "gone", "kept")
	k := newKernel(t, lib)
	for _, img := range images {
		k.must("by-id/" + img.ID + "/disk.raw")
	}
	lib.drop(images[0].ID)
	k.tree.Missed(t.Context())
	got := strings.Join(k.notes, ", ")
	if !strings.Contains(got, "delete "+images[0].ID) || strings.Contains(got, "delete "+images[1].ID) {
		t.Errorf("the kernel was told: %s", got)
	}
	if _, st := k.walk("by-id/" + images[0].ID); st != fuse.ENOENT {
		t.Errorf("lookup of what is gone: %v", st)
	}
	k.must("by-id/" + images[1].ID + "/disk.raw")
}
