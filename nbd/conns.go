package nbd

import (
	"cmp"
	"context"
	"net"
	"slices"
	"time"
)

const (
	maxLeaving      = 64                    // connections cut off to make room that have not ended yet
	leavingPatience = 10 * time.Millisecond // for each of them
)

// Conns describes the live connections, oldest first.
func (s *Server) Conns() []ConnInfo {
	s.mu.Lock()
	conns := s.live()
	s.mu.Unlock()
	infos := make([]ConnInfo, len(conns))
	for i, c := range conns {
		infos[i] = c.info()
	}
	return infos
}

// Kick cuts off every connection that match picks, waits until their exports
// are closed, and returns how many there were. Their requests in flight are
// cancelled.
func (s *Server) Kick(match func(ConnInfo) bool) int {
	s.mu.Lock()
	conns := s.live()
	s.mu.Unlock()
	conns = slices.DeleteFunc(conns, func(c *conn) bool { return !match(c.info()) })
	for _, c := range conns {
		c.cut(errKicked)
	}
	for _, c := range conns {
		<-c.done
	}
	return len(conns)
}

// live returns the connections, oldest first. The caller holds s.mu.
func (s *Server) live() []*conn {
	conns := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(a, b *conn) int { return cmp.Compare(a.client.ID, b.client.ID) })
	return conns
}

// add makes a connection and counts it. The caller holds s.mu.
func (s *Server) add(ctx context.Context, nc net.Conn, key string) *conn {
	s.lastID++
	c := newConn(ctx, s, nc, s.lastID, key)
	s.conns[c.client.ID] = c
	s.counted++
	s.perClient[key]++
	return c
}

// start makes a connection that is to be run, or closes nc and returns nil if
// there are too many. gone is one that makes room for it, if one does.
func (s *Server) start(ctx context.Context, nc net.Conn) (c, gone *conn) {
	watchPeer(nc)
	key := clientKey(nc.RemoteAddr())
	s.mu.Lock()
	why, full := s.refusal(key)
	if full {
		if gone = s.makeRoom(key); gone != nil {
			why, _ = s.refusal(key)
		}
	}
	if why != "" {
		s.mu.Unlock()
		s.refuse(nc, why)
		return nil, nil
	}
	c = s.add(ctx, nc, key)
	s.mu.Unlock()
	return c, gone
}

// refusal says why there can be no further connection from key, or "", and
// whether a limit is reached. The caller holds s.mu.
func (s *Server) refusal(key string) (why string, full bool) {
	switch {
	case s.closed.Load():
		return "the server is shutting down", false
	case s.cfg.MaxConns > 0 && s.counted >= s.cfg.MaxConns:
		return "the limit of connections is reached", true
	case key != "" && s.cfg.MaxConnsPerClient > 0 && s.perClient[key] >= s.cfg.MaxConnsPerClient:
		return "the limit of connections from one address is reached", true
	}
	return "", false
}

// makeRoom cuts off the connection whose handshake has lasted longest, so that
// nobody locks others out by connecting and saying nothing, and returns it. A
// client that is at its own limit makes room among its own. The caller holds
// s.mu.
func (s *Server) makeRoom(key string) *conn {
	own := key != "" && s.cfg.MaxConnsPerClient > 0 && s.perClient[key] >= s.cfg.MaxConnsPerClient
	var oldest *conn
	for _, c := range s.conns {
		if c.counted && c.label.Load() == nil && !c.asking.Load() && (!own || c.key == key) &&
			(oldest == nil || c.client.ID < oldest.client.ID) {
			oldest = c
		}
	}
	if oldest == nil || len(s.conns)-s.counted >= maxLeaving {
		return nil
	}
	s.uncount(oldest)
	oldest.cut(errCrowded)
	return oldest
}

// uncount gives up c's place. The caller holds s.mu.
func (s *Server) uncount(c *conn) {
	if !c.counted {
		return
	}
	c.counted = false
	s.counted--
	if s.perClient[c.key]--; s.perClient[c.key] <= 0 {
		delete(s.perClient, c.key)
	}
}

// refuse closes nc unserved.
func (s *Server) refuse(nc net.Conn, why string) {
	nc.Close()
	s.turnedAway(nc.RemoteAddr(), why)
}

// turnedAway logs that a client did not get as far as an export. A flood of
// them makes one line in a while.
func (s *Server) turnedAway(client net.Addr, why string) {
	s.mu.Lock()
	s.refused++
	n, now := s.refused, time.Now()
	quiet := now.Before(s.complain)
	if !quiet {
		s.refused, s.complain = 0, now.Add(10*time.Second)
	}
	s.mu.Unlock()
	if !quiet {
		s.log.Warn("nbd: client turned away", "client", client.String(), "reason", why, "clients", n)
	}
}

// forget removes a connection that has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.client.ID)
	s.uncount(c)
}

// clientKey is what connections are counted under: the network address
// without the port, or "" where that says nothing.
func clientKey(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String()
	}
	return ""
}
