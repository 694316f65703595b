//go:build !linux

package localfs

import (
	"errors"
	"math"
	"syscall"
)

func datasync(fd int) error                      { return syscall.Fsync(fd) }
func punch(int, int64, int64) error              { return errors.ErrUnsupported }
func allocate(int, int64, int64) error           { return errors.ErrUnsupported }
func lockImage(int) error                        { return errors.ErrUnsupported }
func push(int, int64, int64) error               { return errors.ErrUnsupported }
func fetch(int, int64, int64) error              { return errors.ErrUnsupported }
func renameNew(oldname, newname string) error    { return linkNew(oldname, newname) }
func run(int, int64, int64) (int64, bool, error) { return 0, false, errors.ErrUnsupported }

func space(string) (total, free int64, err error) {
	return math.MaxInt64, math.MaxInt64, nil
}
