package crashfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"syscall"
)

// A file is an open file. Its closing is guarded by the lock of the FS.
type file struct {
	fs     *FS
	node   int
	name   string
	closed bool
}

// begin locks the FS for one operation; the caller unlocks it, error or not.
func (f *file) begin(op string) error {
	f.fs.mu.Lock()
	if f.closed {
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	}
	return f.fs.allowed(op, f.name)
}

func (f *file) content() *content { return f.fs.world.files[f.node] }

func (f *file) invalid(op string) error {
	return &fs.PathError{Op: op, Path: f.name, Err: syscall.EINVAL}
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	err := f.begin("read")
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, f.invalid("read")
	}
	n := f.content().read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes as much as there is room for.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	err := f.begin("write")
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, f.invalid("write")
	}
	n := f.room(p, off)
	if n > 0 {
		f.fs.do(op{kind: opWrite, node: f.node, off: off, n: int64(n), data: bytes.Clone(p[:n])})
	}
	if n < len(p) {
		return n, &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	return n, nil
}

// room returns how many bytes of p may be written before the FS is full.
func (f *file) room(p []byte, off int64) int {
	if f.fs.full == 0 {
		return len(p)
	}
	free := f.fs.full - f.fs.used()
	end := off + int64(len(p))
	for at := off; at < end; at = at/pageSize*pageSize + pageSize {
		if f.content().pages[at/pageSize] != nil {
			continue
		}
		if free -= pageSize; free < 0 {
			return int(at - off)
		}
	}
	return len(p)
}

func (f *file) Truncate(size int64) error {
	err := f.begin("truncate")
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if size < 0 {
		return f.invalid("truncate")
	}
	f.fs.do(op{kind: opTruncate, node: f.node, off: size})
	return nil
}

func (f *file) Punch(off, n int64) error {
	err := f.begin("punch")
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return f.invalid("punch")
	}
	f.fs.do(op{kind: opPunch, node: f.node, off: off, n: n})
	return nil
}

func (f *file) Sync() error {
	err := f.begin("sync")
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	f.fs.do(op{kind: opSync, node: f.node})
	return nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, &fs.PathError{Op: "stat", Path: f.name, Err: fs.ErrClosed}
	}
	return f.content().size, nil
}

func (f *file) Run(off, n int64) (int64, bool, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, false, &fs.PathError{Op: "seek", Path: f.name, Err: fs.ErrClosed}
	}
	length, hole := f.content().run(off, n)
	return length, hole, nil
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return fmt.Errorf("close %s: %w", f.name, fs.ErrClosed)
	}
	f.closed = true
	if f.fs.open[f.node]--; f.fs.open[f.node] == 0 {
		delete(f.fs.open, f.node)
	}
	return nil
}
