package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/seed-478a8fee/platter/backends/block"
)

// toErrno is the one place where errors become error numbers. What is in
// nobody's table is EIO: the bytes could not be had.
func toErrno(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, fs.ErrPermission):
		return syscall.EACCES
	case errors.Is(err, errors.ErrUnsupported):
		return syscall.EOPNOTSUPP
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, block.ErrBounds), errors.Is(err, fs.ErrInvalid):
		return syscall.EINVAL
	case errors.Is(err, fs.ErrClosed):
		return syscall.ESTALE
	case errors.As(err, &errno):
		return foreignErrno(errno)
	}
	return syscall.EIO
}

// foreignErrno lets through the numbers that a reader of a file can act on.
// Others speak of a file or socket behind the store that the reader has
// never heard of.
func foreignErrno(errno syscall.Errno) syscall.Errno {
	switch errno {
	case syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.EINTR, syscall.ESTALE, syscall.ENXIO:
		return errno
	}
	return syscall.EIO
}
