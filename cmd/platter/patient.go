package main

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A patient reader waits for a terminal or a pipe no longer than its context
// lasts: a read that has begun cannot be called off, so it begins only when
// there is something.
type patient struct {
	ctx context.Context
	f   *os.File
}

// patiently makes reading of r end with ctx, if r is a file that may keep its
// reader waiting.
func patiently(ctx context.Context, r io.Reader) io.Reader {
	f, ok := r.(*os.File)
	if !ok {
		return r
	}
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		return r
	}
	return &patient{ctx, f}
}

// Read reads what there is.
func (p *patient) Read(b []byte) (int, error) {
	for {
		if p.ctx.Err() != nil {
			return 0, context.Cause(p.ctx)
		}
		if ready, err := p.wait(); err != nil {
			return 0, err
		} else if ready {
			return p.f.Read(b)
		}
	}
}

// wait waits a moment. Its error is that the file is closed.
func (p *patient) wait() (ready bool, err error) {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return false, err
	}
	err = conn.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		ready = n > 0 || err != nil && err != unix.EINTR // then Read says what is wrong
	})
	return ready, err
}
