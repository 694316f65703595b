package fusefs

import (
	"context"
	"encoding/json"
	"sort"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/seed-478a8fee/platter/backends/block"
)

// root is the top of the tree. What it holds is there as long as the tree.
type root struct {
	fs.Inode
	t *Tree
}

// OnAdd makes the fixed part of the tree.
func (r *root) OnAdd(ctx context.Context) {
	add := func(parent *fs.Inode, name string, node fs.InodeEmbedder, mode uint32) *fs.Inode {
		child := parent.NewPersistentInode(ctx, node, fs.StableAttr{Mode: mode, Ino: inode("fixed", name)})
		parent.AddChild(name, child, true)
		return child
	}
	add(&r.Inode, "by-id", r.t.byID, syscall.S_IFDIR)
	add(&r.Inode, "by-name", r.t.byName, syscall.S_IFDIR)
	dot := add(&r.Inode, ".platter", &fixedDir{t: r.t}, syscall.S_IFDIR)
	add(dot, "status", &status{t: r.t}, syscall.S_IFREG)
}

// Getattr tells the directory's attributes.
func (r *root) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return r.t.rootAttr(&out.Attr)
}

func (t *Tree) rootAttr(out *fuse.Attr) syscall.Errno {
	dirAttr(out, Image{Updated: t.since})
	return 0
}

// A fixedDir is a directory whose entries never change.
type fixedDir struct {
	fs.Inode
	t *Tree
}

// Getattr tells the directory's attributes.
func (d *fixedDir) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return d.t.rootAttr(&out.Attr)
}

// Lookup finds an entry. The size of the status is not to be kept.
func (d *fixedDir) Lookup(_ context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child := d.GetChild(name)
	if child == nil {
		return nil, syscall.ENOENT
	}
	if s, ok := child.Operations().(*status); ok {
		s.attr(&out.Attr)
		out.SetAttrTimeout(time.Nanosecond) // zero would be the default, which is long
	}
	return child, 0
}

// status is the file .platter/status. Each opening sees one moment.
type status struct {
	fs.Inode
	t *Tree
}

// Getattr tells the file's attributes.
func (s *status) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	s.attr(&out.Attr)
	out.SetTimeout(time.Nanosecond)
	return 0
}

// attr tells the size of the moment, for tar and rsync, who copy as much as
// they were told. Others read to the end.
func (s *status) attr(out *fuse.Attr) {
	out.Size = uint64(len(s.t.status()))
	out.Mode = syscall.S_IFREG | 0o444
	out.Nlink = 1
	out.Blksize = 4096
	setTimes(out, Image{Updated: s.t.since})
}

// Open takes the state of the moment.
func (s *status) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return &handle{t: s.t, r: text(s.t.status()), file: "status"}, fuse.FOPEN_DIRECT_IO, 0
}

type openFile struct {
	Image string `json:"image"`
	File  string `json:"file"`
	Count int    `json:"count"`
}

// status returns the JSON of .platter/status.
func (t *Tree) status() []byte {
	state := struct {
		Gateway  string     `json:"gateway"`
		Revision int64      `json:"revision"`
		Since    string     `json:"mounted_at"`
		Open     []openFile `json:"open_files"`
	}{Gateway: t.cfg.Gateway, Since: stamp(t.since), Open: t.openFiles()}
	if t.cfg.Revision != nil {
		state.Revision = t.cfg.Revision()
	}
	out, err := json.MarshalIndent(state, "", "  ")
	if err != nil { // strings and numbers cannot fail
		return []byte(err.Error())
	}
	return append(out, '\n')
}

func (t *Tree) openFiles() []openFile {
	t.mu.Lock()
	counts := map[openFile]int{}
	for h := range t.handles {
		counts[openFile{Image: h.id, File: h.file}]++
	}
	t.mu.Unlock()
	files := make([]openFile, 0, len(counts))
	for f, n := range counts {
		f.Count = n
		files = append(files, f)
	}
	sort.Slice(files, func(i, j int) bool {
		return files[i].Image+files[i].File < files[j].Image+files[j].File
	})
	return files
}

// text is bytes in memory as a Reader.
type text []byte

// Size returns the number of bytes.
func (b text) Size() int64 { return int64(len(b)) }

// ReadAt copies the bytes at off.
func (b text) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), b.Size()); err != nil {
		return err
	}
	copy(p, b[off:])
	return nil
}

// Close does nothing.
func (b text) Close() error { return nil }
