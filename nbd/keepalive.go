package nbd

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadAfter is after how long the kernel gives up a network client whose
// machine is gone, or that takes nothing of what it is sent. Until then its
// export stays open, and a disk with one owner closed to others.
const deadAfter = 2 * time.Minute

// watchPeer has the kernel notice when the client's machine is gone.
func watchPeer(nc net.Conn) {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	// Probes while nothing is sent.
	t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: deadAfter / 4, Interval: deadAfter / 8, Count: 6})
	// Nothing is probed while something sent waits for its acknowledgement.
	if raw, err := t.SyscallConn(); err == nil {
		setUserTimeout(raw)
	}
}

// setUserTimeout is best effort: without it dead clients are only noticed
// later.
func setUserTimeout(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter/time.Millisecond))
	})
}
