package localfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"syscall"
)

// A Runner is a File that knows where its holes are.
type Runner interface {
	// Run returns the length of the run that starts at off, n at most and at
	// least 1, and whether it is a hole. n is at least 1.
	Run(off, n int64) (length int64, hole bool, err error)
}

// A Pusher is a File that can begin to write its dirty bytes to the disk.
type Pusher interface {
	// Push begins to write [off, off+n) to the disk and does not wait.
	// Nothing is certain before Sync, which then has less to do.
	Push(off, n int64) error
}

// A Fetcher is a File that can be read ahead.
type Fetcher interface {
	// Fetch begins to read [off, off+n) into memory and does not wait.
	Fetch(off, n int64) error
}

// An Allocator is a File that can reserve space without writing to it.
type Allocator interface {
	// Allocate makes [off, off+n) zeros that have their space. The file keeps
	// its size, and the range is inside it.
	Allocate(off, n int64) error
}

// An ImageLocker is a File that can take the lock that QEMU takes.
type ImageLocker interface {
	// LockImage locks the file as QEMU does one that it writes to, until the
	// file is closed. It does not wait: syscall.EBUSY.
	LockImage() error
}

// A Maker is an FS that can make folders.
type Maker interface {
	// Mkdir makes a folder. It lasts once SyncDir of its parent returned.
	Mkdir(name string, mode fs.FileMode) error
}

// An ExclusiveRenamer is an FS whose rename can refuse to replace.
type ExclusiveRenamer interface {
	// RenameNew moves a file to a name that is free, else fs.ErrExist.
	RenameNew(oldname, newname string) error
}

// A Spacer is an FS that can tell how full it is.
type Spacer interface {
	// Space returns the size of the file system that holds name, and what
	// is left of it for us, in bytes.
	Space(name string) (total, free int64, err error)
}

