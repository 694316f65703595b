package nbd_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// listenTCP has the server serve a TCP socket too, and returns its address.
func (a *aServer) listenTCP(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- a.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		l.Close()
		<-served // an error if the server has not been shut down yet, which is as it should be
	})
	return l.Addr().String()
}

// dialTCP returns a client that has greeted.
func dialTCP(t testing.TB, addr string) *nbdtest.Client {
	t.Helper()
	c, err := nbdtest.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Conn.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { c.Conn.Close() })
	return c
}

// TestTLS has clients of all kinds inside TLS.
func TestTLS(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS = ca.Server(t, tls.VerifyClientCertIfGiven) })
	var seen atomic.Pointer[nbd.Client]
	a.exports.seen = func(c nbd.Client) { seen.Store(&c) }
	addr := a.listenTCP(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, enter := range map[string]func(*nbdtest.Client, string) error{
			"simple":     func(c *nbdtest.Client, name string) error { _, err := c.Go(name); return err },
			"structured": (*nbdtest.Client).Enter, "extended": (*nbdtest.Client).EnterExtended,
		} {
			t.Run(fmt.Sprint(tls.VersionName(version), " ", name), func(t *testing.T) {
				c := dialTCP(t, addr)
				cfg := ca.Client(t, "a guest")
				cfg.MaxVersion = version
				if err := c.StartTLS(cfg); err != nil {
					t.Fatal(err)
				}
				if err := enter(c, "rw"); err != nil {
					t.Fatal(err)
				}
				var all sync.WaitGroup
				for i, n := range []int{1, 512, 4096, 16<<10 - 1, 100_000, 1 << 20, 2 << 20} {
					all.Go(func() {
						off, p := uint64(i)<<20, pattern(n, byte(i))
						err := c.WriteAt(p, off, 0)
						got, err2 := c.Read(off, n, 0)
						if err != nil || err2 != nil || !slices.Equal(got, p) {
							t.Errorf("%d bytes: %v, %v", n, err, err2)
						}
					})
				}
				all.Wait()
				for _, info := range a.Conns() {
					if info.Client.Transport != "tls" || info.Peer != "a guest" || info.Client.TLS.Version != version || info.Headers != name {
						t.Errorf("%+v", info)
					}
				}
				if who := seen.Load(); who.Transport != "tls" || who.TLS.PeerCertificates[0].Subject.CommonName != "a guest" {
					t.Errorf("%+v", who)
				}
				if err := c.Send(nbdtest.Request{Cmd: nbdtest.CmdDisc}); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the end is %v, not the one of TLS", err)
				}
				for len(a.Conns()) > 0 {
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
}

// TestTLSForgets looks that nothing of before TLS counts.
func TestTLSForgets(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS = ca.Server(t, tls.NoClientCert) })
	for _, agree := range []func(c *nbdtest.Client) error{(*nbdtest.Client).StructuredReplies, (*nbdtest.Client).ExtendedHeaders} {
		c := a.dial(t) // on the unix socket too
		if err := agree(c); err != nil {
			t.Fatal(err)
		}
		if _, err := c.SetContexts("rw", "base:allocation"); err != nil {
			t.Fatal(err)
		}
		if err := c.StartTLS(ca.Client(t, "")); err != nil {
			t.Fatal(err)
		}
		if n := a.exports.stillOpen(); n != 0 {
			t.Errorf("%d exports are open", n)
		}
		_, err := c.ListContexts("rw")
		denied(t, err, nbdtest.RepErrInvalid)
		denied(t, c.StartTLS(nil), nbdtest.RepErrInvalid)
		_, err = c.Option(nbdtest.OptStartTLS, []byte{1})
		denied(t, err, nbdtest.RepErrInvalid)
		if _, err := c.Go("rw"); err != nil || c.Flags&(nbdtest.SendDF|nbdtest.StatusPayload) != 0 {
			t.Errorf("flags %#x, %v", c.Flags, err)
		}
		if _, err := c.Read(0, 512, 0); err != nil { // the client takes simple replies only
			t.Error(err)
		}
		c.Close()
		for a.exports.stillOpen() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

func TestTLSRequired(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS, cfg.TLSRequired = ca.Server(t, tls.NoClientCert), true })
	addr := a.listenTCP(t)
	c := dialTCP(t, addr)
	for _, opt := range []uint32{nbdtest.OptList, nbdtest.OptInfo, nbdtest.OptGo, nbdtest.OptStructuredReply, nbdtest.OptExtendedHeaders,
		nbdtest.OptListMetaContext, nbdtest.OptSetMetaContext, 4, 4242} {
		for _, n := range []int{0, 20, 100_000} {
			_, err := c.Option(opt, make([]byte, n))
			denied(t, err, nbdtest.RepErrTLSReqd)
		}
	}
	_, err := c.Option(nbdtest.OptStartTLS, []byte{1})
	denied(t, err, nbdtest.RepErrInvalid)
	if err := c.StartTLS(ca.Client(t, "")); err != nil {
		t.Fatal(err)
	}
	if err := c.EnterExtended("rw"); err != nil {
		t.Fatal(err)
	}
	if err := dialTCP(t, addr).Abort(); err != nil {
		t.Error(err)
	}
	if dialTCP(t, addr).ExportName("rw") == nil {
		t.Error("EXPORT_NAME is served without TLS")
	}
	old := dialTCP(t, addr)
	old.Conn.Close()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	old = nbdtest.New(nc)
	if err := old.Greet(0); err != nil { // knows no errors of options
		t.Fatal(err)
	}
	old.SendOption(nbdtest.OptList, nil)
	if err := old.Ended(); err != nil {
		t.Error(err)
	}
	a.alive(t) // on the unix socket nothing is required
	if _, err := nbd.New(nbd.Config{Exports: &exports{}, TLSRequired: true}); err == nil {
		t.Error("TLS is required and there is none, which New takes")
	}
}

// TestTLSOnly has an export that asks for TLS on a server that does not.
func TestTLSOnly(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	for _, has := range []bool{true, false} {
		a := serve(t, func(cfg *nbd.Config) {
			if has {
				cfg.TLS = ca.Server(t, tls.NoClientCert)
			}
		})
		a.exports.secure = "rw"
		wanted := uint32(nbdtest.RepErrPolicy)
		if has {
			wanted = nbdtest.RepErrTLSReqd
		}
		c := a.dial(t)
		_, err := c.Info("rw")
		denied(t, err, wanted)
		_, err = c.Go("rw")
		denied(t, err, wanted)
		if err := c.StructuredReplies(); err != nil {
			t.Fatal(err)
		}
		_, err = c.SetContexts("rw", "base:allocation")
		denied(t, err, nbdtest.RepErrPolicy)
		if a.dial(t).ExportName("rw") == nil {
			t.Error("EXPORT_NAME opens it")
		}
		if _, err := c.Go("ro"); err != nil { // the others are not affected
			t.Error(err)
		}
		c = dialRaw(t, a)
		c.Greet(nbdtest.NoZeroes) // who has no fixed newstyle has no TLS
		_, err = c.Go("rw")
		denied(t, err, nbdtest.RepErrPolicy)
		if !has {
			denied(t, c.StartTLS(nil), nbdtest.RepErrUnsup)
			continue
		}
		denied(t, c.StartTLS(nil), nbdtest.RepErrPolicy)
		c = a.dial(t)
		if err := c.StartTLS(ca.Client(t, "")); err != nil {
			t.Fatal(err)
		}
		if err := c.Enter("rw"); err != nil {
			t.Error(err)
		}
	}
}

// TestTLSOnlyInside has an Exports that is never content: inside TLS nobody is
// told to start it.
func TestTLSOnlyInside(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS = ca.Server(t, tls.NoClientCert) })
	a.exports.before = func(context.Context, string) error { return nbd.ErrTLSRequired }
	c := a.dial(t)
	if err := c.StartTLS(ca.Client(t, "")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Go("rw")
	denied(t, err, nbdtest.RepErrPolicy)
}

