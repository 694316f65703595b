// Package crashfs is a file system in memory that can lose power.
//
// An [FS] does what a disk does and records every change and every sync.
// [FS.Crashes] then builds, from the record, file systems that a machine could
// find after a loss of power at some moment of it. What was synced is there.
// Of everything else:
//
//   - Each block (512 or 4096 bytes) of a file has one of the contents it had
//     since the last Sync of that file, whatever its neighbours have; so writes
//     are torn and reordered. Punched and truncated ranges are writes of zeros.
//   - The size of a file is one of the sizes it had since the last Sync.
//   - Each change of a name (create, remove, make a folder, rename) is there or
//     not until SyncDir of the folder it is in. Renames within a folder happen
//     whole or not at all; a rename from one folder to another may leave both
//     names, but never none. Syncing a file does not sync its name.
//
// This is less than ext4 or XFS promise, and about what POSIX promises: code
// that survives it owes nothing to a kind of file system.
//
// The files that a state consists of are durable in it, and it records again,
// so that recovery itself can be interrupted.
package crashfs

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// An FS is a localfs.FS in memory that records what is done to it. Files and
// folders have no permissions. "/" and "." are the folder it begins with; all
// other folders must be made.
type FS struct {
	mu     sync.Mutex
	begin  *world // what log starts from; never changes
	world  *world
	log    []op
	open   map[int]int // how many open files a node has
	full   int64       // bytes that files may take, or 0 for no limit
	refuse func(op, name string) error
}

// New returns an empty FS.
func New() *FS { return newFS(newWorld()) }

func newFS(begin *world) *FS { return &FS{begin: begin, world: begin.clone(), open: make(map[int]int)} }

// SetCapacity lets files take n bytes in all, counted in blocks of 4 KiB that
// are not holes; 0 is no limit. Beyond, writes are syscall.ENOSPC.
func (f *FS) SetCapacity(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = n
}

// SetFault has every operation ask refuse first, and fail with its error. The
// operations are "open", "create", "read", "write", "truncate", "punch",
// "sync", "rename", "remove", "mkdir", "syncdir" and "readdir"; name is the
// path, of a rename the old one. nil ends it. refuse must not use the FS.
func (f *FS) SetFault(refuse func(op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

// Len returns how many operations are recorded: the present moment, as
// Crashes counts moments. What a Sync that returned before made durable is
// there in every crash at this moment or later.
func (f *FS) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.log)
}

// used returns how many bytes the blocks of all files take that have a name or
// are open.
func (f *FS) used() int64 {
	live := maps.Clone(f.open)
	for _, dir := range f.world.dirs {
		for _, node := range dir {
			live[node]++
		}
	}
	var pages int
	for node := range live {
		if c := f.world.files[node]; c != nil {
			pages += len(c.pages)
		}
	}
	return int64(pages) * pageSize
}

// do applies o and records it.
func (f *FS) do(o op) {
	o.at = time.Now()
	f.world.apply(o)
	f.log = append(f.log, o)
}

