package localfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func datasync(fd int) error { return unix.Fdatasync(fd) }

func punch(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func allocate(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func push(fd int, off, n int64) error {
	return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

func fetch(fd int, off, n int64) error {
	return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED)
}

// run asks with lseek. That moves the file's position, which nobody uses:
// everything here reads and writes at an offset.
func run(fd int, off, n int64) (int64, bool, error) {
	data, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // no data from here to the end
		return behind(fd, off, n)
	case err != nil:
		return 0, false, err
	case data > off:
		return min(n, data-off), true, nil
	}
	end, err := unix.Seek(fd, off, unix.SEEK_HOLE)
	if err != nil {
		return 0, false, err
	}
	// The hole can have appeared between the two calls.
	return min(n, max(end-off, 1)), false, nil
}

// behind is run behind all data. What is past the end of the file is no hole:
// who reads it is told that it is not there.
func behind(fd int, off, n int64) (int64, bool, error) {
	end, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil || off >= end {
		return n, false, err
	}
	return min(n, end-off), true, nil
}

func renameNew(oldname, newname string) error {
	err := unix.Renameat2(unix.AT_FDCWD, oldname, unix.AT_FDCWD, newname, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return linkNew(oldname, newname)
	}
	return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
}

func space(name string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: name, Err: err}
	}
	unit := int64(st.Frsize)
	if unit == 0 {
		unit = int64(st.Bsize)
	}
	return int64(st.Blocks) * unit, int64(st.Bavail) * unit, nil
}
