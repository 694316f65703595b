package nbd_test

import (
	"net"
	"sync"
	"time"
)

var neverTime time.Time

// pipes is a listener whose connections are net.Pipes, for synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	shut  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), shut: make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
	case <-p.shut:
		b.Close()
	}
	return a
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.shut:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.shut) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
