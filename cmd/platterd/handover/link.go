package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A link is the socket between the two processes.
type link struct {
	conn *net.UnixConn
	fds  []int // came, and not yet asked for
	oob  []byte
}

func newLink(conn *net.UnixConn) *link {
	return &link{conn: conn, oob: make([]byte, unix.CmsgSpace(4*(maxFiles+1)))}
}

// bound makes reads and writes end with ctx. What is returned undoes it.
func (l *link) bound(ctx context.Context) (undo func()) {
	stop := context.AfterFunc(ctx, func() { l.conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			return
		}
		l.conn.SetDeadline(time.Time{})
	}
}

// send sends a message and, with its first byte, descriptors.
func (l *link) send(kind byte, body []byte, fds []int) error {
	b := append(putHead(kind, len(body)), body...)
	if len(fds) > 0 {
		n, err := l.sendFiles(b, unix.UnixRights(fds...))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if len(b) == 0 {
		return nil
	}
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("handover: send: %w", err)
	}
	return nil
}

// sendFiles sends the beginning of a message with its descriptors. The kernel
// takes only so many on their way at once; the other side takes them off.
func (l *link) sendFiles(b, rights []byte) (int, error) {
	for try := 0; ; try++ {
		n, _, err := l.conn.WriteMsgUnix(b[:min(len(b), 32<<10)], rights, nil)
		if errors.Is(err, unix.ETOOMANYREFS) && try < 1000 {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("handover: send descriptors: %w", err)
		}
		return n, nil
	}
}

// sendJSON sends a message whose body is v.
func (l *link) sendJSON(kind byte, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.send(kind, body, nil)
}

// receive returns the next message.
func (l *link) receive() (kind byte, body []byte, err error) {
	head := make([]byte, headSize)
	if err := l.fill(head); err != nil {
		return 0, nil, err
	}
	kind, n, err := parseHead(head)
	if err != nil {
		return 0, nil, err
	}
	// What a head claims is not made room for before it comes.
	for have := 0; have < n; have = len(body) {
		body = append(body, make([]byte, min(n-have, max(have, 64<<10)))...)
		if err := l.fill(body[have:]); err != nil {
			return 0, nil, noEOF(err)
		}
	}
	return kind, body, nil
}

// fill reads all of p, and keeps the descriptors that come with it.
func (l *link) fill(p []byte) error {
	for got := 0; got < len(p); {
		n, oobn, flags, _, err := l.conn.ReadMsgUnix(p[got:], l.oob)
		if oobErr := l.keep(l.oob[:oobn], flags); oobErr != nil {
			return oobErr
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			if got > 0 {
				err = noEOF(err)
			}
			return fmt.Errorf("handover: receive: %w", err)
		}
		got += n
	}
	return nil
}

// noEOF makes the end in the middle of something an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// keep takes descriptors out of a control message.
func (l *link) keep(oob []byte, flags int) error {
	if len(oob) > 0 {
		list, err := unix.ParseSocketControlMessage(oob)
		if err != nil {
			return fmt.Errorf("handover: receive descriptors: %w", err)
		}
		for _, m := range list {
			if fds, err := unix.ParseUnixRights(&m); err == nil {
				l.fds = append(l.fds, fds...)
			}
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return errors.New("handover: not all descriptors could be received: is the limit of open files too low (LimitNOFILE, ulimit -n)?")
	}
	return nil
}

// take returns the next n descriptors that came.
func (l *link) take(n int) ([]int, error) {
	if n > len(l.fds) {
		return nil, fmt.Errorf("%w: %d descriptors for %d items", errMalformed, len(l.fds), n)
	}
	fds := l.fds[:n:n]
	l.fds = l.fds[n:]
	return fds, nil
}

// close ends the link, and descriptors that nobody took.
func (l *link) close() error {
	for _, fd := range l.fds {
		unix.Close(fd)
	}
	l.fds = nil
	return l.conn.Close()
}