// Punch makes [off, off+n) of f a hole. A File that cannot has zeros written
// to the part of the range that is inside it.
func Punch(f File, off, n int64) error {
	if n <= 0 {
		return nil
	}
	if p, ok := f.(Puncher); ok {
		err := p.Punch(off, n)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	size, err := Size(f)
	if err != nil {
		return err
	}
	return writeZeros(f, off, min(off+n, size))
}

func writeZeros(f File, off, end int64) error {
	zeros := make([]byte, min(max(end-off, 0), 64<<10))
	for off < end {
		piece := min(end-off, int64(len(zeros)))
		if _, err := f.WriteAt(zeros[:piece], off); err != nil {
			return err
		}
		off += piece
	}
	return nil
}

// Allocate makes [off, off+n) of f, which is inside it, zeros that have their
// space. A File that cannot has zeros written.
func Allocate(f File, off, n int64) error {
	if n <= 0 {
		return nil
	}
	if a, ok := f.(Allocator); ok {
		if err := a.Allocate(off, n); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return writeZeros(f, off, off+n)
}

// LockImage locks a disk image, until f is closed, against programs that lock
// images as QEMU does: none of them has it open, and none can open it for
// writing or for reading what may change. It does not wait. If it is
// locked already, by this process or another, that is syscall.EBUSY. A File
// or a file system that knows no such locks is errors.ErrUnsupported.
func LockImage(f File) error {
	if l, ok := f.(ImageLocker); ok {
		return l.LockImage()
	}
	return fmt.Errorf("lock an image: %w", errors.ErrUnsupported)
}

// Size returns the size of f in bytes. A File that is no Sizer is searched
// for its end.
func Size(f File) (int64, error) {
	if s, ok := f.(Sizer); ok {
		return s.Size()
	}
	// Invariant: the end is in [low, high].
	low, high := int64(0), int64(math.MaxInt64)
	for step := int64(1); low < high; {
		probe := low + (high-low)/2
		if step < probe && high == math.MaxInt64 {
			probe, step = step, step*2
		}
		var one [1]byte
		switch n, err := f.ReadAt(one[:], probe); {
		case n == 1:
			low = probe + 1
		case err == io.EOF:
			high = probe
		default:
			return 0, fmt.Errorf("search for the end of the file: %w", err)
		}
	}
	return low, nil
}

// Run returns the length of the run that starts at off, n at most and at
// least 1, and whether it is a hole. A File that is no Runner has no holes.
func Run(f File, off, n int64) (length int64, hole bool, err error) {
	if r, ok := f.(Runner); ok {
		length, hole, err = r.Run(off, n)
		if !errors.Is(err, errors.ErrUnsupported) {
			return length, hole, err
		}
	}
	return n, false, nil
}

// Push begins to write [off, off+n) of f to the disk. For a File that is no
// Pusher it does nothing. It is a hint: an error says only that it did not
// help, and what went wrong with the disk is for Sync to tell.
func Push(f File, off, n int64) {
	if p, ok := f.(Pusher); ok {
		_ = p.Push(off, n)
	}
}

// Fetch begins to read [off, off+n) of f into memory. For a File that is no
// Fetcher it does nothing.
func Fetch(f File, off, n int64) error {
	if r, ok := f.(Fetcher); ok && n > 0 {
		if err := r.Fetch(off, n); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return nil
}

// RenameNew moves a file to a name that is free, else fs.ErrExist. An FS that
// is no ExclusiveRenamer is errors.ErrUnsupported, as no other way is safe.
func RenameNew(fsys FS, oldname, newname string) error {
	if e, ok := fsys.(ExclusiveRenamer); ok {
		return e.RenameNew(oldname, newname)
	}
	return fmt.Errorf("rename %s to %s without replacing: %w", oldname, newname, errors.ErrUnsupported)
}

// MkdirAll makes the folder name and those above it that are missing, mode
// 0o755, and makes those last that it made. An FS that is no Maker is
// errors.ErrUnsupported.
func MkdirAll(fsys FS, name string) error { return mkdirAll(fsys, name, fsys.SyncDir) }

// Mkdirs is MkdirAll for folders that need not last, or that the caller syncs.
func Mkdirs(fsys FS, name string) error {
	return mkdirAll(fsys, name, func(string) error { return nil })
}

// mkdirAll calls made with the parent of each folder that it made.
func mkdirAll(fsys FS, name string, made func(parent string) error) error {
	m, ok := fsys.(Maker)
	if !ok {
		return fmt.Errorf("make folder %s: %w", name, errors.ErrUnsupported)
	}
	err := m.Mkdir(name, 0o755)
	parent := filepath.Dir(name)
	if errors.Is(err, fs.ErrNotExist) && parent != name {
		if err := mkdirAll(fsys, parent, made); err != nil {
			return err
		}
		err = m.Mkdir(name, 0o755)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return mustBeDir(fsys, name)
	case err != nil:
		return err
	}
	return made(parent)
}

// mustBeDir tells a folder, which is what MkdirAll wants, from a file that
// has its name.
func mustBeDir(fsys FS, name string) error {
	if _, err := fsys.ReadDir(name); err != nil {
		return fmt.Errorf("make folder %s: there is something else of that name: %w", name, err)
	}
	return nil
}

// Space returns the size of the file system that holds name, and what is left
// of it, in bytes. An FS that is no Spacer has no end.
func Space(fsys FS, name string) (total, free int64, err error) {
	if s, ok := fsys.(Spacer); ok {
		return s.Space(name)
	}
	return math.MaxInt64, math.MaxInt64, nil
}

// A Descriptor is a File that the kernel knows by a number.
type Descriptor interface {
	// Descriptor returns what system calls on the file go by.
	Descriptor() syscall.Conn
}

// DescriptorOf returns what system calls on f go by; false if f is no file of
// the kernel's.
func DescriptorOf(f File) (syscall.Conn, bool) {
	if d, ok := f.(Descriptor); ok {
		return d.Descriptor(), true
	}
	return nil, false
}
