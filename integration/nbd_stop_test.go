//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// stopped is what a client saw of a stop: the answers and how it ended.
type stopped struct {
	written, refused int
	err              error
	last             []uint32 // for each place, the last content that was answered
}

// TestNBDStop stops the gateway while clients write as fast as they can,
// while somebody is in the middle of a handshake, and while a download hangs.
// Whatever was answered is on the disk afterwards, what comes too late is not
// answered, so that clients repeat it, and nobody is cut off in the middle of a
// reply.
func TestNBDStop(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn", "PLATTER_LIMITS_STOP_WITHIN=5s")
	file, _ := randomFile(t, 64<<20)
	image := upload(t, g, "base", "raw", file)
	overlay := newOverlay(t, g, image, "")
	_, token := attachment(t, g, "overlay_id", newOverlay(t, g, image, ""), "rw", "tcp")
	doors := [][3]string{{"unix", g.Socket, "overlay/" + overlay}, {"tcp", g.NBD, token}}
	for round := range 3 {
		var work sync.WaitGroup
		seen := make([]stopped, 4)
		var answered [4]atomic.Int64
		for i := range seen {
			d := doors[i%2]
			c, err := nbdtest.Open(d[0], d[1], d[2])
			if err != nil {
				t.Fatal(err)
			}
			work.Go(func() { seen[i] = writeToTheEnd(c, i/2, round, &answered[i]) })
		}
		shy := dialPeer(t, "unix", g.Socket).greet(3)
		silent := dialPeer(t, "tcp", g.NBD)
		var hung *http.Response
		if round == 2 { // a download that nobody takes
			var err error
			if hung, err = http.Get(g.URL + "/v2/images/" + image + "/file"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(300 * time.Millisecond)
		for i := range answered {
			for end := time.Now().Add(time.Minute); answered[i].Load() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}
		start := time.Now()
		g.Stop(t)
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("the stop took %v", d)
		}
		if hung != nil {
			hung.Body.Close()
		}
		work.Wait()
		shy.closed()
		silent.bytes(18)
		silent.closed()
		g.Run(t)
		for i, s := range seen {
			if s.written == 0 || s.refused > 0 || !errors.Is(s.err, io.EOF) && !errors.Is(s.err, syscall.EPIPE) && !errors.Is(s.err, syscall.ECONNRESET) {
				t.Errorf("client %d: %d writes, %d refused, then %v; want it to end at a reply's end", i, s.written, s.refused, s.err)
			}
			d := doors[i%2]
			c, err := nbdtest.Open(d[0], d[1], d[2])
			if err != nil {
				t.Fatal(err)
			}
			for k, want := range s.last {
				p, err := c.Read(place(i/2, k), 512, 0)
				if err != nil || want > 0 && binary.BigEndian.Uint32(p) < want {
					t.Fatalf("client %d: place %d has write %d, and %d was answered (%v)", i, k, binary.BigEndian.Uint32(p), want, err)
				}
			}
			c.Close()
		}
		t.Logf("stop %d: %v", round, []int{seen[0].written, seen[1].written, seen[2].written, seen[3].written})
	}
}

const places = 64

func place(client, k int) uint64 { return uint64(client*places+k) * 65536 }

// writeToTheEnd writes with 64 places in flight, each time a larger number,
// until the connection ends. It counts what is answered.
func writeToTheEnd(c *nbdtest.Client, client, round int, answered *atomic.Int64) (s stopped) {
	defer c.Close()
	s.last = make([]uint32, places)
	var mu sync.Mutex
	var work sync.WaitGroup
	for k := range places {
		work.Go(func() {
			p := make([]byte, []int{512, 4096, 60_000}[k%3])
			for n := uint32(round) << 24; ; {
				n++
				for i := 0; i < len(p); i += 512 {
					binary.BigEndian.PutUint32(p[i:], n)
				}
				err := c.WriteAt(p, place(client, k), 0)
				var refused *nbdtest.Error
				mu.Lock()
				switch {
				case err == nil:
					answered.Add(1)
					s.written++
					s.last[k] = n
				case errors.As(err, &refused) && refused.Errno == nbdtest.ESHUTDOWN:
					s.refused++
				default:
					s.err = err
				}
				end := err != nil && refused == nil
				mu.Unlock()
				if end {
					return
				}
			}
		})
	}
	work.Wait()
	return s
}

// TestNBDStopInHandshake wants options during a stop to be refused with
// ERR_SHUTDOWN, or the connection to end, and nothing else.
func TestNBDStopInHandshake(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	file, data := randomFile(t, 1<<20)
	image := upload(t, g, "base", "raw", file)
	clients := make([]*nbdtest.Client, 8)
	for i := range clients {
		var err error
		if clients[i], err = nbdtest.Dial("unix", g.Socket); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
	}
	var work sync.WaitGroup
	for i, c := range clients {
		work.Go(func() {
			for n := 0; ; n++ {
				var err error
				if i%2 == 0 {
					_, err = c.Info(image)
				} else {
					_, err = c.List()
				}
				var refused *nbdtest.OptError
				if errors.As(err, &refused) && refused.Type == nbdtest.RepErrShutdown ||
					errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
					return
				}
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	g.Stop(t)
	work.Wait()
	g.Run(t)
	c := openSoon(t, "unix", g.Socket, image)
	if p, err := c.Read(0, 4096, 0); err != nil || !bytes.Equal(p, data[:4096]) {
		t.Error(err)
	}
}
