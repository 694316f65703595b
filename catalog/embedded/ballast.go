package embedded

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ballastSize is how many bytes a server keeps back for its end: more than
// enough for what is written at a stop, so that a start after it finds
// leastRoom.
const ballastSize = 2 * leastRoom

// A ballast is the path of a file that holds room on the disk. Others may fill
// the disk at any time; a stop that gives the ballast up first can still write.
type ballast string

// take makes the file where there is more room than etcd wants to start.
// Without it, or where a file system cannot keep room, a stop on a full disk
// says so.
func (b ballast) take() {
	if free, err := freeBytes(filepath.Dir(string(b))); err != nil || free < ballastSize+leastRoom {
		return
	}
	f, err := os.OpenFile(string(b), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, ballastSize); err != nil {
		b.drop()
	}
}

// drop gives the room back.
func (b ballast) drop() {
	if b != "" {
		os.Remove(string(b)) // that it is not there is usual
	}
}
