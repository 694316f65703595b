package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const socketName = "takeover.sock"

// maxSocket is how long the path of a unix socket may be.
const maxSocket = 107

// socketPath returns the path of dir's socket, by a detour through the open
// directory where it would be too long. free ends the detour.
func socketPath(dir string) (path string, free func(), err error) {
	path = filepath.Join(dir, socketName)
	if len(path) <= maxSocket {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName), func() { d.Close() }, nil
}

// Listen makes the socket on which a gateway is asked for its place. The
// caller holds the lock on dir: a socket that is there was left by a crash.
// Closing the listener leaves the socket's file, which is the next one's.
func Listen(dir string) (*net.UnixListener, error) {
	path, free, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer free()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("handover: listen in %s: %w", dir, err)
	}
	ln.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// A Successor is a process that wants to take our place.
type Successor struct {
	PID     int
	Version string // as it calls itself

	link  *link
	pidfd int
}

// helloTime is how long a process may take to say what it wants.
const helloTime = 5 * time.Second

// Meet hears what a process wants that has connected. Who may not take our
// place, or speaks another protocol, is told so; the error is for the log. The
// caller closes conn after an error, and else the Successor.
func Meet(ctx context.Context, conn *net.UnixConn) (*Successor, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	s := &Successor{link: newLink(conn), pidfd: -1}
	defer s.link.bound(ctx)()
	if err := s.meet(); err != nil {
		s.link.send(msgRefused, []byte(err.Error()), nil) // the error that counts is the other one
		s.closePID()
		return nil, err
	}
	return s, nil
}

func (s *Successor) meet() error {
	cred, err := peer(s.link.conn)
	if err != nil {
		return fmt.Errorf("handover: who asks for our place: %w", err)
	}
	if own := os.Geteuid(); int(cred.Uid) != own && cred.Uid != 0 {
		return fmt.Errorf("handover: process %d of user %d asks for the place of a gateway of user %d: run it as the same user", cred.Pid, cred.Uid, own)
	}
	s.PID = int(cred.Pid)
	if s.pidfd, err = peerProcess(s.link.conn, s.PID); err != nil {
		return fmt.Errorf("handover: process %d: %w", s.PID, err)
	}
	kind, body, err := s.link.receive()
	if err != nil {
		return err
	}
	var h hello
	if kind != msgHello || len(body) > 4096 || json.Unmarshal(body, &h) != nil {
		return fmt.Errorf("%w: no hello", errMalformed)
	}
	if h.Protocol != Protocol {
		return fmt.Errorf("handover: the running gateway hands over by protocol %d, and the new one wants %d: stop the one and start the other", Protocol, h.Protocol)
	}
	s.Version = h.Version
	return nil
}

// peer asks the kernel who is at the other end.
func peer(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(ctlErr, err)
}

// peerProcess returns a descriptor of the process at the other end. A kernel
// before 6.5 knows only its number, which is the same unless that process has
// ended already and another one got it.
func peerProcess(conn *net.UnixConn, pid int) (pidfd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := raw.Control(func(fd uintptr) { pidfd, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD) })
	if ctlErr != nil {
		return -1, ctlErr
	}
	if errors.Is(err, unix.ENOPROTOOPT) {
		return unix.PidfdOpen(pid, 0)
	}
	return pidfd, err
}

// Welcome says that it may have our place, soon.
func (s *Successor) Welcome(ctx context.Context) error {
	defer s.link.bound(ctx)()
	return s.link.send(msgWelcome, nil, nil)
}

// Refuse says why it may not. It is for a gateway that has not closed
// anything yet.
func (s *Successor) Refuse(ctx context.Context, why string) error {
	defer s.link.bound(ctx)()
	return s.link.send(msgRefused, []byte(why), nil)
}

// Give passes on what is open, and says since when clients wait. What is given
// stays open here.
func (s *Successor) Give(ctx context.Context, items []Item, since time.Time) error {
	defer s.link.bound(ctx)()
	for rest := items; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && n < maxFiles {
			more := itemSize(rest[n].Name, rest[n].State)
			if n > 0 && size+more > batchBytes {
				break
			}
			n, size = n+1, size+more
		}
		if err := s.giveBatch(rest[:n], size); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return s.link.sendJSON(msgEnd, end{len(items), since.UnixNano()})
}

func (s *Successor) giveBatch(items []Item, size int) error {
	body := make([]byte, 0, size)
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for i := range items {
		if len(items[i].Name) > maxName || len(items[i].State) > maxMessage-maxName-64 {
			return fmt.Errorf("handover: %.64s: a name of %d bytes, a state of %d: too many", items[i].Name, len(items[i].Name), len(items[i].State))
		}
		fd, err := items[i].dup()
		if err != nil {
			return fmt.Errorf("handover: %w", err)
		}
		fds = append(fds, fd)
		body = appendItem(body, items[i].Kind, items[i].Name, items[i].State)
	}
	return s.link.send(msgItems, body, fds)
}

// Taken waits until the other one has opened everything.
func (s *Successor) Taken(ctx context.Context) error {
	defer s.link.bound(ctx)()
	kind, _, err := s.link.receive()
	switch {
	case errors.Is(err, io.EOF) || isReset(err):
		return errors.New("handover: the new process has ended")
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("handover: the new process has not opened everything in time: %w", context.Cause(ctx))
	case err != nil:
		return err
	case kind != msgTaken:
		return fmt.Errorf("%w: %q", errMalformed, kind)
	}
	return nil
}

// Go makes the other one the owner. After it this process serves nobody.
func (s *Successor) Go() error {
	return s.link.send(msgGo, nil, nil)
}

// Dismiss ends the other process and returns when it is gone, so that this one
// can go on. After an error it may live, and what it was given with it.
func (s *Successor) Dismiss(ctx context.Context, why error) error {
	undo := s.link.bound(ctx)
	s.link.send(msgRefused, []byte(why.Error()), nil) // for its log, if it still reads
	undo()
	killErr := unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
	if errors.Is(killErr, unix.ESRCH) {
		return nil
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}, 50)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return errors.Join(killErr, err)
		case ctx.Err() != nil:
			return errors.Join(fmt.Errorf("handover: process %d, which was given everything, does not end", s.PID), killErr, ctx.Err())
		}
	}
}

// Close ends the conversation.
func (s *Successor) Close() error {
	s.closePID()
	return s.link.close()
}

func (s *Successor) closePID() {
	if s.pidfd >= 0 {
		unix.Close(s.pidfd)
		s.pidfd = -1
	}
}

// isReset says whether the other end is gone without a word.
func isReset(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}
