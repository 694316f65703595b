package proxy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/proxy"
)

// echo says every byte back.
func echo(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// knock connects and waits for a byte. A reset may come before the dialer
// has looked at its new socket, so that either of the two tells of it.
func knock(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestTCP(t *testing.T) {
	p := proxy.StartTCP(t, echo(t))
	c := dial(t, p.Addr)
	r := bufio.NewReader(c)
	say := func() error {
		if _, err := c.Write([]byte("hello\n")); err != nil {
			return err
		}
		_, err := r.ReadString('\n')
		return err
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	if up, down := p.Bytes(); up != 6 || down != 6 {
		t.Errorf("%d bytes there, %d back", up, down)
	}

	p.Pause()
	if _, err := c.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := r.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("paused: %v", err)
	}
	other := dial(t, p.Addr)
	p.Resume()
	c.SetDeadline(time.Now().Add(time.Minute))
	if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("resumed: %q, %v", line, err)
	}
	if _, err := other.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
		t.Errorf("one that came during the pause: %v", err)
	}
	other.(*net.TCPConn).CloseWrite()
	if _, err := other.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}

	p.Refuse(true)
	if err := knock(p.Addr); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused: %v", err)
	}
	p.Refuse(false)
	p.Reset()
	if err := say(); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("reset: %v", err)
	}
	c = dial(t, p.Addr)
	r.Reset(c)
	if err := say(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	p.Pause() // and the proxy ends nevertheless
	c.Write([]byte("x"))
}
