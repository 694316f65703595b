package fusefs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// How long the kernel may keep what it was told. What can change without the
// owner knowing all names it had is kept short.
const (
	keepLong  = 24 * time.Hour
	keepShort = time.Second
)

// inode returns the inode number of a file of an image. It is the same after
// a restart, and nobody can choose ids whose numbers meet those of others.
func inode(kind, id string) uint64 {
	sum := sha256.Sum256([]byte(kind + "\x00" + id))
	ino := binary.BigEndian.Uint64(sum[:8]) >> 1 // the upper half is go-fuse's own
	return max(ino, 16)
}

// An imageDir is the directory by-id/ID.
type imageDir struct {
	fs.Inode
	subject
}

// A subject is the image that a node belongs to. It remembers what the
// Library said last, for files that are open when their image is deleted.
type subject struct {
	t    *Tree
	id   string
	last atomic.Pointer[Image]
}

func (s *subject) about(t *Tree, img Image) {
	s.t, s.id = t, img.ID
	s.last.Store(&img)
}

// image returns the image as it is now, or as it was when it was deleted.
func (s *subject) image(ctx context.Context) Image {
	if img, err := s.t.cfg.Library.Image(ctx, s.id); err == nil {
		s.last.Store(&img)
	}
	return *s.last.Load()
}

func newImageDir(t *Tree, img Image) *imageDir {
	d := &imageDir{}
	d.about(t, img)
	return d
}

var (
	_ fs.NodeLookuper    = (*imageDir)(nil)
	_ fs.NodeReaddirer   = (*imageDir)(nil)
	_ fs.NodeGetattrer   = (*imageDir)(nil)
	_ fs.NodeGetxattrer  = (*imageDir)(nil)
	_ fs.NodeListxattrer = (*imageDir)(nil)
)

func dirAttr(out *fuse.Attr, img Image) {
	out.Mode = syscall.S_IFDIR | 0o555
	out.Nlink = 2
	out.Blksize = 4096
	setTimes(out, img)
}

func setTimes(out *fuse.Attr, img Image) {
	out.SetTimes(&img.Updated, &img.Updated, &img.Updated)
}

// Getattr tells the directory's attributes.
func (d *imageDir) Getattr(ctx context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	dirAttr(&out.Attr, d.image(ctx))
	return 0
}

// Lookup finds one file of the image.
func (d *imageDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	img, err := d.t.cfg.Library.Image(ctx, d.id)
	if err != nil {
		return nil, d.t.fail("look up", d.id, err)
	}
	file, ok := fileNamed(img, name)
	if !ok {
		return nil, syscall.ENOENT
	}
	child := d.GetChild(name)
	if child == nil {
		child = d.NewInode(ctx, newFileNode(d.t, img, file), fs.StableAttr{
			Mode: syscall.S_IFREG, Ino: inode(file.String(), d.id)})
	}
	keep, errno := child.Operations().(*fileNode).stat(ctx, img, &out.Attr)
	if errno == syscall.EOPNOTSUPP {
		errno = syscall.ENOENT // there are no disk bytes to show
	}
	out.SetAttrTimeout(keep)
	return child, errno
}

func fileNamed(img Image, name string) (File, bool) {
	switch name {
	case "disk.raw":
		return Disk, true
	case "image.json":
		return Record, true
	case nativeName(img):
		return Native, true
	}
	return 0, false
}

// Readdir lists the files of the image. A disk that cannot be decoded is
// found out only where the record does not tell its size.
func (d *imageDir) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	img, err := d.t.cfg.Library.Image(ctx, d.id)
	if err != nil {
		return nil, d.t.fail("list", d.id, err)
	}
	var list []fuse.DirEntry
	add := func(name string, f File) {
		list = append(list, fuse.DirEntry{Name: name, Mode: syscall.S_IFREG, Ino: inode(f.String(), d.id)})
	}
	if img.DiskSize >= 0 || d.decodes(ctx) {
		add("disk.raw", Disk)
	}
	add(nativeName(img), Native)
	add("image.json", Record)
	return fs.NewListDirStream(list), 0
}

func (d *imageDir) decodes(ctx context.Context) bool {
	r, err := d.t.cfg.Library.Open(ctx, d.id, Disk)
	if err == nil {
		d.t.closed(r.Close())
	}
	return !errors.Is(err, errors.ErrUnsupported)
}

// Getxattr tells one attribute of the image.
func (d *imageDir) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	return d.getxattr(ctx, attr, dest)
}

// Listxattr tells the names of the image's attributes.
func (d *imageDir) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	return d.listxattr(ctx, dest)
}
