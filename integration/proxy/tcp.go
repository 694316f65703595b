package proxy

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// TCP carries bytes between clients and a server, whatever they mean.
type TCP struct {
	// Addr is where it listens, HOST:PORT.
	Addr string

	target   string
	listener net.Listener
	working  sync.WaitGroup
	toServer atomic.Int64
	toClient atomic.Int64

	mu     sync.Mutex
	conns  map[net.Conn]bool // of both sides
	refuse bool
	ended  bool
	going  chan struct{} // closed while bytes go on
}

// StartTCP starts a proxy before the server at HOST:PORT. It ends with the
// test.
func StartTCP(t TB, target string) *TCP {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p := &TCP{Addr: ln.Addr().String(), target: target, listener: ln, conns: map[net.Conn]bool{}, going: make(chan struct{})}
	close(p.going)
	p.working.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.Resume()
		p.Reset()
		p.working.Wait()
	})
	return p
}

// Pause makes the network a black hole: connections stay, and can be made, and
// nothing comes through until Resume.
func (p *TCP) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.going:
		p.going = make(chan struct{})
	default:
	}
}

// Resume ends a Pause; what was sent meanwhile arrives.
func (p *TCP) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.going:
	default:
		close(p.going)
	}
}

// Refuse resets new connections from now on, or takes them again.
func (p *TCP) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// Reset resets the connections that there are.
func (p *TCP) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		noLinger(c)
		c.Close()
	}
}

// Bytes returns how many bytes went to the server and to clients.
func (p *TCP) Bytes() (toServer, toClient int64) { return p.toServer.Load(), p.toClient.Load() }

func (p *TCP) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.working.Go(func() { p.carry(conn) })
	}
}

// hold keeps a connection for Reset; it says no to one that may not be.
func (p *TCP) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.ended {
		noLinger(c)
		return false
	}
	p.conns[c] = true
	return true
}

func (p *TCP) release(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

func (p *TCP) carry(client net.Conn) {
	defer client.Close()
	if !p.hold(client) {
		return
	}
	defer p.release(client)
	p.wait()
	server, err := net.DialTimeout("tcp", p.target, 10*time.Second)
	if err != nil {
		noLinger(client)
		return
	}
	defer server.Close()
	if !p.hold(server) {
		noLinger(client)
		return
	}
	defer p.release(server)
	var both sync.WaitGroup
	both.Go(func() { p.pipe(server, client, &p.toServer) })
	both.Go(func() { p.pipe(client, server, &p.toClient) })
	both.Wait()
}

// wait waits for the end of a Pause.
func (p *TCP) wait() {
	p.mu.Lock()
	going := p.going
	p.mu.Unlock()
	<-going
}

// pipe carries one direction until it ends. An end passes on as one, an error
// as a reset.
func (p *TCP) pipe(to, from net.Conn, count *atomic.Int64) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.wait()
		if n > 0 {
			count.Add(int64(n))
			if _, err := to.Write(buf[:n]); err != nil {
				noLinger(from)
				from.Close()
				return
			}
		}
		if err != nil {
			if t, ok := to.(*net.TCPConn); ok && err == io.EOF {
				t.CloseWrite()
				return
			}
			noLinger(to)
			to.Close()
			return
		}
	}
}