func (f *FS) allowed(op, name string) error {
	if f.refuse == nil {
		return nil
	}
	if err := f.refuse(op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// split turns a path into its elements. "." and "/" have none.
func split(name string) []string {
	clean := strings.Trim(path.Clean("/"+filepath.ToSlash(name)), "/")
	if clean == "" {
		return nil
	}
	return strings.Split(clean, "/")
}

// find returns the node at name.
func (f *FS) find(op, name string) (int, error) {
	at := root
	for _, elem := range split(name) {
		dir, ok := f.world.dirs[at]
		if !ok {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		if at, ok = dir[elem]; !ok {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
		}
	}
	return at, nil
}

// parent returns the folder that name is in, and its last element.
func (f *FS) parent(op, name string) (int, string, error) {
	elems := split(name)
	if len(elems) == 0 {
		return 0, "", &fs.PathError{Op: op, Path: name, Err: syscall.EISDIR}
	}
	dir, err := f.find(op, path.Join(elems[:len(elems)-1]...))
	if err == nil && f.world.dirs[dir] == nil {
		err = &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return dir, elems[len(elems)-1], err
}

// Open opens a file. It knows O_CREATE, O_EXCL and O_TRUNC; every file can be
// read and written.
func (f *FS) Open(name string, flag int, _ fs.FileMode) (localfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allowed("open", name); err != nil {
		return nil, err
	}
	dir, base, err := f.parent("open", name)
	if err != nil {
		return nil, err
	}
	node, exists := f.world.dirs[dir][base]
	switch {
	case exists && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EEXIST}
	case exists && f.world.dirs[node] != nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case !exists && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	case !exists:
		if err := f.allowed("create", name); err != nil {
			return nil, err
		}
		node = f.world.next
		f.do(op{kind: opCreate, node: node, dir: dir, name: base})
	case flag&os.O_TRUNC != 0:
		f.do(op{kind: opTruncate, node: node})
	}
	f.open[node]++
	return &file{fs: f, node: node, name: name}, nil
}

// Rename moves a file or a folder, replacing what newname was.
func (f *FS) Rename(oldname, newname string) error { return f.rename(oldname, newname, true) }

// RenameNew moves a file or a folder to a name that is free.
func (f *FS) RenameNew(oldname, newname string) error { return f.rename(oldname, newname, false) }

func (f *FS) rename(oldname, newname string, replace bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allowed("rename", oldname); err != nil {
		return err
	}
	node, err := f.find("rename", oldname)
	if err != nil {
		return err
	}
	from, oldbase, err := f.parent("rename", oldname)
	if err != nil {
		return err
	}
	to, newbase, err := f.parent("rename", newname)
	if err != nil {
		return err
	}
	if there, taken := f.world.dirs[to][newbase]; taken {
		switch {
		case !replace:
			return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: syscall.EEXIST}
		case f.world.dirs[there] != nil:
			return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: syscall.EISDIR}
		case there == node:
			return nil
		}
	}
	f.do(op{kind: opRename, node: node, dir: from, name: oldbase, dir2: to, name2: newbase})
	return nil
}

// Remove removes a file or an empty folder.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allowed("remove", name); err != nil {
		return err
	}
	dir, base, err := f.parent("remove", name)
	if err != nil {
		return err
	}
	node, ok := f.world.dirs[dir][base]
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	if len(f.world.dirs[node]) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	f.do(op{kind: opRemove, node: node, dir: dir, name: base})
	return nil
}

// Mkdir makes a folder.
func (f *FS) Mkdir(name string, _ fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allowed("mkdir", name); err != nil {
		return err
	}
	if len(split(name)) == 0 {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.EEXIST}
	}
	dir, base, err := f.parent("mkdir", name)
	if err != nil {
		return err
	}
	if _, taken := f.world.dirs[dir][base]; taken {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.EEXIST}
	}
	f.do(op{kind: opMkdir, node: f.world.next, dir: dir, name: base})
	return nil
}

// SyncDir makes the names in a folder durable.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allowed("syncdir", name); err != nil {
		return err
	}
	dir, err := f.find("sync", name)
	if err != nil {
		return err
	}
	if f.world.dirs[dir] == nil {
		return &fs.PathError{Op: "sync", Path: name, Err: syscall.ENOTDIR}
	}
	f.do(op{kind: opSyncDir, dir: dir})
	return nil
}

// Space returns the capacity and what is left of it. Without a capacity both
// are a large number.
func (f *FS) Space(string) (total, free int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full == 0 {
		return 1 << 50, 1 << 50, nil
	}
	return f.full, max(f.full-f.used(), 0), nil
}

// ReadDir lists a folder, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allowed("readdir", name); err != nil {
		return nil, err
	}
	dir, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	entries, ok := f.world.dirs[dir]
	if !ok {
		return nil, &fs.PathError{Op: "readdirent", Path: name, Err: syscall.ENOTDIR}
	}
	return f.world.list(entries), nil
}

// info describes a file or folder as of one moment.
type info struct {
	name string
	size int64
	dir  bool
	at   time.Time
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }
func (i info) ModTime() time.Time { return i.at }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
