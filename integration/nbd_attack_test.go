//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// memory returns a line of /proc/PID/status, in MiB.
func memory(t testing.TB, g *gateway.Gateway, key string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), key+":")
	var kib int
	fmt.Sscan(rest, &kib)
	return kib >> 10
}

func openFiles(g *gateway.Gateway) int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.PID()))
	return len(list)
}

// A bystander is an honest client that goes on working while others attack:
// small and large requests on a connection that it has, and new connections.
type bystander struct {
	t    *testing.T
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	times map[string][]time.Duration
}

func newBystander(t *testing.T, g *gateway.Gateway, overlay, image string, newcomers bool) *bystander {
	b := &bystander{t: t, stop: make(chan struct{}), times: map[string][]time.Duration{}}
	c, err := nbdtest.Open("unix", g.Socket, overlay)
	if err != nil {
		t.Fatal(err)
	}
	big, err := nbdtest.Open("unix", g.Socket, image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); big.Close() })
	n := uint64(0)
	b.every("small", func() error {
		n++
		p := noise(4096, byte(n))
		if err := c.WriteAt(p, n%64*4096, 0); err != nil {
			return err
		}
		got, err := c.Read(n%64*4096, 4096, 0)
		if err == nil && !bytes.Equal(got, p) {
			err = fmt.Errorf("other bytes than were written")
		}
		return err
	})
	b.every("large", func() error { _, err := big.Read(0, 4<<20, nbdtest.DF); return err })
	if !newcomers {
		return b
	}
	b.every("open", func() error {
		c, err := nbdtest.Open("unix", g.Socket, image)
		if err == nil {
			_, err = c.Read(0, 65536, 0)
			c.Close()
		}
		return err
	})
	return b
}

