package fusefs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A fileNode is one file of an image. What is stored of its bytes is measured
// once; they do not change.
type fileNode struct {
	fs.Inode
	subject
	file File

	turn    chan struct{} // holds one token; whoever has it may measure
	size    int64         // guarded by turn
	stored  int64
	counted bool
}

func newFileNode(t *Tree, img Image, file File) *fileNode {
	n := &fileNode{file: file, turn: make(chan struct{}, 1)}
	n.about(t, img)
	n.turn <- struct{}{}
	return n
}

var (
	_ fs.NodeGetattrer   = (*fileNode)(nil)
	_ fs.NodeOpener      = (*fileNode)(nil)
	_ fs.NodeGetxattrer  = (*fileNode)(nil)
	_ fs.NodeListxattrer = (*fileNode)(nil)
)

// Getattr tells the file's attributes.
func (n *fileNode) Getattr(ctx context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	keep, errno := n.stat(ctx, n.image(ctx), &out.Attr)
	out.SetTimeout(keep)
	return errno
}

// stat fills in the attributes and says how long they may be kept. A store
// that does not answer must not hide a file whose size is on record: it is
// then shown as full, for a moment.
func (n *fileNode) stat(ctx context.Context, img Image, out *fuse.Attr) (time.Duration, syscall.Errno) {
	keep := keepLong
	size, stored, err := n.measure(ctx)
	if err != nil {
		size, stored = n.recorded(img), n.recorded(img)
		if size < 0 || errors.Is(err, errors.ErrUnsupported) {
			return 0, n.t.fail("measure the "+n.file.String()+" of", n.id, err)
		}
	}
	if err != nil || n.file == Record {
		keep = keepShort
	}
	out.Mode = syscall.S_IFREG | 0o444
	out.Nlink = 1
	out.Size = uint64(size)
	out.Blocks = (uint64(stored) + 511) / 512
	out.Blksize = 64 << 10
	setTimes(out, img)
	return keep, 0
}

func (n *fileNode) recorded(img Image) int64 {
	switch n.file {
	case Disk:
		return img.DiskSize
	case Native:
		return img.NativeSize
	}
	return -1
}

// measure returns the file's size and what is stored of it.
func (n *fileNode) measure(interrupted context.Context) (size, stored int64, err error) {
	ctx := calm(interrupted)
	defer ctx.end()
	select {
	case <-n.turn:
	default:
		select {
		case <-n.turn:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	defer func() { n.turn <- struct{}{} }()
	if n.counted && n.file != Record {
		return n.size, n.stored, nil
	}
	r, err := n.t.cfg.Library.Open(ctx, n.id, n.file)
	if err != nil {
		if n.counted { // deleted, but somebody has it open
			return n.size, n.stored, nil
		}
		return 0, 0, err
	}
	defer func() { n.t.closed(r.Close()) }()
	if n.stored, err = block.Stored(ctx, r); err != nil {
		return 0, 0, err
	}
	n.size, n.counted = r.Size(), true
	return n.size, n.stored, nil
}

// Open opens the file. Data stays in the kernel's cache between openings; the
// record may change and is not cached.
func (n *fileNode) Open(interrupted context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	ctx := calm(interrupted)
	defer ctx.end()
	r, err := n.t.cfg.Library.Open(ctx, n.id, n.file)
	if err != nil {
		return nil, 0, n.t.fail("open the "+n.file.String()+" of", n.id, err)
	}
	fuseFlags := uint32(fuse.FOPEN_KEEP_CACHE)
	if n.file == Record {
		fuseFlags = fuse.FOPEN_DIRECT_IO
	}
	return n.t.open(r, n.id, n.file.String()), fuseFlags | fuse.FOPEN_NOFLUSH, 0
}

// Getxattr tells one attribute of the image.
func (n *fileNode) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	return n.getxattr(ctx, attr, dest)
}

// Listxattr tells the names of the image's attributes.
func (n *fileNode) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	return n.listxattr(ctx, dest)
}
