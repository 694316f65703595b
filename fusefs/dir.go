package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// batch is how many images a listing asks the Library for at once: enough to
// fill one answer to the kernel.
const batch = 256

// An index is a directory with one entry for every image.
type index interface {
	// entry returns the directory entry of img; no name is no entry.
	entry(ctx context.Context, img Image) (fuse.DirEntry, error)

	// node returns the node behind that entry.
	node(ctx context.Context, img Image, out *fuse.EntryOut) *fs.Inode
}

// A listing is an index opened for reading. An entry's offset is its place in
// given, so reading can go on after any entry that was given out, whatever
// was created or deleted meanwhile. The ids are shared with the Library; a
// listing of 100,000 images holds 2 MiB.
type listing struct {
	t     *Tree
	dir   index
	given []string // ids, in order, of the images that have been passed
	todo  []Image  // read ahead
	now   Image    // what Readdirent returned last
}

var (
	_ fs.FileReaddirenter = (*listing)(nil)
	_ fs.FileSeekdirer    = (*listing)(nil)
	_ fs.FileLookuper     = (*listing)(nil)
)

// Readdirent returns the next entry, or nil at the end.
func (l *listing) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	for {
		if len(l.todo) == 0 {
			if err := l.more(ctx); err != nil {
				return nil, l.t.fail("list", "*", err)
			}
			if len(l.todo) == 0 {
				return nil, 0
			}
		}
		img := l.todo[0]
		l.todo = l.todo[1:]
		l.given = append(l.given, img.ID)
		e, err := l.dir.entry(ctx, img)
		if err != nil {
			return nil, l.t.fail("list", img.ID, err)
		}
		if e.Name == "" {
			continue
		}
		l.now = img
		e.Off = uint64(len(l.given))
		return &e, 0
	}
}

// more reads the next batch.
func (l *listing) more(ctx context.Context) error {
	after := ""
	if n := len(l.given); n > 0 {
		after = l.given[n-1]
	}
	l.todo = l.todo[:0]
	for img, err := range l.t.cfg.Library.Images(ctx, after) {
		if err != nil {
			return err
		}
		if l.todo = append(l.todo, img); len(l.todo) == batch {
			break
		}
	}
	return nil
}

// Seekdir goes on after the entry with that offset, or begins anew.
func (l *listing) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off > uint64(len(l.given)) {
		return syscall.EINVAL
	}
	l.given, l.todo = l.given[:off], nil
	return 0
}

// Lookup finds what Readdirent returned last, without asking again.
func (l *listing) Lookup(ctx context.Context, _ string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return l.dir.node(ctx, l.now, out), 0
}

// byID is the directory by-id.
type byID struct {
	fs.Inode
	t *Tree
}

// Lookup finds an image by its id.
func (d *byID) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	img, err := d.t.cfg.Library.Image(ctx, name)
	if err == nil && img.ID != name {
		return nil, syscall.ENOENT // one image, one entry
	}
	if err != nil {
		return nil, d.t.fail("look up", name, err)
	}
	return d.node(ctx, img, out), 0
}

// OpendirHandle opens the directory for listing.
func (d *byID) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return &listing{t: d.t, dir: d}, 0, 0
}

// Getattr tells the directory's attributes.
func (d *byID) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return d.t.rootAttr(&out.Attr)
}

func (d *byID) entry(_ context.Context, img Image) (fuse.DirEntry, error) {
	return fuse.DirEntry{Name: img.ID, Mode: syscall.S_IFDIR, Ino: inode("image", img.ID)}, nil
}

func (d *byID) node(ctx context.Context, img Image, out *fuse.EntryOut) *fs.Inode {
	dirAttr(&out.Attr, img)
	if child := d.GetChild(img.ID); child != nil {
		child.Operations().(*imageDir).last.Store(&img)
		return child
	}
	return d.NewInode(ctx, newImageDir(d.t, img), fs.StableAttr{
		Mode: syscall.S_IFDIR, Ino: inode("image", img.ID)})
}
