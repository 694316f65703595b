package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// A placedDisk is a file that nobody writes to, and says so.
type placedDisk struct {
	d     *fileDisk
	asked atomic.Int64
	reads atomic.Int64
}

func (p *placedDisk) Size() int64 { return p.d.Size() }

func (p *placedDisk) ReadAt(ctx context.Context, b []byte, off int64) error {
	p.reads.Add(1)
	return p.d.ReadAt(ctx, b, off)
}

func (p *placedDisk) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return p.d.Extent(ctx, off, n)
}

func (p *placedDisk) Place(_ context.Context, off, n int64) (block.Place, bool) {
	p.asked.Add(1)
	return block.Place{File: p.d.f, Off: off, Len: n}, true
}

const placedSize = 16 << 20

// newPlaced makes one with a hole in its middle.
func newPlaced(t *testing.T) (*placedDisk, []byte) {
	t.Helper()
	d := newFileDisk(t, placedSize)
	data := make([]byte, placedSize)
	rand.NewChaCha8([32]byte{3}).Read(data)
	clear(data[placedSize/2 : placedSize/2+1<<20])
	for _, part := range [][2]int{{0, placedSize / 2}, {placedSize/2 + 1<<20, placedSize}} {
		if err := d.WriteAt(t.Context(), data[part[0]:part[1]], int64(part[0])); err != nil {
			t.Fatal(err)
		}
	}
	return &placedDisk{d: d}, data
}

// entered returns a client of each kind of headers, over each kind of socket.
func entered(t *testing.T, a *aServer, export string) map[string]*nbdtest.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go a.Serve(t.Context(), l)
	out := map[string]*nbdtest.Client{}
	for kind, enter := range map[string]func(c *nbdtest.Client) error{
		"simple":     func(c *nbdtest.Client) error { _, err := c.Go(export); return err },
		"structured": func(c *nbdtest.Client) error { return c.Enter(export) },
		"extended":   func(c *nbdtest.Client) error { return c.EnterExtended(export) },
	} {
		for network, addr := range map[string]string{"unix": a.socket, "tcp": l.Addr().String()} {
			c, err := nbdtest.Dial(network, addr)
			if err == nil {
				err = enter(c)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			out[kind+" "+network] = c
		}
	}
	return out
}

// TestPlaced reads a file that the kernel can send by itself, among other
// things, many at a time.
func TestPlaced(t *testing.T) {
	a := serve(t)
	disk, data := newPlaced(t)
	a.exports.byName["placed"] = nbd.Export{Disk: disk, MultiConn: true}
	times := 40
	if testing.Short() {
		times = 10
	}
	for kind, c := range entered(t, a, "placed") {
		t.Run(kind, func(t *testing.T) {
			before := disk.asked.Load()
			var all sync.WaitGroup
			for lane := range 6 {
				rng := rand.New(rand.NewPCG(uint64(lane), 8))
				all.Go(func() {
					for range times {
						n := 1 + rng.IntN([]int{4096, 200_000, 3 << 20}[rng.IntN(3)])
						off := rng.IntN(placedSize - n)
						flags := uint16(0)
						if rng.IntN(3) == 0 && (c.Structured || c.Extended) {
							flags = nbdtest.DF
						}
						got, err := c.Read(uint64(off), n, flags)
						if err != nil || !bytes.Equal(got, data[off:off+n]) {
							t.Errorf("read %d+%d: wrong bytes, or %v", off, n, err)
							return
						}
					}
				})
			}
			all.Wait()
			if disk.asked.Load() == before {
				t.Error("no read was left to the kernel")
			}
		})
	}
}

// TestPlacedFails cuts the file. A client that can be told so gets an error
// and goes on; another is cut off, rather than given what is not there.
func TestPlacedFails(t *testing.T) {
	a := serve(t)
	disk, data := newPlaced(t)
	a.exports.byName["placed"] = nbd.Export{Disk: disk, MultiConn: true}
	clients := entered(t, a, "placed")
	if err := os.Truncate(disk.d.f.Name(), 3<<20); err != nil {
		t.Fatal(err)
	}
	for kind, c := range clients {
		t.Run(kind, func(t *testing.T) {
			chunked := c.Structured || c.Extended
			flags := uint16(0)
			if chunked {
				flags = nbdtest.DF // or it is taken for a hole
			}
			_, err := c.Read(2<<20, 2<<20, flags)
			if !chunked {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("a simple read of what is gone: %v", err)
				}
				return
			}
			var told *nbdtest.Error
			if !errors.As(err, &told) || told.Errno != nbdtest.EIO || told.Text == "" {
				t.Errorf("a read of what is gone: %v", err)
			}
			got, err := c.Read(1<<20, 1<<20, nbdtest.DF)
			if err != nil || !bytes.Equal(got, data[1<<20:2<<20]) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