// TestTLSInjection has somebody put options without TLS behind the request to
// start it, for the server to take them for the client's.
func TestTLSInjection(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS = ca.Server(t, tls.NoClientCert) })
	list := nbdtest.OptionHeader(nbdtest.OptList, 0)
	for name, inject := range map[string]func(c *nbdtest.Client) error{
		"in one piece": func(c *nbdtest.Client) error {
			return c.Write(append(nbdtest.OptionHeader(nbdtest.OptStartTLS, 0), list...))
		},
		"part of an option": func(c *nbdtest.Client) error {
			return c.Write(append(nbdtest.OptionHeader(nbdtest.OptStartTLS, 0), list[:5]...))
		},
		"after the answer": func(c *nbdtest.Client) error {
			_, err := c.Option(nbdtest.OptStartTLS, nil)
			return errors.Join(err, c.Write(list))
		},
	} {
		c := a.dial(t)
		if err := inject(c); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(c.Conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() || len(said) > 7 { // an alert of TLS, at most
			t.Errorf("%s: the server says %q, %v", name, said, err)
		}
	}
	a.alive(t)
}

func TestTLSCertificates(t *testing.T) {
	ca, other := nbdtest.NewAuthority(t, "an authority"), nbdtest.NewAuthority(t, "another authority")
	var now atomic.Pointer[tls.Config]
	now.Store(ca.Server(t, tls.RequireAndVerifyClientCert))
	a := serve(t, func(cfg *nbd.Config) {
		cfg.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Load(), nil }}
	})
	try := func(cfg *tls.Config) error {
		c := a.dial(t)
		defer c.Close()
		if err := c.StartTLS(cfg); err != nil {
			return err
		}
		return c.Enter("ro") // where TLS 1.3 says what was wrong with a certificate
	}
	stranger := ca.Client(t, "")
	stranger.Certificates = []tls.Certificate{other.Issue(t, "client", nbdtest.Subject{Name: "a stranger"})}
	old := ca.Client(t, "a guest")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for name, cfg := range map[string]*tls.Config{"no certificate": ca.Client(t, ""), "another authority": stranger, "TLS 1.1": old} {
		if err := try(cfg); err == nil {
			t.Errorf("%s: served", name)
		}
	}
	if err := try(ca.Client(t, "a guest")); err != nil {
		t.Error(err)
	}
	// A new certificate from a new authority, without a restart, also for who
	// was here before.
	before := ca.Client(t, "a guest")
	before.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	if err := try(before); err != nil {
		t.Fatal(err)
	}
	now.Store(other.Server(t, tls.RequireAndVerifyClientCert))
	if err := try(before); err == nil {
		t.Error("the certificate of an authority that is not asked for any more is taken")
	}
	if err := try(other.Client(t, "a guest")); err != nil {
		t.Error(err)
	}
	now.Store(&tls.Config{MinVersion: tls.VersionTLS10, Certificates: other.Server(t, 0).Certificates})
	old = other.Client(t, "")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := try(old); err == nil {
		t.Error("TLS 1.1 is served because a configuration says so")
	}
	a.alive(t)
}

