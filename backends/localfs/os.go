package localfs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// OS returns the file system of the machine.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) Open(name string, flag int, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	// A folder can be opened for reading, but is no file.
	if info, err := f.Stat(); err != nil || info.IsDir() {
		f.Close()
		if err == nil {
			err = &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
		}
		return nil, err
	}
	return &osFile{f}, nil
}

func (osFS) Rename(oldname, newname string) error       { return os.Rename(oldname, newname) }
func (osFS) Remove(name string) error                   { return os.Remove(name) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Mkdir(name string, mode fs.FileMode) error  { return os.Mkdir(name, mode) }
func (osFS) RenameNew(oldname, newname string) error    { return renameNew(oldname, newname) }
func (osFS) Space(name string) (total, free int64, err error) {
	return space(name)
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// linkNew is renameNew by way of a second name, for file systems that cannot
// do it in one step. A crash between the two calls leaves both names.
func linkNew(oldname, newname string) error {
	if err := os.Link(oldname, newname); err != nil {
		return err
	}
	return os.Remove(oldname)
}

// osFile keeps the *os.File in a field: embedding it would let callers reach
// Seek and Write, which move a position that parallel users share.
type osFile struct{ f *os.File }

func (o *osFile) ReadAt(p []byte, off int64) (int, error)  { return o.f.ReadAt(p, off) }
func (o *osFile) WriteAt(p []byte, off int64) (int, error) { return o.f.WriteAt(p, off) }
func (o *osFile) Truncate(size int64) error                { return o.f.Truncate(size) }
func (o *osFile) Close() error                             { return o.f.Close() }

// Descriptor returns what system calls on the file go by.
func (o *osFile) Descriptor() syscall.Conn { return o.f }

func (o *osFile) Sync() error {
	return o.control("fdatasync", datasync)
}

func (o *osFile) Size() (int64, error) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (o *osFile) Punch(off, n int64) error {
	return o.control("punch hole", func(fd int) error { return punch(fd, off, n) })
}

func (o *osFile) Allocate(off, n int64) error {
	return o.control("allocate", func(fd int) error { return allocate(fd, off, n) })
}

func (o *osFile) LockImage() error {
	return o.control("lock image", lockImage)
}

func (o *osFile) Push(off, n int64) error {
	return o.control("sync_file_range", func(fd int) error { return push(fd, off, n) })
}

func (o *osFile) Fetch(off, n int64) error {
	return o.control("fadvise", func(fd int) error { return fetch(fd, off, n) })
}

func (o *osFile) Run(off, n int64) (int64, bool, error) {
	var length int64
	var hole bool
	err := o.control("seek hole", func(fd int) (err error) {
		length, hole, err = run(fd, off, n)
		return err
	})
	return length, hole, err
}

// control runs f with the descriptor, which stays open for as long as f runs
// even if somebody closes the file meanwhile, and again as long as a signal
// interrupts it.
func (o *osFile) control(op string, f func(fd int) error) error {
	raw, err := o.f.SyscallConn()
	if err != nil {
		return &fs.PathError{Op: op, Path: o.f.Name(), Err: err}
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		for {
			if inner = f(int(fd)); !errors.Is(inner, syscall.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: o.f.Name(), Err: err}
	}
	return nil
}