// every does f again and again until end, and notes how long it took.
func (b *bystander) every(name string, f func() error) {
	b.done.Go(func() {
		for {
			select {
			case <-b.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			start := time.Now()
			if err := f(); err != nil {
				b.t.Errorf("meanwhile an honest client fails: %s: %v", name, err)
				return
			}
			b.mu.Lock()
			b.times[name] = append(b.times[name], time.Since(start))
			b.mu.Unlock()
		}
	})
}

// end wants every kind of work to have gone on: half of it took no longer than
// the limits. What took longest says more of the machine than of the gateway.
func (b *bystander) end(limits map[string]time.Duration) {
	b.t.Helper()
	for range 2000 { // a short attack is followed, too
		b.mu.Lock()
		enough := true
		for name := range limits {
			enough = enough && len(b.times[name]) > 2
		}
		b.mu.Unlock()
		if enough {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	close(b.stop)
	b.done.Wait()
	for name, limit := range limits {
		all := slices.Sorted(slices.Values(b.times[name]))
		if len(all) == 0 {
			b.t.Errorf("meanwhile %s never came to an end", name)
			continue
		}
		median, worst := all[len(all)/2], all[len(all)-1]
		if median > limit {
			b.t.Errorf("meanwhile half of %d times %s took more than %v, want at most %v", len(all), name, median, limit)
		}
		b.t.Logf("meanwhile: %d times %s, half of them within %v, all within %v", len(all), name, median, worst)
	}
}

// TestNBDUnderAttack attacks a gateway in every way at once that costs little,
// while honest clients work. The gateway's memory stays within its limits, and
// afterwards nothing is left.
func TestNBDUnderAttack(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn", "PLATTER_NBD_HANDSHAKE_WITHIN=2s")
	raw, _ := nbdBase(t)
	image := upload(t, g, "base", "raw", raw)
	second := upload(t, g, "second", "raw", raw)
	victim := "overlay/" + newOverlay(t, g, image, "")
	prey := "overlay/" + newOverlay(t, g, image, "")
	warm, err := nbdtest.Open("unix", g.Socket, image)
	if err != nil {
		t.Fatal(err)
	}
	warm.Disconnect()
	idle(t, g)
	_, text := get(t, g.Debug+"/metrics")
	goroutines, files := metric(text, "go_goroutines"), openFiles(g)
	t.Logf("at first: %.0f goroutines, %d files, %d MiB", goroutines, files, memory(t, g, "VmRSS"))

	quick := map[string]time.Duration{"small": 3 * time.Second, "large": 6 * time.Second, "open": 3 * time.Second}
	for _, attack := range []struct {
		name   string
		limits map[string]time.Duration
		run    func(a *attacker)
	}{
		{"silence and slow handshakes", quick, func(a *attacker) { a.slowHandshakes() }},
		{"garbage", quick, func(a *attacker) { a.garbage(image) }},
		{"floods of options", quick, func(a *attacker) { a.optionFloods(image, second, prey) }},
		{"900 connections", quick, func(a *attacker) { a.manyConnections(image, 900) }},
		{"2000 connections", map[string]time.Duration{"small": 2 * time.Second, "large": 5 * time.Second}, func(a *attacker) { a.manyConnections(image, 2000) }},
		{"hoarders", map[string]time.Duration{"small": 3 * time.Second, "open": 3 * time.Second, "large": 40 * time.Second}, func(a *attacker) { a.hoard(image, prey) }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			b := newBystander(t, g, victim, image, attack.limits["open"] > 0)
			a := &attacker{t: t, g: g}
			attack.run(a)
			b.end(attack.limits)
			a.leave()
			t.Logf("then: VmRSS %d MiB, VmHWM %d MiB", memory(t, g, "VmRSS"), memory(t, g, "VmHWM"))
		})
	}
	if peak := memory(t, g, "VmHWM"); peak > 640 { // 256 for requests, and as much that is not collected yet
		t.Errorf("the gateway needed %d MiB", peak)
	}
	idle(t, g)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, text := get(t, g.Debug+"/metrics")
		n, f := metric(text, "go_goroutines"), openFiles(g)
		if n < goroutines+100 && f < files+10 { // idle workers are kept for a while
			break
		}
		if time.Now().After(end) {
			t.Errorf("left: %.0f goroutines of %.0f at first, %d files of %d", n, goroutines, f, files)
			break
		}
	}
	if lines := strings.Count(g.Log(), "\n"); lines > 2000 {
		t.Errorf("the attack made %d lines of log", lines)
	}
}

// An attacker has many connections.
type attacker struct {
	t *testing.T
	g *gateway.Gateway

	mu    sync.Mutex
	conns []net.Conn
}

// dial connects, or returns nil if the gateway does not want more.
func (a *attacker) dial(network string) net.Conn {
	addr := a.g.Socket
	if network == "tcp" {
		addr = a.g.NBD
	}
	c, err := net.DialTimeout(network, addr, 20*time.Second)
	if err != nil {
		return nil
	}
	a.mu.Lock()
	a.conns = append(a.conns, c)
	a.mu.Unlock()
	return c
}

// enter connects and enters an export; nil if the gateway does not let it.
func (a *attacker) enter(network, name string) net.Conn {
	c := a.dial(network)
	if c == nil {
		return nil
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	n := nbdtest.New(c)
	if n.Greet(3) != nil || n.StructuredReplies() != nil {
		return nil
	}
	if _, err := n.Go(name); err != nil {
		return nil
	}
	c.SetDeadline(time.Time{})
	return c
}

// leave vanishes without a word, half of the connections by a reset.
func (a *attacker) leave() {
	for i, c := range a.conns {
		if tcp, ok := c.(*net.TCPConn); ok && i%2 == 0 {
			tcp.SetLinger(0)
		}
		c.Close()
	}
}

// ended waits until the gateway has closed c.
func ended(c net.Conn, within time.Duration) bool {
	c.SetReadDeadline(time.Now().Add(within))
	for p := make([]byte, 65536); ; {
		if _, err := c.Read(p); err != nil {
			return !os.IsTimeout(err)
		}
	}
}

// slowHandshakes takes every connection that there is and says nothing, or a
// byte now and then.
func (a *attacker) slowHandshakes() {
	var work sync.WaitGroup
	start := time.Now()
	for i := range 1500 {
		c := a.dial([]string{"unix", "tcp", "unix"}[i%3])
		if c == nil {
			continue
		}
		work.Go(func() {
			if i%2 == 0 {
				for _, b := range pack(uint32(3), nbdOption, uint32(99), uint32(60000), make([]byte, 600)) {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
			if !ended(c, 30*time.Second) {
				a.t.Error("a handshake may last for ever")
			}
		})
	}
	work.Wait()
	if d := time.Since(start); d > 40*time.Second {
		a.t.Errorf("handshakes of 2 s could be stretched to %v", d)
	}
}

// garbage sends noise, at once and behind each step of the handshake.
func (a *attacker) garbage(image string) {
	var work sync.WaitGroup
	for i := range 300 {
		work.Go(func() {
			network := []string{"unix", "tcp"}[i%2]
			rng := rand.New(rand.NewPCG(uint64(i), 5))
			junk := make([]byte, rng.IntN(200_000)+1)
			for k := range junk {
				junk[k] = byte(rng.Uint32())
			}
			var c net.Conn
			switch i % 4 {
			case 0:
				c = a.dial(network)
			case 1:
				if c = a.dial(network); c != nil {
					c.Write(pack(uint32(3)))
				}
			case 2:
				if c = a.dial(network); c != nil { // good headers, bad data
					c.Write(pack(uint32(3)))
					for range 50 {
						n := rng.IntN(300)
						c.Write(pack(nbdOption, rng.Uint32N(12), uint32(n), junk[:min(n, len(junk))]))
					}
				}
			default:
				if c = a.enter(network, image); c != nil { // good headers of bad requests
					for range 200 {
						cmd := []uint16{0, 3, 4, 5, 6, 7, 8, 99}[rng.IntN(8)]
						c.Write(pack(nbdRequest, uint16(rng.Uint32()), cmd, rng.Uint64(), rng.Uint64()>>rng.IntN(64), rng.Uint32()>>rng.IntN(32)))
					}
				}
			}
			if c == nil {
				return
			}
			c.SetWriteDeadline(time.Now().Add(30 * time.Second))
			c.Write(junk)
			half := c.(interface{ CloseWrite() error })
			half.CloseWrite()
			if !ended(c, 30*time.Second) {
				a.t.Errorf("garbage %d keeps a connection open", i)
			}
		})
	}
	work.Wait()
}

// optionFloods asks and asks, reading the answers or not.
func (a *attacker) optionFloods(image, second, prey string) {
	option := func(opt uint32, data []byte) []byte { return pack(nbdOption, opt, uint32(len(data)), data) }
	ask := func(name string) []byte { return pack(name, uint16(3), uint16(1), uint16(2), uint16(3)) }
	floods := [][]byte{
		option(oList, nil),
		option(99, make([]byte, 60_000)),
		option(99, make([]byte, 100_000)), // too big, read away
		slices.Concat(option(oInfo, ask(image)), option(oInfo, ask(second))),
		slices.Concat(option(oInfo, ask("ephemeral/"+image)), option(oInfo, ask("ephemeral/"+second))),
		slices.Concat(option(oInfo, ask(prey)), option(oInfo, ask(image))),
		slices.Concat(option(oStructured, nil), option(oSetMeta, pack(image, uint32(1), "base:allocation")), option(oListMeta, pack(second, uint32(0)))),
		option(oInfo, ask("attach/"+strings.Repeat("x", 43))),
	}
	var work sync.WaitGroup
	start := time.Now()
	for i := range 4 * len(floods) {
		work.Go(func() {
			c := a.dial([]string{"unix", "tcp"}[i%2])
			if c == nil {
				return
			}
			c.Write(pack(uint32(3)))
			many := bytes.Repeat(floods[i/2%len(floods)], 200)
			c.SetWriteDeadline(time.Now().Add(2 * time.Minute))
			var reading sync.WaitGroup
			if i >= 2*len(floods) {
				reading.Go(func() { ended(c, 2*time.Minute) })
			}
			for n := 0; ; n++ {
				if _, err := c.Write(many); err != nil {
					if os.IsTimeout(err) {
						a.t.Errorf("flood %d can go on for ever", i/2%len(floods))
					}
					break
				}
			}
			reading.Wait()
		})
	}
	work.Wait()
	if d := time.Since(start); d > time.Minute { // what the gateway needs for its answers is not the clients'
		a.t.Errorf("floods in handshakes of 2 s could go on for %v", d)
	}
}

// manyConnections opens connections that are honest but for their number. The
// limit is 1024, and 256 from one address.
func (a *attacker) manyConnections(image string, number int) {
	var work sync.WaitGroup
	var in atomic.Int32
	queue := make(chan int)
	for range 32 {
		work.Go(func() {
			for i := range queue {
				if a.enter([]string{"unix", "tcp", "unix", "unix"}[i%4], image) != nil {
					in.Add(1)
				}
			}
		})
	}
	for i := range number {
		queue <- i
	}
	close(queue)
	work.Wait()
	if n := int(in.Load()); n < min(number, 950)-64 || n > 1024 {
		a.t.Errorf("%d of %d connections were let in", n, number)
	}
	a.t.Logf("%d connections were let in, with %d MiB", in.Load(), memory(a.t, a.g, "VmRSS"))
}

// hoard fills the memory for requests in every way: answers that nobody
// reads, payloads that never come, and payloads that come a byte at a time.
func (a *attacker) hoard(image, prey string) {
	stop := make(chan struct{})
	var work sync.WaitGroup
	for i := range 90 {
		name := image
		if i%3 > 0 {
			name = prey
		}
		c := a.enter("unix", name)
		if c == nil {
			a.t.Fatal("not let in")
		}
		work.Go(func() {
			switch i % 3 {
			case 0: // never reads
				c.SetWriteDeadline(time.Now().Add(time.Second))
				for range 100 {
					c.Write(pack(nbdRequest, uint16(fDF), uint16(cRead), uint64(1), uint64(0), uint32(most)))
					c.Write(pack(nbdRequest, uint16(0), uint16(cRead), uint64(1), uint64(0), uint32(4096)))
				}
			case 1: // never sends the end of the payload
				c.SetWriteDeadline(time.Now().Add(12 * time.Second))
				c.Write(pack(nbdRequest, uint16(0), uint16(cWrite), uint64(1), uint64(scratch), uint32(most), make([]byte, most-1)))
			case 2: // sends a byte now and then
				c.Write(pack(nbdRequest, uint16(0), uint16(cWrite), uint64(1), uint64(scratch), []uint32{most, most, 1 << 20}[i/3%3]))
				for {
					select {
					case <-stop:
						return
					case <-time.After(300 * time.Millisecond):
						if _, err := c.Write(make([]byte, 1)); err != nil {
							return
						}
					}
				}
			}
		})
	}
	time.Sleep(14 * time.Second)
	close(stop)
	work.Wait()
}

// TestNBDDeafClient has clients that take no replies: a detach cuts them off
// at once, and a stop does not wait for them.
func TestNBDDeafClient(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	raw, _ := nbdBase(t)
	image := upload(t, g, "base", "raw", raw)
	overlay := newOverlay(t, g, image, "")
	a := &attacker{t: t, g: g}
	deafen := func(name string) {
		c := a.enter("unix", name)
		if c == nil {
			t.Fatal("not let in")
		}
		c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for i := range 40 {
			c.Write(pack(nbdRequest, uint16(fDF), uint16(cRead), uint64(i), uint64(0), uint32(2<<20)))
			c.Write(pack(nbdRequest, uint16(0), uint16(cWrite), uint64(i), uint64(scratch), uint32(1<<20), make([]byte, 1<<20)))
		}
	}
	for range 3 {
		id, token := attachment(t, g, "overlay_id", overlay, "rw", "unix")
		deafen(token)
		deafen(token)
		start := time.Now()
		call(t, g, "DELETE", "/platter/v1/attachments/"+id, "", 204)
		if d := time.Since(start); d > 8*time.Second {
			t.Errorf("to detach a deaf client took %v", d)
		}
		openSoon(t, "tcp", g.NBD, "overlay/"+overlay).Disconnect()
	}
	deafen("overlay/" + overlay)
	deafen(image)
	start := time.Now()
	g.Stop(t)
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("the stop waited %v for deaf clients", d)
	}
	a.leave()
	if leaks, corruptions := checkOverlay(t, g, overlay); leaks+corruptions > 0 {
		t.Errorf("%d leaks, %d corruptions", leaks, corruptions)
	}
	g.Run(t)
}
