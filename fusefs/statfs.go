package fusefs

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// What df shows is the native bytes of all images, and nothing free: as of
// any medium that is read-only. Programs ask of any file they have open, so
// every kind of node answers.
var (
	_ fs.NodeStatfser = (*root)(nil)
	_ fs.NodeStatfser = (*fixedDir)(nil)
	_ fs.NodeStatfser = (*byID)(nil)
	_ fs.NodeStatfser = (*byName)(nil)
	_ fs.NodeStatfser = (*status)(nil)
	_ fs.NodeStatfser = (*imageDir)(nil)
	_ fs.NodeStatfser = (*fileNode)(nil)
)

// A space is how much the tree holds.
type space struct {
	at    time.Time
	bytes uint64
	nodes uint64
}

// keepSpace is how old a space may be: counting goes through all images.
const keepSpace = 5 * time.Second

func (t *Tree) statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	s := t.space.Load()
	if s == nil || time.Since(s.at) > keepSpace {
		fresh, err := t.count(ctx)
		if err != nil {
			return t.fail("count", "*", err)
		}
		s = &fresh
		t.space.Store(s)
	}
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, maxName
	out.Blocks = (s.bytes + 4095) / 4096
	out.Files = s.nodes
	return 0
}

// count goes through all images.
func (t *Tree) count(ctx context.Context) (space, error) {
	s := space{at: time.Now(), nodes: 5} // the root and what is fixed in it
	for img, err := range t.cfg.Library.Images(ctx, "") {
		if err != nil {
			return s, err
		}
		s.bytes += uint64(max(img.NativeSize, 0))
		s.nodes += 4 // the directory and its files
		if img.Name != "" {
			s.nodes++
		}
	}
	return s, nil
}

// Statfs tells how much the tree holds.
func (r *root) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return r.t.statfs(ctx, out)
}

// Statfs tells how much the tree holds.
func (d *fixedDir) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return d.t.statfs(ctx, out)
}

// Statfs tells how much the tree holds.
func (d *byID) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return d.t.statfs(ctx, out)
}

// Statfs tells how much the tree holds.
func (d *byName) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return d.t.statfs(ctx, out)
}

// Statfs tells how much the tree holds.
func (s *status) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return s.t.statfs(ctx, out)
}

// Statfs tells how much the tree holds.
func (s *subject) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return s.t.statfs(ctx, out)
}
