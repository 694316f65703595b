//go:build integration

package integration

import (
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestNBDCrowd has 100,000 connections that say nothing, or stall in their TLS
// handshake, or lie with extended headers, while honest clients work. The
// gateway's memory and its log stay small, and afterwards nothing is left.
func TestNBDCrowd(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "crowd")
	g := gateway.Start(t, append(gateway.ServeTLS(t, ca, "optional"), "--mount", "off", "--log-level", "warn", "PLATTER_NBD_HANDSHAKE_WITHIN=2s")...)
	raw, _ := nbdBase(t)
	image := upload(t, g, "base", "raw", raw)
	victim, prey := "overlay/"+newOverlay(t, g, image, ""), "ephemeral/"+image
	idle(t, g)
	first := memory(t, g, "VmRSS")
	for _, attack := range []struct {
		name  string
		lines int // of log, at most
		run   func(a *attacker)
	}{
		{"silence", 60, func(a *attacker) { a.crowd(100_000) }},
		{"stalled TLS", 60, func(a *attacker) { a.stallTLS(ca.Client(t, ""), 600) }},
		{"lies with extended headers", 400, func(a *attacker) { a.lie(ca.Client(t, ""), prey) }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			lines, start := strings.Count(g.Log(), "\n"), time.Now()
			b := newBystander(t, g, victim, image, false)
			b.every("open", func() (err error) { // a handshake may have to give way, and is begun again
				for range 100 {
					var c *nbdtest.Client
					if c, err = nbdtest.Open("unix", g.Socket, image); err == nil {
						_, err = c.Read(0, 65536, 0)
					}
					if c != nil {
						c.Close()
					}
					if err == nil {
						break
					}
				}
				return err
			})
			a := &attacker{t: t, g: g}
			attack.run(a)
			b.end(map[string]time.Duration{"small": 3 * time.Second, "large": 6 * time.Second, "open": 4 * time.Second})
			a.leave()
			lines = strings.Count(g.Log(), "\n") - lines
			t.Logf("%v, %d lines of log; VmRSS %d MiB (%d at first), VmHWM %d MiB", time.Since(start).Round(time.Millisecond), lines, memory(t, g, "VmRSS"), first, memory(t, g, "VmHWM"))
			if lines > attack.lines {
				t.Errorf("%d lines of log, want at most %d", lines, attack.lines)
			}
		})
	}
	if peak := memory(t, g, "VmHWM"); peak > first+512 {
		t.Errorf("the gateway needed %d MiB, %d before", peak, first)
	}
	if strings.Contains(g.Log(), "panic") {
		t.Error("panic")
	}
	idle(t, g)
}

// crowd makes number connections from many addresses, some thousands at a
// time, that say nothing or no more than their flags.
func (a *attacker) crowd(number int) {
	const wave, hands = 2000, 64
	refused := 0
	for done := 0; done < number; done += wave {
		var mu sync.Mutex
		var work sync.WaitGroup
		var all []net.Conn
		for hand := range hands {
			work.Go(func() {
				for i := done + hand; i < min(done+wave, number); i += hands {
					c, err := a.from(i)
					mu.Lock()
					if err != nil {
						refused++
					} else {
						all = append(all, c)
					}
					mu.Unlock()
					if err == nil && i%3 == 0 {
						c.Write(pack(uint32(3)))
					}
				}
			})
		}
		work.Wait()
		for _, c := range all {
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
			c.Close()
		}
	}
	a.t.Logf("%d connections, %d could not be made", number, refused)
	if refused > number/10 {
		a.t.Error("the test does not do what it says")
	}
}

// from connects from one of many addresses of this machine, or by the socket.
func (a *attacker) from(i int) (net.Conn, error) {
	if i%4 == 0 {
		return net.DialTimeout("unix", a.g.Socket, 30*time.Second)
	}
	d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(1+i%97), byte(i/97%251), 1)}}
	return d.Dial("tcp", a.g.NBD)
}

