package fusefs

import (
	"context"
	iofs "io/fs"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// byName is the directory by-name: a symbolic link for every image that has
// a name.
type byName struct {
	fs.Inode
	t *Tree
}

// Lookup finds an image by its entry.
func (d *byName) Lookup(ctx context.Context, entry string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	img, err := d.find(ctx, entry)
	if err != nil {
		return nil, d.t.fail("look up by name", entry, err)
	}
	return d.node(ctx, img, out), 0
}

// find returns the image whose entry this is. Whatever an entry says, it must
// be the one that the image has in a listing.
func (d *byName) find(ctx context.Context, entry string) (Image, error) {
	candidates, err := d.candidates(ctx, entry)
	if err != nil {
		return Image{}, err
	}
	for _, img := range candidates {
		have, err := d.entry(ctx, img)
		if err != nil {
			return Image{}, err
		}
		if have.Name == entry {
			return img, nil
		}
	}
	return Image{}, iofs.ErrNotExist
}

func (d *byName) candidates(ctx context.Context, entry string) ([]Image, error) {
	i := markAt(entry)
	if i < 0 {
		return d.named(ctx, entry)
	}
	if len(entry)-i-1 == fullLen { // says more than a name that may be cut
		img, err := d.t.cfg.Library.Image(ctx, entry[i+1:])
		return []Image{img}, err
	}
	return d.named(ctx, entry[:i])
}

func (d *byName) named(ctx context.Context, escaped string) ([]Image, error) {
	name, ok := unescape(escaped)
	if !ok {
		return nil, iofs.ErrNotExist
	}
	return d.t.cfg.Library.Named(ctx, name)
}

// OpendirHandle opens the directory for listing.
func (d *byName) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return &listing{t: d.t, dir: &names{byName: d, seen: map[string][]Image{}}}, 0, 0
}

// names is by-name while it is listed. Where thousands of images share a name,
// to ask for all of them once for each of them would take minutes.
type names struct {
	*byName
	seen  map[string][]Image // the images of names that are shared
	since int                // entries since it was emptied
}

func (n *names) entry(ctx context.Context, img Image) (fuse.DirEntry, error) {
	if n.since++; n.since > batch {
		clear(n.seen)
		n.since = 0
	}
	namesakes := n.seen[img.Name]
	if namesakes == nil && img.Name != "" {
		var err error
		if namesakes, err = n.t.cfg.Library.Named(ctx, img.Name); err != nil {
			return fuse.DirEntry{}, err
		}
		if len(namesakes) > 1 {
			n.seen[img.Name] = namesakes
		}
	}
	return linkEntry(img, namesakes), nil
}

// Getattr tells the directory's attributes.
func (d *byName) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return d.t.rootAttr(&out.Attr)
}

func (d *byName) entry(ctx context.Context, img Image) (fuse.DirEntry, error) {
	if img.Name == "" {
		return fuse.DirEntry{}, nil
	}
	namesakes, err := d.t.cfg.Library.Named(ctx, img.Name)
	if err != nil {
		return fuse.DirEntry{}, err
	}
	return linkEntry(img, namesakes), nil
}

// linkEntry is the entry of img among the images of its name.
func linkEntry(img Image, namesakes []Image) fuse.DirEntry {
	if img.Name == "" {
		return fuse.DirEntry{}
	}
	return fuse.DirEntry{Name: entryName(img, namesakes), Mode: syscall.S_IFLNK, Ino: inode("name", img.ID)}
}

func (d *byName) node(ctx context.Context, img Image, out *fuse.EntryOut) *fs.Inode {
	l := &link{img: img}
	l.attr(&out.Attr)
	out.SetEntryTimeout(keepShort)
	return d.NewInode(ctx, l, fs.StableAttr{Mode: syscall.S_IFLNK, Ino: inode("name", img.ID)})
}

// forget makes the kernel ask again for every entry that images of this name,
// or the image id among them, have or had.
func (d *byName) forget(ctx context.Context, id, name string) {
	namesakes, err := d.t.cfg.Library.Named(ctx, name)
	if err != nil {
		d.t.log.Warn("fusefs: forgetting a name", "name", name, "err", err)
	}
	d.NotifyEntry(escape(name))
	ids := []string{id}
	for _, img := range namesakes {
		ids = append(ids, img.ID)
	}
	for _, id := range ids {
		both := []Image{{ID: id, Name: name}, {Name: name}}
		d.NotifyEntry(entryName(both[0], both))
		d.NotifyEntry(escape(name) + "~" + id)
	}
}

// A link leads from by-name to by-id. It never leads elsewhere: its inode
// number is that of the image.
type link struct {
	fs.Inode
	img Image
}

func (l *link) target() string { return "../by-id/" + l.img.ID }

func (l *link) attr(out *fuse.Attr) {
	out.Mode = syscall.S_IFLNK | 0o777
	out.Nlink = 1
	out.Blksize = 4096
	out.Size = uint64(len(l.target()))
	setTimes(out, l.img)
}

// Readlink tells where the link leads.
func (l *link) Readlink(context.Context) ([]byte, syscall.Errno) {
	return []byte(l.target()), 0
}

// Getattr tells the link's attributes.
func (l *link) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	l.attr(&out.Attr)
	return 0
}
