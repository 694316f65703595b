package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDir makes this process the only one that uses dir. etcd has a lock of
// its own, but waits for it without a word. The kernel gives the lock back
// however the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another process%s uses this directory: stop it, or choose another data directory: %w", holder(f), os.ErrExist)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	// The number is for whoever is refused; on a full disk it is missing.
	if err := f.Truncate(0); err == nil {
		f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	return f, nil
}

// holder returns the process that wrote itself into a lock, if one did.
func holder(f *os.File) string {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", pid)
}

// maxSocket is how long the path of a unix socket may be.
const maxSocket = 107

// A socket is the path of a unix socket in a directory, however long the
// directory's name is.
type socket struct {
	path string
	dir  *os.File // kept open for the detour, if there is one
}

// newSocket takes the detour through an open directory where the straight
// path would be too long for the kernel.
func newSocket(dir string) (*socket, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &socket{path: filepath.Join(abs, "etcd.sock")}
	if len(s.path) <= maxSocket {
		return s, nil
	}
	if s.dir, err = os.Open(abs); err != nil {
		return nil, err
	}
	s.path = fmt.Sprintf("/proc/self/fd/%d/etcd.sock", s.dir.Fd())
	return s, nil
}

// Close gives the directory back.
func (s *socket) Close() error {
	if s.dir == nil {
		return nil
	}
	return s.dir.Close()
}