// stallTLS begins TLS and goes no further: with nothing, half a greeting, or
// garbage.
func (a *attacker) stallTLS(trust *tls.Config, number int) {
	hello := clientHello(trust)
	var work sync.WaitGroup
	start := time.Now()
	for i := range number {
		c, err := a.from(i)
		if err != nil {
			a.t.Errorf("connection %d: %v", i, err)
			continue
		}
		work.Go(func() {
			defer c.Close()
			c.Write(pack(uint32(3), nbdOption, uint32(oStartTLS), uint32(0)))
			switch i % 4 {
			case 0:
				c.Write(hello[:len(hello)/2])
			case 1: // all of it, and then silence
				time.Sleep(10 * time.Millisecond)
				c.Write(hello)
			case 2: // a record that never ends
				c.Write([]byte{22, 3, 1, 0x40, 0})
				for range 600 {
					if _, err := c.Write([]byte{1}); err != nil {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
			if !ended(c, 30*time.Second) {
				a.t.Errorf("stalled handshake %d may last for ever", i%4)
			}
		})
	}
	work.Wait()
	if d := time.Since(start); d > 40*time.Second {
		a.t.Errorf("handshakes of 2 s could be stretched to %v", d)
	}
}

// clientHello returns the first bytes that a client of TLS sends.
func clientHello(cfg *tls.Config) []byte {
	ours, theirs := net.Pipe()
	go func() { tls.Client(theirs, cfg).Handshake(); theirs.Close() }()
	p := make([]byte, 4096)
	n, _ := ours.Read(p)
	ours.Close()
	return p[:n]
}

// lie enters with extended headers, over TLS and plain, and claims lengths up
// to 2^64 that never come, or are no such thing.
func (a *attacker) lie(trust *tls.Config, name string) {
	header := func(flags, cmd uint16, off, n uint64) []byte {
		return pack(nbdLongRequest, flags, cmd, uint64(7), off, n)
	}
	lies := map[string][]byte{
		"a write of 2^64-1":             header(fPayload, cWrite, scratch, math.MaxUint64),
		"a write of 2^63":               header(0, cWrite, scratch, 1<<63),
		"a read with a payload of 2^40": header(fPayload, cRead, 0, 1<<40),
		"a status with one of 32 MiB":   header(fPayload, cStatus, 0, most),
		"a write that never comes":      header(fPayload, cWrite, scratch, most),
		"an unknown one of 32 MiB":      header(fPayload, 99, 0, most),
		"half a header":                 header(0, cRead, 0, 512)[:31],
		"everything of 2^64-1": append(append(append(header(0, cRead, 0, math.MaxUint64), header(0, cZero, 1, math.MaxUint64)...),
			header(0, cTrim, math.MaxUint64, math.MaxUint64)...), header(0, cFlush, math.MaxUint64, math.MaxUint64)...),
		"status, the whole again and again": nil,
	}
	var work sync.WaitGroup
	hands := make(chan bool, 8) // so that handshakes keep their 2 s
	for what, b := range lies {
		for i := range 12 {
			network, addr := []string{"unix", "tcp", "tcp"}[i%3], []string{a.g.Socket, a.g.NBD, a.g.NBD}[i%3]
			work.Go(func() {
				hands <- true
				c, err := nbdtest.Dial(network, addr)
				if err == nil && i%3 == 2 {
					err = c.StartTLS(trust.Clone())
				}
				if err == nil {
					err = c.EnterExtended(name)
				}
				<-hands
				if err != nil {
					a.t.Errorf("%s: not let in: %v", what, err)
					return
				}
				defer c.Close()
				c.Conn.SetDeadline(time.Now().Add(30 * time.Second))
				if b == nil { // asks and does not listen
					for range 3000 {
						if _, err := c.Conn.Write(header(0, cStatus, 0, c.Size)); err != nil {
							return
						}
					}
				}
				c.Write(b)
				if p := make([]byte, 65536); strings.Contains(what, "2^") && !strings.HasPrefix(what, "everything") { // above the limit: closed
					for n := 0; ; n++ {
						if _, err := c.Conn.Read(p); os.IsTimeout(err) {
							a.t.Errorf("%s: the connection goes on", what)
						} else if err == nil && n < 100 {
							continue
						}
						return
					}
				}
				time.Sleep(2 * time.Second)
			})
		}
	}
	work.Wait()
	if rss := memory(a.t, a.g, "VmRSS"); rss > 1024 {
		a.t.Errorf("lies cost %s", fmt.Sprint(rss, " MiB"))
	}
}
