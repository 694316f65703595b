package localfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// QEMU's lock of an image is shared locks of single bytes, which mean
// something by where they are: whoever locks byte mayBase+n does n to the
// file, whoever locks byte aloneBase+n wants nobody else to do it. All take
// their own locks first and then look for those that contradict them, so of
// two who come at once none, or one, goes on.
const (
	mayBase   = 100
	aloneBase = 200

	mayRead   = 0
	mayWrite  = 1
	mayResize = 3
)

// lockImage takes locks of the open file, which end when it is closed,
// whoever else in this process opens and closes the same file.
func lockImage(fd int) error {
	for _, at := range []int64{mayBase + mayRead, mayBase + mayWrite, mayBase + mayResize, aloneBase + mayWrite, aloneBase + mayResize} {
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, lockOf(at, unix.F_RDLCK))
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("somebody else has locked it whole: %w", unix.EBUSY)
		}
		if err != nil {
			return errors.Join(noLocks(err), unlockImage(fd))
		}
	}
	for _, c := range []struct {
		at  int64
		who string
	}{
		{mayBase + mayWrite, "has it open for writing"},
		{mayBase + mayResize, "has it open for writing"},
		{aloneBase + mayRead, "wants nobody else to read it"},
		{aloneBase + mayWrite, "reads it and wants nobody to write to it meanwhile"},
		{aloneBase + mayResize, "reads it and wants nobody to resize it meanwhile"},
	} {
		found := lockOf(c.at, unix.F_WRLCK)
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, found)
		if err == nil && found.Type != unix.F_UNLCK {
			err = fmt.Errorf("somebody else (QEMU, qemu-img, another gateway) %s: %w", c.who, unix.EBUSY)
		}
		if err != nil {
			return errors.Join(noLocks(err), unlockImage(fd))
		}
	}
	return nil
}

// unlockImage leaves no lock that would be in the way of the next try.
func unlockImage(fd int) error {
	l := lockOf(mayBase, unix.F_UNLCK)
	l.Len = 2 * (aloneBase - mayBase)
	return noLocks(unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, l))
}

func lockOf(at int64, kind int16) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Whence: 0, Start: at, Len: 1}
}

// noLocks says of errors that mean that the file system has no locks, or none
// that work now, that this is what they mean.
func noLocks(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOLCK) {
		return fmt.Errorf("%w (%v)", errors.ErrUnsupported, err)
	}
	return err
}