// TestTLSTimeout has a client that says nothing once TLS may start.
func TestTLSTimeout(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	cfg := nbd.Config{HandshakeTimeout: time.Minute, TLS: ca.Server(t, tls.NoClientCert)}
	inBubble(t, cfg, func(t *testing.T, s *nbd.Server, l *pipes, x *exports) {
		c := nbdtest.New(l.dial())
		c.Greet(3)
		start := time.Now()
		if _, err := c.Option(nbdtest.OptStartTLS, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if err := c.Write([]byte{22, 3, 1}); err != nil {
			t.Error(err)
		}
		if err := c.Ended(); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("took %v", d)
		}
	})
}

// TestTLSEnds looks how connections with TLS end.
func TestTLSEnds(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS = ca.Server(t, tls.NoClientCert) })
	enter := func() *nbdtest.Client {
		c := a.dial(t)
		if err := c.StartTLS(ca.Client(t, "")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Go("rw"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	a.disk.before = func(op string, off, n int64) error { time.Sleep(5 * time.Millisecond); return nil }
	c := enter()
	for i := range 8 {
		c.Send(nbdtest.Request{Cmd: nbdtest.CmdWrite, Cookie: uint64(i), Off: uint64(i * 100_000), Payload: pattern(100_000, 9)})
	}
	c.Conn.(*tls.Conn).CloseWrite()
	for range 8 { // what was asked for before is answered
		if _, err := c.Receive(func(uint64) (nbdtest.Request, bool) { return nbdtest.Request{Cmd: nbdtest.CmdWrite}, true }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after close_notify: %v", err)
	}
	c = enter()
	c.Conn.(*tls.Conn).NetConn().Close() // without a word
	c = enter()
	if err := a.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("at shutdown: %v", err)
	}
}

// TestTLSWrites counts what is written to the socket for large reads, and for
// many small ones.
func TestTLSWrites(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "an authority")
	a := serve(t, func(cfg *nbd.Config) { cfg.TLS = ca.Server(t, tls.NoClientCert) })
	l := &countingListener{newPipes(), atomic.Int64{}}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- a.Serve(ctx, l) }()
	a.disk.mark(0, diskSize, 0)
	c := nbdtest.New(l.dial())
	c.Greet(3)
	if err := c.StartTLS(ca.Client(t, "")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Go("rw"); err != nil {
		t.Fatal(err)
	}
	before := l.writes.Load()
	for range 4 {
		if _, err := c.Read(0, 1<<20, 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.writes.Load() - before; n > 4*8 { // 256 records
		t.Errorf("%d writes for 4 MiB", n)
	}
	// A machine that is busy makes the disk look slow, and then each reply is
	// another worker's; it need not look so every time.
	fewest := int64(64)
	for tries := 0; fewest > 8 && tries < 50; tries++ {
		for range 100 { // until it is known to be near
			c.Read(0, 4096, 0)
		}
		before = l.writes.Load()
		requests := slices.Repeat([]nbdtest.Request{{Cmd: nbdtest.CmdRead, Len: 512}}, 64)
		if err := c.Send(requests...); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Conn, make([]byte, 64*(512+16))); err != nil {
			t.Fatal(err)
		}
		fewest = min(fewest, l.writes.Load()-before)
	}
	if fewest > 8 {
		t.Errorf("%d writes for 64 small replies", fewest)
	}
	c.Close()
	cancel()
	<-served
}

// A countingListener counts what is written to its connections.
type countingListener struct {
	*pipes
	writes atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.pipes.Accept()
	return &countingConn{c, &l.writes}, err
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}
