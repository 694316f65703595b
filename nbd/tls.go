package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
)

// ErrTLSRequired is what Exports.Open returns for an export that is served
// over TLS only, to a client that has not started it.
var ErrTLSRequired = errors.New("this export is served over TLS only; start TLS and ask again")

const (
	tlsRecord = 16 << 10  // the most that one record carries
	tlsCork   = 256 << 10 // records gathered before they are sent
)

// hardened returns cfg as connections use it, or nil for nil.
func hardened(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	own := harden(cfg)
	if choose := cfg.GetConfigForClient; choose != nil {
		own.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return chosen, err
			}
			return harden(chosen), nil
		}
	}
	return own
}

// harden returns a copy of cfg without what is old, and with what long
// connections with large messages want.
func harden(cfg *tls.Config) *tls.Config {
	own := cfg.Clone()
	own.MinVersion = max(own.MinVersion, tls.VersionTLS12)
	own.DynamicRecordSizingDisabled = true
	own.SessionTicketsDisabled = true // who comes back shows its certificate again
	return own
}

// A secure is what a connection has with TLS.
type secure struct {
	conn   *tls.Conn
	socket *corkedConn
}

// mustTLS reports whether the client gets nothing before it has started TLS.
func (c *conn) mustTLS() bool {
	return c.s.cfg.TLSRequired && c.secure == nil && c.client.Transport != "unix"
}

// refuseBeforeTLS answers an option of a client that must start TLS first.
func (c *conn) refuseBeforeTLS(opt uint32) error {
	if opt == optExportName || !c.fixed {
		return errors.New("a client without TLS; this server requires it on network sockets")
	}
	return c.deny(opt, repErrTLSReqd, "this server requires TLS: start it first (NBD_OPT_STARTTLS, nbds:// in a URI)")
}

// startTLS answers NBD_OPT_STARTTLS. Nothing that was agreed on or opened
// before counts any more.
func (c *conn) startTLS() error {
	switch {
	case c.secure != nil:
		return c.deny(optStartTLS, repErrInvalid, "TLS has been started already")
	case c.s.tls == nil:
		return c.deny(optStartTLS, repErrUnsup, "this server has no TLS; use its unix socket, or plain TCP where you trust the network")
	case !c.fixed:
		return c.deny(optStartTLS, repErrPolicy, "TLS needs the handshake flag FIXED_NEWSTYLE, which the client did not set")
	case c.in.buffered() > 0:
		// Somebody may have put it there for us to take it for the client's.
		return fmt.Errorf("%w: bytes without TLS behind the request to start it", errProtocol)
	}
	c.answer(optStartTLS, repAck, nil)
	c.flush()
	if err := c.out.settle(); err != nil {
		return err
	}
	c.closeExport()
	c.headers, c.contexts, c.metaExport = headersSimple, nil, ""
	c.troubled.Store(false)

	socket := &corkedConn{Conn: c.nc, pools: &c.s.pools}
	t := tls.Server(socket, c.s.tls)
	if err := t.Handshake(); err != nil {
		if told := c.s.cfg.TLSFailed; told != nil {
			told(err)
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := t.ConnectionState()
	c.secure = &secure{t, socket}
	c.in.secure(t)
	c.client.Transport, c.client.TLS = "tls", &state
	c.publish()
	return nil
}

// peerName returns the common name in the client's certificate, or "".
func peerName(state *tls.ConnectionState) string {
	if state == nil || len(state.PeerCertificates) == 0 {
		return ""
	}
	return state.PeerCertificates[0].Subject.CommonName
}

// write writes the parts of vec in few large records, and those with few
// calls.
func (t *secure) write(vec net.Buffers) error {
	t.socket.cork()
	err := t.records(vec)
	return errors.Join(err, t.socket.uncork())
}

// records writes the parts of vec. Short ones share a record.
func (t *secure) records(vec net.Buffers) error {
	joined := t.socket.pools.get(4 * tlsRecord)
	defer joined.release()
	for _, p := range vec {
		for len(p) > 0 {
			if len(joined.data) == 0 && len(p) >= tlsRecord {
				whole := len(p) / tlsRecord * tlsRecord
				if _, err := t.conn.Write(p[:whole]); err != nil {
					return err
				}
				p = p[whole:]
				continue
			}
			n := min(len(p), 4*tlsRecord-len(joined.data))
			copy(joined.grow(n), p)
			p = p[n:]
			if len(joined.data) == 4*tlsRecord {
				if _, err := t.conn.Write(joined.data); err != nil {
					return err
				}
				joined.data = joined.data[:0]
			}
		}
	}
	if len(joined.data) == 0 {
		return nil
	}
	_, err := t.conn.Write(joined.data)
	return err
}

// A corkedConn is a socket that gathers, while it is corked, what TLS writes a
// record at a time.
type corkedConn struct {
	net.Conn
	pools *pools

	mu     sync.Mutex
	corked bool
	held   *buffer
}

func (c *corkedConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// uncork sends what was gathered.
func (c *corkedConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.send()
}

// send sends what was gathered. The caller holds c.mu.
func (c *corkedConn) send() error {
	b := c.held
	if b == nil {
		return nil
	}
	c.held = nil
	defer b.release()
	_, err := c.Conn.Write(b.data)
	return err
}

// Write sends p, now or with what follows.
func (c *corkedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(p)
	}
	if c.held != nil && c.held.room() < len(p) {
		if err := c.send(); err != nil {
			return 0, err
		}
	}
	if c.held == nil {
		c.held = c.pools.get(max(tlsCork, len(p)))
	}
	copy(c.held.grow(len(p)), p)
	return len(p), nil
}
